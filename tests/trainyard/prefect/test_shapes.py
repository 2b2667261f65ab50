"""Every shape that users write in prefect.yaml, deployed at once: Prefect holds what is written."""

from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.variables import Variable

from tests.trainyard.prefect.projects import Project
from trainyard.contract.outputs import StackOutputs

pytestmark = pytest.mark.server

YAML = """
definitions:
  pool: &pool
    name: "{{ $TRAINYARD_WORK_POOL }}"
    job_variables: &job_variables {image: "{{ $TRAINYARD_IMAGE }}", env: {LOG_LEVEL: INFO}}
  watched: &watched "{{ $TRAINYARD_WORK_POOL }}"
  base: &base
    entrypoint: flows.py:fit
    tags: [*watched]
    work_pool: *pool
pull:
  - prefect.deployments.steps.set_working_directory: {directory: "{{ $TRAINYARD_CODE_DIR }}"}
deployments:
  - <<: *base
    name: schedules
    schedules:
      - {slug: cron, cron: 0 6 5 * *, timezone: America/New_York, active: true,
         parameters: {rows: 2}}
      - {slug: or, cron: 0 6 5 * mon, timezone: UTC, day_or: false, active: true}
      - {slug: word, cron: "@daily", timezone: Europe/Berlin, active: no}
      - {slug: seconds, interval: 3600, timezone: UTC, active: true}
      - {slug: iso, interval: PT1H, timezone: UTC, active: true}
      - {slug: clock, interval: 01:00:00, timezone: UTC, active: true}
      - {slug: day, interval: 1:00:00, timezone: UTC, active: "{{ $TRAINYARD_ACTIVE_SCHEDULES }}"}
      - {slug: anchored, interval: P1W, timezone: Europe/Berlin, active: true,
         anchor_date: "2026-01-05T06:00:00+01:00"}
      - {slug: rule, rrule: FREQ=WEEKLY;BYDAY=MO, timezone: UTC, active: true}
      - {slug: started, rrule: "DTSTART:20260105T060000\\nRRULE:FREQ=DAILY;UNTIL=20990101T000000",
         timezone: America/New_York, active: true}
      - {slug: zoned, rrule: "DTSTART;TZID=America/New_York:20260105T060000\\nRRULE:FREQ=DAILY",
         timezone: America/New_York, active: true}
      - {slug: utc, rrule: "DTSTART:20260105T060000Z\\nRRULE:FREQ=DAILY;UNTIL=20990101T000000Z",
         timezone: UTC, active: true}
  - <<: *base
    name: written
    version: "1.0"
    description: |
      Over
      several lines.
    paused: true
    enforce_parameter_schema: false
    tags: [2026, *watched, "on-{{ $TRAINYARD_WORK_POOL }}"]
    parameters: {rows: 7}
    concurrency_limit: {limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 90}
    work_pool:
      <<: *pool
      work_queue_name: urgent
      job_variables: {<<: *job_variables, env: {SHARE: "0.5", RUN: "{{ ctx.flow_run.id }}"}}
  - <<: *base
    name: steps
    version: "{{ built.stdout }}"
    build:
      - prefect.deployments.steps.run_shell_script:
          id: built
          script: echo {{ prefect.variables.shape_word }}
    push:
      prefect.deployments.steps.run_shell_script: {script: 'echo "{{ built.stdout }}"'}
    pull:
      - prefect.deployments.steps.run_shell_script: {id: where, script: pwd}
      - prefect.deployments.steps.set_working_directory: {directory: "{{ where.stdout }}"}
      - prefect.deployments.steps.git_clone:
          repository: https://{{ prefect.blocks.secret.shape-token }}@github.com/me/flows.git
  - <<: *base
    name: triggers
    triggers:
      - {expect: [drift], match: {prefect.resource.id: "my.*"}, parameters: {rows: 5}}
      - {name: silent, type: event, posture: Proactive, expect: [heartbeat], after: [start],
         for_each: [prefect.resource.id], threshold: 2, within: 90}
      - {name: compound, type: compound, require: all, within: 60, enabled: false,
         triggers: [{expect: [a]}, {expect: [b]}]}
      - {name: sequence, type: sequence, within: PT2M,
         triggers: [{type: event, expect: [a]}, {expect: [b]}],
         parameters: {rows: "{{ event.payload.rows }}"}}
"""
SCHEDULES: dict[str, dict[str, Any]] = {
    "cron": {"cron": "0 6 5 * *", "day_or": True, "timezone": "America/New_York"},
    "or": {"cron": "0 6 5 * mon", "day_or": False, "timezone": "UTC"},
    "word": {"cron": "@daily", "day_or": True, "timezone": "Europe/Berlin"},
    "seconds": {"interval": 3600.0, "timezone": "UTC"},
    "iso": {"interval": 3600.0, "timezone": "UTC"},
    "clock": {"interval": 3600.0, "timezone": "UTC"},
    "day": {"interval": 3600.0, "timezone": "UTC"},
    "anchored": {
        "interval": 604800.0,
        "anchor_date": "2026-01-05T06:00:00+01:00",
        "timezone": "Europe/Berlin",
    },
    # the start that its scheduler counts from is Prefect's own
    "rule": {"rrule": "DTSTART:20200101T000000\nFREQ=WEEKLY;BYDAY=MO", "timezone": "UTC"},
    "started": {
        "rrule": "DTSTART:20260105T060000\nRRULE:FREQ=DAILY;UNTIL=20990101T000000",
        "timezone": "America/New_York",
    },
    "zoned": {
        "rrule": "DTSTART;TZID=America/New_York:20260105T060000\nRRULE:FREQ=DAILY",
        "timezone": "America/New_York",
    },
    "utc": {
        "rrule": "DTSTART:20260105T060000Z\nRRULE:FREQ=DAILY;UNTIL=20990101T000000Z",
        "timezone": "UTC",
    },
}
STEPS = "prefect.deployments.steps"
PLAIN = {"description", "enforce_parameter_schema", "parameters", "paused", "tags", "version"}
PLAIN |= {"work_pool_name", "work_queue_name", "job_variables", "pull_steps"}


def event(*expect: str, **other: Any) -> dict[str, Any]:
    every: dict[str, Any] = {"type": "event", "match": {}, "match_related": {}, "after": []}
    every |= {"for_each": [], "posture": "Reactive", "threshold": 1, "within": 0.0}
    return every | {"expect": list(expect)} | other


TRIGGERS: dict[str, dict[str, Any]] = {
    "triggers__automation_1": event("drift", match={"prefect.resource.id": "my.*"}),
    "silent": event(
        "heartbeat",
        posture="Proactive",
        after=["start"],
        for_each=["prefect.resource.id"],
        threshold=2,
        within=90.0,
    ),
    "compound": {
        "type": "compound",
        "require": "all",
        "within": 60.0,
        "triggers": [event("a"), event("b")],
    },
    "sequence": {"type": "sequence", "within": 120.0, "triggers": [event("a"), event("b")]},
}


def deployments(outputs: StackOutputs) -> dict[str, dict[str, Any]]:
    pool, job = outputs.work_pool.name, {"image": "an-image"}
    address = "https://{{ prefect.blocks.secret.shape-token }}@github.com/me/flows.git"
    usual = {
        "description": "Fit to rows.",  # the flow's own
        "enforce_parameter_schema": True,
        "parameters": {},
        "paused": False,
        "tags": [pool],
        "work_pool_name": pool,
        "work_queue_name": "default",
        "job_variables": job | {"env": {"LOG_LEVEL": "INFO"}},
        "pull_steps": [{f"{STEPS}.set_working_directory": {"directory": outputs.code_dir}}],
    }
    written = {
        "version": "1.0",
        "description": "Over\nseveral lines.\n",
        "enforce_parameter_schema": False,
        "parameters": {"rows": 7},
        "paused": True,
        "tags": ["2026", pool, f"on-{pool}"],
        "work_queue_name": "urgent",
        "job_variables": job | {"env": {"SHARE": "0.5", "RUN": "{{ ctx.flow_run.id }}"}},
    }
    pull = [
        {f"{STEPS}.run_shell_script": {"id": "where", "script": "pwd"}},
        {f"{STEPS}.set_working_directory": {"directory": "{{ where.stdout }}"}},
        {f"{STEPS}.git_clone": {"repository": address}},
    ]
    return {
        "schedules": usual,
        "written": usual | written,
        "steps": usual | {"version": "hello", "pull_steps": pull},
        "triggers": usual,
    }


def test_prefect_holds_every_shape_as_it_is_written(project: Project) -> None:
    Variable.set("shape_word", "hello", overwrite=True)
    Secret(value="t0k3n").save("shape-token", overwrite=True)  # a deploy looks it up
    project.outputs = project.outputs.model_copy(update={"active_schedules": False})
    (project.folder / "prefect.yaml").write_text(YAML)
    code, said = project.deploy()
    assert code == 0, said
    expected, client = deployments(project.outputs), project.client
    there = {name: client.read_deployment_by_name(f"fit/{name}") for name in expected}
    for name, each in expected.items():
        found = there[name].model_dump(mode="json", include=PLAIN)
        assert found == {"version": found["version"]} | each  # without one, it is the code's hash

    schedules = {str(each.slug): each for each in there["schedules"].schedules}
    held = {slug: each.schedule.model_dump(mode="json") for slug, each in schedules.items()}
    for slug in ("seconds", "iso", "clock", "day"):  # without an anchor, the deploy's time
        del held[slug]["anchor_date"]
    assert held == SCHEDULES
    assert {slug for slug, each in schedules.items() if not each.active} == {"word", "day"}
    assert {k: each.parameters for k, each in schedules.items() if each.parameters} == {
        "cron": {"rows": 2}
    }

    limit, options = there["written"].global_concurrency_limit, there["written"].concurrency_options
    assert limit
    assert options
    assert limit.limit == 2
    assert options.model_dump(mode="json") == {
        "collision_strategy": "CANCEL_NEW",
        "grace_period_seconds": 90,
    }

    owners = {name: f"prefect.deployment.{each.id}" for name, each in there.items()}
    owned = {n: client.read_resource_related_automations(each) for n, each in owners.items()}
    assert [name for name, each in owned.items() if each] == ["triggers"]
    made = {each.name: each.model_dump(mode="json") for each in owned["triggers"]}
    assert {name: each["trigger"] for name, each in made.items()} == TRIGGERS
    assert [name for name, each in made.items() if not each["enabled"]] == ["compound"]
    actions = {name: action for name, each in made.items() for action in each["actions"]}
    assert {each["deployment_id"] for each in actions.values()} == {str(there["triggers"].id)}
    assert {name: each["parameters"] for name, each in actions.items()} == {
        "triggers__automation_1": {"rows": 5},
        "silent": None,
        "compound": None,
        "sequence": {"rows": "{{ event.payload.rows }}"},
    }
