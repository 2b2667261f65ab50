"""What happens where Prefect's API is reached: with what a stack's parameter and secrets hold."""

import os
import sys
from types import SimpleNamespace

import boto3
import pytest

from tests.trainyard.aws.fake_stack import OUTPUTS
from trainyard.contract.outputs import ProcessWorkPool, StackOutputs
from trainyard.prefect import __main__ as deployer
from trainyard.prefect.health import check_services

pytestmark = pytest.mark.server

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


def test_an_older_deployer_reads_what_a_newer_program_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = StackOutputs.model_validate(OUTPUTS).model_dump_json().replace("{", '{"fresh": 1, ', 1)
    answer = {"Parameter": {"Value": newer}}
    ssm = SimpleNamespace(get_parameter=lambda Name: answer)
    monkeypatch.setattr(deployer.boto3, "client", lambda name: ssm)
    assert deployer.read_outputs("/trainyard/dev/outputs") == StackOutputs.model_validate(OUTPUTS)


def test_the_doctor_looks_and_registers_nothing(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = StackOutputs(
        stack="dev",
        prefect_api_url=prefect_server,
        tracking_uri="http://127.0.0.1:9",
        artifact_store="/home/me/artifacts",
        code_dir="/app",
        work_pool=ProcessWorkPool(name="never-made"),
    )
    monkeypatch.setattr(deployer, "read_outputs", lambda parameter: outputs)
    monkeypatch.setattr("sys.argv", ["deployer", "/trainyard/dev/outputs", "--doctor"])
    assert deployer.main() == 1
    assert "work pool" in capsys.readouterr().out
    assert "work pool" in {check.what for check in check_services(outputs) if check.failed}
