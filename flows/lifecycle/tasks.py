"""From a logged model to a verdict, as tasks of a pipeline's run: `release`."""

import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from mlflow import MlflowClient
from mlflow.entities import Metric
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import apause_flow_run
from prefect.input import RunInput
from prefect.states import Running
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import BaseModel

from flows.lifecycle import benchmarks, card, gate, history
from flows.lifecycle.benchmarks import METADATA, METRIC, Measured
from flows.lifecycle.champion import CHAMPION, version_file
from flows.lifecycle.gate import Verdict
from flows.lifecycle.holdout import Holdout, SeenData, load_kept
from flows.lifecycle.reference import Reference
from flows.lifecycle.registry import (
    PROMOTION,
    Lineage,
    aliases,
    find_version,
    recorded_lineage,
    register,
)
from flows.lifecycle.spec import load_spec
from flows.platform.artifact_store import artifact_path
from flows.platform.events import model_promoted
from flows.platform.locks import exclusive
from flows.platform.run_info import current_image, current_run
from flows.platform.settings import load_settings
from flows.platform.task_options import PERSISTED, RETRIED, WAITS
from flows.platform.tracking import Experiment, open_experiment

CARD = "model_card.md"
"""In the MLflow run of a version."""
# seconds that a run waits for a person's yes
APPROVAL_TIMEOUT = 4 * 3600


class LoggedModel(BaseModel):
    """A model that was logged to MLflow, and what it was made from."""

    run_id: str
    """The MLflow run."""
    uri: str
    description: str
    """Of the version that it becomes."""
    seen: list[SeenData]
    holdout: Holdout
    reference: Reference | None = None
    """Where the model's scores are monitored."""
    chosen: dict[str, Any] = {}
    """Parameters that the run chose itself: who trains it again gives these."""
    tags: dict[str, str] = {}
    """Of the version, for people to find it by; names with `trainyard.` are the lifecycle's."""


REPRODUCED: ContextVar[list[LoggedModel] | None] = ContextVar("REPRODUCED", default=None)
"""Set while a model is trained again (reproduce.py): `release` only adds it to this list."""


class Approval(RunInput):
    """What a person answers in Prefect's page."""

    promote: bool = True


def run_workspace() -> str:
    """The flow run's own folder in the artifact store: all attempts at the run have the same."""
    return str(artifact_path(load_settings().artifact_store, "runs", current_run().id))


@task(task_run_name="start-experiment", **RETRIED, **PERSISTED, **WAITS)
def start_experiment(prefix: str, metric: str) -> Experiment:
    """One MLflow experiment for this flow run, named from its scheduled time.

    Args:
        prefix: of its name.
        metric: that its page sorts the runs by.
    """
    experiment = open_experiment(load_settings().tracking_uri, prefix, current_run())
    get_run_logger().info("MLflow experiment %r: %s", experiment.name, experiment.url(metric))
    return experiment


def release(
    place: str,
    experiment: Experiment,
    model: LoggedModel,
    limits: Mapping[str, float] | None = None,
    approval: bool = False,
) -> Verdict:
    """Register a model, measure it, and promote it if it beats the champion.

    Args:
        place: of its spec, such as `flows.wine.spec:SPEC`.
        limits: instead of the spec's own.
        approval: whether a person has to say yes before it is promoted.

    Raises:
        HoldoutError: it can't be compared with the champion; nothing is promoted.
    """
    spec = load_spec(place)
    if (reproduced := REPRODUCED.get()) is not None:
        reproduced.append(model)
        reason = "trained again, and not registered"
        return Verdict(
            model=spec.name, version="", champion=None, promoted=False, reason=reason, limits={}
        )
    limits = dict(spec.limits if limits is None else limits)
    number = register_version(place, experiment, model)
    measured = [
        *benchmark(METRIC, place, experiment, number),
        *benchmark(METADATA, place, experiment, number),
    ]
    refusal = ask(place, experiment, number, measured, limits) if approval else ""
    verdict = promote_if_better(place, experiment, number, measured, limits, refusal)
    report_release(place, experiment, number, measured, verdict)
    return verdict


def ask(
    place: str,
    experiment: Experiment,
    number: str,
    measured: list[Measured],
    limits: dict[str, float],
) -> str:
    """Pause the run with the card shown, if the version would win; gives why it mustn't, or "".

    A click in Prefect's page answers, or `trainyard model promote`.
    """
    spec, client = load_spec(place), MlflowClient(experiment.tracking_uri)
    store = load_settings().artifact_store
    verdict = gate.judge(client, spec, number, measured, limits, store)
    if not verdict.promoted:
        return ""
    lineage = recorded_lineage(client, spec, number)
    shown = card.render(spec, lineage, verdict, measured)
    get_run_logger().info("waits for a person's yes: %s", lineage.flow_run_url)
    try:
        # in a loop of its own: of an async flow, Prefect's pause would be a coroutine
        answer: Approval = run_coro_as_sync(
            apause_flow_run(
                wait_for_input=Approval.with_initial_data(description=shown, promote=True),
                timeout=APPROVAL_TIMEOUT,
            )
        )
    except FlowPauseTimeout:
        # without force Prefect fails a run that leaves a pause too late, whatever comes of it
        with get_client(sync_client=True) as prefect:
            prefect.set_flow_run_state(UUID(current_run().id), Running(), force=True)
        return f"nobody said yes within {APPROVAL_TIMEOUT // 3600} hours"
    return "" if answer.promote else "a person said no"


@task(task_run_name="register", **RETRIED, **PERSISTED, timeout_seconds=1800)
def register_version(place: str, experiment: Experiment, model: LoggedModel) -> str:
    """Register the model with the record of what it was made from; gives the version's number."""
    run = current_run()
    lineage = Lineage(
        flow_run=run.id,
        flow_run_url=run.url,
        entrypoint=run.entrypoint,
        parameters=run.parameters | model.chosen,
        commit=run.commit,
        image=current_image(),
        scheduled=f"{run.scheduled:%Y-%m-%d %H:%M}",
        seen=model.seen,
        holdout=model.holdout,
        reference=model.reference,
    )
    client, about = MlflowClient(experiment.tracking_uri), f"{lineage.scheduled} UTC: "
    with exclusive(PROMOTION):
        description = about + model.description
        return register(client, place, model.uri, model.run_id, lineage, description, model.tags)


@task(task_run_name="benchmark-{tag}", **RETRIED, **PERSISTED, **WAITS)
def benchmark(tag: str, place: str, experiment: Experiment, number: str) -> list[Measured]:
    """Run the benchmarks with a tag, on the holdout; in the log, in MLflow and as a table."""
    spec, client = load_spec(place), MlflowClient(experiment.tracking_uri)
    version = find_version(client, spec.name, number)
    found = measure(client, place, number, tag)
    now = time.time_ns() // 1_000_000
    # a segment may be called what MLflow allows no metric to be
    names = [re.sub(r"[^\w. :-]", "_", each.name) for each in found]
    logged = [
        Metric(f"benchmark/{name}", each.value, now, 0)
        for name, each in zip(names, found, strict=True)
    ]
    client.log_batch(version.run_id or "", metrics=logged)
    lines = [f"{each.name}: {each}" for each in found]
    get_run_logger().info("%s version %s\n%s", spec.name, number, "\n".join(lines))
    create_table_artifact(
        key=f"{spec.name}-{tag}",
        table=[each.model_dump() for each in found],
        description=f"{spec.name} version {number} on rows that nothing was fitted to",
    )
    return found


def measure(client: MlflowClient, place: str, number: str, *tags: str) -> list[Measured]:
    """Run a registered version's benchmarks on its own holdout."""
    spec = load_spec(place)
    rows = load_kept(recorded_lineage(client, spec, number).holdout)
    file = version_file(client, find_version(client, spec.name, number))
    return [found for tag in tags for found in benchmarks.run(tag, spec, file, rows)]


@task(task_run_name="promote-if-better", **RETRIED, **PERSISTED, timeout_seconds=1800)
def promote_if_better(
    place: str,
    experiment: Experiment,
    number: str,
    measured: list[Measured],
    limits: dict[str, float],
    refusal: str = "",
) -> Verdict:
    """Compare with the champion of this moment, and promote the version if it wins.

    Args:
        refusal: why a person doesn't want it, whatever the comparison says.
    """
    spec, client = load_spec(place), MlflowClient(experiment.tracking_uri)
    store = load_settings().artifact_store
    with exclusive(PROMOTION):
        verdict = gate.decide(client, spec, number, measured, limits, store, refusal)
    get_run_logger().info("%s", verdict.summary)
    if verdict.promoted:
        model_promoted(spec.name, number, verdict.summary)
    return verdict


@task(task_run_name="report-release", **RETRIED, **WAITS)
def report_release(
    place: str, experiment: Experiment, number: str, measured: list[Measured], verdict: Verdict
) -> None:
    """The model card in Prefect and MLflow, the numbers in the history, its plot in MLflow."""
    spec, client = load_spec(place), MlflowClient(experiment.tracking_uri)
    lineage, store = recorded_lineage(client, spec, number), load_settings().artifact_store
    run_id = find_version(client, spec.name, number).run_id or ""
    shown = card.render(spec, lineage, verdict, measured)
    client.log_text(run_id, shown, CARD)
    history.record(store, spec.name, number, lineage, measured)
    champion = aliases(client, spec.name).get(CHAMPION)
    figure = history.plot(history.read_history(store, spec.name), spec, champion)
    client.log_figure(run_id, figure, "benchmarks.png")
    create_markdown_artifact(key=f"{spec.name}-card", markdown=shown, description=verdict.summary)
