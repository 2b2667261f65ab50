"""Versions, their records, and the order of their aliases."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from flows.lifecycle.champion import CONTENT_TAG
from flows.lifecycle.gate import force
from flows.lifecycle.registry import (
    REJECTED_TAG,
    SPEC_TAG,
    RegistryError,
    aliases,
    find_version,
    recorded_lineage,
    register,
    roll_back,
    spec_of,
    versions,
)
from tests.flows.lifecycle.models import PLACE, Pipeline, wrong_by


def register_logged(pipeline: Pipeline, logged: tuple[str, str], text: str = "") -> str:
    return register(pipeline.client, PLACE, *logged, pipeline.lineage(), text)


def test_a_version_says_what_it_is_and_what_it_was_made_from(pipeline: Pipeline) -> None:
    logged = pipeline.logged(wrong_by(1.0))
    assert register_logged(pipeline, logged, "of may") == "1"
    client, name = pipeline.client, pipeline.spec.name
    version = client.get_model_version(name, "1")
    assert (version.description, version.run_id) == ("of may", logged[1])
    assert len(version.tags[CONTENT_TAG]) == 64
    assert recorded_lineage(client, pipeline.spec, "1") == pipeline.lineage()
    assert pipeline.aliases() == {"challenger": "1"}
    assert spec_of(client, name) == (pipeline.spec, PLACE)


def test_a_version_has_the_tags_of_its_pipeline_beside_the_lifecycles(pipeline: Pipeline) -> None:
    logged, lineage = pipeline.logged(wrong_by(1.0)), pipeline.lineage()
    given = {"stage": "prod", "version": "1.0.1", CONTENT_TAG: "mine"}
    register(pipeline.client, PLACE, *logged, lineage, "", given)
    tags = pipeline.tags("1")
    assert (tags["stage"], tags["version"]) == ("prod", "1.0.1")
    assert tags[CONTENT_TAG] != "mine"


def test_a_run_that_registers_again_gets_the_version_that_is_there(pipeline: Pipeline) -> None:
    logged = pipeline.logged(wrong_by(1.0))
    assert [register_logged(pipeline, logged, text) for text in ("first", "again")] == ["1", "1"]
    assert pipeline.numbers() == ["1"]
    assert pipeline.client.get_model_version(pipeline.spec.name, "1").description == "again"


def test_the_newest_version_is_the_challenger_and_the_champion_never_is(
    pipeline: Pipeline,
) -> None:
    logged = pipeline.logged(wrong_by(1.0))
    pipeline.decide(register_logged(pipeline, logged))
    register_logged(pipeline, logged)
    assert pipeline.aliases() == {"champion": "1"}
    for _ in range(2):
        pipeline.register(2.0)
    assert pipeline.aliases() == {"champion": "1", "challenger": "3"}


def test_a_model_is_registered_where_its_client_points(pipeline: Pipeline, elsewhere: Path) -> None:
    """A run that goes on in a new process hasn't told MLflow's globals where its server is."""
    assert mlflow.get_tracking_uri() != pipeline.client.tracking_uri
    pipeline.register(1.0)
    assert pipeline.numbers() == ["1"]
    assert [path.name for path in elsewhere.iterdir()] == ["store"]


def test_a_registered_model_has_a_description_that_a_user_may_change(pipeline: Pipeline) -> None:
    client, name = pipeline.client, pipeline.spec.name
    pipeline.register(1.0)
    assert client.get_registered_model(name).description == "Grams of a thing."
    client.update_registered_model(name, "Ours.")
    pipeline.register(1.0)
    assert client.get_registered_model(name).description == "Ours."


def test_the_hash_is_of_the_files_as_they_were_at_the_first_registration(
    pipeline: Pipeline,
) -> None:
    logged = pipeline.logged(wrong_by(1.0))
    recorded = pipeline.tags(register_logged(pipeline, logged))[CONTENT_TAG]
    (pipeline.files("1") / "more.py").touch()
    assert pipeline.tags(register_logged(pipeline, logged))[CONTENT_TAG] == recorded


def test_two_attempts_at_one_run_end_with_one_number(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock's lease may end in a long pause: both look before either has registered."""
    logged, register_model = pipeline.logged(wrong_by(1.0)), mlflow.register_model

    def twice(*arguments: Any, **options: Any) -> None:
        for _ in range(2):
            register_model(*arguments, **options)

    monkeypatch.setattr(mlflow, "register_model", twice)
    assert [register_logged(pipeline, logged) for _ in range(2)] == ["1", "1"]
    assert pipeline.aliases() == {"challenger": "1"}


def test_the_champion_moves_in_one_write_after_previous(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader always finds a champion; whoever takes it back finds what was there before."""
    first, second = pipeline.champion_of(2.0, 1.0)
    number = pipeline.register(0.0)
    writes: list[tuple[str, ...]] = []
    write, delete = (
        MlflowClient.set_registered_model_alias,
        MlflowClient.delete_registered_model_alias,
    )

    def record(client: MlflowClient, name: str, alias: str, version: str) -> None:
        writes.append((alias, version))
        write(client, name, alias, version)

    def forget(client: MlflowClient, name: str, alias: str) -> None:
        writes.append((alias, "deleted"))
        delete(client, name, alias)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", record)
    monkeypatch.setattr(MlflowClient, "delete_registered_model_alias", forget)
    pipeline.decide(number)
    assert writes == [("previous", second), ("champion", number), ("challenger", "deleted")]
    writes.clear()
    roll_back(pipeline.client, pipeline.spec.name, "slow")
    assert writes == [("champion", second), ("previous", first)]


def test_a_rollback_swaps_rejects_and_leaves_the_older_one_as_previous(pipeline: Pipeline) -> None:
    pipeline.champion_of(2.0, 1.0, 0.0)
    client, name = pipeline.client, pipeline.spec.name
    assert roll_back(client, name, "it was slow") == ("3", "2")
    assert pipeline.aliases() == {"champion": "2", "previous": "1"}
    assert pipeline.tags("3")[REJECTED_TAG] == "it was slow"
    assert roll_back(client, name, "this one too") == ("2", "1")
    assert pipeline.aliases() == {"champion": "1"}
    assert pipeline.numbers() == ["1", "2", "3"]


def test_a_rollback_never_leads_to_a_rejected_version(pipeline: Pipeline) -> None:
    pipeline.champion_of(2.0, 1.0)
    client, name = pipeline.client, pipeline.spec.name
    roll_back(client, name, "it was slow")
    for number in (pipeline.register(0.5), pipeline.register(0.0)):
        force(client, name, number, "try")
    client.set_model_version_tag(name, "1", REJECTED_TAG, "old")
    assert roll_back(client, name, "no") == ("4", "3")
    assert pipeline.aliases() == {"champion": "3"}


def test_a_rollback_from_an_older_version_does_not_lead_back_to_it(pipeline: Pipeline) -> None:
    pipeline.champion_of(2.0, 1.0)
    client, name = pipeline.client, pipeline.spec.name
    force(client, name, "1", "try")
    assert roll_back(client, name, "no") == ("1", "2")
    assert pipeline.aliases() == {"champion": "2"}


def test_a_rollback_works_after_a_promotion_that_was_killed_between_its_writes(
    pipeline: Pipeline,
) -> None:
    pipeline.champion_of(2.0, 1.0)
    client, name = pipeline.client, pipeline.spec.name
    client.set_registered_model_alias(name, "previous", "2")  # its first write
    assert roll_back(client, name, "it was slow") == ("2", "1")
    assert pipeline.aliases() == {"champion": "1"}


def test_a_deleted_version_does_not_stop_a_rollback(pipeline: Pipeline) -> None:
    pipeline.champion_of(2.0, 1.0, 0.0)
    pipeline.client.delete_model_version(pipeline.spec.name, "1")
    assert roll_back(pipeline.client, pipeline.spec.name, "it was slow") == ("3", "2")
    assert pipeline.aliases() == {"champion": "2"}


@pytest.mark.parametrize(
    ("champions", "has"), [(0, "challenger 1"), (1, "champion 1"), (2, "champion 1")]
)
def test_without_a_version_from_before_a_rollback_is_refused(
    pipeline: Pipeline, champions: int, has: str
) -> None:
    client, name = pipeline.client, pipeline.spec.name
    if champions:
        pipeline.champion_of(*[2.0, 1.0][:champions])
    else:
        pipeline.register(2.0)
    if champions == 2:
        roll_back(client, name, "slow")
    before = pipeline.everything()
    said = rf"can't be rolled back: .* before \({has}\); .*`trainyard model promote {name}/VERSION"
    with pytest.raises(RegistryError, match=said):
        roll_back(client, name, "slow")
    assert pipeline.everything() == before


def test_an_unknown_model_is_answered_with_those_there_are(pipeline: Pipeline) -> None:
    pipeline.register(1.0)
    with pytest.raises(RegistryError, match=f"no model 'nobody'; there is .*{pipeline.spec.name}"):
        aliases(pipeline.client, "nobody")


@pytest.mark.parametrize("wanted", ["9", "production", "0", "v1", "latest"])
def test_an_unknown_version_is_answered_with_those_there_are(
    pipeline: Pipeline, wanted: str
) -> None:
    pipeline.champion_of(1.0)
    pipeline.register(2.0)
    said = f"{pipeline.spec.name} has no version '{wanted}'; it has @.*, /2, /1"
    with pytest.raises(RegistryError, match=said):
        find_version(pipeline.client, pipeline.spec.name, wanted)


def test_a_version_is_found_by_its_number_or_its_alias(pipeline: Pipeline) -> None:
    pipeline.champion_of(1.0)
    pipeline.register(2.0)
    for wanted, number in (("1", "1"), ("champion", "1"), ("2", "2"), ("challenger", "2")):
        found = find_version(pipeline.client, pipeline.spec.name, wanted)
        assert str(found.version) == number


def test_versions_are_sorted_as_numbers(pipeline: Pipeline) -> None:
    client, name = pipeline.client, pipeline.spec.name
    client.create_registered_model(name)
    for _ in range(10):
        client.create_model_version(name, "somewhere")
    assert [int(each.version) for each in versions(client, name)] == [*range(10, 0, -1)]


def test_a_model_of_somebody_else_has_no_spec(pipeline: Pipeline) -> None:
    name = f"{pipeline.spec.name}-other"
    pipeline.client.create_registered_model(name)
    with pytest.raises(RegistryError, match=f"{name} has no tag {SPEC_TAG}: no pipeline"):
        spec_of(pipeline.client, name)


def test_a_spec_that_is_another_models_now_is_not_taken(pipeline: Pipeline) -> None:
    name = f"{pipeline.spec.name}-before"
    pipeline.client.create_registered_model(name)
    pipeline.client.set_registered_model_tag(name, SPEC_TAG, PLACE)
    with pytest.raises(RegistryError, match=f"{name} names the spec .* is {pipeline.spec.name}'s"):
        spec_of(pipeline.client, name)
