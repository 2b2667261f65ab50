"""The taxi flow in a process of its own, with a Prefect and an MLflow made for it."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    megabytes: float
    """At most."""
    seconds: float


def environment_of(folder: Path) -> dict[str, str]:
    """Where the flow keeps all that it makes."""
    return {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "TRAINYARD_ARTIFACT_STORE": str(folder / "artifacts"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }


def peak() -> float:
    """The megabytes that this process took at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most / 1e3  # bytes there, kB elsewhere


def in_own_process(data: str, months: tuple[str, str], folder: Path, **parameters: object) -> Cost:
    """Run the whole flow, with the parameters of `taxi_train` beside its months.

    A process has one peak, and Prefect reads its settings once: so it has one of its own.
    """
    arguments = {"data": data, "train_month": months[0], "valid_month": months[1]}
    # limits that any model satisfies: the cost is to be measured, not the model
    limits = {"max_rmse_valid": 1e3, "max_inference_time": 1}
    given = json.dumps({**arguments, **limits, **parameters})
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
    return Cost(*map(float, done.stdout.split()[-2:]))


if __name__ == "__main__":
    from prefect.client.orchestration import get_client

    from flows.lifecycle.registry import PROMOTION
    from flows.taxi.train import taxi_train

    with get_client(sync_client=True) as client:  # what `make deploy` gives a stack
        client.upsert_global_concurrency_limit_by_name(PROMOTION, 1)
    start = time.perf_counter()
    taxi_train(**json.loads(sys.argv[1]))
    print(peak(), time.perf_counter() - start)
