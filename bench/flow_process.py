"""The taxi flow in a process of its own, with a Prefect and an MLflow made for it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path


def environment_of(folder: Path) -> dict[str, str]:
    """Where the flow keeps all that it makes."""
    return {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "TRAINYARD_ARTIFACT_STORE": str(folder / "artifacts"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }


def in_own_process(
    data: str, months: tuple[str, str], folder: Path, *, trials: int, seed: int
) -> float:
    """Run the whole flow; gives the megabytes that it took at most.

    A process has one peak, and Prefect reads its settings once: so it has one of its own.
    """
    arguments = {"data": data, "train_month": months[0], "valid_month": months[1]}
    # limits that any model satisfies: the cost is to be measured, not the model
    limits = {"max_rmse_valid": 1e3, "max_inference_time": 1}
    given = json.dumps({**arguments, **limits, "num_trials": trials, "seed": seed})
    environment = {**os.environ, **environment_of(folder)}
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run(  # noqa: S603 (this module)
        [sys.executable, "-m", "bench.flow_process", given],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the flow failed:\n{done.stdout}{done.stderr}")
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    from prefect.client.orchestration import get_client

    from flows.lifecycle.registry import PROMOTION
    from flows.taxi.train import taxi_train

    with get_client(sync_client=True) as client:  # what `make deploy` gives a stack
        client.upsert_global_concurrency_limit_by_name(PROMOTION, 1)
    taxi_train(**json.loads(sys.argv[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / 1e6 if sys.platform == "darwin" else peak / 1e3)  # bytes there, kB elsewhere
