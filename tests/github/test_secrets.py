"""No secret in the history: gitleaks reads every commit of every branch."""

import os
import random
import string
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

GITLEAKS = ROOT / ".go/gitleaks"

pytestmark = [
    pytest.mark.server,  # it starts none, but needs what only `make test` builds
    pytest.mark.skipif(
        not GITLEAKS.exists(), reason="no .go/gitleaks: `make test` builds it where there is Go"
    ),
]


def scan(repository: Path) -> subprocess.CompletedProcess[str]:
    """What gitleaks says of a repository's history, by the rules of this one."""
    return subprocess.run(
        [
            *(GITLEAKS, "git", "--config", ROOT / ".gitleaks.toml"),
            *("--no-banner", "--no-color", "--log-level", "warn", "--redact", "--verbose"),
            repository,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    nobody = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", *identity, *arguments]
    subprocess.run(command, cwd=repository, check=True, capture_output=True, env=nobody)


CHANCE = random.Random(7)  # noqa: S311  # the same at each run, and in no file of this repository
CAPITALS, LETTERS = string.ascii_uppercase, string.ascii_letters + string.digits


def made_up(alphabet: str, length: int) -> str:
    return "".join(CHANCE.choices(alphabet, k=length))


SEEDS = {
    "aws-access-token": "AKIA" + made_up(CAPITALS, 16),
    "prefect-api-token": "pnu_" + made_up(LETTERS.lower(), 36),
    "github-pat": "ghp_" + made_up(LETTERS, 36),
    "slack-webhook-url": "https://hooks.slack.com/services/"
    + "/".join(["T" + made_up(CAPITALS, 8), "B" + made_up(CAPITALS, 8), made_up(LETTERS, 24)]),
    "private-key": "\n".join(
        ["-----BEGIN PRIVATE KEY-----", made_up(LETTERS, 128), "-----END PRIVATE KEY-----"]
    ),
    "generic-api-key": f'password = "{made_up(LETTERS, 24)}"',
}


def test_the_history_holds_no_secret() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: there is no history")
    found = scan(ROOT)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("kind", SEEDS)
def test_a_secret_that_was_removed_again_is_found(kind: str, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    leaky = tmp_path / "settings.txt"
    for text, message in (("", "start"), (SEEDS[kind], "oops"), ("", "nothing to see")):
        leaky.write_text(f"{text}\n")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", message)
    found = scan(tmp_path)
    assert found.returncode == 1
    assert f"RuleID:      {kind}" in found.stdout, found.stdout
