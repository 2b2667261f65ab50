"""The laptop stack: Prefect, MLflow, an artifact folder and a worker, run as one."""
