"""`make drift`: what it finds, its exit code, and the one issue that it keeps on GitHub."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import drift
from tests.infra.fake_gh import FakeGitHub

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
Find = Callable[..., None]


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Let Pulumi find this."""
    monkeypatch.setattr(drift, "REPORT", tmp_path / "drift.md")

    def set_up(*lines: str, code: int = 0, stderr: str = "") -> None:
        (tmp_path / "said").write_text("\n".join(lines) + "\n")
        program = tmp_path / "pulumi"
        program.write_text(
            f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/said\n'
            f"echo '{stderr}' >&2\nexit {code}\n"
        )
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return set_up


def test_what_differs_and_what_is_gone_is_reported(find: Find, tmp_path: Path) -> None:
    find(*DRIFTED)
    assert drift.main(["dev"]) == 2
    report = (tmp_path / "drift.md").read_text()
    assert "| iam/role | role | description, tags |" in report
    assert "| sqs/queue | queue | is gone |" in report
    assert "other" not in report
    asked = (tmp_path / "asked").read_text()
    assert "refresh --preview-only" in asked
    assert "secretVersion" in asked, "who only looks would have to read the secrets"


def test_no_drift_is_exit_code_0(find: Find) -> None:
    find(step("same", QUEUE, "queue"))
    assert drift.main(["dev"]) == 0


def test_a_look_that_fails_is_neither(
    find: Find, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find(code=255, stderr="error: no stack named dev found")
    assert drift.main(["dev"]) == 1
    assert "no stack named dev" in capsys.readouterr().err
    assert "no stack named dev" in (tmp_path / "drift.md").read_text()


def test_one_issue_is_opened_updated_and_closed(
    find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    github = FakeGitHub(tmp_path, monkeypatch)
    find(step("same", QUEUE, "queue"))
    assert drift.main(["dev", "--issue"]) == 0
    assert not github["issues"]
    find(*DRIFTED)
    assert drift.main(["dev", "--issue"]) == 2
    find(DRIFTED[1])
    assert drift.main(["dev", "--issue"]) == 2
    (issue,) = github["issues"]
    assert (issue["label"], issue["open"]) == ("drift:dev", True)
    assert "iam/role" not in issue["body"], "it tells what was found last"
    assert "sqs/queue" in issue["body"]
    find()
    assert drift.main(["dev", "--issue"]) == 0
    assert [issue["open"] for issue in github["issues"]] == [False]
    find(*DRIFTED)
    drift.main(["dev", "--issue"])
    assert [issue["open"] for issue in github["issues"]] == [False, True]


def test_an_issue_that_cannot_be_kept_is_an_error(
    find: Find,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    FakeGitHub(tmp_path, monkeypatch, logged_in=False)
    find(*DRIFTED)
    assert drift.main(["dev", "--issue"]) == 1
    assert "gh auth login" in capsys.readouterr().err
    assert "iam/role" in (tmp_path / "drift.md").read_text(), "what was found is kept"
