import pytest

from flows.platform.settings import Settings, SettingsError, load_settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", "s3://bucket/store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.delenv("TRAINYARD_FLOWS_DATABASE", raising=False)
    assert load_settings() == Settings("s3://bucket/store", "http://mlflow:5000", "")
    monkeypatch.setenv("TRAINYARD_FLOWS_DATABASE", "postgresql://flows@host/flows")
    assert load_settings().database == "postgresql://flows@host/flows"


def test_all_that_is_missing_is_named_at_once_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINYARD_ARTIFACT_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(
        SettingsError, match=r"TRAINYARD_ARTIFACT_STORE and MLFLOW_TRACKING_URI not set.*`make up`"
    ):
        load_settings()


def test_an_empty_setting_is_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", "a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(SettingsError, match=r"^MLFLOW_TRACKING_URI not set"):
        load_settings()


def test_the_share_of_logged_requests_is_all_or_what_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", "a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "b")
    monkeypatch.delenv("TRAINYARD_SERVE_LOG", raising=False)
    assert load_settings().serve_log == 1
    monkeypatch.setenv("TRAINYARD_SERVE_LOG", "0.25")
    assert load_settings().serve_log == 0.25
    for given in ("all", "10%", "-0.1", "1.1", "nan"):
        monkeypatch.setenv("TRAINYARD_SERVE_LOG", given)
        with pytest.raises(SettingsError, match=f"TRAINYARD_SERVE_LOG={given}: write a share"):
            load_settings()
