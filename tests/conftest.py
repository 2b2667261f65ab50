"""What tests of several folders share: servers on loopback and data that a machine may have."""

import os
import re
import socket
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import httpx
import pytest
from hypothesis import settings as hypothesis_settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from trainyard.paths import REPO as ROOT
from trainyard.tools.docker import DockerError, client

# An example's time says how busy the machine is, and nothing of the code.
hypothesis_settings.register_profile("any machine", deadline=None)
hypothesis_settings.load_profile("any machine")

# Tier -> how long it takes on two cores. `make test` runs the first two.
TIERS = {
    "unit": "1 minute",
    "server": "6 minutes",
    "docker": "4 minutes",
    "audit": "1 minute",
    "pulumi": "3 minutes",
    "emulator": "30 minutes",
}
# For a `make` within a test: the environments are there, and one of them runs the test.
STAMPS = ("-o.venv/.laptop", "-o.venv-infra/.infra", "-o.venv-policy/.policy")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a tier or a folder that there isn't, with the one that was meant."""
    tiers = set(re.findall(r"\w+", config.getoption("markexpr"))) - {"and", "or", "not"}
    named = {each.partition("::")[0].rstrip("/") for each in config.args}
    there = [f"{path.relative_to(ROOT)}" for path in (ROOT / "tests").rglob("*")]
    folders = {each for each in named if not Path(config.invocation_params.dir, each).exists()}
    for given, known in ((tiers - TIERS.keys(), [*TIERS]), (folders, there)):
        for each in given:
            meant = get_close_matches(each, known, n=1) or known[:9]
            raise pytest.UsageError(f"there is no {each}; did you mean {', '.join(meant)}?")


class ByFile(LoadFileScheduling):
    """A file's tests run in one process, and the laptop's files in one: stacks of two clones that
    start in the same second would want the same ports.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "laptop" if file.startswith("tests/e2e/laptop/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)  # before the choice of tiers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its tier: its own mark or its module's, or `unit`."""
    for item in items:
        tiers = [mark.name for mark in item.iter_markers() if mark.name in TIERS]
        if not tiers:
            item.add_marker("unit")
        elif len(set(tiers)) > 1:
            raise pytest.UsageError(f"{item.nodeid} is of more than one tier: {tiers}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how long each tier's tests took, which tiers were left out, and how long those take."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for tier in TIERS.keys() & getattr(report, "keywords", {}):
                seconds[tier] += round(getattr(report, "duration", 0))
    lines = [f"{seconds[tier]:5d} s  tests of the tier {tier}" for tier in TIERS if seconds[tier]]
    for line in lines:
        terminalreporter.write_line(line)
    if table := os.environ.get("TRAINYARD_CI_TABLE"):
        with Path(table).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
    chosen = os.environ.get("TIERS") or config.getoption("markexpr")
    left = [f"{tier} ({took})" for tier, took in TIERS.items() if tier not in chosen]
    if chosen and left:
        terminalreporter.write_line(f"not run: {', '.join(left)}. `make test ALL=1` runs all.")


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server of its own for the flows under test; gives its API's URL."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_MESSAGING_BROKER,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    from trainyard.prefect.register import CONCURRENCY_LIMITS

    settings = {
        # each heartbeat thread costs a synchronous flow a second at its end
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_HOME: tmp_path_factory.mktemp("prefect"),
        PREFECT_MESSAGING_BROKER: "trainyard.prefect.patches.sqlite_messaging",
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=120):
        with get_client(sync_client=True) as client:
            for name, limit in CONCURRENCY_LIMITS.items():
                wanted = GlobalConcurrencyLimitCreate(name=name, limit=limit)
                client.create_global_concurrency_limit(wanted)
        yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The AWS emulator of a rehearsal, without containers; gives its endpoint."""
    with emulated_aws(tmp_path_factory.mktemp("ministack")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another one's endpoint, for tests of what is in an account: no flow writes there."""
    with emulated_aws(tmp_path_factory.mktemp("emulator")) as endpoint:
        yield endpoint


@contextmanager
def emulated_aws(folder: Path) -> Iterator[str]:
    """The rehearsal's emulator on a loopback port, with IAM enforced; gives its endpoint."""
    python = ROOT / ".venv-emulator/bin/python"
    if not python.exists():
        pytest.skip("no .venv-emulator: `make test` builds it")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        # It would remove a rehearsal's database, which it takes for an old one of its own.
        "DOCKER_HOST": "unix:///without-docker",
        "AUTH": "true",
    }
    log = folder / "log.txt"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [python, ROOT / "trainyard/rehearsal/emulator/emulator.py"],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            _wait_for(f"{endpoint}/_ministack/health", process, log)
            yield endpoint
        finally:
            process.terminate()


@pytest.fixture
def s3(ministack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket on the emulator, as an s3:// URI; AWS_* lead every client there, as root."""
    # imported here, because they would slow the start of every test that doesn't need them
    import boto3
    from s3fs import S3FileSystem

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")  # boto3 reads this one
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    bucket = f"trainyard-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    # fsspec keeps its clients, with the credentials that they were made with
    S3FileSystem.clear_instance_cache()
    yield f"s3://{bucket}"
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def shell() -> Iterator[None]:
    """Variables of this process may change: they are as before afterwards."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def tlc_data() -> Path:
    """The folder of real TLC months that TLC_DATA names."""
    if not (folder := os.environ.get("TLC_DATA")):
        pytest.skip(
            "TLC_DATA is not set: name a folder with green_tripdata_2023-01.parquet and -02"
        )
    return Path(folder)


def docker_answers() -> bool:
    try:
        return bool(client())
    except DockerError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx.get(url, timeout=2).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    process.terminate()
    pytest.fail(f"the emulator did not start:\n{log.read_text()[-2000:]}")
