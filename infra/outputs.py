"""StackOutputs: what every stack hands to `register` and `prefect deploy`, whatever made it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProcessWorkPool(_Frozen):
    """A work pool whose worker starts each run as a process of its own machine."""

    type: Literal["process"] = "process"
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]+$")


class StackOutputs(_Frozen):
    """The one contract between infrastructure and flows.

    The laptop stack writes it as JSON to `.trainyard/outputs.json`.
    """

    stack: str
    prefect_api_url: str
    tracking_uri: str
    """MLflow's tracking server."""
    artifact_store: str
    """A folder's absolute path, or `s3://bucket/prefix`."""
    code_dir: str
    """Where a run finds the repository's code: the clone on a laptop, `/app` in an image."""
    work_pool: ProcessWorkPool


def deploy_environment(outputs: StackOutputs, image: str) -> dict[str, str]:
    """Environment variables that prefect.yaml's templates may use: these and no others.

    `image` is what a run's container is started from (a digest); a process pool ignores it.
    """
    return {
        "TRAINYARD_CODE_DIR": outputs.code_dir,
        "TRAINYARD_IMAGE": image,
        "TRAINYARD_WORK_POOL": outputs.work_pool.name,
    }
