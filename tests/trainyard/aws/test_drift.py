"""`make drift`: what it finds, its exit code, and the one issue that it keeps on GitHub."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.trainyard.aws.fake_gh import FakeGitHub
from tests.trainyard.aws.fake_pulumi import fake_pulumi
from trainyard.__main__ import main
from trainyard.aws import drift

ROLE, QUEUE = "aws:iam/role:Role", "aws:sqs/queue:Queue"


def step(op: str, kind: str, name: str, *properties: str) -> str:
    urn = f"urn:pulumi:dev::trainyard::{kind}::trainyard-dev-{name}"
    metadata = {"op": op, "urn": urn, "type": kind, "diffs": list(properties)}
    return json.dumps({"resOutputsEvent": {"metadata": metadata}})


DRIFTED = (
    step("update", ROLE, "role", "tags", "description"),
    step("delete", QUEUE, "queue"),
    step("same", QUEUE, "other"),
)
Find = Callable[..., object]


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Let Pulumi find this."""
    monkeypatch.setattr(drift, "REPORT", tmp_path / "drift.md")
    return partial(fake_pulumi, tmp_path, monkeypatch)


def test_what_differs_and_what_is_gone_is_reported(find: Find, tmp_path: Path) -> None:
    find(*DRIFTED)
    assert main(["drift", "dev"]) == 2
    report = (tmp_path / "drift.md").read_text()
    assert "| iam/role | role | description, tags |" in report
    assert "| sqs/queue | queue | is gone |" in report
    assert "other" not in report
    asked = (tmp_path / "asked").read_text()
    assert "refresh --preview-only" in asked
    assert "secretVersion" in asked, "who only looks would have to read the secrets"


def test_no_drift_is_exit_code_0(find: Find) -> None:
    find(step("same", QUEUE, "queue"))
    assert main(["drift", "dev"]) == 0


def test_a_look_that_fails_is_neither(
    find: Find, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find(code=255, stderr="error: no stack named dev found")
    assert main(["drift", "dev"]) == 1
    assert "no stack named dev" in capsys.readouterr().err
    assert "no stack named dev" in (tmp_path / "drift.md").read_text()


def test_one_issue_is_opened_updated_and_closed(
    find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    github = FakeGitHub(tmp_path, monkeypatch)
    find(step("same", QUEUE, "queue"))
    assert main(["drift", "dev", "--issue"]) == 0
    assert not github["issues"]
    find(*DRIFTED)
    assert main(["drift", "dev", "--issue"]) == 2
    find(DRIFTED[1])
    assert main(["drift", "dev", "--issue"]) == 2
    (issue,) = github["issues"]
    assert (issue["label"], issue["open"]) == ("drift:dev", True)
    assert "iam/role" not in issue["body"], "it tells what was found last"
    assert "sqs/queue" in issue["body"]
    find()
    assert main(["drift", "dev", "--issue"]) == 0
    assert [issue["open"] for issue in github["issues"]] == [False]
    find(*DRIFTED)
    main(["drift", "dev", "--issue"])
    assert [issue["open"] for issue in github["issues"]] == [False, True]


def test_an_issue_that_cannot_be_kept_is_an_error(
    find: Find,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    FakeGitHub(tmp_path, monkeypatch, logged_in=False)
    find(*DRIFTED)
    assert main(["drift", "dev", "--issue"]) == 1
    assert "gh auth login" in capsys.readouterr().err
    assert "iam/role" in (tmp_path / "drift.md").read_text(), "what was found is kept"
