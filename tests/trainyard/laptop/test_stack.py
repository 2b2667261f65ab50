from pathlib import Path

import pytest

from trainyard.laptop.stack import Stack


def test_the_flows_database_and_the_logs_share_come_in_and_nothing_else_of_the_users_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_FLOWS_DATABASE", "postgresql://flows@host/flows")
    monkeypatch.setenv("TRAINYARD_SERVE_LOG", "0.1")
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", "s3://elsewhere")
    monkeypatch.setenv("PREFECT_API_KEY", "key")
    environment = Stack(tmp_path).environment()
    assert environment["TRAINYARD_FLOWS_DATABASE"] == "postgresql://flows@host/flows"
    assert environment["TRAINYARD_SERVE_LOG"] == "0.1"
    assert not {"TRAINYARD_ARTIFACT_STORE", "PREFECT_API_KEY"} & environment.keys()
