"""Training flows, one pipeline a folder."""
