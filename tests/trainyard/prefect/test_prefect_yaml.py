"""Each mistake is written into a good file, and must be refused with its place and its remedy."""

import re
from pathlib import Path

import pytest
import yaml

from trainyard.prefect.prefect_yaml import deployments, main, problems

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
TIMEZONE = "timezone: America/New_York"
LIMIT = "{limit: 1, collision_strategy: ENQUEUE, grace_period_seconds: 600}"
PULL = """\
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $TRAINYARD_CODE_DIR }}"
"""
IMAGE = 'image: "{{ $TRAINYARD_IMAGE }}"'
POOL = 'name: "{{ $TRAINYARD_WORK_POOL }}"'
ENTRY = "entrypoint: pipeline.py:train"

# what is wrong: (what stands in the good file, what stands there instead, what is said)
MISTAKES = {
    # keys
    "top key": (
        "deployments:",
        "x-team: ml\ndeployments:",
        "x-team: Prefect doesn't know it; there is",
    ),
    "deployment key": (
        "work_pool: *pool\n    concurrency_limit",
        "work_pool: *pool\n    concurency_limit",
        "deployments[train].concurency_limit: Prefect doesn't know it; did you mean concurrency_l",
    ),
    "work pool key": (
        "    job_variables:",
        "    job_variabels: {}\n    job_variables:",
        "deployments[score].work_pool.job_variabels: Prefect doesn't know it; did you mean job_var",
    ),
    "schedule key": (
        TIMEZONE,
        TIMEZONE + ", timezon: UTC",
        "schedules[monthly].timezon: Prefect doesn't know it; did you mean timezone?",
    ),
    "limit key": (
        "limit: 1,",
        "limit: 1, graceperiod: 60,",
        "limit.graceperiod: Prefect doesn't know",
    ),
    "trigger key": (
        "expect: [drift]",
        "expect: [drift], treshold: 2",
        "deployments[score].triggers[0].treshold: Prefect doesn't know it; did you mean threshold?",
    ),
    "step key": (
        "  directory:",
        "  directry: /app\n      directory:",
        "directory.directry: prefect.",
    ),
    "boolean key": (
        "description: daily",
        "on: push",
        "deployments[score].True: Prefect doesn't know it",
    ),
    "key twice": (
        "description: daily",
        "name: again",
        "line 24: isn't YAML: 'name' is there twice",
    ),
    # types
    "top type": ("name: example", "prefect-version: 3", "yaml: prefect-version: input should be a"),
    "entrypoint type": ("pipeline.py:score", "5", "score].entrypoint: input should be a valid str"),
    "name type": ("name: score", "name: 5", "deployments[5].name: input should be a valid string"),
    "pull type": (PULL, "pull: 5\n", "yaml: pull: input should be a valid list, not 5"),
    "type": (
        "parameters: {trials: 5}",
        "parameters: [5]",
        "deployments[train].parameters: input should be a valid dictionary, not [5]",
    ),
    "nested type": (
        "env: {LOG_LEVEL: INFO}\n",
        "env: {LOG_LEVEL: INFO}\n    work_queue_name: [a]\n",
        "deployments[train].work_pool.work_queue_name: input should be a valid string",
    ),
    "version as number": (
        "description: daily",
        "version: 1.0",
        "score].version: input should be a valid str",
    ),
    "deployment as text": (
        "- name: score",
        "- oops\n  - name: score",
        "deployments[1]: isn't a mapping but text",
    ),
    # templates
    "unset variable": (
        IMAGE,
        'image: "{{ $TRAINYARD_IMGE }}"',
        "deployments[train].work_pool.job_variables.image: $TRAINYARD_IMGE isn't set by the stack,"
        " so Prefect would write nothing in its place; did you mean TRAINYARD_IMAGE?",
    ),
    "foreign variable": (
        "INFO",
        '"{{ $HOME }}"',
        "env.LOG_LEVEL: $HOME isn't set by the stack, so Prefect would write nothing in"
        " its place; there is TRAINYARD_CODE_DIR, TRAINYARD_IMAGE, TRAINYARD_WORK_POOL",
    ),
    "unset in name": (
        "name: train",
        'name: "train-{{ $ENV }}"',
        "name: $ENV isn't set by the stack",
    ),
    "unset in pull": (
        "$TRAINYARD_CODE_DIR",
        "$CODE",
        "set_working_directory.directory: $CODE isn't set",
    ),
    "no dollar": (
        IMAGE,
        'image: "{{ TRAINYARD_IMAGE }}"',
        "image: nothing gives {{ TRAINYARD_IMAGE }}",
    ),
    "expression": (
        "INFO",
        '"{{ $A or $B }}"',
        "LOG_LEVEL: Prefect doesn't understand '{{ $A or $B }}'",
    ),
    "variable": ("INFO", '"{{ prefect.variables.level }}"', "read it in the flow (Variable.get)"),
    # secrets
    "secret block": (
        "INFO",
        '"{{ prefect.blocks.secret.token }}"',
        "env.LOG_LEVEL: Prefect would store the block's value in the deployment, readable by all",
    ),
    "secret name": (
        "LOG_LEVEL: INFO",
        "DB_PASSWORD: hunter2",
        "deployments[train].work_pool.job_variables.env.DB_PASSWORD: looks like a secret",
    ),
    "secret pair": (
        "{type: event,",
        "{type: event, job_variables: {env: [{name: API_TOKEN, value: t0k3n}]},",
        "job_variables.env[0][API_TOKEN]: looks like a secret",
    ),
    "secret from a variable": (
        "LOG_LEVEL: INFO",
        'DB_PASSWORD: "{{ $TRAINYARD_IMAGE }}"',
        "job_variables.env.DB_PASSWORD: looks like a secret",
    ),
    "secret in a trigger": (
        "{type: event,",
        '{type: event, job_variables: {DB_PASSWORD: "{{ $TRAINYARD_IMAGE }}"},',
        "deployments[score].triggers[0].job_variables.DB_PASSWORD: looks like a secret",
    ),
    "auth string": (
        "LOG_LEVEL: INFO",
        "PREFECT_API_AUTH_STRING: me:hunter2",
        "job_variables.env.PREFECT_API_AUTH_STRING: looks like a secret, and Prefect keeps it as"
        " plain text; keep it in Secrets Manager and name it in the stack's setting flowSecrets",
    ),
    "numbered secret": ("LOG_LEVEL: INFO", "TOKEN_2: t0k3n", "env.TOKEN_2: looks like a secret"),
    "webhook": (
        "INFO",
        "https://hooks.slack.com/services/T0/B0/x",
        "env.LOG_LEVEL: looks like a secret",
    ),
    "secret value": ("INFO", "postgresql://me:hunter2@db/x", "env.LOG_LEVEL: looks like a secret"),
    "secret parameter": (
        '"{{ event.month }}"',
        "AKIAIOSFODNN7EXAMPLE",
        "deployments[score].triggers[0].parameters.month: looks like a secret",
    ),
    # entrypoints
    "no entrypoint": (f"    {ENTRY}\n", "", "deployments[train].entrypoint: missing; write path"),
    "no file": (
        "pipeline.py:train",
        "pipelne.py:train",
        "train].entrypoint: there is no file pipelne.py",
    ),
    "outside": (
        "pipeline.py:train",
        "../flow.py:f",
        "entrypoint: ../flow.py is outside this folder",
    ),
    "folder": (
        "pipeline.py:train",
        "pipelin:train",
        "doesn't import: ModuleNotFoundError: No module",
    ),
    "no flow named": (
        "pipeline.py:train",
        "pipeline.py:trian",
        "entrypoint: pipeline.py has no trian; did you mean train?",
    ),
    "not a flow": (
        "pipeline.py:train",
        "pipeline.py:helper",
        "helper isn't a flow; decorate it with @flow",
    ),
    "import": (
        "pipeline.py:train",
        "broken.py:train",
        "broken.py doesn't import: ModuleNotFoundError: No module named 'not_installed'",
    ),
    "exits": ("pipeline.py:train", "exits.py:train", "doesn't import: SystemExit: 3"),
    "flow name": (
        ENTRY,
        ENTRY + "\n    flow_name: train",
        "Prefect ignores it, the flow is called 'training'",
    ),
    # parameters
    "unknown parameter": (
        "trials: 5",
        "trails: 5",
        "train].parameters.trails: the flow 'training' doesn't know it; did you mean trials?",
    ),
    "wrong type": (
        "trials: 5",
        "trials: many",
        "train].parameters.trials: 'many' is not of type 'integer'",
    ),
    "type only a run would cast": (
        "trials: 5",
        "trials: '5'",
        "trials: '5' is not of type 'integer'",
    ),
    "wrong choice": (
        "trials: 5",
        "data: ftp",
        "train].parameters.data: 'ftp' is not one of ['local', 's3']",
    ),
    "missing parameter": (
        ",\n         parameters: {month: 2023-01}",
        "",
        "train].schedules[monthly].parameters.month: missing; the flow 'training' needs it",
    ),
    "schedule's parameter": (
        "month: 2023-02",
        "mont: 2023-02, month: 2023-02",
        "deployments[train].schedules[1].parameters.mont: the flow 'training' doesn't know it",
    ),
    "schedule's type": (
        "month: 2023-02",
        "month: 202302",
        "deployments[train].schedules[1].parameters.month: 202302 is not of type 'string'",
    ),
    "value that only the flow refuses": (
        "month: 2023-02",
        "month: 2023-13",
        "train].schedules[1].parameters.month: Value error, unconverted data remains: 3",
    ),
    "missing parameter without schedules": (
        "pipeline.py:score",
        "pipeline.py:train",
        "deployments[score].parameters.month: missing; the flow 'training' needs it",
    ),
    "trigger's parameter": (
        'month: "{{',
        'moth: "{{',
        "triggers[0].parameters.moth: the flow 'score'",
    ),
    # work pools
    "no work pool": (
        "    work_pool: *pool\n    triggers",
        "    triggers",
        "deployments[score].work_pool: missing, so no worker would run it",
    ),
    "no pool name": (
        f"    {POOL}\n",
        "",
        'work_pool.name: missing; write name: "{{ $TRAINYARD_WORK',
    ),
    "other pool": (
        POOL,
        "name: poool",
        "deployments[train].work_pool.name: the stack has no pool 'poool', only 'pool'; write",
    ),
    "other pool from a variable": (
        POOL,
        'name: "my-{{ $TRAINYARD_WORK_POOL }}"',
        "deployments[train].work_pool.name: the stack has no pool 'my-pool', only 'pool'; write",
    ),
    "no image": (
        f"      {IMAGE}\n",
        "",
        "job_variables.image: missing, so a container would start",
    ),
    "not watched": (
        'tags: [daily, "{{ $TRAINYARD_WORK_POOL }}"]',
        "tags: [daily]",
        "deployments[score].tags: without the pool's name nobody notices a run that goes silent",
    ),
    # sizes
    "unknown job variable": (
        "      env:",
        "      memroy: 8192\n      env:",
        "work_pool.job_variables.memroy: the work pool doesn't know it; did you mean memory?",
    ),
    "cpu as text": (
        "      env:",
        "      cpu: 4 vCPU\n      env:",
        "job_variables.cpu: '4 vCPU' is not of type 'integer'",
    ),
    "unknown launch type": (
        "      env:",
        "      launch_type: SPOT\n      env:",
        "job_variables.launch_type: 'SPOT' is not one of ['FARGATE', 'FARGATE_SPOT']",
    ),
    "no such cpu": (
        "      env:",
        "      cpu: 3072\n      env:",
        "job_variables.cpu: Fargate has no 3072 CPU units, only 256, 512, 1024, 2048, 4096, 8192",
    ),
    "too little memory for the cpu": (
        "      env:",
        "      cpu: 4096\n      env:",
        "job_variables.cpu: Fargate has no 4096 CPU units with 4096 MiB: it gives them 8192 to"
        " 30720, in steps of 1024",
    ),
    "too much memory for the default cpu": (
        "      env:",
        "      memory: 16384\n      env:",
        "job_variables.memory: Fargate has no 1024 CPU units with 16384 MiB: it gives them 2048",
    ),
    # names
    "no name": ("- name: score\n   ", "-", "deployments[1].name: missing, so Prefect would skip"),
    "slash in name": ("name: score", "name: score/daily", "name: Prefect refuses / in names"),
    "two of a name": (
        "name: score\n    entrypoint: pipeline.py:score",
        "name: train\n    entrypoint: pipeline.py:train\n    parameters: {month: 2023-01}",
        "deployments[train].name: there are two of this name for the flow 'training'",
    ),
    # steps
    "deployment's own step": (
        "description: daily",
        "pull: [prefect.deployments.steps.git_clone: {branch: main}]",
        "score].pull[0].prefect.deployments.steps.git_clone.repository: missing; the step needs it",
    ),
    "no pull": (PULL, "", "deployments[train].pull: there is no pull step"),
    "pull set to null": (
        "description: daily",
        "pull:",
        "deployments[score].pull: there is no pull step",
    ),
    "unknown step": ("set_working_directory", "set_workdir", "set_workdir: can't be imported"),
    "step without input": (
        '\n      directory: "{{ $TRAINYARD_CODE_DIR }}"',
        "",
        "directory: missing; the step",
    ),
    "two steps in one": (
        "    directory:",
        "  directory:",
        "pull[0]: a step is a mapping of one name",
    ),
    "top step as text": (PULL, "pull: [make]\n", "yaml: pull: input should be a valid dictionary"),
    "secret in a step": (
        "description: daily",
        "pull: [prefect.deployments.steps.git_clone: {repository: r, access_token: t0k3n}]",
        "score].pull[0].prefect.deployments.steps.git_clone.access_token: looks like a secret",
    ),
    "step as text": (
        "description: daily",
        "build: [make]",
        "score].build: input should be a valid dictionary, not 'make'",
    ),
    # concurrency
    "limit without strategy": (LIMIT, "1", "limit: 1 doesn't say what happens to a run too many"),
    "no strategy": (
        "collision_strategy: ENQUEUE, ",
        "",
        "collision_strategy: missing; write ENQUEUE or CANCEL_NEW",
    ),
    "wrong strategy": (
        "ENQUEUE",
        "WAIT",
        "collision_strategy: input should be 'ENQUEUE' or 'CANCEL_NEW', not 'WAIT'",
    ),
    "no slots": ("limit: 1", "limit: 0", "concurrency_limit.limit: 0 isn't a number of runs"),
    "short grace": (
        "600",
        "5",
        "grace_period_seconds: input should be greater than or equal to 60, not 5",
    ),
    # schedules
    "no time": (
        f"{CRON}, ",
        "",
        "schedules[monthly]: has no time; give one of cron, interval, rrule",
    ),
    "two times": (CRON, CRON + ", interval: 60", "has cron and interval; give one of"),
    "bad cron": (CRON, "cron: 0 25 5 * *", "schedules[monthly].cron: invalid cron string"),
    "bad interval": (
        "interval: 3600",
        "interval: soon",
        "schedules[1].interval: input should be a valid timedelta",
    ),
    "negative interval": (
        "interval: 3600",
        "interval: -60",
        "schedules[1].interval: input should be greater",
    ),
    "bad rrule": ("interval: 3600", "rrule: FREQ=OFTEN", "schedules[1].rrule:"),
    "bad anchor": ("interval: 3600", "anchor_date: soon, interval: 3600", "schedules[1]."),
    "bad active": (
        "active: true",
        "active: flase",
        "schedules[monthly].active: active must be able to be parsed",
    ),
    "no active": (
        ", active: true",
        "",
        "schedules[monthly].active: missing, so it would start runs where the stack's schedules",
    ),
    "no time zone": (
        f", {TIMEZONE}",
        "",
        "schedules[monthly].timezone: missing, so it would be UTC",
    ),
    "unknown time zone": (
        "America/New_York",
        "America/Gotham",
        'timezone: invalid timezone: "America/Gotham"',
    ),
    "legacy schedule": (
        "description: daily",
        "schedule: {interval: 60}",
        "score].schedule: deprecated; write a list",
    ),
    "schedules as mapping": (
        "description: daily",
        "schedules: {interval: 60}",
        "score].schedules: isn't a list",
    ),
    "schedule as text": (
        "description: daily",
        "schedules: [daily]",
        "score].schedules[0]: isn't a mapping",
    ),
    # the rest
    "trigger": (
        "type: event, expect",
        "type: event, threshold: few, expect",
        "triggers[0].threshold: input",
    ),
    "triggers as mapping": (
        "triggers:\n      - {",
        "triggers: {",
        "deployments[score].triggers: isn't a list of mappings",
    ),
    "sla": (
        "description: daily",
        "sla: [{name: x}]",
        "deployments[score].sla: only Prefect Cloud has these",
    ),
}


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


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in GOOD
    found = problems(project(tmp_path, GOOD.replace(old, new, 1)), ENVIRONMENT)
    assert any(said in problem for problem in found), "\n".join(found)
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
        ("a: [1", "prefect.yaml: line 1: isn't YAML: expected ',' or ']'"),
        ("a: 1\n b: 2", "prefect.yaml: line 2: isn't YAML: mapping values are not allowed here"),
        ("a: \0", "prefect.yaml: isn't YAML: unacceptable character"),
        ("- a", "prefect.yaml: line 1: isn't a mapping but a list"),
        ("a", "prefect.yaml: line 1: isn't a mapping but text"),
        ("", "prefect.yaml: line 1: isn't a mapping but nothing"),
        ("deployments: []", "prefect.yaml: deployments: there are none"),
        ("name: x", "prefect.yaml: deployments: there are none"),
    ],
)
def test_file_that_says_nothing_is_refused(text: str, said: str, tmp_path: Path) -> None:
    found = problems(project(tmp_path, text), ENVIRONMENT)
    assert len(found) == 1
    assert found[0].startswith(said)


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
    assert all(" $X isn't set by the stack" in problem for problem in found), "\n".join(found)


def test_mistake_in_a_deployment_is_not_told_again_for_its_schedules(tmp_path: Path) -> None:
    text = GOOD.replace(",\n         parameters: {month: 2023-01}", "").replace(
        "{trials: 5}", "{month: x}"
    )
    text = text.replace(", parameters: {month: 2023-02}", ", parameters: {trials: 5}")
    (problem,) = problems(project(tmp_path, text), ENVIRONMENT)
    assert "deployments[train].parameters.month: Value error" in problem


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path / "prefect.yml", {}) == ["prefect.yml: no such file"]


def test_empty_variable_is_refused(tmp_path: Path) -> None:
    found = problems(project(tmp_path, GOOD), ENVIRONMENT | {"TRAINYARD_IMAGE": ""})
    assert found == [
        f"prefect.yaml: deployments[{name}].work_pool.job_variables.image:"
        " $TRAINYARD_IMAGE is empty; the stack has to give it a value"
        for name in ("train", "score")
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("INFO", "'{{ ctx.flow_run.id }}'"),  # a worker fills it in
        ("LOG_LEVEL: INFO", "DB_PASSWORD: arn:aws:secretsmanager:eu-west-1:1:secret:x"),
        ("description: daily", "pull: []"),  # says that there is nothing to pull
        (
            "description: daily",
            "build: {prefect.deployments.steps.run_shell_script: {id: b, script: x}}",
        ),
        ("    directory:", "    id: code\n      directory:"),
    ],
)
def test_what_prefect_allows_is_allowed(old: str, new: str, tmp_path: Path) -> None:
    assert old in GOOD
    assert problems(project(tmp_path, GOOD.replace(old, new, 1)), ENVIRONMENT) == []


def test_steps_of_ones_own_are_known_by_their_signature(tmp_path: Path) -> None:
    file = project(
        tmp_path, GOOD.replace("description: daily", "pull: [own_steps.fetch: {depth: 1}]")
    )
    tmp_path.joinpath("own_steps.py").write_text("def fetch(url, **options): ...")
    (problem,) = problems(file, ENVIRONMENT)
    assert "pull[0].own_steps.fetch.url: missing; the step needs it" in problem


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
    assert "user.py doesn't import: ModuleNotFoundError" in problem


def test_what_a_file_declares_is_named_as_prefect_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert deployments(project(tmp_path, GOOD), ENVIRONMENT) == {"training/train", "score/score"}
    # Else all of its deployments would be taken for gone, and removed.
    file = project(tmp_path, GOOD.replace("pipeline.py:score", "scores.py:score"))
    with pytest.raises(ValueError, match=r"^prefect\.yaml: score: there is no file scores\.py"):
        deployments(file, ENVIRONMENT)


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(tmp_path, GOOD)
    monkeypatch.setattr("sys.argv", ["prefect_yaml", str(file)])
    assert main() == 0
    assert capsys.readouterr().out == "prefect.yaml: 2 deployments, no problems\n"
    project(tmp_path, GOOD.replace(IMAGE, "image: x", 1).replace(POOL, "name: x", 1))
    assert main() == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_good_file_is_what_prefect_accepts(tmp_path: Path) -> None:
    """The table starts from a file that Prefect itself reads without complaint."""
    from prefect.cli.deploy._models import PrefectYamlModel

    PrefectYamlModel.model_validate(yaml.safe_load(GOOD))
