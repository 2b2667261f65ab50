from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.e2e.flows.whole_runs import Place, place


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, for copies: making them takes seconds."""
    folder = tmp_path_factory.mktemp("tables")
    with chdir(folder):
        MlflowClient("sqlite:///mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def here(tmp_path: Path, empty_database: Path, prefect_server: str) -> Iterator[Place]:
    """An MLflow and an artifact store of the test's own."""
    with place(tmp_path, empty_database) as result:
        yield result
