"""nnbench's own example with Prefect: train a linear regression, then benchmark it."""
