"""Ask for the stars of GitHub repositories: a task called in a loop, several at once."""

import json

import httpx
from prefect import flow, task, unmapped
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel

from flows.platform.api_client import ApiClient
from flows.platform.synthetic_api import Answer, api_at
from flows.platform.task_options import RETRIED

REPOSITORIES = ["PrefectHQ/prefect", "mlflow/mlflow", "pola-rs/polars", "pulumi/pulumi"]
# What the synthetic API knows; GitHub is asked with api="https://api.github.com".
KNOWN = dict(zip(REPOSITORIES, (22_000, 24_000, 36_000, 24_500), strict=True))


class Repository(BaseModel):
    """What GitHub says of one."""

    stargazers_count: int


@flow(
    name="stars",
    timeout_seconds=600,
    task_runner=ThreadPoolTaskRunner(max_workers=4),  # type: ignore[arg-type]
)
def stars(repositories: list[str] = REPOSITORIES, api: str = "synthetic") -> None:
    """Ask for the stars of repositories, four at once.

    Args:
        repositories: such as `PrefectHQ/prefect`.
        api: the address of GitHub's, or `synthetic`: one of the run's own.
    """
    with api_at(api, lambda: synthetic) as url:
        counts = get_stars.map(unmapped(url), repositories).result()
    found = sorted(zip(counts, repositories, strict=True), reverse=True)
    create_markdown_artifact(
        key="stars",
        markdown="\n".join(
            ["| repository | stars |", "|---|---:|", *(f"| {name} | {n:,} |" for n, name in found)]
        ),
        description=f"The stars of {len(found)} repositories",
    )


@task(
    task_run_name="stars-of-{repository}",
    **{**RETRIED, "retry_delay_seconds": 5},
    timeout_seconds=300,
)
def get_stars(api: str, repository: str) -> int:
    with httpx.Client(base_url=api, timeout=10, follow_redirects=True) as http:
        return ApiClient(http).get(f"/repos/{repository}", Repository).stargazers_count


def synthetic(path: str) -> Answer:
    """Answer as GitHub does, for the repositories that the demo asks for."""
    count = KNOWN.get(path.removeprefix("/repos/"))
    if count is None:
        return Answer(b'{"message": "Not Found"}', 404)
    return Answer(json.dumps({"stargazers_count": count}).encode(), delay=0.5)
