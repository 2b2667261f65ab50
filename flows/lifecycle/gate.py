"""Decide whether a version becomes the champion: within its limits, and better on unseen rows."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import polars as pl
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel

from flows.lifecycle.benchmarks import BenchmarkError, Measured, over_limits, predictions, same
from flows.lifecycle.champion import CHAMPION, ModelRefusedError, load_version
from flows.lifecycle.comparison import Comparison, compare
from flows.lifecycle.holdout import Holdout, HoldoutError, common_holdout, load_kept
from flows.lifecycle.registry import (
    FORCED_TAG,
    PREVIOUS,
    REJECTED_TAG,
    VERDICT_TAG,
    aliases,
    find_version,
    promote,
    recorded_lineage,
    versions,
)
from flows.lifecycle.request_log import count_shadowed
from flows.lifecycle.spec import ModelSpec, Values


class Verdict(BaseModel):
    """What the gate decided of a version, and by which numbers."""

    model: str
    version: str
    champion: str | None
    """The version that was the champion before."""
    promoted: bool
    reason: str
    limits: dict[str, float]
    comparison: Comparison | None = None
    holdout: Holdout | None = None
    """The rows of the comparison."""

    @property
    def summary(self) -> str:
        """What became of it, in a line."""
        if self.promoted:
            return f"{self.model} version {self.version} is the new champion: {self.reason}"
        kept = f"kept champion v{self.champion}" if self.champion else "no champion"
        return f"{self.model} version {self.version} is registered, {kept}: {self.reason}"


def decide(
    client: MlflowClient,
    spec: ModelSpec,
    number: str,
    measured: list[Measured],
    limits: Mapping[str, float],
    store: str,
    refusal: str = "",
) -> Verdict:
    """Judge a version against the champion of this moment, and promote it if it wins.

    The caller holds the lock `registry.PROMOTION`. Doing it again changes nothing.

    Args:
        store: the artifact store, for the log of what it was asked in shadow.
        refusal: why it isn't promoted even if it wins.

    Raises:
        HoldoutError, ModelRefusedError, BenchmarkError, ArtifactStoreError: as `judge`; the
            registry is as it was.
    """
    verdict = judge(client, spec, number, measured, limits, store)
    if verdict.promoted and refusal and aliases(client, spec.name).get(CHAMPION) != number:
        verdict.promoted, verdict.reason = False, refusal
    if verdict.promoted:
        promote(client, spec.name, number, {VERDICT_TAG: verdict.model_dump_json()})
    else:
        client.set_model_version_tag(spec.name, number, VERDICT_TAG, verdict.model_dump_json())
    return verdict


def judge(
    client: MlflowClient,
    spec: ModelSpec,
    number: str,
    measured: list[Measured],
    limits: Mapping[str, float],
    store: str,
) -> Verdict:
    """Say what would become of a version now; nothing is written.

    Args:
        number: the version's.
        measured: its benchmarks.
        limits: benchmark -> how bad it may be.
        store: the artifact store, for the log of what it was asked in shadow.

    Raises:
        HoldoutError: there are no rows that neither has seen.
        ModelRefusedError: a version's files aren't those that were registered.
        BenchmarkError: a version has no answer for some rows.
        ArtifactStoreError: the log can't be read.
    """
    version = find_version(client, spec.name, number)
    has = aliases(client, spec.name)
    recorded = version.tags.get(VERDICT_TAG)
    if has.get(CHAMPION) == number and recorded:  # another attempt was killed after its last write
        return Verdict.model_validate_json(recorded)
    # a champion that somebody has deleted leaves the one before it to compare with
    champion = has.get(CHAMPION) or has.get(PREVIOUS)
    verdict = Verdict(
        model=spec.name,
        version=number,
        champion=None if champion == number else champion,
        promoted=False,
        reason="",
        limits=dict(limits),
    )
    if reason := version.tags.get(REJECTED_TAG):
        verdict.reason = f"it was taken back ({reason})"
    elif worse := over_limits(measured, limits):
        verdict.reason = "; ".join(worse)
    else:
        _compare(client, spec, version, verdict)
    # without a champion nothing is served that it could shadow
    shadows = has.get(CHAMPION) not in (None, number)
    if verdict.promoted and shadows and (missing := _unshadowed(spec, version, store)):
        verdict.promoted = False
        verdict.reason += f", but {missing}"
    return verdict


def force(client: MlflowClient, model: str, number: str, reason: str) -> Verdict:
    """Make a version the champion because a person says so. The caller holds the lock."""
    champion = aliases(client, model).get(CHAMPION)
    verdict = Verdict(
        model=model,
        version=number,
        champion=None if champion == number else champion,
        promoted=True,
        reason=f"forced: {reason}",
        limits={},
    )
    tags = {VERDICT_TAG: verdict.model_dump_json(), FORCED_TAG: reason}
    promote(client, model, number, tags)
    return verdict


def _compare(
    client: MlflowClient, spec: ModelSpec, version: ModelVersion, verdict: Verdict
) -> None:
    """Complete the verdict by the predictions of both models."""
    mine = recorded_lineage(client, spec, verdict.version)
    holdout = mine.holdout
    if by := holdout.seen_by(mine.seen):
        raise HoldoutError(
            f"{spec.name} version {verdict.version} was trained on {by}, and its own holdout comes "
            "from there: keep what `held_out` chooses from training and search, and train again"
        )
    if verdict.champion:
        champion = find_version(client, spec.name, verdict.champion)
        theirs = recorded_lineage(client, spec, verdict.champion)
        holdout = common_holdout((mine.holdout, mine.seen), (theirs.holdout, theirs.seen))
    rows = load_kept(holdout)
    verdict.holdout = holdout
    true, predicted = _predictions(client, spec, version, rows)
    metric = spec.metrics[0]
    if twin := _rejected_twin(client, spec, version, rows, predicted):
        verdict.reason = f"it answers as version {twin.version}, which was taken back"
        verdict.reason += f" ({twin.tags[REJECTED_TAG]})"
    elif not verdict.champion:
        verdict.promoted = True
        value = metric.show(metric.score(true, predicted))
        verdict.reason = f"the first one, {metric.name} {value} on {len(rows):,} unseen rows"
    else:
        theirs_predicted = _predictions(client, spec, champion, rows)[1]
        found = verdict.comparison = compare(metric, true, predicted, theirs_predicted)
        verdict.promoted = found.wins
        values = f"{metric.name} {metric.show(found.challenger)}"
        values += f" and {metric.show(found.champion)} on {len(rows):,} unseen rows"
        if found.wins:
            verdict.reason = f"better than v{verdict.champion} ({values})"
        elif found.gain > 0:
            verdict.reason = f"no better than noise ({values})"
        else:
            verdict.reason = f"it isn't better ({values})"


def _unshadowed(spec: ModelSpec, version: ModelVersion, store: str) -> str:
    """What a version has to be asked in shadow yet; empty if nothing."""
    wanted = spec.shadowed_requests
    if not wanted:
        return ""
    made = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).date()
    since = made - timedelta(days=1)  # MLflow's clock may be ahead
    number = str(version.version)
    found = count_shadowed(store, spec.name, number, since, wanted)
    if found >= wanted:
        return ""
    return (
        f"it has answered {found:,} of {wanted:,} requests in shadow: serve it, `trainyard serve "
        f"{spec.name}`; then `trainyard model promote {spec.name}/{number}` compares again"
    )


def _predictions(
    client: MlflowClient, spec: ModelSpec, version: ModelVersion, rows: pl.DataFrame
) -> tuple[Values, Values]:
    try:
        return predictions(spec, load_version(client, version, spec.trusted_types), rows)
    except BenchmarkError as error:
        raise BenchmarkError(f"{spec.name} version {version.version}: {error}") from error


def _rejected_twin(
    client: MlflowClient,
    spec: ModelSpec,
    version: ModelVersion,
    rows: pl.DataFrame,
    predicted: Values,
) -> ModelVersion | None:
    """A version that was taken back and is this one trained again."""
    for other in versions(client, spec.name):
        if REJECTED_TAG not in other.tags or str(other.version) == str(version.version):
            continue
        # one that doesn't answer these rows, or isn't what it was, is no twin
        with suppress(AttributeError, LookupError, ModelRefusedError, TypeError, ValueError):
            if same(_predictions(client, spec, other, rows)[1], predicted).all():
                return other
    return None
