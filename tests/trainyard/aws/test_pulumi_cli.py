"""Pulumi, as the tool runs it: what its failures are told with, and what of the user's stays."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.conftest import ROOT
from tests.trainyard.aws.fake_pulumi import fake_pulumi
from trainyard.aws.preview import PreviewResult, preview, preview_refresh
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.tools.errors import StackError

URL = "s3://state?region=eu-central-1&awssdk=v2"
BEFORE = ("theirs", "file:///theirs")
LOCKED = "error: the stack is currently locked by 1 lock(s)"


def test_a_missing_pulumi_is_said_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackError, match=r"pulumi\.com"):
        Pulumi("dev").up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_run_here_is_ended_with_the_command_and_waited_for(
    number: signal.Signals, tmp_path: Path
) -> None:
    script = tmp_path / "backfill.py"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "def end(*_): time.sleep(1); print('the table so far'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = (
        "import signal; from pathlib import Path; from trainyard.aws.pulumi_cli import Pulumi; "
        "signal.signal(signal.SIGTERM, signal.default_int_handler); "
        f"Pulumi('dev').run_here(['python', {str(script)!r}], {{}}, Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == b"the table so far\n"


def test_a_pulumi_that_is_too_old_is_said_with_the_oldest_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch)
    program = tmp_path / "pulumi"
    program.write_text(program.read_text().replace("v3.200.0", "v3.99.0"))
    with pytest.raises(StackError, match=r"(?s)pulumi\.com.*3\.160\.0"):
        stack.outputs()


def test_a_stack_that_was_never_made_is_told_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch, code=1, stderr="error: no stack named dev found")
    with pytest.raises(StackError, match="`make bootstrap STACK=dev`"):
        stack.outputs()


def test_a_lock_is_told_with_what_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch, code=1, stderr=LOCKED)
    with pytest.raises(
        StackError, match=r"`\. infra/use dev && pulumi --cwd infra cancel`, then `make up"
    ):
        stack.up()
    with pytest.raises(StackError) as failed:
        replace(stack, unlock="`make down STACK=rehearsal`").up()
    assert "`make down STACK=rehearsal`" in str(failed.value)
    assert "pulumi --cwd infra cancel" not in str(failed.value)


def test_only_what_changes_resources_is_told_that_it_stays_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch, code=1, stderr="error: no such profile")
    for command in (stack.up, stack.destroy, stack.preview, stack.outputs, stack.state):
        with pytest.raises(StackError, match=r"`pulumi .*--stack dev` failed") as failed:
            command()
        assert ("stays done" in str(failed.value)) is (command == stack.up), command
        assert ("make up" in str(failed.value)) is (command == stack.up), command


def test_who_says_itself_what_is_left_gets_no_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = fake_pulumi(tmp_path, monkeypatch, code=1, stderr=LOCKED)
    with (tmp_path / "log").open("w") as log, pytest.raises(StackError) as failed:
        replace(stack, log=log, advise=False).up()
    assert "make" not in str(failed.value)
    assert (tmp_path / "log").read_text().strip() == LOCKED


@pytest.mark.parametrize("ask", [True, False])
def test_where_a_person_looks_their_yes_is_waited_for(
    ask: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = replace(fake_pulumi(tmp_path, monkeypatch, code=1), ask=ask)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(StackError):
        stack.up()
    asked = (tmp_path / "asked").read_text()
    assert (asked == "up --stack dev\n") is ask
    assert ("--yes" in asked and "--non-interactive" in asked) is not ask


@pytest.mark.parametrize("broken", ["config:\n  a: [\n", "- a\n", "config: a\n", "a\n"])
def test_a_file_that_is_no_stacks_is_named_with_what_is_wrong(broken: str, tmp_path: Path) -> None:
    (tmp_path / "Pulumi.bad.yaml").write_text(broken)
    with pytest.raises(
        StackError, match=r"Pulumi\.bad\.yaml can't be used:\n  the file = .*should"
    ):
        Pulumi("bad", tmp_path).settings()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("line", "url"),
    [
        (f"trainyard:backend: {URL}", URL),
        (f"trainyard:backend: {URL}  # ours", URL),
        (f"trainyard:backend: {URL}\r", URL),
        (f"trainyard:backend: '{URL}' # ours\r", URL),
        (f'"trainyard:backend": "{URL}#part"', f"{URL}#part"),
        (f"trainyard:backend: {URL}#part", f"{URL}#part"),
        ("trainyard:backend: # none yet", ""),
        ("trainyard:profile: ha", ""),
    ],
)
def test_a_sourced_file_names_the_backend_that_the_tool_reads(
    shell: str, line: str, url: str, tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    (tmp_path / "infra").mkdir()
    shutil.copy(ROOT / "infra/use", tmp_path / "infra")
    (tmp_path / "infra/Pulumi.dev.yaml").write_text(f"config:\n  {line}\n", newline="")
    assert (Pulumi("dev", tmp_path / "infra").settings().get("trainyard:backend") or "") == url
    assert sourced(shell, "dev", tmp_path) == (("dev", url) if url else BEFORE)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("stack", ["", "gone"])
def test_where_no_backend_is_found_the_shell_stays_as_it_was(
    shell: str, stack: str, tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    (tmp_path / "infra").mkdir()
    shutil.copy(ROOT / "infra/use", tmp_path / "infra")
    assert sourced(shell, stack, tmp_path) == BEFORE


def sourced(shell: str, stack: str, folder: Path) -> tuple[str, ...]:
    """PULUMI_STACK and PULUMI_BACKEND_URL after `. infra/use STACK`, in a shell that is strict."""
    use = f". ./infra/use {stack}" if shell != "sh" else f"set -- {stack}; . ./infra/use"
    script = (
        f'set -u; {use}; echo "failed $?"; printf "%s\\n" "$PULUMI_STACK" "$PULUMI_BACKEND_URL"'
    )
    there = dict(zip(("PULUMI_STACK", "PULUMI_BACKEND_URL"), BEFORE, strict=True))
    done = subprocess.run(
        [shell, "-c", script], cwd=folder, env=os.environ | there, capture_output=True, text=True
    )
    failed, *found = done.stdout.splitlines()
    assert "unbound" not in done.stderr
    assert (failed == "failed 0") is (tuple(found) != BEFORE)
    assert bool(done.stderr) is (failed != "failed 0"), done.stderr
    return tuple(found)


# --- with the real one ----------------------------------------------------------------------------
@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two stacks, whose files name a backend each, and a user who is elsewhere."""
    if not shutil.which("pulumi"):
        pytest.skip("there is no pulumi on PATH: https://www.pulumi.com/docs/install/")
    python = {"name": "python", "options": {"virtualenv": str(ROOT / ".venv-infra")}}
    project = {"name": "trainyard", "runtime": python}
    folder = tmp_path / "infra"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    (folder / "__main__.py").write_text(
        "import pulumi\nfor name, value in (('stack', pulumi.get_stack()), ('word', 'hunter2')):\n"
        "    pulumi.export(name, value)\n"
    )
    for stack in ("dev", "prod", "theirs"):
        (tmp_path / stack).mkdir()
        settings = f"# mine\nconfig:\n  trainyard:backend: file://{tmp_path / stack}\n"
        (folder / f"Pulumi.{stack}.yaml").write_text(settings)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "tiny")
    monkeypatch.setenv("PULUMI_SKIP_UPDATE_CHECK", "true")
    for name in ("PULUMI_BACKEND_URL", "PULUMI_STACK"):
        monkeypatch.delenv(name, raising=False)
    for command in (["login", f"file://{tmp_path / 'theirs'}"], ["stack", "init", "theirs"]):
        subprocess.run(["pulumi", *command], cwd=folder, check=True, capture_output=True)
    return folder


def of_the_user(folder: Path) -> dict[str, str]:
    """What Pulumi remembers of a user: the login, and the selected stack."""
    home = folder.parent / "home"
    files = [home / "credentials.json", *home.glob("workspaces/*")]
    return {file.name: file.read_text() for file in files}


@pytest.mark.pulumi
def test_the_users_selected_stack_login_and_files_stay_as_they_were(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = of_the_user(tiny)
    assert len(before) == 2
    for stack in ("dev", "prod"):
        pulumi = Pulumi(stack, tiny)
        for _ in range(2):  # one that is there is left alone
            pulumi.make()
        settings = (tiny / f"Pulumi.{stack}.yaml").read_text()
        assert "# mine" in settings
        assert preview(pulumi) == PreviewResult((), (), False, ())
        pulumi.up()
        assert "Resources:" in capsys.readouterr().out
        assert pulumi.outputs() == {"stack": stack, "word": "hunter2"}
        assert preview_refresh(pulumi, ["**nothing**"]).failed is False
        pulumi.destroy()
        assert pulumi.outputs() == {}
        assert (tiny / f"Pulumi.{stack}.yaml").read_text() == settings
        assert list((tiny.parent / stack).rglob(f"{stack}.json"))
    assert of_the_user(tiny) == before


@pytest.mark.pulumi
def test_a_typed_pulumi_has_the_same_once_the_file_is_sourced(tiny: Path) -> None:
    Pulumi("dev", tiny).make()
    Pulumi("dev", tiny).up()
    shutil.copy(ROOT / "infra/use", tiny)
    command = ". infra/use {} && pulumi --cwd infra stack output --json"
    for shell in filter(shutil.which, ("bash", "zsh")):
        done = subprocess.run(
            [shell, "-c", command.format("dev")], cwd=tiny.parent, capture_output=True, text=True
        )
        assert json.loads(done.stdout)["stack"] == "dev", done.stderr
    (tiny / "Pulumi.new.yaml").write_text("config: {}\n")
    for unknown, told in (("new", "make bootstrap STACK=new"), ("gone", "Pulumi.gone.yaml")):
        done = subprocess.run(
            ["bash", "-c", command.format(unknown)], cwd=tiny.parent, capture_output=True, text=True
        )
        assert done.returncode != 0
        assert told in done.stderr


@pytest.mark.pulumi
def test_what_the_program_says_at_its_end_is_told_of_a_preview(tiny: Path) -> None:
    Pulumi("dev", tiny).make()
    (tiny / "__main__.py").write_text("raise ValueError('no such profile')\n")
    found = preview(Pulumi("dev", tiny))
    assert found.failed
    assert "no such profile" in "".join(found.problems)


@pytest.mark.pulumi
def test_without_any_backend_it_is_said_who_names_one(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tiny / "Pulumi.dev.yaml").write_text("config: {}\n")
    (tiny.parent / "home/credentials.json").unlink()
    with pytest.raises(StackError, match=r"Pulumi\.dev\.yaml names no backend.*make bootstrap"):
        Pulumi("dev", tiny).outputs()
