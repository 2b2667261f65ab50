"""`make doctor`: each thing that can be wrong is found, with what to do about it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.conftest import ROOT
from trainyard.aws import doctor
from trainyard.prefect.health import Check


def by_name(found: Any) -> dict[str, Check]:
    return {check.what: check for check in found}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone without anything built in it, and without stacks."""
    for part in ("infra", "trainyard"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.setattr(doctor, "REPO", tmp_path)
    monkeypatch.setattr(doctor, "PROGRAM", tmp_path)
    monkeypatch.setattr("trainyard.contract.stack_config.PROGRAM", tmp_path)
    (tmp_path / "requirements").mkdir()
    for group in doctor.ENVIRONMENTS:
        (tmp_path / f"requirements/{group}.txt").touch()
    return tmp_path


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


# --- this machine ---------------------------------------------------------------------------------
def test_tools_that_are_missing_fail_only_who_needs_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    here = by_name(doctor.machine(pulumi_needed=False))
    assert here["git"].failed
    assert not any(here[each].failed for each in ("pulumi", "Docker", "gh"))
    assert by_name(doctor.machine(pulumi_needed=True))["pulumi"].failed


def test_a_pulumi_that_is_too_old_says_which_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(folder, monkeypatch, "pulumi", "echo v3.99.0")
    found = doctor.pulumi_version(needed=True)
    assert found.failed
    assert "3.160.0 or newer" in found.todo
    program(folder, monkeypatch, "pulumi", "echo v3.200.1")
    assert not doctor.pulumi_version(needed=True).failed


def test_an_environment_older_than_its_lock_is_told_with_the_command(folder: Path) -> None:
    stamp = folder / ".venv-infra/.infra"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (1, 1))
    assert doctor.environment("infra", stamp.parent).todo == "make .venv-infra/.infra"
    stamp.touch()
    assert not doctor.environment("infra", stamp.parent).todo


def test_a_package_that_an_environment_lacks_is_named(folder: Path) -> None:
    stamp = folder / ".venv-infra/.infra"
    package = stamp.parent / "lib/python3.11/site-packages/Some_Thing-1.0.dist-info/METADATA"
    package.parent.mkdir(parents=True)
    package.write_text("Name: Some_Thing\nVersion: 1.0\n")
    elsewhere = "winloop==1 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    lock = folder / "requirements/infra.txt"
    lock.write_text(f"# by make\nsome-thing==1.0 \\\n    --hash=sha256:00\n{elsewhere}")
    stamp.touch()
    assert not doctor.environment("infra", stamp.parent).todo
    lock.write_text(f"{lock.read_text()}other==2.1\n")
    stamp.touch()
    found = doctor.environment("infra", stamp.parent)
    assert found.failed
    assert found.found == "without other 2.1"
    assert found.todo == "rm .venv-infra/.infra && make .venv-infra/.infra"


def test_a_laptops_command_does_not_wait_for_pulumis_imports() -> None:
    code = "import sys, trainyard.aws.doctor; print([m for m in sys.modules if m == 'pulumi'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# --- a stack, from outside ------------------------------------------------------------------------
DIGEST = f"000000000000.dkr.ecr.us-east-1.amazonaws.com/trainyard/flow@sha256:{'a' * 64}"
OUTPUTS: dict[str, Any] = {
    "held_back": [],
    "next": "",
    "flow_image": DIGEST,
    "servers": {"mlflow": f"sha256:{'b' * 64}", "prefect": ""},
    "services": {"worker": "trainyard-dev-worker"},
    "tasks": {"cluster": "c"},
    "trainyard": {"stack": "dev"},
}


@pytest.fixture
def session(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    return boto3.Session("test", "test", region_name="us-east-1")


@pytest.fixture
def dev(folder: Path) -> Path:
    path = folder / "Pulumi.dev.yaml"
    path.write_text("config: {'aws:region': us-east-1, 'trainyard:accountId': '000000000000'}\n")
    return path


def state_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Any], *pending: str
) -> None:
    deployment = {"resources": [1, 2], "pending_operations": list(pending)}
    (folder / "export").write_text(json.dumps({"deployment": deployment}))
    (folder / "output").write_text(json.dumps(outputs))
    (folder / "whoami").write_text(
        json.dumps({"user": "ada", "url": "s3://doctored?region=us-east-1"})
    )
    script = f"""
case "$*" in
version) echo v3.259.0;; *whoami*) cat {folder}/whoami;;
*export*) cat {folder}/export;; *output*) cat {folder}/output;;
esac"""
    program(folder, monkeypatch, "pulumi", script)


def test_a_stack_without_settings_is_told_how_it_gets_them(folder: Path) -> None:
    (found,) = doctor.stack("dev")
    assert found.failed
    assert found.todo == "make bootstrap STACK=dev"


def test_a_file_that_is_no_stacks_is_told_in_full(folder: Path) -> None:
    (folder / "Pulumi.dev.yaml").write_text("- a\n")
    (settings,) = doctor.stack("dev")
    assert settings.failed
    assert "the file = ['a']: should be a map with `config:`" in settings.found


def test_settings_that_cannot_be_used_are_told(dev: Path) -> None:
    dev.write_text(dev.read_text().replace("}", ", 'trainyard:profil': ha}"))
    (found,) = doctor.stack("dev")
    assert found.failed
    assert "did you mean profile?" in found.found


@pytest.mark.server
def test_another_accounts_credentials_are_noticed(session: Any, dev: Path) -> None:
    dev.write_text(dev.read_text().replace("000000000000", "111122223333"))
    found = by_name(doctor.stack("dev", session))
    assert "111122223333" in found["credentials"].todo
    assert "Pulumi's state" not in found


@pytest.mark.server
def test_a_state_that_was_left_half_done_and_held(
    session: Any, dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_is(dev.parent, monkeypatch, {"held_back": []}, "creating a database")
    s3 = session.client("s3")
    s3.create_bucket(Bucket="doctored")
    assert not by_name(doctor.stack("dev", session))["lock"].failed
    lock = {"pid": 1, "username": "ada", "hostname": "laptop", "timestamp": "2026-11-22T10:00:00Z"}
    key = ".pulumi/locks/organization/trainyard/dev/1.json"
    s3.put_object(Bucket="doctored", Key=key, Body=json.dumps(lock).encode())
    found = by_name(doctor.stack("dev", session))
    assert "ada@laptop holds dev" in found["lock"].found
    assert ". infra/use dev && pulumi --cwd infra cancel`" in found["lock"].todo
    assert "1 pending" in found["Pulumi's state"].found
    assert found["stack"].todo == "make up STACK=dev"


@pytest.mark.server
def test_an_image_that_the_registry_lost(session: Any) -> None:
    session.client("ecr").create_repository(repositoryName="trainyard/flow")
    found = by_name(doctor.images(session, OUTPUTS))
    assert "has no sha256:aaa" in found["image flow"].found
    assert "make publish" in found["image flow"].todo
    assert not found["image mlflow"].failed


class Ecs:
    """One service, of which no task runs."""

    def describe_services(self, **given: Any) -> Any:
        return {"services": [{"runningCount": 0, "desiredCount": 1}]}

    def list_tasks(self, **given: Any) -> Any:
        return {"taskArns": ["old", "new"]}

    def describe_tasks(self, **given: Any) -> Any:
        container = {"name": "worker", "exitCode": 137, "reason": "OutOfMemoryError"}
        stopped = {"stoppedReason": "Essential container exited", "containers": [container]}
        return {"tasks": [{**stopped, "stoppedAt": 2}, {"stoppedAt": 1, "containers": []}]}

    def client(self, name: str) -> "Ecs":
        return self


def test_a_service_that_does_not_run_says_why_its_last_task_stopped() -> None:
    (found,) = doctor.services(Ecs(), OUTPUTS)
    assert found.failed
    assert "0 of 1 run" in found.found
    assert "worker: exit code 137 OutOfMemoryError" in found.found


@pytest.mark.server
def test_one_check_that_breaks_does_not_hide_the_others(session: Any) -> None:
    services = {"worker": "no-such", "mlflow": "neither"}
    both = {**OUTPUTS, "tasks": {"cluster": "no-such"}, "services": services}
    found = list(doctor.services(session, both))
    assert [check.failed for check in found] == [True, True]
    assert "ClusterNotFound" in found[0].found
