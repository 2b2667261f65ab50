import pytest
from prefect.variables import Variable

from flows.platform.settings import Settings, SettingsError, load_settings

VARIABLES = {
    "trainyard_artifact_store": "s3://bucket/store",
    "trainyard_tracking_uri": "http://mlflow:5000",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINYARD_ARTIFACT_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(Variable, "get", lambda name: None)


def test_settings_come_from_the_servers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Variable, "get", VARIABLES.get)
    assert load_settings() == Settings("s3://bucket/store", "http://mlflow:5000")


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Variable, "get", VARIABLES.get)
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", "/tmp/store")  # noqa: S108
    assert load_settings() == Settings("/tmp/store", "http://mlflow:5000")  # noqa: S108


def test_all_that_is_missing_is_named_at_once_with_advice() -> None:
    with pytest.raises(
        SettingsError, match=r"TRAINYARD_ARTIFACT_STORE and MLFLOW_TRACKING_URI not set.*`make up`"
    ):
        load_settings()


def test_an_empty_setting_is_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_ARTIFACT_STORE", "a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(SettingsError, match=r"^MLFLOW_TRACKING_URI not set"):
        load_settings()
