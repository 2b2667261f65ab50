"""What GitHub runs: steps that run here too, with the least rights, on actions that can't be moved.

Each rule is shown to find the mistake that it is for.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, TIERS
from tests.test_makefile import variables
from trainyard.contract.naming import PREVIEW_ENVIRONMENT
from trainyard.contract.settings import Settings

FOLDER = ROOT / ".github/workflows"
NAMES = ["ci.yml", "deploy.yml", "destroy.yml", "drift.yml"]
STACKS: list[str] = list(Settings.model_fields["deploy_environments"].default)
ANY_STACK = "${{ inputs.stack }}"

# What a step may run beside `make`.
COMMANDS = {
    'gh pr comment "$PULL_REQUEST" --edit-last --create-if-none --body-file .trainyard/preview.md',
    'test "$STACK" = "$TYPED"',
    "sudo apt-get update -qq && sudo apt-get install -qq docker-registry skopeo"
    " && sudo systemctl disable --now docker-registry",
    'echo "::notice title=Nothing is deployed yet::'
    'make bootstrap STACK=dev REPO=$GITHUB_REPOSITORY sets it up"',
}
# Who may write what, by what it runs.
WRITES = {
    "id-token": "aws-actions/configure-aws-credentials@",
    "pull-requests": "gh pr comment ",
    "issues": "make drift ",
}

Job = dict[str, Any]


@dataclass(frozen=True)
class Workflow:
    """A workflow file."""

    text: str

    @cached_property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.text)
        return found

    @property
    def triggers(self) -> dict[str, Any]:
        # YAML 1.1 reads `on` as true
        found: dict[str, Any] = self.document[True]  # type: ignore[index]
        return found

    @property
    def jobs(self) -> dict[str, Job]:
        found: dict[str, Job] = self.document["jobs"]
        return found

    @property
    def runs(self) -> list[str]:
        return [command for job in self.jobs.values() for command in commands(job)]


@cache
def read(name: str) -> Workflow:
    return Workflow((FOLDER / name).read_text())


def commands(job: Job) -> list[str]:
    return [step["run"].strip() for step in job["steps"] if "run" in step]


def roles(job: Job) -> list[str]:
    """The variables that name the roles a job takes."""
    found = [step.get("with", {}).get("role-to-assume", "") for step in job["steps"]]
    return [re.sub(r".*vars\.(\w+).*", r"\1", role) for role in found if role]


Rule = Callable[[Workflow], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    RULES[check.__name__] = check
    return check


@rule
def steps_are_make_targets(workflow: Workflow) -> Iterator[str]:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    for command in workflow.runs:
        if command in COMMANDS:
            continue
        called = re.fullmatch(r'make ([a-z-]+)((?: [A-Z]+=(?:[\w/-]+|"[\w/$-]+"))*)', command)
        if not called:
            yield f"neither a make target nor a known command: {command}"
        elif called[1] not in targets:
            yield f"the Makefile has no {called[1]}"
        else:
            for name in re.findall(r" ([A-Z]+)=", called[2]):
                if name not in variables(called[1]):
                    yield f"make {called[1]} doesn't take {name}"


@rule
def steps_expand_nothing(workflow: Workflow) -> Iterator[str]:
    for command in workflow.runs:
        if "${{" in command:
            yield f"expanded before the shell reads it: {command}"


@rule
def actions_are_pinned(workflow: Workflow) -> Iterator[str]:
    for line in re.findall(r"uses: (.+)", workflow.text):
        if not re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+(\.\d+)*", line):
            yield f"not by commit and version: {line}"


@rule
def actions_are_the_same_everywhere(workflow: Workflow) -> Iterator[str]:
    everywhere = workflow.text + "".join(read(name).text for name in NAMES)
    versions: dict[str, str] = {}
    for action, version in re.findall(r"uses: (.+?)@(.+)", everywhere):
        if versions.setdefault(action, version) != version:
            yield f"{action} in two versions"


@rule
def pulumi_is_the_locked_one(workflow: Workflow) -> Iterator[str]:
    locked = re.search(r"^pulumi==(\S+)", (ROOT / "requirements/infra.txt").read_text(), re.M)
    assert locked
    for job in workflow.jobs.values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("pulumi/actions@"):
                version = step.get("with", {}).get("pulumi-version")
                if version != locked[1]:
                    yield f"pulumi-version is {version}; requirements/infra.txt has {locked[1]}"


@rule
def rights_are_the_least(workflow: Workflow) -> Iterator[str]:
    if workflow.document.get("permissions") != {}:
        yield "jobs have rights by default"
    for name, job in workflow.jobs.items():
        if "permissions" not in job:
            yield f"{name} says no permissions"
        does = [step.get("uses", "") + step.get("run", "") for step in job["steps"]]
        for scope, right in (job.get("permissions") or {}).items():
            use = WRITES.get(scope, "never")
            if right == "write" and not any(each.startswith(use) for each in does):
                yield f"{name} may write {scope} and has no use for it"


@rule
def no_secret_is_kept_in_github(workflow: Workflow) -> Iterator[str]:
    for found in re.findall(r"secrets\.\w+|aws-access-key-id|secrets: inherit", workflow.text):
        yield f"reads {found}"


@rule
def clones_keep_no_token(workflow: Workflow) -> Iterator[str]:
    for name, job in workflow.jobs.items():
        for step in job["steps"]:
            kept = step.get("with", {}).get("persist-credentials")
            if step.get("uses", "").startswith("actions/checkout@") and kept is not False:
                yield f"{name}'s clone keeps the job's token"


@rule
def jobs_end(workflow: Workflow) -> Iterator[str]:
    for name, job in workflow.jobs.items():
        if not isinstance(job.get("timeout-minutes"), int):
            yield f"{name} has no time-out"


@rule
def forks_get_no_credentials(workflow: Workflow) -> Iterator[str]:
    for event in ("pull_request_target", "workflow_run"):
        if event in workflow.triggers:
            yield f"{event} runs a fork's code with this repository's rights"
    same = "github.event.pull_request.head.repo.full_name == github.repository"
    for name, job in workflow.jobs.items():
        reachable = "pull_request" in workflow.triggers and "environment" in job
        if reachable and same not in job.get("if", ""):
            yield f"{name} runs for forks"


@rule
def environments_are_those_that_the_roles_trust(workflow: Workflow) -> Iterator[str]:
    for name, job in workflow.jobs.items():
        where, taken = job.get("environment"), roles(job)
        if taken and not where:
            yield f"{name} takes a role in no environment"
        for role in taken:
            if role == "AWS_PREVIEW_ROLE_ARN":
                trusted = [PREVIEW_ENVIRONMENT]
            elif where == ANY_STACK:
                choice = workflow.triggers["workflow_dispatch"]["inputs"]["stack"]
                if choice.get("options") != STACKS:
                    yield f"a stack is not one of {STACKS}"
                continue
            else:
                trusted = STACKS
            if where not in trusted:
                yield f"{name} runs in {where}: {role} trusts {trusted}"


@rule
def one_job_at_a_time_changes_a_stack(workflow: Workflow) -> Iterator[str]:
    for name, job in workflow.jobs.items():
        if "AWS_DEPLOY_ROLE_ARN" not in roles(job):
            continue
        queue = job.get("concurrency", {})
        group = "publish" if "make publish" in commands(job) else f"stack-{job['environment']}"
        if queue.get("group") != group:
            yield f"{name} doesn't wait in {group}"
        if queue.get("cancel-in-progress") is not False:
            yield f"{name} may be cancelled halfway"


@rule
def variables_are_explained(workflow: Workflow) -> Iterator[str]:
    head = read("deploy.yml").text.split("\nname:")[0]
    for name in sorted(set(re.findall(r"vars\.(\w+)", workflow.text))):
        if not re.search(rf"\b{name}\b", head):
            yield f"deploy.yml doesn't say what {name} is"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", RULES)
def test_rule(name: str, check: str) -> None:
    assert list(RULES[check](read(name))) == []


@pytest.mark.parametrize(
    ("check", "name", "old", "new", "said"),
    [
        ("steps_are_make_targets", "ci.yml", "run: make check", "run: pytest", "pytest"),
        ("steps_are_make_targets", "ci.yml", "run: make check", "run: make chekc", "no chekc"),
        (
            "steps_are_make_targets",
            "deploy.yml",
            "run: make release STACK=dev",
            "run: make release STAGE=dev",
            "STAGE",
        ),
        (
            "steps_are_make_targets",
            "drift.yml",
            'run: make drift STACK="$STACK" ISSUE=1',
            "run: make drift && curl https://example.com",
            "curl",
        ),
        (
            "steps_expand_nothing",
            "destroy.yml",
            'make down STACK="$STACK"',
            "make down STACK=${{ inputs.stack }}",
            "inputs.stack",
        ),
        (
            "actions_are_pinned",
            "ci.yml",
            "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
            "@v7",
            "checkout@v7",
        ),
        ("actions_are_pinned", "ci.yml", " # v7.0.1", "", "checkout@3d3c"),
        (
            "actions_are_the_same_everywhere",
            "ci.yml",
            "@3d3c42e5",
            "@4d3c42e5",
            "actions/checkout in two",
        ),
        ("pulumi_is_the_locked_one", "drift.yml", "pulumi-version: ", "pulumi-version: 9", "is 9"),
        ("rights_are_the_least", "ci.yml", "permissions: {}", "permissions: read-all", "default"),
        (
            "rights_are_the_least",
            "ci.yml",
            "      contents: read",
            "      contents: write",
            "check may write contents",
        ),
        (
            "rights_are_the_least",
            "deploy.yml",
            "  id-token: write",
            "  issues: write",
            "publish may write issues",
        ),
        (
            "rights_are_the_least",
            "drift.yml",
            "    permissions:\n      contents: read # the clone\n",
            "    concurrency:\n",
            "drift says no permissions",
        ),
        (
            "no_secret_is_kept_in_github",
            "ci.yml",
            "github.token",
            "secrets.AWS_KEY",
            "secrets.AWS_KEY",
        ),
        (
            "clones_keep_no_token",
            "ci.yml",
            "persist-credentials: false",
            "fetch-depth: 1",
            "check's clone",
        ),
        ("jobs_end", "drift.yml", "timeout-minutes: 20", "continue-on-error: true", "drift has no"),
        (
            "forks_get_no_credentials",
            "ci.yml",
            "&& github.event.pull_request.head.repo.full_name == github.repository",
            "",
            "preview runs for forks",
        ),
        (
            "forks_get_no_credentials",
            "ci.yml",
            "  pull_request:",
            "  pull_request_target:",
            "pull_request_target",
        ),
        (
            "environments_are_those_that_the_roles_trust",
            "deploy.yml",
            "    environment: prod #",
            "    environment: live #",
            "prod runs in live",
        ),
        (
            "environments_are_those_that_the_roles_trust",
            "ci.yml",
            "    environment: preview #",
            "    environment: dev #",
            "AWS_PREVIEW_ROLE_ARN trusts",
        ),
        (
            "environments_are_those_that_the_roles_trust",
            "drift.yml",
            "    environment: preview #",
            "    #",
            "in no environment",
        ),
        (
            "environments_are_those_that_the_roles_trust",
            "destroy.yml",
            "options: [dev, prod]",
            "options: [dev, prod, account]",
            "not one of",
        ),
        (
            "one_job_at_a_time_changes_a_stack",
            "deploy.yml",
            "group: stack-prod\n      cancel-in-progress: false",
            "group: stack-prod\n      cancel-in-progress: true",
            "prod may be cancelled",
        ),
        (
            "one_job_at_a_time_changes_a_stack",
            "destroy.yml",
            "group: stack-",
            "group: destroy-",
            "destroy doesn't wait",
        ),
        ("variables_are_explained", "ci.yml", "vars.AWS_REGION", "vars.REGION", "what REGION is"),
    ],
)
def test_rule_finds_its_mistake(check: str, name: str, old: str, new: str, said: str) -> None:
    text = read(name).text
    assert old in text
    found = list(RULES[check](Workflow(text.replace(old, new))))
    assert any(said in each for each in found), found


def test_no_workflow_is_left_out() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == NAMES


def test_pull_requests_run_every_tier() -> None:
    jobs = read("ci.yml").jobs
    matrix = jobs["test"]["strategy"]["matrix"]["tier"]
    assert sorted(" ".join(matrix).split()) == sorted(TIERS.keys() - {"unit"})
    assert 'make test TIERS="$TIER"' in commands(jobs["test"])
    assert commands(jobs["check"]) == ["make check"]  # which runs the unit tests


def test_a_push_goes_to_one_stack_after_the_other() -> None:
    jobs = read("deploy.yml").jobs
    order = ["publish", *STACKS]
    assert [jobs[job].get("needs") for job in order] == [None, *order[:-1]]
    for stack in STACKS:
        assert commands(jobs[stack]) == [f"make release STACK={stack}"]


def test_a_copy_that_is_not_set_up_runs_nothing_that_needs_aws() -> None:
    for name in NAMES:
        workflow = read(name)
        for job in workflow.jobs.values():
            if roles(job) and set(workflow.triggers) != {"workflow_dispatch"}:
                by_hand = job["if"] == "github.event_name == 'workflow_dispatch'"
                assert by_hand or re.search(r"vars\.(STACKS|AWS_PREVIEW_ROLE_ARN)", job["if"])


def test_dependabot_looks_where_there_is_something_and_waits_a_week() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    found = {each["package-ecosystem"]: each for each in updates}
    assert set(found) == {"github-actions", "pip", "docker", "gomod"}
    for ecosystem, file in (
        ("pip", "flow.txt"),
        ("docker", "Dockerfile"),
        ("gomod", "go.mod"),
    ):
        assert (ROOT / found[ecosystem]["directory"].lstrip("/") / file).exists()
    assert all(each["cooldown"]["default-days"] >= 7 for each in updates)
    # It reads what stands in a FROM, not an argument's default.
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert re.search(r"^FROM python:\S+@sha256:[0-9a-f]{64} ", dockerfile, re.M)


# --- the linters ----------------------------------------------------------------------------------
def copied(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """The folder .github, changed."""
    shutil.copytree(ROOT / ".github", folder / ".github")
    for name, old, new in changes:
        path = folder / ".github/workflows" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return folder


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    recipe = (ROOT / "Makefile").read_text()
    line = re.search(r"\.venv/bin/zizmor (.+) \.github", recipe)
    assert line, "make lint doesn't run zizmor"
    program = ROOT / ".venv/bin/zizmor"
    return subprocess.run(
        [program, *line[1].split(), ".github"], cwd=folder, capture_output=True, text=True
    )


def actionlint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = ROOT / ".go/actionlint"
    if not program.exists():
        pytest.skip("no .go/actionlint: `make test` builds it where there is Go")
    files = sorted((folder / ".github/workflows").iterdir())
    # Without ShellCheck, which only some machines have: the rules above leave no shell to check.
    return subprocess.run(
        [program, "-shellcheck=", "-pyflakes=", *files], cwd=folder, capture_output=True, text=True
    )


def test_zizmor_has_nothing_to_say() -> None:
    said = zizmor(ROOT)
    assert said.returncode == 0, said.stdout


def test_zizmor_finds_an_injection(tmp_path: Path) -> None:
    change = ("ci.yml", "run: make check", 'run: echo "${{ github.event.pull_request.title }}"')
    said = zizmor(copied(tmp_path, change))
    assert said.returncode != 0
    assert "template-injection" in said.stdout


@pytest.mark.server
def test_actionlint_has_nothing_to_say() -> None:
    said = actionlint(ROOT)
    assert said.returncode == 0, said.stdout


@pytest.mark.server
def test_actionlint_finds_a_misspelt_context(tmp_path: Path) -> None:
    said = actionlint(copied(tmp_path, ("deploy.yml", "inputs.stack", "inputs.stak")))
    assert said.returncode != 0
    assert "stak" in said.stdout


def test_nothing_is_suppressed() -> None:
    for path in (ROOT / ".github").rglob("*.y*ml"):
        assert not re.search(r"zizmor: ?ignore|actionlint", path.read_text()), path
    assert not [path for folder in (ROOT, ROOT / ".github") for path in folder.glob("zizmor.y*ml")]
