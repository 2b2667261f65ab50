"""What a pull request's comment says of deployments, against what a real deploy does to them."""

import re
import shutil
from collections.abc import Iterable
from typing import Any

import pytest

from tests.trainyard.prefect.projects import Project
from tests.trainyard.prefect.test_deploy import BARE, CRON, FULL, HOURLY
from trainyard.aws.pr_comment import deployments

pytestmark = pytest.mark.server

ANCHORED = HOURLY | {"slug": "hourly", "anchor_date": "2024-01-01T00:00:00Z"}
DAILY = CRON | {"slug": "daily", "parameters": {"rows": 9}}
FULL = FULL | {"schedules": [ANCHORED, DAILY]}
POOL, TRIGGER = FULL["work_pool"], FULL["triggers"][0]
LIMIT = FULL["concurrency_limit"]
SHARED = {"directory": "{{ $TRAINYARD_CODE_DIR }}"}
SAID = {  # what holds anyway
    "version": None,
    "parameters": {},
    "paused": False,
    "concurrency_limit": None,
    "enforce_parameter_schema": True,
    "schedules": [],
    "triggers": [],
    "pull": [{"prefect.deployments.steps.set_working_directory": SHARED}],
    "work_pool": BARE["work_pool"] | {"work_queue_name": "default"},
}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in FULL.items() if key not in keys}


def scheduled(*schedules: dict[str, Any]) -> dict[str, Any]:
    return FULL | {"schedules": [*schedules]}


def pooled(**more: Any) -> dict[str, Any]:
    own = {key: value for key, value in (POOL | more).items() if value is not None}
    return FULL | {"work_pool": own}


def triggered(*triggers: dict[str, Any]) -> dict[str, Any]:
    return FULL | {"triggers": [*triggers]}


# Name of a deployment -> as it is, as it will be. Where one is None it is added or removed.
EDITS: dict[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "nothing": (FULL, FULL),
    "defaults-said": (BARE, BARE | SAID),
    "defaults-unsaid": (BARE | SAID, BARE),
    "all-unsaid": (FULL, BARE),
    "all-said": (BARE, FULL),
    "removed": (FULL, None),
    "added": (None, FULL),
    "of-another-flow": (BARE, BARE | {"entrypoint": "flows.py:load"}),
    "description": (FULL, without("description")),
    "version": (FULL, without("version")),
    "version-null": (FULL, FULL | {"version": None}),
    "tag": (FULL, FULL | {"tags": FULL["tags"][:1]}),
    "tags-order": (FULL, FULL | {"tags": FULL["tags"][::-1]}),
    "tag-a-number": (FULL | {"tags": [*FULL["tags"], 7]}, FULL | {"tags": [*FULL["tags"], "7"]}),
    "parameter": (FULL, FULL | {"parameters": {"rows": 6}}),
    "parameter-gone": (FULL, without("parameters")),
    "limit": (FULL, FULL | {"concurrency_limit": LIMIT | {"limit": 3}}),
    "limit-grace": (FULL, FULL | {"concurrency_limit": LIMIT | {"grace_period_seconds": 90}}),
    "limit-gone": (FULL, without("concurrency_limit")),
    "limit-null": (FULL, FULL | {"concurrency_limit": None}),
    "enforced": (FULL, without("enforce_parameter_schema")),
    "paused": (FULL, FULL | {"paused": True}),
    "resumed": (FULL | {"paused": True}, FULL),
    "pull": (FULL, without("pull")),
    "pull-mapping": (FULL, FULL | {"pull": FULL["pull"][0]}),
    "queue": (FULL, pooled(work_queue_name=None)),
    "job-variable": (FULL, pooled(job_variables=POOL["job_variables"] | {"env": {"A": "c"}})),
    "job-variable-empty": (FULL, pooled(job_variables=POOL["job_variables"] | {"env": {}})),
    "schedule-renamed": (FULL, scheduled(ANCHORED, DAILY | {"slug": "dayly"})),
    "schedule-cron": (FULL, scheduled(ANCHORED, DAILY | {"cron": "0 7 * * *"})),
    "schedule-zone": (FULL, scheduled(ANCHORED, DAILY | {"timezone": "Asia/Tokyo"})),
    "schedule-off": (FULL, scheduled(ANCHORED, DAILY | {"active": False})),
    "schedule-parameters": (FULL, scheduled(ANCHORED, CRON | {"slug": "daily"})),
    "schedule-spelled": (FULL, scheduled(ANCHORED | {"interval": "PT1H"}, DAILY)),
    "schedule-anchor": (FULL, scheduled(HOURLY | {"slug": "hourly"}, DAILY)),
    "schedules-order": (FULL, scheduled(DAILY, ANCHORED)),
    "schedule-removed": (FULL, scheduled(ANCHORED)),
    "slugs-gone": (FULL, scheduled(CRON)),
    "slugless": (scheduled(CRON), scheduled(CRON | {"cron": "0 7 * * *"})),
    "schedules-gone": (FULL, without("schedules")),
    "schedules-null": (FULL, FULL | {"schedules": None}),
    "schedules-empty": (FULL, scheduled()),
    "trigger": (FULL, triggered(TRIGGER | {"expect": ["z"]})),
    "trigger-spelled": (FULL, triggered(TRIGGER | {"type": "event", "threshold": 1})),
    "trigger-off": (FULL, triggered(TRIGGER | {"enabled": False})),
    "trigger-parameters": (FULL, triggered(TRIGGER | {"parameters": {"rows": "{{ event.x }}"}})),
    "trigger-named": (FULL, triggered(TRIGGER | {"name": "when x"})),
    "trigger-added": (FULL, triggered(TRIGGER, TRIGGER | {"expect": ["z"]})),
    "triggers-gone": (FULL, without("triggers")),
    "triggers-empty": (FULL, triggered()),
}
AS_WRITTEN = {
    "concurrency_options": "concurrency_limit",
    "job_variables": "work_pool.job_variables",
    "limit": "concurrency_limit",
    "pull_steps": "pull",
    "work_queue_name": "work_pool.work_queue_name",
}
PLACE = r"(schedules|triggers)\[[^\]]*\]|parameters\.\w+|work_pool\.(job_variables\.)?\w+|\w+"


def fields(held: dict[str, Any]) -> dict[str, Any]:
    """By their places in prefect.yaml."""
    found = {(key, AS_WRITTEN.get(key, key)): value for key, value in held.items()}
    for key in ("schedules", "triggers"):
        for each in found.pop((key, key)):
            name = (
                each.get("slug") or each.get("name") or re.findall(r"cron='(.*?)'", each["when"])[0]
            )
            found["", f"{key}[{name}]"] = each
    for key in ("parameters", "job_variables"):
        place = AS_WRITTEN.get(key, key)
        found |= {("", f"{place}.{name}"): each for name, each in found.pop((key, place)).items()}
    return found


def outcome(before: dict[str, Any], after: dict[str, Any]) -> dict[str, set[str]]:
    """Deployment -> places that differ; of one that was added or removed, that."""
    changed = {}
    for name in {*before, *after}:
        if name not in before or name not in after:
            changed[name] = {"removed" if name in before else "added"}
            continue
        old, new = fields(before[name]), fields(after[name])
        differ = {key[1] for key in {*old, *new} if old.get(key, "-") != new.get(key, "-")}
        if differ:
            changed[name] = differ
    return changed


def told(comment: Iterable[str]) -> dict[str, set[str]]:
    """The same, of the comment's rows."""
    found: dict[str, set[str]] = {}
    for row in comment:
        if match := re.fullmatch(r"\| (added|removed|changed) \| (.+?) \| (.*) \|", row):
            kind, name, rest = match.groups()
            name, _, of = name.partition(" (of ")
            full = f"{of.rstrip(')') or 'fit'}/{name}"
            places = [re.match(PLACE, each.replace("&#42;", "*")) for each in rest.split("<br>")]
            found[full] = {p[0] for p in places if p} if kind == "changed" else {kind}
    return found


def test_the_comment_says_what_a_deploy_does(project: Project) -> None:
    held = []
    for side in (0, 1):
        project.write(*({**pair[side], "name": name} for name, pair in EDITS.items() if pair[side]))
        code, said = project.deploy()
        assert code == 0, said
        held.append({name: project.holds(name) for name in project.there()})
        shutil.copy(project.folder / "prefect.yaml", project.folder / f"{side}.yaml")
    comment = [*deployments(project.folder / "0.yaml", project.folder / "1.yaml")]
    expected = outcome(*held)
    assert told(comment) == expected
    unchanged = {"nothing", "defaults-said", "defaults-unsaid", "pull-mapping", "schedules-order"}
    unchanged |= {"schedule-spelled", "tag-a-number", "trigger-spelled"}
    assert EDITS.keys() - {full.partition("/")[2] for full in expected} == unchanged
