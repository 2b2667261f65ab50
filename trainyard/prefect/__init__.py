"""What Prefect is told of a stack: work pool, automations, deployments. Runs in containers too."""
