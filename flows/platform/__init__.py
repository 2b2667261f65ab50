"""Where runs meet the outside: settings, artifact store, tracking."""
