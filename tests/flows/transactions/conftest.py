"""A database for each test: SQLite in a file, PostgreSQL in a container."""

import asyncio
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from tests.conftest import docker_answers, free_port

IMAGE = "postgres:16-alpine"
PASSWORD = "database-password"  # noqa: S105


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of the tests' own; gives its URL, without a database."""
    if not docker_answers():
        pytest.skip("no Docker, in which PostgreSQL would run")
    port = free_port()
    run = ["docker", "run", "-d", "--rm", "-e", f"POSTGRES_PASSWORD={PASSWORD}"]
    run += ["-p", f"127.0.0.1:{port}:5432", IMAGE]
    name = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}"
    try:
        # it starts twice: the first time for its own preparations, without a port
        Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.5), reraise=True)(
            _execute, url, "SELECT 1"
        )
        yield url
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", name], check=False, capture_output=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.docker)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database's URL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/transactions.db"
    server, name = request.getfixturevalue("postgresql"), f"test_{uuid.uuid4().hex[:8]}"
    _execute(server, f"CREATE DATABASE {name}")
    return f"{server}/{name}"


def _execute(url: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(f"{url}/postgres", timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())
