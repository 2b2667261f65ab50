"""infra/deployer.py against an emulator's parameters and secrets."""

import os
import sys

import boto3
import pytest

from infra import deployer
from infra.outputs import ProcessWorkPool, StackOutputs

WEBHOOK = "https://hooks.example.com/s3cret"


@pytest.mark.parametrize("own", ["", "https://hooks.example.com/mine"])
def test_where_make_deploy_is_typed_the_webhooks_address_comes_from_its_secret(
    s3: str, own: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = s3.removeprefix("s3://")
    secret = boto3.client("secretsmanager").create_secret(Name=name, SecretString=WEBHOOK)
    outputs = StackOutputs(
        stack="dev",
        prefect_api_url="http://127.0.0.1:9/api",
        tracking_uri="http://127.0.0.1:9",
        artifact_store=s3,
        code_dir="/app",
        work_pool=ProcessWorkPool(name="pool"),
        notify_webhook_secret=secret["ARN"],
    )
    ssm = boto3.client("ssm")
    ssm.put_parameter(Name=f"/{name}", Value=outputs.model_dump_json(), Type="String")
    monkeypatch.setenv("TRAINYARD_NOTIFY_WEBHOOK", own)  # so that it is as it was afterwards
    if not own:
        monkeypatch.delenv("TRAINYARD_NOTIFY_WEBHOOK")
    found = []
    monkeypatch.setattr(deployer, "wait_for_prefect", lambda *_: None)
    monkeypatch.setattr(
        deployer, "register", lambda _: found.append(os.environ["TRAINYARD_NOTIFY_WEBHOOK"]) or []
    )
    monkeypatch.setattr(sys, "argv", ["deployer", f"/{name}", "--register-only"])
    assert deployer.main() == 0
    assert found == [own or WEBHOOK]
    printed = capsys.readouterr()
    assert "s3cret" not in printed.out + printed.err
