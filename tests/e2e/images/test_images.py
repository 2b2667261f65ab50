"""What is in the built images, and what they keep to when they run."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from trainyard.delivery import images
from trainyard.delivery.images import IMAGES, LOCKED_DOWN, Built
from trainyard.tools.docker import DockerError, docker

# The first build installs everything.
pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1500),
]

# What is in the lock or in the image, and not in the other.
DIFFERENCE = """
import re
import sys
from importlib.metadata import distributions
from packaging.requirements import Requirement
lines = [line.rstrip(" \\\\\\n") for line in sys.stdin if line[0].isalnum()]
wanted = {
    (r.name, *(s.version for s in r.specifier))
    for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()
}
venv = [path for path in sys.path if path.startswith("/venv/")]
found = {(re.sub("[_.]", "-", d.name.lower()), d.version) for d in distributions(path=venv)}
print(sorted(wanted ^ found))
"""


def config(image: Built) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image.id).stdout)[0]["Config"]
    return found


def inside(image: Built, *command: str, stdin: str = "") -> str:
    """What a command prints in a container as confined as on Fargate."""
    run = ("run", "--rm", "-i", *LOCKED_DOWN, image.id)
    return docker(*run, *command, stdin=stdin).stdout


def test_the_flow_image_is_small_and_every_entrypoint_loads(built: dict[str, Built]) -> None:
    trial = images.smoke_test(built["flow"].id)
    assert list(trial.loads) == images.entrypoints()
    added = built["flow"].size - built["base"].size
    # Seconds are `make image`'s to hold: a test isn't timed.
    assert images.broken_promises(added, trial, timed=False) == []


def test_an_entrypoint_that_does_not_load_is_told(
    built: dict[str, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "entrypoints", lambda: ["flows/taxi/train.py:no_such_flow"])
    with pytest.raises(DockerError, match="no_such_flow"):
        images.smoke_test(built["flow"].id)


@pytest.mark.parametrize("image", ["flow", "mlflow"])
def test_packages_are_those_of_the_lock(built: dict[str, Built], image: str) -> None:
    lock = (ROOT / f"requirements/{image}.txt").read_text()
    assert inside(built[image], "python", "-c", DIFFERENCE, stdin=lock) == "[]\n"


DVC_TWICE = """
from pathlib import Path
from flows.iris import dvc
for container in range(2):
    with dvc.project() as folder:
        for command in (["fetch", "--run-cache"], ["repro", "--pull"], ["push", "--run-cache"]):
            dvc.run(folder, "/tmp/store", *command)
"""


def test_dvc_is_in_the_flow_image_where_it_is_chosen(built: dict[str, Built]) -> None:
    """It works without git and on a read-only disk; what one run pushed, the next one skips."""
    assert inside(built["flow"], "ls", "-A", "/app").split() == [
        "flows",
        "prefect.yaml",
        "trainyard",
    ]
    options = images.build_options("flow", images.current_commit(), "x86_64", ROOT)
    image = docker("build", "-q", "--build-arg=DVC=1", *options).stdout.strip()
    chosen = Built(image, images.size(image), 0)
    assert chosen.size - built["flow"].size < images.DVC_MB * 1e6
    assert inside(chosen, "/app/.venv-dvc/bin/dvc", "--version").startswith("3.")
    first, second = inside(chosen, "python", "-", stdin=DVC_TWICE).split("files pushed")[:2]
    for stage in ("prepare", "train", "evaluate"):
        assert f"Running stage '{stage}'" in first
        assert f"Stage '{stage}' is cached - skipping run" in second


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        ("flow", "trainyard.prefect.__main__, trainyard.prefect.register"),
        ("worker", "trainyard.prefect.migrate, prefect_aws.workers.ecs_worker"),
        ("worker", "trainyard.prefect.patches.lease_storage, trainyard.prefect.patches.worker"),
        ("mlflow", "trainyard.prefect.migrate"),
    ],
)
def test_an_image_holds_what_it_runs_and_no_pulumi(
    built: dict[str, Built], image: str, modules: str
) -> None:
    inside(built[image], "python", "-c", f"import {modules}")
    script = "import importlib.util as u; print(u.find_spec('pulumi'))"
    assert inside(built[image], "python", "-c", script) == "None\n"


def test_a_changed_flow_leaves_the_servers_image_alone(built: dict[str, Built]) -> None:
    script = "from pathlib import Path; print(sorted(p.name for p in Path('/app').iterdir()))"
    assert inside(built["worker"], "python", "-c", script) == "['trainyard']\n"


@pytest.mark.parametrize("image", IMAGES)
def test_there_are_no_tests_and_no_caches(built: dict[str, Built], image: str) -> None:
    # /tmp by its name: it is a volume, into which Docker copies what the image has there.
    script = (
        "find / /tmp -xdev -type d -name 'test' -path '/venv/*' -o -path '*/.cache/*' "
        "-o -type d -name 'tests' -path '/venv/*' "
        "-o -path '/tmp/*' -o -path '/var/cache/uv*' -o -path '/var/cache/pip*'"
    )
    # Its own user can't look into /root.
    found = docker("run", "--rm", "--user", "0", built[image].id, "sh", "-c", script).stdout
    assert found == ""


def test_nothing_is_compiled_when_a_run_starts(built: dict[str, Built]) -> None:
    modules = ", ".join(f"flows.taxi.{name}" for name in ("train", "models", "plots", "search"))
    said = inside(built["flow"], "sh", "-c", f"python -v -c 'import {modules}' 2>&1").splitlines()
    loaded = [line for line in said if line.startswith("# code object from")]
    assert loaded
    assert [line for line in loaded if ".pyc" not in line] == []


def test_a_run_starts_without_waiting_for_what_only_training_needs(built: dict[str, Built]) -> None:
    heavy = {"matplotlib", "optuna", "sklearn", "skops", "xgboost"}
    script = f"import sys, flows.taxi.train; print({heavy} & sys.modules.keys())"
    assert inside(built["flow"], "python", "-c", script) == "set()\n"


@pytest.mark.parametrize("image", IMAGES)
def test_its_user_is_not_root_and_writes_in_tmp_only(built: dict[str, Built], image: str) -> None:
    # No --user and no --tmpfs: the image says both, as a task definition relies on.
    script = "id -u; id -g; echo $HOME; touch /tmp/x; touch /app/x || touch /venv/x || echo refused"
    said = docker("run", "--rm", "--read-only", built[image].id, "sh", "-c", script).stdout
    assert said.split() == ["1000", "1000", "/tmp", "refused"]  # noqa: S108
    owned = docker("run", "--rm", built[image].id, "find", "/app", "/venv", "!", "-user", "root")
    assert owned.stdout == ""


@pytest.mark.parametrize("image", IMAGES)
def test_labels_say_what_it_is_built_from(built: dict[str, Built], image: str) -> None:
    commit = images.current_commit()
    labels = {
        "org.opencontainers.image.source": commit.labels["SOURCE"],
        "org.opencontainers.image.revision": commit.revision,
        "org.opencontainers.image.created": commit.labels["CREATED"],
    }
    assert labels.items() <= config(built[image])["Labels"].items()


def test_the_servers_image_by_itself_says_how_it_is_used(built: dict[str, Built]) -> None:
    assert "Usage: prefect" in inside(built["worker"])


@pytest.mark.parametrize("init", [[], ["--init"]])
def test_it_stops_when_it_is_told_to(built: dict[str, Built], init: list[str]) -> None:
    """As PID 1, and under an init of ECS's own."""
    run = ("sh", "-c", "echo started; exec sleep 60")
    name = docker("run", "-d", *init, *LOCKED_DOWN, built["flow"].id, *run).stdout.strip()
    try:
        while not docker("logs", name).stdout:  # before that nobody passes a signal on
            time.sleep(0.1)
        started = time.monotonic()
        docker("stop", "-t", "30", name)
        assert time.monotonic() - started < 20
        assert docker("inspect", "-f", "{{.State.ExitCode}}", name).stdout == "143\n"
        assert docker("logs", name).stderr == ""
    finally:
        docker("rm", "-f", "-v", name)


def sent(context: Path, tmp_path: Path) -> dict[str, Path]:
    """What a build of a folder sees of it."""
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY . /\n")
    folder = tmp_path / "sent"
    docker("build", "-q", "-f", str(dockerfile), "--output", str(folder), str(context))
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def test_the_context_is_small_and_holds_only_what_images_carry(
    built: dict[str, Built], tmp_path: Path
) -> None:
    files = sent(ROOT, tmp_path)
    assert sum(path.stat().st_size for path in files.values()) < 1.5e6
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert set(files) <= set(tracked)
    assert not [name for name in files if name.startswith(("tests/", "infra/"))]


def test_secrets_and_data_beside_a_flow_stay_out_of_images(
    built: dict[str, Built], tmp_path: Path
) -> None:
    folder = tmp_path / "clone/flows/taxi"
    folder.mkdir(parents=True)
    for name in ("train.py", "zones.csv", ".env", ".env.local", "tls.pem", "tls.key", "a.parquet"):
        (folder / name).touch()
    shutil.copy(ROOT / ".dockerignore", tmp_path / "clone")
    assert set(sent(tmp_path / "clone", tmp_path)) == {
        "flows/taxi/train.py",
        "flows/taxi/zones.csv",
    }


def test_a_private_index_leaves_no_trace(
    built: dict[str, Built], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The build is told the index's address as a secret, which it sees and doesn't keep."""
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://someone:hunter2@index.example/simple")
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nUSER 0\n"
        "RUN --mount=type=secret,id=index grep -q @index.example /run/secrets/index\n"
    )
    image = docker(
        *("build", "-q", "--no-cache", *images.machine_options(), str(tmp_path)),
        f"--build-arg=BASE=trainyard-flow:{images.current_commit().tag}",
    ).stdout.strip()
    assert "hunter2" not in docker("history", "--no-trunc", image).stdout
    assert "hunter2" not in docker("image", "inspect", image).stdout
