"""What Pulumi says of a stack, before it does anything."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.trainyard.aws.fake_pulumi import fake_pulumi
from trainyard.aws.preview import Change, preview
from trainyard.aws.pulumi_cli import Pulumi

URN = "urn:pulumi:dev::trainyard::aws:rds/instance:Instance::trainyard-dev-db"
RDS = "aws:rds/instance:Instance"


def event(kind: str, **metadata: Any) -> str:
    return json.dumps({kind: {"metadata": metadata}})


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pulumi]:
    """A `pulumi` that says these lines."""
    return partial(fake_pulumi, tmp_path, monkeypatch)


def test_a_replacement_is_one_change_and_no_value_is_kept(pulumi: Any) -> None:
    step = {"urn": URN, "type": RDS, "new": {"inputs": {"password": "hunter2"}}}
    changed = {"password.x[0]": {"diffKind": "update-replace"}}
    found = preview(
        pulumi(
            event("resourcePreEvent", op="create-replacement", **step),
            event(
                "resourcePreEvent",
                op="replace",
                detailedDiff=changed,
                **step,
            ),
            event("resourcePreEvent", op="delete-replaced", **step),
            event("resourcePreEvent", op="same", urn="u::v", type="aws:sqs/queue:Queue"),
            event("resourcePreEvent", op="create", urn="u::w", type="trainyard:network:Network"),
        )
    )
    assert found.changes == (Change("replace", RDS, "trainyard-dev-db", ("password",)),)
    assert "hunter2" not in repr(found)


def test_what_pulumi_complains_of_is_kept_without_its_colours(pulumi: Any) -> None:
    error = {"severity": "error", "message": "<{%fg 1%}>no such profile<{%reset%}>\n"}
    found = preview(pulumi(json.dumps({"diagnosticEvent": error}), code=255))
    assert (found.failed, found.problems) == (True, ("no such profile",))


def test_a_pulumi_that_never_began_is_told_by_what_it_wrote(pulumi: Any) -> None:
    found = preview(pulumi(code=255, stderr="error: no stack named dev found"))
    (told,) = found.problems
    assert told.startswith("error: no stack named dev found")
    assert "`make bootstrap STACK=dev` makes it" in told
