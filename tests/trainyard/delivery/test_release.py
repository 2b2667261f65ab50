"""`make release`, `rollback`, `smoke`: their order, what a failure leaves, what is remembered."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.trainyard.aws.fake_stack import OUTPUTS, World
from trainyard.contract.naming import Names
from trainyard.contract.readiness import Servers
from trainyard.contract.release import Images, Release, ReleaseRecord
from trainyard.delivery import release as module
from trainyard.delivery.release import (
    KEPT,
    MAX_BYTES,
    Steps,
    deliver,
    read_history,
    release,
    replacing,
    rollback,
    smoke,
)
from trainyard.tools.errors import StackError

# A commit that this clone has: with Prefect Cloud the deployments come from its files.
HEAD = subprocess.run(
    ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
).stdout.strip()
SELF_HOSTED = ["deployer /trainyard/dev/outputs", "deployer --smoke"]
NEW_SERVERS = ["up", "migrate-mlflow", "migrate-prefect", "up", "deployer --register-only", "up"]


def made(number: int, *, tree: int | None = None, registry: str = "registry.example") -> Release:
    """The release of a day."""

    def image(name: str) -> str:
        return f"{registry}/trainyard/{name}@sha256:{number:064x}"

    images = Images(flow=image("flow"), worker=image("worker"), mlflow=image("mlflow"))
    return Release(commit=HEAD, tree=f"{tree or number:040x}", images=images)


class Stack(World):
    """A stack that takes its images from what was released, as the program does."""

    def __init__(self, *, cloud: bool = False, settings: Mapping[str, str] | None = None):
        super().__init__(Servers(), image="")
        self.cloud, self.config, self.there = cloud, dict(settings or {}), False
        self.deployed_from: list[Path] = []

    def up(self) -> None:
        if not self.there:
            self.parameters |= {"ready": "{}", "release": "{}", "releases": "[]"}
        self.there = True
        if told := json.loads(self.parameters["release"]):
            images = told["release"]["images"]
            self.image = images["flow"]
            self.servers = Servers(images["mlflow"], "" if self.cloud else images["worker"])
        super().up()

    def outputs(self) -> dict[str, Any]:
        if not self.there:
            return {}
        key = "PREFECT_API_KEY" if self.cloud else "PREFECT_API_AUTH_STRING"
        pool = {**OUTPUTS["work_pool"], "api_secret_variable": key}
        return {**super().outputs(), "trainyard": {**OUTPUTS, "work_pool": pool}}

    def settings(self) -> dict[str, str]:
        return {f"trainyard:{k}": v for k, v in self.config.items()}

    def read_parameter(self, name: str) -> str:
        return self.parameters[name.removeprefix("/trainyard/dev/")]

    def run_here(self, command: Sequence[str], environment: Mapping[str, str], code: Path) -> None:
        super().run_here(command, environment, code)
        self.deployed_from.append(code)

    def do(self, command: Any, *given: Release, **options: str) -> list[str]:
        """Run a command; gives what it did to the stack."""
        self.log, self.steps = [], Steps("dev")
        command(self, *given, self.steps, lambda outputs: self, **options)
        return self.log

    def completed(self) -> list[Release]:
        return list(read_history(self, Names("dev")).completed)

    def break_at(self, step: str, command: Any, *given: Release) -> None:
        self.broken = step
        with pytest.raises(StackError, match=step):
            self.do(command, *given)


def released(*releases: Release, cloud: bool = False) -> Stack:
    """A stack that completed these releases, one after the other."""
    stack = Stack(cloud=cloud)
    for each in releases:
        stack.do(release, each)
    return stack


# --- the order ------------------------------------------------------------------------------------
def test_a_stack_is_made_migrated_deployed_and_tried() -> None:
    stack = Stack()
    assert stack.do(release, made(1)) == ["up", *NEW_SERVERS, *SELF_HOSTED]
    assert stack.completed() == [made(1)]
    assert stack.running == {"mlflow", "prefect", "worker"}
    steps = [what for what, *_ in stack.steps.rows]
    assert steps[0] == "a new stack"
    assert steps[-2:] == ["deployments", "smoke run"]


def test_with_prefect_cloud_the_deployments_come_from_the_releases_commit() -> None:
    stack = released(made(1), cloud=True)
    assert stack.do(release, made(2)) == ["up", "migrate-mlflow", "up", "here", "here --smoke"]
    assert all(code != module.REPO and not code.exists() for code in stack.deployed_from[-2:])


def test_a_commit_that_the_clone_lacks_is_named_with_what_to_type() -> None:
    stack, lost = released(made(1), cloud=True), "0" * 40
    with pytest.raises(StackError, match=f"git fetch origin {lost}"):
        stack.do(release, made(2).model_copy(update={"commit": lost}))
    assert stack.log == []
    assert stack.image == made(1).images.flow


# --- nothing to do --------------------------------------------------------------------------------
def test_the_same_files_again_change_nothing() -> None:
    stack = released(made(1), made(2))
    assert stack.do(release, made(3, tree=2)) == []
    assert "nothing to deploy" in stack.steps.title
    assert stack.completed() == [made(2), made(1)]


def test_the_same_files_are_deployed_where_something_else_was_begun() -> None:
    stack = released(made(1))
    stack.break_at("up", release, made(2))
    assert stack.do(release, made(1))[-2:] == SELF_HOSTED
    assert stack.completed() == [made(1)]


# --- a release that ends half-way -----------------------------------------------------------------
@pytest.mark.parametrize(
    "step", ["up", "migrate-prefect", "deployer --register-only", *SELF_HOSTED]
)
def test_a_release_that_broke_is_finished_by_the_next(step: str) -> None:
    stack = released(made(1))
    stack.break_at(step, release, made(2))
    assert stack.steps.rows[-1][2] is False
    assert stack.steps.next == "make rollback STACK=dev"
    assert stack.completed() == [made(1)]
    assert stack.do(release, made(2))[-2:] == SELF_HOSTED
    assert stack.completed() == [made(2), made(1)]


def test_the_first_release_that_breaks_has_nothing_to_go_back_to() -> None:
    stack = Stack()
    stack.break_at("deployer --smoke", release, made(1))
    assert stack.steps.next == "make release STACK=dev"
    with pytest.raises(StackError, match="completed no release"):
        stack.do(rollback)


def test_a_release_whose_place_another_takes_says_so() -> None:
    class Overtaken(Stack):
        def up(self) -> None:
            if self.told_late:
                late = ReleaseRecord(release=made(3), completed=False)
                self.parameters["release"] = late.model_dump_json()
            super().up()

        told_late = False

    stack = Overtaken()
    stack.do(release, made(1))
    stack.told_late = True
    with pytest.raises(StackError, match="another one"):
        stack.do(release, made(2))
    assert stack.completed() == [made(1)]


# --- `make up` after a release --------------------------------------------------------------------
def test_make_up_afterwards_keeps_what_was_released() -> None:
    stack = released(made(1), made(2))
    assert stack.make_up() == ["up"]
    assert stack.image == made(2).images.flow
    assert stack.running == {"mlflow", "prefect", "worker"}


def test_images_in_the_settings_are_refused_before_anything_is_done() -> None:
    stack = released(made(1))
    stack.config["flowImage"] = made(7).images.flow
    for command, given in ((release, [made(2)]), (rollback, [])):
        with pytest.raises(
            StackError,
            match=r"flowImage in the settings of dev .*pulumi --cwd infra config rm NAME`",
        ):
            stack.do(command, *given)
        assert stack.log == []


# --- going back -----------------------------------------------------------------------------------
def test_rollback_goes_to_the_one_before_and_further_when_repeated() -> None:
    stack = released(made(1), made(2), made(3))
    assert stack.do(rollback)[-2:] == SELF_HOSTED
    assert (stack.image, stack.completed()) == (made(2).images.flow, [made(2), made(1)])
    stack.do(rollback)
    assert stack.completed() == [made(1)]
    with pytest.raises(StackError, match="which it runs"):
        stack.do(rollback)


def test_rollback_after_a_failed_release_goes_to_the_last_good_one() -> None:
    stack = released(made(1), made(2))
    stack.break_at("deployer --smoke", release, made(3))
    stack.do(rollback)
    assert (stack.image, stack.completed()) == (made(2).images.flow, [made(2), made(1)])


def test_a_rollback_that_broke_goes_no_further_when_repeated() -> None:
    stack = released(made(1), made(2), made(3))
    stack.break_at("deployer --smoke", rollback)
    assert stack.steps.next == "make rollback STACK=dev"
    stack.do(rollback)
    assert stack.completed() == [made(2), made(1)]


@pytest.mark.parametrize("again", [rollback, release])
def test_a_way_back_that_broke_twice_goes_no_further_either(again: Any) -> None:
    stack = released(made(1), made(2))
    stack.break_at("deployer --smoke", release, made(3))
    stack.break_at("up", rollback)
    assert stack.do(again, *([made(2)] if again is release else []))[-2:] == SELF_HOSTED
    assert stack.completed() == [made(2), made(1)]


def test_what_was_rolled_back_can_be_released_again() -> None:
    stack = released(made(1), made(2))
    stack.do(rollback)
    stack.do(release, made(2))
    assert stack.completed() == [made(2), made(1)]


# --- going back over a Prefect version ------------------------------------------------------------
@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Release, Release]:
    """Two releases, of a repository whose second commit brings a newer Prefect."""
    monkeypatch.setattr("trainyard.tools.git.REPO", tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    lock = tmp_path / "requirements/flow.txt"
    lock.parent.mkdir()
    releases = []
    for number, version in enumerate(("3.9.1", "3.10.0"), 1):
        lock.write_text(f"prefect-aws==0.7.12\nprefect=={version} \\\n    --hash=sha256:1\n")
        subprocess.run([*git, "add", "-A"], cwd=tmp_path, check=True)
        subprocess.run([*git, "commit", "-qm", version], cwd=tmp_path, check=True)
        head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tmp_path, text=True)
        releases.append(made(number).model_copy(update={"commit": head.strip()}))
    return releases[0], releases[1]


@pytest.mark.parametrize("command", [rollback, release])
def test_an_older_prefect_is_refused_before_anything_is_changed(
    older: tuple[Release, Release], command: Any
) -> None:
    stack = released(*older)
    noted = dict(stack.parameters)
    with pytest.raises(
        StackError, match=r"has Prefect 3\.9\.1, .* by Prefect 3\.10\.0: .*Going back"
    ):
        stack.do(command, *([older[0]] if command is release else []))
    assert stack.log == []
    assert stack.parameters == noted
    assert stack.steps.next == ""


def test_prefects_versions_are_known_in_a_clone_of_one_commit(
    older: tuple[Release, Release], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = (
        each.model_copy(update={"commit": digit * 40, "prefect": version})
        for each, digit, version in zip(older, "12", ("3.9.1", "3.10.0"), strict=True)
    )
    stack = released(old, new)
    assert stack.completed() == [new, old]
    with pytest.raises(StackError, match=r"has Prefect 3\.9\.1, .* by Prefect 3\.10\.0"):
        stack.do(rollback)
    assert "not checked" not in capsys.readouterr().out


def test_a_record_without_prefects_version_is_passed_over_and_it_is_said(
    older: tuple[Release, Release], capsys: pytest.CaptureFixture[str]
) -> None:
    stack = released(older[0].model_copy(update={"commit": "1" * 40}))
    assert stack.do(release, older[1])[-2:] == SELF_HOSTED
    assert "nobody noted which one 111111111111 has" in capsys.readouterr().out


def test_a_record_gets_prefects_version_when_its_release_comes_again() -> None:
    before = made(1)
    stack = released(before)
    stack.break_at("up", release, made(2))
    again = before.model_copy(update={"prefect": "3.9.1"})
    stack.do(release, again)
    assert stack.completed() == [again]


def test_with_a_revision_the_database_goes_back_first(older: tuple[Release, Release]) -> None:
    stack = released(*older)
    stack.log, steps = [], Steps("dev")
    backend: Any = stack
    stack.broken = "migrate-prefect d4a7e1c93f52"
    with pytest.raises(StackError):
        rollback(backend, steps, lambda outputs: backend, database="d4a7e1c93f52")
    assert stack.image == older[1].images.flow
    assert json.loads(stack.parameters["release"])["completed"]
    rollback(backend, steps, lambda outputs: backend, database="d4a7e1c93f52")
    assert stack.log[:2] == ["migrate-prefect d4a7e1c93f52", "up"]
    assert stack.log[-2:] == SELF_HOSTED
    assert stack.completed() == [older[0]]


def test_a_way_back_that_broke_after_the_database_is_repeated_with_the_same_words(
    older: tuple[Release, Release],
) -> None:
    stack = released(*older)
    stack.broken = "up"
    with pytest.raises(StackError):
        stack.do(rollback, database="d4a7e1c93f52")
    assert stack.do(rollback, database="d4a7e1c93f52")[-2:] == SELF_HOSTED
    assert stack.completed() == [older[0]]


def test_a_database_goes_back_for_no_newer_prefect_and_for_none_that_is_unknown(
    older: tuple[Release, Release],
) -> None:
    old, new = older
    stack = released(old)
    lost = made(3).model_copy(update={"commit": "1" * 40})
    alike = made(4).model_copy(update={"commit": "2" * 40, "prefect": "3.9.1"})
    for wanted, told in (
        (new, r"has Prefect 3\.10\.0, .* Prefect 3\.9\.1, "),
        (alike, r"has Prefect 3\.9\.1, .* Prefect 3\.9\.1, "),
        (lost, f"git fetch origin {lost.commit}"),
        (old, "runs .* already"),
    ):
        with pytest.raises(StackError, match=told):
            stack.do(release, wanted, database="d4a7e1c93f52")
        assert stack.log == []


@pytest.mark.parametrize("cloud", [True, False])
def test_a_database_is_refused_where_the_stack_has_none(cloud: bool) -> None:
    stack = released(made(1), cloud=True) if cloud else Stack()
    with pytest.raises(StackError, match="no Prefect server of its own" if cloud else "isn't up"):
        stack.do(release, made(2), database="d4a7e1c93f52")
    assert stack.log == []


def test_with_prefect_cloud_its_version_is_not_asked_for() -> None:
    stack, lost = released(made(1), cloud=True), "0" * 40
    told = ReleaseRecord(release=made(1).model_copy(update={"commit": lost}), completed=True)
    stack.parameters["release"] = told.model_dump_json()
    assert stack.do(release, made(2))[-1] == "here --smoke"


# --- what is remembered ---------------------------------------------------------------------------
def test_a_parameter_holds_what_is_remembered() -> None:
    stack = released(*(made(each) for each in range(1, 9)))
    assert stack.completed() == [made(each) for each in range(8, 8 - KEPT, -1)]
    assert len(stack.parameters["releases"]) <= MAX_BYTES


def test_long_names_of_a_registry_cost_the_oldest() -> None:
    stack = released(*(made(each, registry="r" * 300) for each in range(1, 9)))
    assert len(stack.parameters["releases"]) <= MAX_BYTES
    assert 1 < len(stack.completed()) < KEPT


# --- what people see ------------------------------------------------------------------------------
def test_smoke_runs_the_smoke_deployment_and_nothing_else() -> None:
    stack = released(made(1))
    assert stack.do(smoke) == ["deployer --smoke"]


def test_smoke_before_the_first_release_says_what_is_missing() -> None:
    with pytest.raises(StackError, match="dev"):
        Stack().do(smoke)


def test_who_takes_whose_place_is_said_and_that_it_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    monkeypatch.setattr("trainyard.tools.git.REPO", tmp_path)
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    commits = []
    for message in ("first", "second"):
        new = ["commit", "-q", "--allow-empty", "-m", message]
        subprocess.run([*git, *new], cwd=tmp_path, check=True)
        said = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        commits.append(made(1).model_copy(update={"commit": said.stdout.strip()}))
    first, second = commits
    one, two = first.commit[:12], second.commit[:12]
    assert (
        replacing(second, ReleaseRecord(release=first, completed=True))
        == f"{two} in place of {one}"
    )
    assert (
        replacing(first, ReleaseRecord(release=second, completed=True))
        == f"{one} (older) in place of {two}"
    )


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where GitHub shows a job's summary from."""
    path = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def test_a_failure_is_in_the_jobs_summary_with_what_to_type(
    summary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def bring(stack: Any, wanted: Release, steps: Steps, database: str) -> None:
        release(stack, wanted, steps, lambda outputs: stack)

    stack: Any = released(made(1))
    stack.broken = "deployer --smoke"
    made(2).write(tmp_path / "release.json")
    monkeypatch.setattr(module, "RELEASE_FILE", tmp_path / "release.json")
    monkeypatch.setattr(module, "release", bring)
    assert deliver("release", "dev", lambda: stack) == 1
    lines = summary.read_text().splitlines()
    assert lines[0].startswith(f"### dev: {HEAD[:12]}")
    assert lines[0].endswith(" failed")
    assert "| ✓ | deployments | 0 |" in lines
    assert "| ✗ | smoke run | 0 |" in lines
    assert lines[-3:-1] == ["", "Next: `make rollback STACK=dev`"]
    assert "next: make rollback STACK=dev" in capsys.readouterr().out


def test_without_a_published_release_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "REPO", tmp_path)
    monkeypatch.setattr(module, "RELEASE_FILE", tmp_path / ".trainyard/release.json")
    assert deliver("release", "dev", lambda: pytest.fail("opened")) == 1
    assert "`make publish`" in capsys.readouterr().out
    (tmp_path / ".trainyard").mkdir()
    (tmp_path / ".trainyard/release.json").write_text("{}")
    assert deliver("release", "dev", lambda: pytest.fail("opened")) == 1
    assert "release.json isn't what `make publish` writes" in capsys.readouterr().out


def test_a_release_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made(1).write(tmp_path / "deep/release.json")
    assert Release.read(tmp_path / "deep/release.json") == made(1)
