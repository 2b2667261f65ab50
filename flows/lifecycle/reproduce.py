"""Train a registered version again from what the registry recorded, and compare the answers."""

import asyncio
import inspect
from collections.abc import Callable, Iterator

from mlflow import MlflowClient
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE, temporary_settings

from flows.lifecycle.benchmarks import predictions, same
from flows.lifecycle.champion import load_version, logged_file
from flows.lifecycle.holdout import SeenData, load_kept
from flows.lifecycle.registry import find_version, recorded_lineage, spec_of
from flows.lifecycle.tasks import REPRODUCED, LoggedModel
from flows.platform.run_info import ROOT, code_commit


class ReproductionError(RuntimeError):
    """The version can't be trained again, or came out otherwise: the message says what differs."""


def reproduce(client: MlflowClient, model: str, wanted: str) -> str:
    """Train a version again and compare its predictions on the recorded holdout; gives a summary.

    Nothing is registered; the run and its experiment stay, as of any other training.

    Args:
        wanted: a version's number or alias.

    Raises:
        ReproductionError: data, training or predictions differ from what was recorded.
    """
    import skops.io

    spec, _ = spec_of(client, model)
    version = find_version(client, model, wanted)
    lineage = recorded_lineage(client, spec, str(version.version))
    what = f"{model} version {version.version}"
    # the registry can be written by others: they must not choose what is run
    if not (ROOT / lineage.entrypoint).resolve().is_relative_to(ROOT / "flows"):
        raise ReproductionError(
            f"{what} was trained by {lineage.entrypoint}, which isn't in this repository's flows"
        )
    trained = _train(f"{ROOT}/{lineage.entrypoint}", lineage.parameters)
    if differing := list(_differing(lineage.seen, trained.seen)):
        raise ReproductionError(f"{what} had other data: {'; '.join(differing)}")
    rows = load_kept(lineage.holdout)
    again = skops.io.loads(
        logged_file(trained.uri, client.tracking_uri), trusted=list(spec.trusted_types)
    )
    recorded = predictions(spec, load_version(client, version, spec.trusted_types), rows)[1]
    predicted = predictions(spec, again, rows)[1]
    alike = same(recorded, predicted)
    code = "" if code_commit() == lineage.commit else f"; it was trained by commit {lineage.commit}"
    if code:
        code += f", and this is {code_commit() or 'unknown'}"
    if not alike.all():
        wrong = int((~alike).sum())
        raise ReproductionError(f"{what}: {wrong:,} of {len(rows):,} predictions differ{code}")
    return f"{what} is reproduced: {len(rows):,} predictions are the same{code}"


def _train(entrypoint: str, parameters: dict[str, object]) -> LoggedModel:
    """Run the flow that trained it, here, as far as the gate; no task takes a cached result."""
    reproduced: list[LoggedModel] = []
    token = REPRODUCED.set(reproduced)
    try:
        flow: Callable[..., object] = load_flow_from_entrypoint(entrypoint)
        with temporary_settings({PREFECT_TASKS_REFRESH_CACHE: True}):
            if inspect.iscoroutine(started := flow(**parameters)):
                asyncio.run(started)
    finally:
        REPRODUCED.reset(token)
    if len(reproduced) != 1:
        raise ReproductionError(f"{entrypoint} released {len(reproduced)} models, and not one")
    return reproduced[0]


def _differing(recorded: list[SeenData], found: list[SeenData]) -> Iterator[str]:
    now = {each.name: each.sha256 for each in found}
    for each in recorded:
        if (hash_now := now.get(each.name)) != each.sha256:
            there = f"has the SHA-256 {hash_now} now" if hash_now else "isn't there now"
            yield f"{each.name} {there}, and {each.sha256} was recorded ({each.uri})"
