"""Operating a stack on AWS: up, preview, drift, doctor, bootstrap, one-off tasks, tunnels."""
