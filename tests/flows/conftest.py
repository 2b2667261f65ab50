"""What is too slow to make for every test: small trained models, an MLflow."""

import contextlib
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tests.flows.taxi.trained import Trained, train_small


@pytest.fixture(scope="session")
def trained() -> Trained:
    return train_small()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """An MLflow on a SQLite file, without a server. Tests share it: each takes names of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    with contextlib.chdir(folder):  # where MLflow then puts artifacts
        return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def client(database: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """`database`, with MLflow's own settings as they were once the test is over."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    return database


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
