"""A Prefect server's client, and a project for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client

from tests.trainyard.prefect.projects import Project


@pytest.fixture(scope="module")
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def project(client: SyncPrefectClient, prefect_server: str, tmp_path: Path) -> Project:
    return Project(client, prefect_server, tmp_path)
