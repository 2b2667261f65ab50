"""MLflow, as the pipelines use it: an experiment a flow run, linked with its page in Prefect."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag
from pydantic import BaseModel

from flows.platform.run_info import RunInfo

# A flow's log has its own lines with links; MLflow's would come twice for every run.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


# MLflow shows its pages for language models unless a link says otherwise.
PAGES = "workflowType=machine_learning"
# What loading an XGBoost model needs, for `log_pipeline`. xgboost-cpu has no wheels for a Mac.
XGBOOST = {"xgboost-cpu": 'sys_platform == "linux"', "xgboost": 'sys_platform != "linux"'}
# In MLflow's words, what a run did with a data set.
TRAINING, VALIDATION = "training", "validation"


class TrackingError(RuntimeError):
    """MLflow doesn't answer: the message says where it was looked for and what to do."""


class Experiment(BaseModel):
    """One flow run's experiment."""

    id: str
    name: str
    tracking_uri: str
    tags: dict[str, str]
    """Put on every run of it: the way back to Prefect."""

    def url(self, metric: str) -> str:
        """Its page in MLflow: the runs compared in charts, the lowest `metric` first."""
        page = f"{self.tracking_uri}/#/experiments/{self.id}/runs"
        order = f"orderByKey=metrics.%60{metric}%60&orderByAsc=true"
        return f"{page}?{PAGES}&compareRunsMode=CHART&{order}"

    def run_url(self, run_id: str) -> str:
        """A run's page in MLflow."""
        return f"{self.tracking_uri}/#/experiments/{self.id}/runs/{run_id}?{PAGES}"

    def model_url(self, name: str, version: str) -> str:
        """A registered version's page in MLflow."""
        return f"{self.tracking_uri}/#/models/{name}/versions/{version}?{PAGES}"


class InputData(BaseModel):
    """A data set that a run read."""

    name: str
    sha256: str
    uri: str
    rows: int
    """Of the whole of it."""


def open_experiment(tracking_uri: str, prefix: str, run: RunInfo) -> Experiment:
    """Create the experiment of a flow run; a retry of the run finds the one it made before.

    Raises:
        TrackingError: no MLflow answers at `tracking_uri`.
    """
    require_server(tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    tags = {
        "prefect.flow_run_id": run.id,
        # MLflow shows it as the description
        "mlflow.note.content": f"Prefect run [{run.name}]({run.url})",
        "mlflow.source.name": run.entrypoint,
        "mlflow.source.type": "JOB",
    }
    if run.commit:
        tags["mlflow.source.git.commit"] = run.commit
    name = run.experiment_name(prefix)
    found = mlflow.get_experiment_by_name(name)
    if found and found.tags.get("prefect.flow_run_id") != run.id:
        # another deployment's run, scheduled for the same moment
        name = f"{name} {run.id[-8:]}"
        found = mlflow.get_experiment_by_name(name)
    experiment_id = (
        found.experiment_id
        if found
        else mlflow.create_experiment(
            name, tags=tags | {"mlflow.experimentKind": "custom_model_development"}
        )
    )
    return Experiment(id=experiment_id, name=name, tracking_uri=tracking_uri, tags=tags)


def require_server(tracking_uri: str) -> None:
    """Ask MLflow for its health, so that a dead one is a sentence and not minutes of retries.

    Raises:
        TrackingError: it doesn't answer within 5 seconds, or not with 200.
    """
    if not tracking_uri.startswith("http"):
        return
    try:
        httpx.get(f"{tracking_uri}/health", timeout=5).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TrackingError(
            f"MLflow doesn't answer at {tracking_uri} ({error}): `make status` shows what runs, "
            "`make up` starts it"
        ) from error


def discard_runs(experiment: Experiment, tags: Mapping[str, str]) -> None:
    """Put the runs with these tags into MLflow's trash.

    A task that starts anew does so with what a killed attempt left, else both attempts' runs would
    be compared.
    """
    client = MlflowClient(experiment.tracking_uri)
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    for run in client.search_runs([experiment.id], condition):
        client.delete_run(run.info.run_id)


@contextmanager
def tracked_run(
    experiment: Experiment,
    name: str,
    tags: Mapping[str, str] | None = None,
    nested: bool = False,
    data: Mapping[str, Sequence[InputData]] | None = None,
) -> Iterator[str]:
    """Run a block as one MLflow run; gives its id. See `_active` for how it ends.

    Args:
        data: what it reads, by what it does with it: TRAINING, VALIDATION.
    """
    mlflow.set_tracking_uri(experiment.tracking_uri)
    with _active(
        experiment_id=experiment.id,
        run_name=name,
        nested=nested,
        tags=experiment.tags | dict(tags or {}),
    ) as run_id:
        if data:
            inputs = [dataset_input(each, use) for use, several in data.items() for each in several]
            MlflowClient(experiment.tracking_uri).log_inputs(run_id, inputs)
        yield run_id


@contextmanager
def _active(**run: Any) -> Iterator[str]:
    """Start or resume an MLflow run: an error marks it as failed, a cancelled flow as killed."""
    with mlflow.start_run(**run) as started:
        try:
            yield started.info.run_id
        except Exception:
            raise
        except BaseException:  # Prefect's and Python's way to stop a process
            mlflow.end_run("KILLED")
            raise


def dataset_input(data: InputData, context: str) -> DatasetInput:
    """A file in MLflow's words; `context` is TRAINING or VALIDATION."""
    dataset = Dataset(
        name=data.name,
        digest=data.sha256[:32],  # MLflow has room for 36
        source_type="s3" if data.uri.startswith("s3://") else "local",
        source=json.dumps({"uri": data.uri}),
        profile=json.dumps({"num_rows": data.rows, "sha256": data.sha256}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def log_pipeline(
    experiment: Experiment,
    run_id: str,
    pipeline: Any,
    example: pd.DataFrame,
    trusted_types: Sequence[str],
    packages: Sequence[str | Mapping[str, str]],
    figures: Mapping[str, Any] | None = None,
) -> str:
    """Add a scikit-learn pipeline and its figures to a run.

    Args:
        example: a few rows of the pipeline's input. The signature has its columns, of any type:
            MLflow would refuse whole frames for a column with a missing value or of another width.
        trusted_types: classes beside scikit-learn's own that the pipeline holds.
        packages: what loading and predicting needs; their installed versions become the model's
            requirements (`pinned`).
        figures: matplotlib figures by file name.

    Returns:
        The model's URI, `models:/m-...`.
    """
    # They take seconds to import: only where a model is logged.
    import mlflow.sklearn
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    mlflow.set_tracking_uri(experiment.tracking_uri)
    anything = AnyType()  # type: ignore[no-untyped-call]
    signature = ModelSignature(
        inputs=Schema([ColSpec(anything, column, required=False) for column in example.columns]),
        outputs=infer_signature(model_output=pipeline.predict(example)).outputs,
    )
    with _active(run_id=run_id):
        model = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            signature=signature,
            input_example=example,
            pip_requirements=pinned(packages),
            code_paths=[str(Path(__file__).parents[1])],
            serialization_format="skops",
            skops_trusted_types=list(trusted_types),
        )
        for file, figure in (figures or {}).items():
            mlflow.log_figure(figure, file)
    return str(model.model_uri)


def pinned(packages: Sequence[str | Mapping[str, str]]) -> list[str]:
    """The installed version of each package as a requirement.

    A package with another name on another platform is a mapping from names to environment markers:
    the version that is installed here holds for all of them.
    """
    found = []
    for package in packages:
        names = {package: ""} if isinstance(package, str) else package
        here = next(filter(None, map(_version, names)), None)
        found += [
            f"{name}=={here}{marker and f'; {marker}'}" for name, marker in names.items() if here
        ]
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
