"""What a rehearsal begins with, and how one ends that goes wrong; those that go well are in
tests/rehearsal.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from rich.console import Console

from infra.docker import DockerError
from infra.rehearsal import cloud, rehearse, session
from infra.rehearsal.rehearse import Rehearsal, check_unchanged, perform
from infra.rehearsal.session import RehearsalError, Session
from infra.settings import Settings, as_texts, parse
from infra.stacks import Pulumi, StackError

REASON = "[urn=urn:pulumi:rehearsal::trainyard] no module in [/venv/bin]"


@pytest.fixture
def ended(shell: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The homes of the emulators that were ended, on a machine that has all that is needed."""
    homes: list[Path] = []
    monkeypatch.setattr(rehearse, "ROOT", tmp_path)
    monkeypatch.setattr(rehearse, "missing", lambda: None)
    monkeypatch.setattr(Session, "stop", lambda session: homes.append(session.home))
    return homes


def fail(_: Rehearsal, console: Console) -> None:
    with rehearse.step(console, "make up"):
        raise RehearsalError(REASON)


def test_the_reason_is_told_as_it_is_and_the_emulator_ends(
    ended: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert perform("rehearse", "self-hosted", fail, keep=False) == 1
    said = capsys.readouterr().out
    assert "✗ make up" in said
    assert REASON in said
    assert "rehearse.log" not in said  # there is nothing in it
    assert ended == [tmp_path / ".trainyard/rehearsal"]


def test_where_pulumi_or_a_task_failed_the_logs_last_lines_stand_above_the_reason(
    ended: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_at_length(reason: Exception) -> Callable[..., None]:
        def act(*_: object) -> None:
            print(*[f"line {n}" for n in range(100)], sep="\n")
            raise reason

        return act

    act = fail_at_length(StackError("its last lines are above"))
    assert perform("rehearse", "self-hosted", act, keep=False) == 1
    said = capsys.readouterr().out
    assert "line 74\n" not in said
    parts = ("line 75\n", "line 99\n", "rehearse.log", "its last lines are above")
    shown = [said.index(each) for each in parts]
    assert shown == sorted(shown)
    # a promise that is broken says why itself
    act = fail_at_length(RehearsalError(REASON))
    assert perform("rehearse", "self-hosted", act, keep=False) == 1
    assert "line 99" not in capsys.readouterr().out


def test_what_keeps_the_emulator_from_ending_is_told_too(
    ended: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stay(_: Session) -> None:
        raise RehearsalError("Docker keeps a network")

    monkeypatch.setattr(Session, "stop", stay)
    assert perform("rehearse", "self-hosted", lambda *_: None, keep=False) == 1
    assert "Docker keeps a network" in capsys.readouterr().out
    assert perform("rehearse", "self-hosted", fail, keep=False) == 1
    said = capsys.readouterr().out
    assert said.index(REASON) < said.index("Docker keeps a network")


def test_keep_leaves_the_emulator_and_says_how_it_ends(
    ended: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "runs", lambda _: True)
    assert perform("rehearse", "self-hosted", fail, keep=True) == 1
    assert ended == []
    assert "`make down STACK=rehearsal`" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_kill_and_a_closed_terminal_end_the_emulator_too(
    number: signal.Signals, ended: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(30)

    def end(_: Session) -> None:
        os.kill(os.getpid(), number)  # it comes from make as well
        ended.append(Path())

    monkeypatch.setattr(Session, "stop", end)
    handler = signal.getsignal(number)
    assert perform("rehearse", "self-hosted", killed, keep=False) == 1
    assert len(ended) == 1
    assert signal.getsignal(number) is handler


def test_with_nohup_a_closed_terminal_ends_nothing(ended: list[Path]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hung_up = perform(
            "rehearse",
            "self-hosted",
            lambda *_: os.kill(os.getpid(), signal.SIGHUP),
            keep=False,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert hung_up == 0


def test_pulumi_is_told_of_the_end_and_waited_for(
    ended: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulumi = tmp_path / "pulumi"
    wait = "trap 'sleep 1; touch ended; exit 1' INT; touch begun; while :; do sleep 0.1; done"
    pulumi.write_text(f"#!/bin/sh\ncd {tmp_path}\n{wait}\n")
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def kill() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill, daemon=True).start()

    def up(rehearsal: Rehearsal, _: Console) -> None:
        Pulumi("rehearsal", tmp_path, log=rehearsal.log).up()

    assert perform("rehearse", "self-hosted", up, keep=False) == 1
    assert (tmp_path / "ended").exists()
    assert len(ended) == 1


def test_what_stands_in_for_prefect_cloud_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rehearse", "--prefect", "cloud", "--keep"])
    with pytest.raises(SystemExit) as refused:
        rehearse.main()
    assert refused.value.code == 2
    assert "ends with this command" in capsys.readouterr().err


# --- what a rehearsal begins with -----------------------------------------------------------------
BOOTSTRAPPED = """
secretsprovider: awskms://alias/trainyard-state?region=eu-central-1
encryptedkey: AQ==
config:
  aws:region: eu-central-1
  trainyard:accountId: "111122223333"
  trainyard:permissionsBoundary: arn:aws:iam::111122223333:policy/ours
"""


def test_a_rehearsal_in_a_bootstrapped_repository_is_about_no_account_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"
    (tmp_path / "Pulumi.account.yaml").write_text(
        f"{BOOTSTRAPPED}"
        "  trainyard:kind: account\n"
        f"  trainyard:githubOidcProviderArn: {provider}\n"
        "  trainyard:deployEnvironments: [staging]\n"
    )
    (tmp_path / "Pulumi.rehearsal.yaml").write_text(
        f"{BOOTSTRAPPED}  trainyard:durable: 'true'\n  trainyard:logDays: '3'\n"
    )
    monkeypatch.setattr("infra.settings.FOLDER", tmp_path)
    monkeypatch.setattr(Session, "start", lambda _: None)
    monkeypatch.setattr(Session, "pulumi", lambda *_: "")
    begun = Session(tmp_path / "home")
    begun.home.mkdir()
    begun.begin()

    def settings(stack: str) -> Settings:
        file = yaml.safe_load((begun.project / f"Pulumi.{stack}.yaml").read_text())
        assert file.keys() == {"config"}
        return parse(stack, as_texts(file["config"]))

    account, rehearsal = settings("account"), settings("rehearsal")
    for each in (account, rehearsal):
        assert (each.account_id, each.permissions_boundary, each.durable) == ("", "", False)
        assert each.region == "us-east-1"
    assert account.github_oidc_provider_arn == ""
    assert "dev" in account.deploy_environments  # whose job deploys in a rehearsal
    assert rehearsal.log_days == 3  # the user's own is kept


def test_what_the_shell_says_of_aws_and_prefect_stays_out(
    ended: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = (
        *("PREFECT_API_KEY", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE"),
        *("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "TRAINYARD_NOTIFY_WEBHOOK"),
    )
    for name in theirs:
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("TRAINYARD_BASE_IMAGE", "kept")
    seen: dict[str, str] = {}
    perform("rehearse", "self-hosted", lambda *_: seen.update(os.environ), keep=False)
    assert "theirs" not in seen.values()
    assert seen["TRAINYARD_BASE_IMAGE"] == "kept"


def test_a_proxy_is_left_out_on_the_rehearsals_own_addresses(
    ended: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    def ask(*_: Any) -> None:
        for host in ("169.254.170.7", "somewhere.invalid"):
            try:
                httpx.get(f"http://{host}/", timeout=1)
            except httpx.HTTPError:
                continue

    proxy = HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    for name in ("no_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet.invalid")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    assert perform("rehearse", "self-hosted", ask, keep=False) == 0
    proxy.shutdown()
    assert asked == ["http://somewhere.invalid/"]


@pytest.mark.parametrize(
    ("docker_says", "told"),
    [
        ("invalid pool request: Pool overlaps with other one on this address space", "network ls"),
        ("Bind for 127.0.0.1:4566 failed: port is already allocated", "port 4566"),
        ("failed to bind host port for 127.0.0.1:4566: address already in use", "port 4566"),
    ],
)
def test_an_address_that_is_taken_is_told_with_what_to_do(
    docker_says: str, told: str, ended: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def docker(*arguments: str, **_: Any) -> Any:
        if arguments[0] in ("network", "run"):
            raise DockerError(docker_says)
        return SimpleNamespace(returncode=0, stdout="")

    monkeypatch.setattr(session, "docker", docker)
    with pytest.raises(RehearsalError, match=rf"(?s){told}.*again"):
        Session(tmp_path).start()
    assert ended[-1] == tmp_path


# --- steps ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("foreseen", "done"),
    [("same", {"same": 3}), ("same", {"same": 2, "update": 1}), ("update", {})],
)
def test_a_second_up_that_changes_something_is_found(foreseen: str, done: dict[str, int]) -> None:
    preview = {"steps": [{"urn": "a::b", "op": foreseen}], "changeSummary": {foreseen: 1}}
    answers = {"preview": preview, "stack": [{"resourceChanges": done}]}
    pulumi = SimpleNamespace(run=lambda *words: json.dumps(answers[words[0]]))
    stack: Any = SimpleNamespace(pulumi=pulumi, up=lambda: None)
    if done == {"same": 3}:
        assert check_unchanged(stack) == "3 resources unchanged"
        return
    with pytest.raises(RehearsalError, match="update"):
        check_unchanged(stack)


# --- what stands in for Prefect Cloud -------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (f"{cloud.WORKSPACE}/flows/1", "right", 200),
        (f"{cloud.WORKSPACE}/flows/1", "wrong", 401),
        (f"{cloud.WORKSPACE}/health", "", 200),
        ("/flows/1", "right", 404),
        ("/health", "right", 404),
        (f"/x/api{cloud.WORKSPACE}/flows/1", "right", 404),
    ],
)
def test_the_workspace_is_all_there_is_and_its_key_opens_it(
    path: str, key: str, status: int
) -> None:
    async def server(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] in ("/api/flows/1", "/api/health")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask() -> int:
        transport = httpx.ASGITransport(cloud.Workspace(server, "right"))
        async with httpx.AsyncClient(transport=transport, base_url="http://here/api") as client:
            answer = await client.get(path, headers={"Authorization": f"Bearer {key}"})
        return answer.status_code

    assert asyncio.run(ask()) == status


def test_a_stand_in_that_was_left_running_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Orphan(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 401)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    orphan = HTTPServer(("127.0.0.1", 0), Orphan)
    threading.Thread(target=orphan.serve_forever, daemon=True).start()
    port = orphan.server_port
    monkeypatch.setattr(cloud, "GATEWAY", "127.0.0.1")
    monkeypatch.setattr(cloud, "PORT", port)
    monkeypatch.setattr(cloud, "URL", f"http://127.0.0.1:{port}/api{cloud.WORKSPACE}")
    new = tmp_path / "python"  # which finds the port taken
    new.write_text("#!/bin/sh\nsleep 1\nexit 1\n")
    new.chmod(0o755)
    monkeypatch.setattr(cloud.sys, "executable", str(new))
    home = tmp_path / "prefect"
    home.mkdir()
    (home / "prefect.db").write_text("of the last rehearsal")
    with pytest.raises(RehearsalError, match="ended"):
        cloud.start(home, "key")
    orphan.shutdown()
    assert not (home / "prefect.db").exists()
