"""What a rehearsal says of the rights of the stack's roles."""

from infra.rehearsal import rights

LOG = """
starting
decided {"role": "trainyard-x-worker-task-abc1234", "action": "ecs:RunTask", "allowed": true, "on": "a"}
decided {"role": "trainyard-x-worker-task-abc1234", "action": "s3:GetObject", "allowed": false, "on": "b"}
decided {"role": "somebody", "action": "s3:PutObject", "allowed": true, "on": null}
"""  # noqa: E501
WORKER = "trainyard-x-worker-task-abc1234"


def test_what_was_denied_is_a_problem() -> None:
    found = rights.problems({WORKER: {"ecs:RunTask"}}, rights.decisions(LOG))
    assert found == ["trainyard-x-worker-task was denied s3:GetObject"]


def test_a_right_that_nobody_used_is_a_problem() -> None:
    found = rights.problems({WORKER: {"ecs:RunTask", "ecs:ListTasks"}}, rights.decisions(LOG))
    assert "trainyard-x-worker-task may ecs:ListTasks, and nothing used it" in found


def test_a_role_that_did_nothing_needs_no_rights() -> None:
    found = rights.problems({"trainyard-x-idle-task-abc1234": {"s3:GetObject"}}, {})
    assert found == ["trainyard-x-idle-task may s3:GetObject, and nothing used it"]


def test_what_has_its_reason_is_none() -> None:
    excused = {"ecs:RunTask", "ecs:StopTask"}  # StopTask: a run that is cancelled
    said = LOG.replace("s3:GetObject", "ecs:RunTask").replace("false", "true")
    assert rights.problems({WORKER: excused}, rights.decisions(said)) == []
