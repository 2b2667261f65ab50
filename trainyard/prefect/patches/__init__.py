"""Corrections to Prefect, loaded by the name of their module; each says what would make it go."""
