"""Each mistake is written into a good file, and must be refused with its place and its remedy."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from trainyard.prefect.lint import lint, problems

FLOWS = """
from datetime import datetime
from typing import Annotated, Literal
from prefect import flow
from pydantic import AfterValidator

def is_month(text):
    datetime.strptime(text, "%Y-%m")
    return text

@flow(name="training")
def train(month: Annotated[str, AfterValidator(is_month)], trials: int = 3,
          data: Literal["local", "s3"] = "local"): ...

@flow
def score(month: str = "2023-01"): ...

def helper(): ...
"""

GOOD = """\
name: example
definitions:
  pool: &pool
    name: "{{ $TRAINYARD_WORK_POOL }}"
    job_variables:
      image: "{{ $TRAINYARD_IMAGE }}"
      env: {LOG_LEVEL: INFO}
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $TRAINYARD_CODE_DIR }}"
deployments:
  - name: train
    entrypoint: pipeline.py:train
    parameters: {trials: 5}
    tags: ["{{ $TRAINYARD_WORK_POOL }}"]
    work_pool: *pool
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE, grace_period_seconds: 600}
    schedules:
      - {slug: monthly, cron: 0 6 5 * *, timezone: America/New_York, active: true,
         parameters: {month: 2023-01}}
      - {interval: 3600, timezone: UTC, active: true, parameters: {month: 2023-02}}
  - name: score
    entrypoint: pipeline.py:score
    description: daily
    tags: [daily, "{{ $TRAINYARD_WORK_POOL }}"]
    work_pool: *pool
    triggers:
      - {type: event, expect: [drift], parameters: {month: "{{ event.month }}"}}
"""

ENVIRONMENT = {
    "TRAINYARD_CODE_DIR": "/app",
    "TRAINYARD_IMAGE": "trainyard@sha256:0",
    "TRAINYARD_WORK_POOL": "pool",
}

CRON = "cron: 0 6 5 * *"
POOL = 'name: "{{ $TRAINYARD_WORK_POOL }}"'


def mistakes() -> list[Any]:
    """mistakes.txt: a name, what stands in the good file => what stands there instead; then what
    is said.
    """
    lines = Path(__file__).with_name("mistakes.txt").read_text().splitlines()
    table = []
    for mistake, said in zip(lines[::2], lines[1::2], strict=True):
        name, _, change = mistake.partition(": ")
        old, new = change.replace("\\n", "\n").split(" =>")
        table.append(pytest.param(old, new.removeprefix(" "), said.strip(), id=name))
    return table


def project(folder: Path, text: str) -> Path:
    folder.joinpath("pipeline.py").write_text(FLOWS)
    folder.joinpath("broken.py").write_text("import not_installed")
    folder.joinpath("exits.py").write_text("raise SystemExit(3)")
    folder.parent.joinpath("flow.py").write_text(FLOWS)
    file = folder / "prefect.yaml"
    file.write_text(text)
    return file


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    assert problems(project(tmp_path, GOOD), ENVIRONMENT) == []


@pytest.mark.parametrize(("old", "new", "said"), mistakes())
def test_mistake_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in GOOD
    found = problems(project(tmp_path, GOOD.replace(old, new, 1)), ENVIRONMENT)
    assert any(problem.startswith(f"prefect.yaml: {said}") for problem in found), "\n".join(found)
    assert all(problem.startswith("prefect.yaml: ") and "\n" not in problem for problem in found)
    # A shared definition is used by both deployments; nothing else may be said beside the mistake.
    assert len({re.sub(r"deployments\[\w+\]", "", problem) for problem in found}) == 1, "\n".join(
        found
    )


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("trials: 5", "trails: 5").replace("ENQUEUE", "WAIT").replace(CRON, "cron: x")
    )
    assert len(problems(project(tmp_path, text), ENVIRONMENT)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "line 1: can't be read: expected ',' or ']'"),
        ("a: 1\n b: 2", "line 2: can't be read: mapping values are not allowed here"),
        ("a: \0", "can't be read: unacceptable character"),
        ("- a", "is a list, not a mapping; write `deployments:` and a list of them"),
        ("a", "is a str, not a mapping"),
        ("", "is empty; write `deployments:` and a list of them"),
        ("# only this", "is empty; write"),
        ("--- \n...", "is empty; write"),
        ("a: &a [*a]", "can't be read: Circular reference detected"),
        ("deployments: []", "deployments: List should have at least 1 item"),
        ("name: x", "deployments: Field required"),
    ],
)
def test_file_that_says_nothing_is_refused(text: str, said: str, tmp_path: Path) -> None:
    found = problems(project(tmp_path, text), ENVIRONMENT)
    assert len(found) == 1
    assert found[0].startswith(f"prefect.yaml: {said}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (CRON, 'cron: "{{ $X }}"'),
        (POOL, 'name: "{{ $X }}"'),
        ("pipeline.py:score", '"{{ $X }}"'),
        ("trials: 5", 'trials: "{{ $X }}"'),
        ("month: 2023-01", 'month: "{{ $X }}"'),
    ],
)
def test_unset_variable_is_all_that_is_told(old: str, new: str, tmp_path: Path) -> None:
    found = problems(project(tmp_path, GOOD.replace(old, new, 1)), ENVIRONMENT)
    assert found
    assert all(
        ": the stack sets no $X; there is TRAINYARD_CODE_DIR" in problem for problem in found
    ), "\n".join(found)


def test_mistake_in_a_deployment_is_not_told_again_for_its_schedules(tmp_path: Path) -> None:
    text = GOOD.replace(",\n         parameters: {month: 2023-01}", "").replace(
        "{trials: 5}", "{month: x}"
    )
    text = text.replace(", parameters: {month: 2023-02}", ", parameters: {trials: 5}")
    (problem,) = problems(project(tmp_path, text), ENVIRONMENT)
    assert (
        "deployments[train].parameters: Flow run received invalid parameters: - month: " in problem
    )


def test_missing_file_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "prefect.yml", {})
    assert problem.startswith("prefect.yml: can't be read: [Errno 2] No such file or directory")


def test_empty_variable_is_refused(tmp_path: Path) -> None:
    found = problems(project(tmp_path, GOOD), ENVIRONMENT | {"TRAINYARD_IMAGE": ""})
    assert found == [
        f"prefect.yaml: deployments[{name}].work_pool.job_variables.image: the stack sets no"
        " $TRAINYARD_IMAGE; there is TRAINYARD_CODE_DIR, TRAINYARD_WORK_POOL"
        for name in ("train", "score")
    ]


SHELL = "prefect.deployments.steps.run_shell_script"
MONTH = "parameters: {month: 2023-02}"
EVERY = f"interval: 3600, timezone: UTC, active: true, {MONTH}"
DAILY = "description: daily"
DRIFT = '{type: event, expect: [drift], parameters: {month: "{{ event.month }}"}}'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("INFO", "'{{ ctx.flow_run.id }}'"),  # a worker fills it in
        ("LOG_LEVEL: INFO", "DB_PASSWORD: arn:aws:secretsmanager:eu-west-1:1:secret:x"),
        ("LOG_LEVEL: INFO", "PASSENGERS: two, MONKEY: seven"),
        ("LOG_LEVEL: INFO", "CACHE_KEY: a, PARTITION_KEY: route"),
        ("INFO", "ssh://git@github.com/me/flows.git"),
        ("INFO", "postgresql://me@db/x"),
        ("INFO", "'https://host/x?partition_key=a&signed=no'"),
        ("INFO", "registry.example:5000/image@sha256:0"),
        ("    directory:", "    id: code\n      directory:"),
        # steps
        (DAILY, f"build: {{{SHELL}: {{id: b, script: x}}}}"),
        (DAILY, f"push: [{SHELL}: {{id: p, script: x}}]\n    version: '{{{{ p.stdout }}}}'"),
        (DAILY, f"build: {{{SHELL}: {{script: '{{{{ prefect.blocks.secret.x }}}}'}}}}"),
        (DAILY, f"build: {{{SHELL}: {{script: '{{{{ prefect.variables.x }}}}'}}}}"),
        (
            DAILY,
            "pull: [prefect.deployments.steps.git_clone: {repository: "
            "'https://{{ prefect.blocks.secret.x }}@github.com/me/flows'}]",
        ),
        (DAILY, f"build: {{{SHELL}: {{script: 'x://me:{{{{prefect.blocks.secret.x}}}}@db'}}}}"),
        (DAILY, "build: null\n    push: []"),
        # schedules
        ("interval: 3600", "interval: PT1H"),
        ("interval: 3600", "interval: '01:00:00'"),
        ("interval: 3600", "interval: 3600, anchor_date: '2026-01-01T06:00:00'"),
        ("interval: 3600", "rrule: 'FREQ=WEEKLY;BYDAY=MO'"),
        ("interval: 3600", 'rrule: "DTSTART:20260105T060000\\nRRULE:FREQ=WEEKLY"'),
        ("interval: 3600", "interval: 1:00:00"),  # as the author meant
        ("interval: 3600", "interval: P1DT2M"),
        ("interval: 3600", 'rrule: "DTSTART:20260105T060000Z\\nRRULE:FREQ=DAILY"'),
        (
            CRON,
            'rrule: "DTSTART;TZID=America/New_York:20260105T060000\\n'
            'RRULE:FREQ=DAILY;UNTIL=20990101T000000Z"',
        ),
        (CRON, "cron: '@daily'"),
        (CRON, "cron: '0 0 29 2 ?'"),
        (CRON, "cron: 0 6 5 * *, day_or: false, replaces: old"),
        (DAILY, "schedules: []"),
        ("active: true", "active: '{{ $ACTIVE }}'"),
        # triggers
        (DRIFT, "{posture: Proactive, expect: [prefect.flow-run.heartbeat], within: 90}"),
        (DRIFT, "{type: compound, require: all, within: 60, triggers: [{expect: [a]}]}"),
        (DRIFT, "{type: sequence, triggers: [{type: event, expect: [a]}, {expect: [b]}]}"),
        (DRIFT, "{expect: [a], parameters: {month: {template: x, __prefect_kind: jinja}}}"),
        (DRIFT, "{match: {prefect.resource.id: 'my.*'}}"),
        # the rest
        (DAILY, "paused: true\n    enforce_parameter_schema: false\n    version: '1.0'"),
        (DAILY, "description: |\n      Scores\n      each day."),
        (DAILY, "flow_name: score"),
        ("daily, ", "2026, "),
        (POOL, POOL + "\n    work_queue_name: gpu"),
        ("daily, ", '"{{ $ACTIVE }}-{{ $TRAINYARD_WORK_POOL }}", '),
        ("job_variables:", "job_variables: &job_variables"),
        ("work_pool: *pool\n    triggers", "work_pool: {<<: *pool}\n    triggers"),
        (
            "- name: score",
            "- {name: again, entrypoint: 'pipeline.py:score', work_pool: *pool,"
            ' tags: ["{{ $TRAINYARD_WORK_POOL }}"]}\n  - name: score',
        ),
    ],
)
def test_what_prefect_allows_is_allowed(old: str, new: str, tmp_path: Path) -> None:
    assert old in GOOD
    file = project(tmp_path, GOOD.replace(old, new, 1))
    assert problems(file, ENVIRONMENT | {"ACTIVE": "true"}) == []


METRIC = "{type: metric, metric: {name: successes, threshold: 1, operator: <}}"


@pytest.mark.parametrize(
    ("url", "stack", "allowed"),
    [
        ("https://api.prefect.cloud/api/accounts/a/workspaces/w", "self-hosted", True),
        ("http://127.0.0.1:4200/api", "cloud", False),
        (None, "self-hosted", False),
        (None, "cloud", True),
    ],
)
def test_metric_triggers_need_prefect_cloud(
    url: str | None, stack: str, allowed: bool, tmp_path: Path
) -> None:
    file = project(tmp_path, GOOD.replace(DRIFT, METRIC))
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/Pulumi.dev.yaml").write_text(f"config:\n  trainyard:prefect: {stack}\n")
    with temporary_settings({PREFECT_API_URL: url}):
        assert (problems(file, ENVIRONMENT) == []) is allowed


def test_steps_of_ones_own_are_known_by_their_signature(tmp_path: Path) -> None:
    file = project(
        tmp_path, GOOD.replace("description: daily", "pull: [own_steps.fetch: {depth: 1}]")
    )
    tmp_path.joinpath("own_steps.py").write_text("def fetch(url, **options): ...")
    (problem,) = problems(file, ENVIRONMENT)
    assert "own_steps.fetch(url, **options): missing a required argument: 'url'" in problem


def test_step_results_can_be_used(tmp_path: Path) -> None:
    step = "build: {prefect.deployments.steps.run_shell_script: {id: git, script: x}}"
    text = GOOD.replace("deployments:", f"{step}\ndeployments:").replace(
        "INFO", '"{{ git.stdout }}"'
    )
    assert problems(project(tmp_path, text), ENVIRONMENT) == []


def test_flows_are_imported_one_by_one(tmp_path: Path) -> None:
    """A flow must not find a module only because another flow's folder is on the path."""
    file = project(tmp_path, GOOD.replace("pipeline.py:score", "user.py:score"))
    tmp_path.joinpath("user.py").write_text("import only_in_a_folder\n" + FLOWS)
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.joinpath("only_in_a_folder.py").touch()
    folder.joinpath("pipeline.py").write_text(FLOWS)
    file.write_text(file.read_text().replace("pipeline.py:train", "folder/pipeline.py:train"))
    (problem,) = problems(file, ENVIRONMENT)
    assert "'user.py' encountered an exception: ModuleNotFoundError" in problem


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project(tmp_path, GOOD)
    assert lint(file) == 0
    assert capsys.readouterr().out == "prefect.yaml: no problems\n"
    project(tmp_path, GOOD.replace(POOL, "name: x", 1))
    assert lint(file) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_good_file_is_what_prefect_accepts(tmp_path: Path) -> None:
    """The table starts from a file that Prefect itself reads without complaint."""
    from prefect.cli.deploy._models import PrefectYamlModel

    PrefectYamlModel.model_validate(yaml.safe_load(GOOD))
