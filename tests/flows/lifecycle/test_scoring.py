"""A month's scores: all rows accounted for, once, and never half of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from upath import UPath

from flows.lifecycle import scoring
from flows.lifecycle.batch import Batch
from flows.lifecycle.registry import RegistryError
from flows.lifecycle.scoring import NO_ANSWER, Scored, ScoringError, score_month
from flows.platform.artifact_store import artifact_path, read_parquet
from flows.platform.run_info import ROOT
from tests.flows.lifecycle.models import Pipeline, answer_known

MONTH = "2026-05"


class Killed(BaseException):
    """What no code catches."""


def batch(first: int, *, missing: int = 0, unreadable: int = 0, size: int = 10) -> Batch:
    """Rows of y = x, the first ones without x; beside them some that can't be read."""
    rows = pl.DataFrame(
        {
            "row": range(first, first + size),
            "x": [None] * missing + [float(n) for n in range(size - missing)],
        },
        schema={"row": pl.UInt32, "x": pl.Float64},
    )
    bad = pl.DataFrame(
        {"row": range(first + size, first + size + unreadable), "x": "?", "rule": "x unreadable"},
        schema={"row": pl.UInt32, "x": pl.String, "rule": pl.String},
    )
    return Batch(rows, bad)


def scored(pipeline: Pipeline, *batches: Batch, sha256: str = "a") -> Scored:
    return score_month(
        pipeline.client,
        pipeline.spec,
        MONTH,
        "the file of May",
        sha256,
        iter(batches),
        pipeline.store,
        "run",
    )


@pytest.fixture(autouse=True)
def answers_what_it_knows(pipeline: Pipeline) -> None:
    object.__setattr__(pipeline.spec, "answer", answer_known)


def test_every_row_is_scored_or_quarantined_by_a_rule(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    found = scored(pipeline, batch(0, missing=2), batch(20, unreadable=3), batch(40, size=0))
    assert (found.rows, found.quarantined) == (23, {"x unreadable": 3, NO_ANSWER: 2})
    scores = read_parquet(artifact_path(found.scores))
    assert scores["row"].to_list() == [*range(2, 10), *range(20, 30)]
    assert (scores["prediction"] - scores["x"]).to_list() == [1.0] * 18
    assert set(scores.select("model_version", "flow_run").rows()) == {("1", "run")}
    quarantined = read_parquet(artifact_path(found.quarantine))
    assert quarantined.select("row", "x", "rule").rows() == [
        *((row, None, NO_ANSWER) for row in (0, 1)),
        *((row, "?", "x unreadable") for row in (30, 31, 32)),
    ]


def test_what_is_scored_is_not_scored_again(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    first = scored(pipeline, batch(0))

    def never() -> Iterator[Batch]:
        pytest.fail("the data was read again")
        yield

    again = score_month(
        pipeline.client, pipeline.spec, MONTH, "it", "a", never(), pipeline.store, "other run"
    )
    assert again == first
    artifact_path(first.scores).unlink()
    assert scored(pipeline, batch(0)).rows == 10
    assert read_parquet(artifact_path(first.scores)).height == 10


def test_other_data_or_another_champion_replaces_the_scores(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    scored(pipeline, batch(0))
    assert scored(pipeline, batch(0, size=3), sha256="b").rows == 3
    pipeline.decide(pipeline.register(0.5))
    found = scored(pipeline, batch(0, size=3), sha256="b")
    assert found.version == "2"
    scores = read_parquet(artifact_path(found.scores))
    assert (scores["prediction"] - scores["x"]).to_list() == [0.5] * 3


@pytest.mark.parametrize("at", ["a batch", "the record"])
def test_a_killed_run_leaves_no_half_month_and_the_next_one_does_it_all(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    pipeline.champion_of(1.0)
    scored(pipeline, batch(0))

    def killed(*_: object) -> None:
        raise Killed

    def batches() -> Iterator[Batch]:
        yield batch(0, size=5)
        if at == "a batch":
            raise Killed
        yield batch(5, size=5)

    given = (pipeline.client, pipeline.spec, MONTH, "it", "b", batches(), pipeline.store, "2")
    with monkeypatch.context() as patch:
        if at == "the record":
            patch.setattr(scoring, "write", killed)
        with pytest.raises(Killed):
            score_month(*given)
    path = scoring.month_folder(pipeline.store, pipeline.spec.name, MONTH) / "scores.parquet"
    assert read_parquet(path).height == 10
    assert scored(pipeline, batch(0, size=4), sha256="b").rows == 4
    assert read_parquet(path).height == 4


def test_a_run_killed_between_scores_and_record_leaves_no_record_of_other_scores(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.champion_of(1.0)
    first = scored(pipeline, batch(0))

    def killed(file: Path, path: UPath) -> None:
        publish(file, path)
        if path.name == "scores.parquet":
            raise Killed

    publish = scoring._publish
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_publish", killed)
        with pytest.raises(Killed):
            scored(pipeline, batch(0, size=3), sha256="b")
    assert scored(pipeline, batch(0)) == first  # the month is what it was
    assert read_parquet(artifact_path(first.scores)).height == 10


def test_a_month_of_which_nothing_can_be_scored_leaves_the_scores_that_are_there(
    pipeline: Pipeline,
) -> None:
    pipeline.champion_of(1.0)
    first = scored(pipeline, batch(0))
    for bad in (batch(0, size=0, unreadable=3), batch(0, size=3, missing=3)):
        with pytest.raises(ScoringError, match=r"none of its rows can be: .* \(3\)"):
            scored(pipeline, bad, sha256="b")
    assert read_parquet(artifact_path(first.scores)).height == 10


def test_two_runs_that_score_wait_for_each_other() -> None:
    """Else the record of one could end beside the scores of the other."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    limits = [each.get("concurrency_limit") for each in deployments if "scoring" in each["tags"]]
    assert [(each["limit"], each["collision_strategy"]) for each in limits] == [(1, "ENQUEUE")] * 2


def test_without_a_champion_or_rows_it_says_so_and_leaves_nothing(pipeline: Pipeline) -> None:
    with pytest.raises(RegistryError):
        scored(pipeline, batch(0))
    pipeline.champion_of(1.0)
    with pytest.raises(ScoringError, match="no rows to score"):
        scored(pipeline)
    assert not scoring.month_folder(pipeline.store, pipeline.spec.name, MONTH).exists()


def test_classes_are_answers_too(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    for names, missing in ((["setosa", "virginica"], 0), (["setosa", None], 1), ([1, 2], 0)):
        answers = np.array(names, dtype=None if missing == 0 else object)
        object.__setattr__(pipeline.spec, "answer", lambda *_, given=answers: given)
        found = scored(pipeline, batch(0, size=2), sha256=str(names))
        assert found.quarantined == ({NO_ANSWER: 1} if missing else {})
        kept = read_parquet(artifact_path(found.scores))
        assert kept["prediction"].to_list() == [name for name in names if name]
