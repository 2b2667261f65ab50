"""What a rehearsal says of the rights of the stack's roles."""

from functools import cache
from typing import get_args

import pytest

from infra.estimate import recorder
from tests.infra.example_stacks import CLOUD, IMAGES, READY
from trainyard.rehearsal import iam_usage as rights
from trainyard.rehearsal.stack import MODES, Mode

WORKER = "trainyard-dev-worker-task-abc1234"
FLOWS = "trainyard-dev-flows-task-abc1234"
DEPLOYER = "trainyard-dev-deployer-task-abc1234"
TUNNEL = "trainyard-dev-tunnel-task-abc1234"

LOG = """
starting
decided {"role": "trainyard-dev-worker-task-abc1234", "action": "ecs:RunTask", "allowed": true, "on": "a"}
decided {"role": "trainyard-dev-worker-task-abc1234", "action": "s3:GetObject", "allowed": false, "on": "b"}
"""  # noqa: E501

Granted = dict[str, set[str]]
Did = dict[str, dict[bool, set[str]]]


@cache
def recorded(mode: Mode) -> recorder.Recording:
    served = {"serve": ["taxi-trip-duration"], **IMAGES}
    return recorder.run(**MODES[mode] | served | (CLOUD if mode == "cloud" else {}), noted=READY)


def rehearsal(mode: Mode = "self-hosted") -> tuple[Granted, Did]:
    """What the stack's roles may do, and what they do where all goes as the exceptions say."""
    recording = recorded(mode)
    granted: Granted = {
        f"{role.name}-abc1234": set()
        for role in recording.of("iam/role:Role")
        if "-execution" not in role.name
    }
    for policy in recording.of("RolePolicy"):
        for statement in policy.document("policy")["Statement"]:
            granted.get(f"{policy.name}-abc1234", set()).update(statement["Action"])
    excused = rights.UNUSED | rights.SOMETIMES
    excused |= rights.UNUSED_WITH_CLOUD if mode == "cloud" else {}
    did: Did = {
        name: {
            True: {a for a in actions if not any(a == b and e in name for e, b in excused)},
            False: {action for end, action in rights.DENIED if end in name},
        }
        for name, actions in granted.items()
    }
    return granted, did


def test_the_emulators_log_says_what_roles_did() -> None:
    assert rights.decisions(LOG) == {WORKER: {True: {"ecs:RunTask"}, False: {"s3:GetObject"}}}


@pytest.mark.parametrize("mode", get_args(Mode))
def test_what_has_its_reason_is_no_problem(mode: Mode) -> None:
    assert rights.problems(*rehearsal(mode)) == []


def test_what_was_denied_is_a_problem() -> None:
    granted, did = rehearsal()
    did[WORKER][False].add("s3:GetObject")
    assert rights.problems(granted, did) == ["trainyard-dev-worker-task was denied s3:GetObject"]


def test_a_right_that_nobody_used_is_a_problem() -> None:
    granted, did = rehearsal()
    granted[WORKER].add("ecs:ListTasks")
    assert rights.problems(granted, did) == [
        "trainyard-dev-worker-task may ecs:ListTasks, and nothing used it"
    ]


def test_a_role_that_did_nothing_needs_no_rights() -> None:
    granted, did = rehearsal()
    granted["trainyard-dev-idle-task-abc1234"] = {"s3:GetObject"}
    assert rights.problems(granted, did) == [
        "trainyard-dev-idle-task may s3:GetObject, and nothing used it"
    ]


@pytest.mark.parametrize("granted", [{}, {WORKER: set[str]()}])
def test_where_no_rights_are_found_there_is_nothing_shown(granted: Granted) -> None:
    (found,) = rights.problems(granted, {})
    assert "nothing to compare" in found


def test_the_deployer_needs_its_right_unless_prefect_is_in_the_cloud() -> None:
    granted, did = rehearsal()
    did[DEPLOYER][True].clear()
    assert rights.problems(granted, did) == [
        "trainyard-dev-deployer-task may ssm:GetParameter, and nothing used it"
    ]


def test_an_exception_that_was_used_after_all_is_a_problem() -> None:
    granted, did = rehearsal()
    did[TUNNEL][True].add("ssmmessages:OpenDataChannel")
    (found,) = rights.problems(granted, did)
    assert "ssmmessages:OpenDataChannel of tunnel-task" in found
    assert "was used" in found


def test_an_exception_for_a_right_that_is_gone_is_a_problem() -> None:
    granted, did = rehearsal()
    granted[WORKER].remove("ecs:StopTask")
    (found,) = rights.problems(granted, did)
    assert "ecs:StopTask of worker-task" in found
    assert "isn't granted" in found


def test_an_exception_for_what_nobody_asks_for_any_more_is_a_problem() -> None:
    granted, did = rehearsal()
    did[FLOWS][False].clear()
    (found,) = rights.problems(granted, did)
    assert "s3:ListBucket of flows-task" in found
    assert "wasn't denied" in found


def test_what_happens_in_some_rehearsals_only_may_happen() -> None:
    granted, did = rehearsal()
    did[WORKER][True].add("ecs:StopTask")
    assert rights.problems(granted, did) == []
