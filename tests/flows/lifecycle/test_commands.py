"""What `trainyard model` says of a registry with odd things in it."""

import sys

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.lifecycle import __main__ as commands
from flows.lifecycle.registry import LINEAGE_TAG, RegistryError, roll_back
from flows.lifecycle.reproduce import ReproductionError, reproduce
from flows.lifecycle.tasks import CARD
from flows.platform.settings import Settings
from tests.flows.lifecycle.models import Pipeline


def test_what_people_wrote_is_shown_as_it_is(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.champion_of(1.0, 0.0)
    roll_back(pipeline.client, pipeline.spec.name, "[/b] [red]bad[/red]")
    pipeline.client.update_registered_model(pipeline.spec.name, "of [/kg]")
    settings = Settings(pipeline.store, pipeline.client.tracking_uri)
    commands.show_versions(pipeline.client, settings, pipeline.spec.name)
    commands.show_models(pipeline.client)
    said = capsys.readouterr().out
    assert "taken back: [/b] [red]bad[/red]" in said
    assert "of [/kg]" in said


def test_more_models_than_mlflow_gives_at_once_are_all_listed(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [f"{pipeline.spec.name}-{number}" for number in range(101)]
    for name in made:
        pipeline.client.create_registered_model(name)
    commands.show_models(pipeline.client)
    said = capsys.readouterr().out
    assert [name for name in made if f"{name} " not in said] == []


def test_a_card_says_what_was_decided_after_it(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.champion_of(1.0)
    number = pipeline.register(2.0)
    kept = pipeline.decide(number).summary
    run = pipeline.client.get_model_version(pipeline.spec.name, number).run_id
    pipeline.client.log_text(str(run), f"# {kept}\n", CARD)
    commands.show_card(pipeline.client, pipeline.spec.name, number)
    assert capsys.readouterr().out.strip() == f"# {kept}"
    pipeline.client.delete_model_version(pipeline.spec.name, "1")
    now = pipeline.decide(number).summary
    commands.show_card(pipeline.client, pipeline.spec.name, number)
    assert f"Since then compared again: {now}" in capsys.readouterr().out


def test_a_version_without_a_card_is_a_sentence(pipeline: Pipeline) -> None:
    number = pipeline.register(1.0)
    with pytest.raises(RegistryError, match="version 1 has no card in its MLflow run"):
        commands.show_card(pipeline.client, pipeline.spec.name, number)


@pytest.mark.parametrize("outside", ["../elsewhere.py:train", "/elsewhere.py:train"])
def test_only_a_flow_of_this_repository_is_run_to_reproduce(
    pipeline: Pipeline, outside: str
) -> None:
    client, name, number = pipeline.client, pipeline.spec.name, pipeline.register(1.0)
    lineage = pipeline.lineage().model_copy(update={"entrypoint": outside})
    client.set_model_version_tag(name, number, LINEAGE_TAG, lineage.model_dump_json())
    with pytest.raises(ReproductionError, match="which isn't in this repository's flows"):
        reproduce(client, name, number)


def test_a_prefect_that_is_not_there_is_a_sentence(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", pipeline.client.tracking_uri)
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", pipeline.store)
    pipeline.champion_of(1.0, 0.0)
    monkeypatch.setattr(sys, "argv", ["model", "rollback", pipeline.spec.name, "--reason", "slow"])
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert commands.main() == 1
    assert "Prefect at http://127.0.0.1:9/api doesn't answer: " in capsys.readouterr().err
    assert pipeline.aliases() == {"champion": "2", "previous": "1"}
