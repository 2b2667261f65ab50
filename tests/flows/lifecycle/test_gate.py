"""Who becomes the champion, and why not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.lifecycle import champion
from flows.lifecycle.benchmarks import BenchmarkError
from flows.lifecycle.champion import ModelRefusedError
from flows.lifecycle.gate import Verdict, force, judge
from flows.lifecycle.holdout import HoldoutError
from flows.lifecycle.registry import (
    FORCED_TAG,
    LINEAGE_TAG,
    REJECTED_TAG,
    REPLACED_TAG,
    VERDICT_TAG,
    RegistryError,
    roll_back,
)
from tests.flows.lifecycle.models import CLOSENESS, MAE, Pipeline, answered, wrong_by

NAN = float("nan")


class Killed(BaseException):
    """What no code catches."""


def test_the_first_one_becomes_the_champion(pipeline: Pipeline) -> None:
    number = pipeline.register(1.0)
    verdict = pipeline.decide(number)
    assert pipeline.aliases() == {"champion": "1"}
    assert verdict.summary.startswith(
        f"{pipeline.spec.name} version 1 is the new champion: the first one,"
    )
    assert verdict.summary.endswith(" g on 200 unseen rows")
    assert Verdict.model_validate_json(pipeline.tags("1")[VERDICT_TAG]) == verdict


def test_where_the_champion_was_deleted_the_one_before_it_has_to_be_beaten(
    pipeline: Pipeline,
) -> None:
    pipeline.champion_of(1.0, 0.5)
    pipeline.client.delete_model_version(pipeline.spec.name, "2")
    assert pipeline.aliases() == {"previous": "1"}
    verdict = pipeline.decide(pipeline.register(2.0))
    assert (verdict.promoted, verdict.champion) == (False, "1")
    assert pipeline.decide(pipeline.register(0.1)).reason.startswith("better than v1 (")
    assert pipeline.aliases() == {"champion": "4", "previous": "1"}


@pytest.mark.parametrize("metric", [MAE, CLOSENESS], ids=["lower", "higher"])
@pytest.mark.parametrize(
    ("grams", "promoted", "reason"),
    [
        (2.0, False, "it isn't better ("),
        (1.0, False, "it isn't better ("),
        (0.9, True, "better than v1 ("),
        (0.0, True, "better than v1 ("),
    ],
)
def test_only_a_better_one_replaces_the_champion(
    pipeline: Pipeline, metric: object, grams: float, promoted: bool, reason: str
) -> None:
    pipeline.champion_of(1.0)
    object.__setattr__(pipeline.spec, "metrics", (metric,))
    verdict = pipeline.decide(pipeline.register(grams))
    assert verdict.reason.startswith(reason)
    assert verdict.promoted is promoted
    expected = {"champion": "2", "previous": "1"} if promoted else {"champion": "1"}
    assert pipeline.aliases() == expected | ({} if promoted else {"challenger": "2"})
    assert verdict.champion == "1"
    if not promoted:
        assert f"version 2 is registered, kept champion v1: {reason}" in verdict.summary


def test_a_difference_within_noise_keeps_the_champion(pipeline: Pipeline) -> None:
    pipeline.champion_of(0.2)
    verdict = pipeline.decide(pipeline.register(0.0))
    assert verdict.comparison is not None
    assert verdict.comparison.gain > 0
    assert verdict.reason.startswith("no better than noise (mae ")
    assert pipeline.aliases()["champion"] == "1"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"mae": 1.5}, "mae 2 g, and at most 1.5 is allowed"),
        ({"closeness": -1.5}, "closeness -2, and at least -1.5 is allowed"),
        ({"mae": 2.0, "closeness": -2.0}, ""),
    ],
)
def test_over_a_limit_none_becomes_the_champion(
    pipeline: Pipeline, limits: dict[str, float], reason: str
) -> None:
    verdict = pipeline.decide(pipeline.register(0.0), limits)
    assert verdict.promoted is not bool(reason)
    if reason:
        assert verdict.reason == reason
        assert "version 1 is registered, no champion: " in verdict.summary
        assert pipeline.aliases() == {"challenger": "1"}
    assert verdict.limits == limits


@pytest.mark.parametrize("alias", ["previous", "champion"])
@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_a_kill_at_any_write_and_another_attempt_give_one_order(
    pipeline: Pipeline, alias: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.champion_of(2.0, 1.0)
    number = pipeline.register(0.0)
    write = MlflowClient.set_registered_model_alias

    def killed(client: MlflowClient, name: str, wanted: str, version: str) -> None:
        if wanted != alias or written:
            write(client, name, wanted, version)
        if wanted == alias:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", killed)
        with pytest.raises(Killed):
            pipeline.decide(number)
    moved = alias == "champion" and written
    assert pipeline.aliases()["champion"] == ("3" if moved else "2")
    verdict = pipeline.decide(number)
    assert verdict.reason.startswith("better than v2 (")
    assert (verdict.champion, verdict.promoted) == ("2", True)
    assert pipeline.aliases() == {"champion": "3", "previous": "2"}
    assert pipeline.tags("3")[REPLACED_TAG] == "2"
    assert Verdict.model_validate_json(pipeline.tags("3")[VERDICT_TAG]) == verdict


def test_deciding_again_changes_nothing(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    better, worse = pipeline.register(0.0), pipeline.register(3.0)
    verdicts = [pipeline.decide(better), pipeline.decide(worse)]
    before = pipeline.everything()
    assert [pipeline.decide(better), pipeline.decide(worse)] == verdicts
    assert pipeline.everything() == before


def changed_holdout(pipeline: Pipeline) -> None:
    (file,) = Path(pipeline.store, "holdouts", pipeline.spec.name).iterdir()
    file.write_bytes(b"other")


def changed_files(pipeline: Pipeline) -> None:
    (pipeline.files("1") / "more.py").touch()
    champion._file_once.cache_clear()  # as in another process


FAULTS: dict[str, tuple[float, tuple[str, ...], Callable[[Pipeline], object], type, str]] = {
    "no answer": (NAN, (), lambda p: None, BenchmarkError, "version 2: the model has no answer f"),
    "no common rows": (0.0, ("june", "may"), lambda p: None, HoldoutError, "no rows to compare on"),
    "another holdout": (0.0, (), changed_holdout, HoldoutError, "isn't what was recorded"),
    "another champion": (
        0.0,
        (),
        changed_files,
        ModelRefusedError,
        "version 1 isn't what was registered",
    ),
    "a champion without lineage": (
        0.0,
        (),
        lambda p: p.client.delete_model_version_tag(p.spec.name, "1", LINEAGE_TAG),
        RegistryError,
        "version 1 has no record of .* `trainyard model promote .*/VERSION --force REASON`",
    ),
}


@pytest.mark.parametrize(
    ("grams", "months", "fault", "error", "said"), FAULTS.values(), ids=FAULTS.keys()
)
def test_a_comparison_that_cannot_be_made_changes_nothing(
    pipeline: Pipeline,
    grams: float,
    months: tuple[str, ...],
    fault: Callable[[Pipeline], object],
    error: type[Exception],
    said: str,
) -> None:
    assert pipeline.decide(pipeline.register(1.0, *(("may", "june") if months else ()))).promoted
    number = pipeline.register(grams, *months)
    fault(pipeline)
    before = pipeline.everything()
    with pytest.raises(error, match=said):
        pipeline.decide(number)
    assert pipeline.everything() == before


@pytest.mark.parametrize("champion", [False, True], ids=["the first", "a challenger"])
def test_what_saw_its_own_holdout_is_not_compared_on_it(pipeline: Pipeline, champion: bool) -> None:
    if champion:
        pipeline.champion_of(1.0)
    number = pipeline.register(0.0, "june", "june")
    before = pipeline.everything()
    with pytest.raises(HoldoutError, match="was trained on june, and its own holdout comes"):
        pipeline.decide(number)
    assert pipeline.everything() == before


def test_a_challenger_that_saw_the_champions_rows_is_compared_on_its_own(
    pipeline: Pipeline,
) -> None:
    pipeline.champion_of(1.0)
    verdict = pipeline.decide(pipeline.register(0.0, "june", "may"))
    assert verdict.promoted
    assert verdict.holdout is not None
    assert verdict.holdout.data == "june"


def test_the_champion_that_saw_the_challengers_rows_is_compared_on_its_own(
    pipeline: Pipeline,
) -> None:
    pipeline.decide(pipeline.register(1.0, "may", "april"))
    verdict = pipeline.decide(pipeline.register(0.0, "april"))
    assert verdict.holdout is not None
    assert verdict.holdout.data == "may"


@pytest.mark.parametrize("champion", ["1", None])
def test_what_a_person_refuses_is_not_promoted(pipeline: Pipeline, champion: str | None) -> None:
    if champion:
        pipeline.champion_of(1.0)
    number = pipeline.register(0.0)
    verdict = pipeline.decide(number, refusal="a person said no")
    assert (verdict.promoted, verdict.reason) == (False, "a person said no")
    assert pipeline.aliases().get("champion") == champion
    recorded = Verdict.model_validate_json(pipeline.tags(number)[VERDICT_TAG])
    assert recorded.reason == "a person said no"


def test_what_loses_says_why_and_not_that_a_person_refused(pipeline: Pipeline) -> None:
    pipeline.champion_of(0.0)
    verdict = pipeline.decide(pipeline.register(1.0), refusal="a person said no")
    assert verdict.reason.startswith("it isn't better")


def test_a_rejected_version_is_not_promoted_again_and_neither_is_its_twin(
    pipeline: Pipeline,
) -> None:
    pipeline.champion_of(1.0, 0.0)
    roll_back(pipeline.client, pipeline.spec.name, "it was slow")
    again = pipeline.decide("2")
    assert (again.promoted, again.reason) == (False, "it was taken back (it was slow)")
    for grams in (0.0, 1e-12):  # another machine rounds otherwise
        twin = pipeline.decide(pipeline.register(grams))
        assert not twin.promoted
        assert twin.reason == "it answers as version 2, which was taken back (it was slow)"
    assert pipeline.aliases()["champion"] == "1"
    assert pipeline.decide(pipeline.register(0.1)).promoted


@pytest.mark.parametrize("gone", ["its file", "its answers", "its code"])
def test_a_rejected_version_that_answers_no_more_stands_in_nobodys_way(
    pipeline: Pipeline, gone: str
) -> None:
    pipeline.champion_of(1.0)
    model = wrong_by(NAN if gone == "its answers" else 0.0)
    if gone == "its code":  # as where another scikit-learn wrote it
        del model.intercept_
    number = pipeline.register(model)
    force(pipeline.client, pipeline.spec.name, number, "to try it")
    roll_back(pipeline.client, pipeline.spec.name, "it was broken")
    if gone == "its file":
        (pipeline.files(number) / "model.skops").unlink()
    assert pipeline.decide(pipeline.register(0.5)).promoted


def test_a_person_may_promote_what_is_worse_or_was_rejected(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0, 0.0)
    roll_back(pipeline.client, pipeline.spec.name, "it was slow")
    verdict = force(pipeline.client, pipeline.spec.name, "2", "it is quick now")
    assert verdict.summary.endswith("version 2 is the new champion: forced: it is quick now")
    assert pipeline.aliases() == {"champion": "2", "previous": "1"}
    assert pipeline.tags("2")[FORCED_TAG] == "it is quick now"
    assert REJECTED_TAG not in pipeline.tags("2")


def test_judging_writes_nothing(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    number = pipeline.register(0.0)
    before = pipeline.everything()
    verdict = judge(pipeline.client, pipeline.spec, number, [], {}, pipeline.store)
    assert verdict.promoted
    assert pipeline.everything() == before


def test_what_wins_waits_until_it_has_answered_enough_in_shadow(pipeline: Pipeline) -> None:
    object.__setattr__(pipeline.spec, "shadowed_requests", 3)
    pipeline.champion_of(1.0)  # the first one has nobody's requests to answer
    number = pipeline.register(0.0)
    verdict = pipeline.decide(number)
    assert not verdict.promoted
    assert verdict.reason.startswith("better than v1 (mae ")
    assert verdict.reason.endswith(
        ", but it has answered 0 of 3 requests in shadow: serve it, `trainyard serve "
        f"{pipeline.spec.name}`; then `trainyard model promote {pipeline.spec.name}/2` compares "
        "again"
    )
    assert pipeline.aliases() == {"champion": "1", "challenger": "2"}

    def shadowed(**given: str) -> None:
        pipeline.log(answered(1.0, 2.0, 3.0, **{"alias": "challenger", "version": "2", **given}))

    for request in ("a", "b", "b"):
        shadowed(request=request)
    shadowed(version="1")
    shadowed(alias="champion")
    assert "it has answered 2 of 3 requests" in pipeline.decide(number).reason
    shadowed(request="c")
    assert pipeline.decide(number).promoted
    assert pipeline.aliases() == {"champion": "2", "previous": "1"}


def test_what_loses_is_not_sent_into_shadow(pipeline: Pipeline) -> None:
    object.__setattr__(pipeline.spec, "shadowed_requests", 3)
    pipeline.champion_of(0.0)
    assert "shadow" not in pipeline.decide(pipeline.register(1.0)).reason


def test_without_a_champion_to_shadow_none_is_demanded(pipeline: Pipeline) -> None:
    object.__setattr__(pipeline.spec, "shadowed_requests", 3)
    pipeline.champion_of(1.0)
    pipeline.client.delete_model_version(pipeline.spec.name, "1")
    assert pipeline.decide(pipeline.register(0.5)).promoted
