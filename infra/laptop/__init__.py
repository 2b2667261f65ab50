"""The laptop stack: Prefect, MLflow, an artifact folder and a worker, started and stopped as one."""
