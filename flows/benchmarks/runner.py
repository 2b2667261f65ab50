"""Train a regression model and run its benchmarks, those of each tag as a task.

`python -m flows.benchmarks.runner` serves the deployment without a work pool, in place of the one
in prefect.yaml until the next `make deploy`.
"""

from typing import Annotated, Any

from nnbench import runner
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field

import flows.benchmarks.benchmark  # noqa: F401  collect finds it among the imported modules
from flows.benchmarks.training import Trained, prepare_regressor_and_test_data
from flows.lifecycle.benchmarks import BenchmarkError

NAME = "benchmark-runner"


@task(task_run_name="{tag}-benchmarks", persist_result=False)
def run_benchmarks(tag: str, trained: Trained) -> list[dict[str, Any]]:
    """Run the benchmarks with a tag; in the log and as a table.

    Raises:
        BenchmarkError: one raised, which nnbench only notes.
    """
    model, X_test, y_test = trained
    result = runner.run(
        runner.collect("flows.benchmarks.benchmark", tags=(tag,)),
        params={"model": model, "X_test": X_test, "y_test": y_test},
        jsonifier=lambda parameters: {},
    )
    for each in result.benchmarks:
        if each["error_occurred"]:
            raise BenchmarkError(f"benchmark {each['name']} failed: {each['error_message']}")
        get_run_logger().info("%s: %.4g", each["name"], each["value"])
    table = [{"benchmark": each["name"], "value": each["value"]} for each in result.benchmarks]
    create_table_artifact(key=f"benchmarks-{tag}", table=table, description=f"{tag} benchmarks")
    return table


@flow(name="train-and-benchmark", timeout_seconds=600)
def train_and_benchmark(
    random_state: Annotated[int, Field(ge=0, lt=2**32)] = 42,
    n_samples: Annotated[int, Field(ge=10, le=1_000_000)] = 100,
) -> None:
    """Train a linear regression on synthetic data and benchmark it.

    Args:
        random_state: of the data and of their split.
        n_samples: rows of data; a fifth of them is for the tests.
    """
    trained = prepare_regressor_and_test_data(random_state, n_samples)
    rows = [each for tag in ("metric", "metadata") for each in run_benchmarks(tag, trained)]
    lines = [f"| {each['benchmark']} | {each['value']:.4g} |" for each in rows]
    create_markdown_artifact(
        key="benchmarks-report",
        markdown="\n".join(["# Benchmarks", "", "| benchmark | value |", "|---|---:|", *lines]),
        description="Benchmarks of a linear regression",
    )


if __name__ == "__main__":
    train_and_benchmark.serve(name=NAME)
