"""A rehearsal's AWS: what it is told of the user's, and what keeps it from starting."""

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from trainyard.contract.settings import Settings
from trainyard.contract.stack_config import as_texts, parse
from trainyard.rehearsal import emulator_session
from trainyard.rehearsal.emulator_session import RehearsalError, Session
from trainyard.tools.docker import DockerError

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
    monkeypatch.setattr("trainyard.contract.stack_config.PROGRAM", tmp_path)
    monkeypatch.setattr(Session, "start", lambda _: None)
    up = SimpleNamespace(up=lambda: None)
    monkeypatch.setattr(
        Session, "pulumi", lambda *_, **__: SimpleNamespace(make=lambda: None, api=up)
    )
    monkeypatch.setattr(emulator_session, "inventory", lambda _: {})
    begun = Session(tmp_path / "home")
    begun.home.mkdir()
    begun.begin()

    def settings(stack: str) -> Settings:
        file = yaml.safe_load((begun.project / f"Pulumi.{stack}.yaml").read_text())
        assert file.keys() == {"config"}
        return parse(stack, as_texts(file["config"]), Settings)

    account, rehearsal = settings("account"), settings("rehearsal")
    for each in (account, rehearsal):
        assert (each.account_id, each.permissions_boundary, each.durable) == ("", "", False)
        assert each.region == "us-east-1"
    assert account.github_oidc_provider_arn == ""
    assert "dev" in account.deploy_environments  # whose job deploys in a rehearsal
    assert rehearsal.log_days == 3  # the user's own is kept


def test_a_proxy_is_left_out_on_the_rehearsals_own_addresses(
    shell: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    proxy = HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    for name in ("no_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet.invalid")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    Session(tmp_path).alone()
    for host in ("169.254.170.7", "somewhere.invalid"):
        with suppress(httpx.HTTPError):
            httpx.get(f"http://{host}/", timeout=1)
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
    docker_says: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def docker(*arguments: str, **_: Any) -> Any:
        if arguments[0] in ("network", "run"):
            raise DockerError(docker_says)
        return SimpleNamespace(returncode=0, stdout="")

    ended = list[Path]()
    monkeypatch.setattr(emulator_session, "docker", docker)
    monkeypatch.setattr(Session, "stop", lambda session: ended.append(session.home))
    with pytest.raises(RehearsalError, match=rf"(?s){told}.*again"):
        Session(tmp_path).start()
    assert ended[-1] == tmp_path
