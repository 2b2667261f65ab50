"""`python -m infra.settings FILE`: the repository's stacks, and one that can't be used."""

from pathlib import Path

import pytest

from infra.settings import main
from tests.conftest import ROOT

FILES = sorted((ROOT / "infra").glob("Pulumi.*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_stacks_in_the_repository_are_valid(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["settings", str(path)])
    assert main() == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: {'aws:region': us-east-1, 'trainyard:profil': ha}", "(profile?)"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    text: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "Pulumi.dev.yaml"
    if text:
        file.write_text(text)
    monkeypatch.setattr("sys.argv", ["settings", str(file)])
    assert main() == 1
    assert said in capsys.readouterr().err
