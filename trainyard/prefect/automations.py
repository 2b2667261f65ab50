"""What Prefect's server does by itself when a run of a work pool dies, and what it tells people.

A run that goes silent, or waits too long for its machine, becomes Crashed. A crashed run is
scheduled again, as the same run: what its tasks have finished comes from the result storage. The
run itself counts its starts, and that bounds how often. One whose heart beats after all goes on as
it is: it was Prefect's server that was away.
"""

from typing import Any
from uuid import UUID

from prefect.events.schemas.automations import AutomationCore

from trainyard.contract.run_states import FAILED

# Seconds; three heartbeats (trainyard/prefect/work_pool.py) are lost by then.
SILENCE = 100.0
# Fargate takes a minute or two, and more where capacity is short.
WAIT_FOR_MACHINE = 600.0
# From a crash to the next start: a run that only seemed dead has beaten again by then, and what
# crashed it has had time to pass.
SETTLE = 45.0
# ECS's own report, as prefect_aws words it: that task is dead for sure.
TASK_GONE = "The following containers stopped *"
STARTS = 3
# How long after its time a run that nobody has taken is told of.
LATE = 600.0
# How long a start's crash is remembered as answered: longer than a run waits in a queue.
MEMORY = 7 * 24 * 3600.0
# How long a month's drift is remembered as told of; the trigger in prefect.yaml has the same.
DRIFT_MEMORY = 365 * 24 * 3600.0

# What flows/platform/events.py calls them.
MODEL_PROMOTED = "trainyard.model.promoted"
MODEL_TAKEN_BACK = "trainyard.model.taken-back"
OLDER_DATA_USED = "trainyard.data.older-used"
DRIFT_DETECTED = "trainyard.drift.detected"

RECOVERING = "Recovering"
GOES_ON = "It is scheduled again, and goes on after the tasks that it has finished."
KEPT_RESULTS = "What its tasks have finished comes from the result storage."
RUN, COUNT, MESSAGE = "prefect.resource.id", "prefect.run-count", "prefect.state-message"
DRIFTED, VERSION = "prefect.resource.id", "trainyard.version"
ANY_RUN = {RUN: "prefect.flow-run.*"}


def automations(
    work_pool: str,
    notify: UUID | None,
    *,
    silence: float = SILENCE,
    wait_for_machine: float = WAIT_FOR_MACHINE,
    settle: float = SETTLE,
    starts: int = STARTS,
    late: float = LATE,
) -> list[AutomationCore]:
    """The automations of a work pool; `notify` is the block that tells people, if there is one."""
    in_pool = {"prefect.resource.role": "work-pool", "prefect.resource.name": work_pool}
    # Heartbeats don't say which pool they are from, so deployments carry its name as a tag. Runs of
    # others, whose hearts may beat slower, are left alone.
    tagged = {"prefect.resource.role": "tag", RUN: f"prefect.tag.{work_pool}"}
    wanted: list[AutomationCore] = []

    def add(name: str, description: str, *actions: dict[str, Any], **trigger: Any) -> None:
        """An automation of a run's events: once for each run, where its trigger says no other."""
        event = {"type": "event", "match": ANY_RUN, "match_related": in_pool, **trigger}
        named = {"name": f"{work_pool}: {name}", "description": description}
        given = {**named, "trigger": event, "actions": actions}
        wanted.append(AutomationCore.model_validate(given))

    def missing(after: list[str], within: float, **more: Any) -> dict[str, Any]:
        """A trigger: nothing has come of a run for some seconds."""
        silent = {"posture": "Proactive", "expect": ["prefect.flow-run.*"], "for_each": [RUN]}
        return {**silent, "after": after, "within": within, **more}

    def crashed(message: str) -> dict[str, Any]:
        """A trigger: once for each start, so a run that never starts doesn't go on for ever."""
        counts = [str(count) for count in range(starts)]
        return {
            "posture": "Reactive",
            "expect": ["prefect.flow-run.Crashed"],
            "match": {**ANY_RUN, COUNT: counts, MESSAGE: message},
            "for_each": [RUN, COUNT],
            "within": MEMORY,
        }

    def say(body: str) -> list[dict[str, Any]]:
        action = {"type": "send-notification", "block_document_id": notify, "body": body}
        return [{**action, "subject": "Trainyard"}] if notify else []

    run = "{{ flow.name }}/{{ deployment.name }}: run {{ flow_run.name }}"

    def tell(what_next: str) -> list[dict[str, Any]]:
        state = "{{ flow_run.state.name }}: {{ flow_run.state.message }}"
        return say(f"{run} is {state} {what_next}")

    again = _becomes("SCHEDULED", "Crashed, and scheduled again.", name="AwaitingRetry")
    add(
        "a silent run is crashed",
        "Its process or machine is gone, and nobody else has said so.",
        _becomes("CRASHED", f"No heartbeat for {silence:.0f} s: its process or machine is gone."),
        **missing(
            ["prefect.flow-run.Running", "prefect.flow-run.heartbeat"],
            silence,
            match_related=tagged,
        ),
    )
    add(
        "a run that finds no machine is crashed",
        "It would wait for ever, and keep its deployment's next run waiting.",
        _becomes("CRASHED", f"Not started after {wait_for_machine:.0f} s: see the worker's log."),
        **missing(
            # All that a run is called between its schedule and its start.
            [
                "prefect.flow-run.Pending",
                "prefect.flow-run.Submitting",
                "prefect.flow-run.InfrastructurePending",
            ],
            wait_for_machine,
        ),
    )
    add(
        "a run whose task has gone starts again",
        KEPT_RESULTS,
        again,
        *tell(GOES_ON),
        **crashed(TASK_GONE),
    )
    add(
        "a crashed run is prepared to start again",
        "It may be alive after all, and what crashed it may pass.",
        # Forced, because Prefect lets nothing crash twice.
        _becomes(
            "CRASHED",
            f"Crashed; it is scheduled again after {settle:.0f} s.",
            name=RECOVERING,
            force=True,
        ),
        *tell(GOES_ON),
        **crashed(f"!{TASK_GONE}"),
    )
    add(
        "a run that only seemed dead goes on",
        "Its heart beats: Prefect's server was away, or the network between.",
        _becomes("RUNNING", "Its heart beats again.", force=True),
        posture="Reactive",
        after=[f"prefect.flow-run.{RECOVERING}"],
        expect=["prefect.flow-run.heartbeat"],
        match_related=tagged,
        for_each=[RUN],
        within=settle,
    )
    add(
        "a crashed run starts again",
        KEPT_RESULTS,
        again,
        **missing([f"prefect.flow-run.{RECOVERING}"], settle),
    )
    if not notify:  # there is nobody to tell
        return wanted
    add(
        "a run that crashes again and again is given up",
        "It stays Crashed; people are told.",
        *tell("It is given up: look at its log, then retry it in Prefect."),
        # Longer than the above takes: an event that the server reads twice, as it does after an
        # error, mustn't give up a run that goes on.
        **missing(["prefect.flow-run.Crashed"], 2 * settle),
    )
    add(
        "people hear of a run that failed",
        "Nothing starts it again but its own retries, which it has had.",
        *tell("Nothing starts it again: look at its log."),
        posture="Reactive",
        expect=[f"prefect.flow-run.{name}" for name in FAILED],
    )
    add(
        "people hear of a run that is late",
        "No worker has taken it.",
        *say(
            f"{run} should have started {late / 60:.0f} minutes ago, and no worker has"
            " taken it: is one running, and has it room?"
        ),
        **missing(["prefect.flow-run.Late"], late),
    )
    add(
        "people hear of a new champion",
        "A flow has given a model's version the alias `champion`.",
        *say(
            "{{ event.payload.model }}: version {{ event.payload.version }} is the new"
            " champion. {{ event.payload.description }}"
        ),
        posture="Reactive",
        expect=[MODEL_PROMOTED],
        match={},
    )
    add(
        "people hear of a champion taken back",
        "A person, or the deployment `rollback`, has given the alias back.",
        *say(
            "{{ event.payload.model }}: version {{ event.payload.restored }} is champion again,"
            " version {{ event.payload.version }} was taken back: {{ event.payload.reason }}"
        ),
        posture="Reactive",
        expect=[MODEL_TAKEN_BACK],
        match={},
    )
    add(
        "people hear of a run on older data",
        "A flow couldn't get newer data, and says so rather than fail.",
        *say(
            "{{ event.payload.data }}: a run goes on with {{ event.payload.used }}, because newer"
            " data couldn't be had: {{ event.payload.reason }}"
        ),
        posture="Reactive",
        expect=[OLDER_DATA_USED],
        match={},
    )
    add(
        "people hear of drift",
        "A month's rows aren't like those that a model was trained on.",
        *say(
            "{{ event.payload.model }}: {{ event.payload.month }} has drifted from what version"
            " {{ event.payload.version }} was trained on: {{ event.payload.description }}"
        ),
        posture="Reactive",
        expect=[DRIFT_DETECTED],
        match={},
        # once, however often a month is looked at
        for_each=[DRIFTED, VERSION],
        within=DRIFT_MEMORY,
    )
    return wanted


def _becomes(
    state: str, message: str, name: str | None = None, force: bool = False
) -> dict[str, Any]:
    return {
        "type": "change-flow-run-state",
        "state": state,
        "name": name,
        "message": message,
        "force": force,
    }
