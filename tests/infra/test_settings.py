"""`python -m infra.settings FILE`: the repository's stacks, and one that can't be used."""

from pathlib import Path

import pytest
from pydantic import ValidationInfo, field_validator

from infra.settings import Settings, main, parse
from tests.conftest import ROOT
from trainyard.contract.settings import ContradictionError, setting
from trainyard.contract.stack_config import SettingsError

FILES = sorted((ROOT / "infra").glob("Pulumi.*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_stacks_in_the_repository_are_valid(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(path)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: {'aws:region': us-east-1, 'trainyard:profil': ha}", "did you mean profile?"),
        ("config: {'aws:region': us-east-1, profile: big}", "profile = big: should be minimal"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    text: str | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    if text:
        file.write_text(text)
    assert main([str(file)]) == 1
    assert said in capsys.readouterr().err


def test_a_rule_of_ones_own_is_held_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ours(Settings):
        lake_bucket: str = setting("Where raw data lands.", "a bucket's name")

        @field_validator("lake_bucket")
        @classmethod
        def _is_for_ha(cls, value: str, info: ValidationInfo) -> str:
            if value and info.data.get("profile") != "ha":
                raise ContradictionError("empty, because profile isn't ha")
            return value

    monkeypatch.setattr("infra.settings.Settings", Ours)
    config = {"aws:region": "us-east-1", "trainyard:lakeBucket": "rides"}
    with pytest.raises(SettingsError, match=r"lakeBucket = rides: should be empty, because prof"):
        parse("dev", config)
    assert parse("dev", config | {"trainyard:profile": "ha"})
