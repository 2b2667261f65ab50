"""`python -m infra.settings FILE`: the repository's stacks, and one that can't be used."""

from pathlib import Path

import pytest

from infra.settings import main, parse
from tests.conftest import ROOT
from trainyard.contract.settings import CrossFieldRule, SettingsError

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
    spot = CrossFieldRule(
        ("profile", "durable"), lambda s: s.profile == "minimal" and s.durable, "ha"
    )
    monkeypatch.setattr("infra.settings.RULES", (spot,))
    with pytest.raises(SettingsError, match="profile = minimal: should be ha"):
        parse("dev", {"aws:region": "us-east-1", "trainyard:profile": "minimal"})
