from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.flows.lifecycle.models import Pipeline


@pytest.fixture
def pipeline(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline without versions yet, whose spec is where a registered model may say it is."""
    made = Pipeline(client, str(tmp_path / "store"))
    monkeypatch.setattr("flows.wine.spec.TESTED", made.spec, raising=False)
    return made
