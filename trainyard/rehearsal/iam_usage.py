"""What a stack's roles may do, against what they did in a rehearsal.

Nothing that its containers called was denied, nothing is granted that nobody used, and what is an
exception to that is still one.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jmespath  # type: ignore[import-untyped]

Right = tuple[str, str]
"""How a role's name ends, and an action."""

# Rights that no rehearsal uses, and why they are given all the same.
UNUSED: dict[Right, str] = {
    ("tunnel-task", f"ssmmessages:{act}Channel"): "Systems Manager's tunnels have no emulator."
    for act in ("CreateControl", "CreateData", "OpenControl", "OpenData")
} | {
    ("models-task", f"s3:{act}"): "`trainyard model reproduce` trains; no rehearsal has it do so."
    for act in ("GetBucketLocation", "PutObject")
}
# With Prefect Cloud, which is rehearsed with the profile `standard`, these too.
UNUSED_WITH_CLOUD: dict[Right, str] = {
    ("-task", "kms:Decrypt"): "S3 asks KMS in the role's name; the emulator's S3 does not.",
    ("-task", "kms:GenerateDataKey"): "S3 asks KMS in the role's name; the emulator's S3 does not.",
    ("deployer-task", "ssm:GetParameter"): "With Prefect Cloud the Deployer isn't needed.",
    ("network-flow-logs", "logs:CreateLogStream"): "The emulator's network writes no flow logs.",
    ("network-flow-logs", "logs:PutLogEvents"): "The emulator's network writes no flow logs.",
}
# Rights that one rehearsal uses and the next doesn't.
SOMETIMES: dict[Right, str] = {
    ("-task", "s3:AbortMultipartUpload"): "A large artifact whose upload fails half-way.",
    ("worker-task", "ecs:StopTask"): "A run that is cancelled.",
    ("worker-task", "logs:GetLogEvents"): "A run's last lines, if it died before it could speak.",
    ("worker-task", "sqs:ChangeMessageVisibility"): "An event that takes minutes to handle.",
}
# What a role asks for and does without.
DENIED: dict[Right, str] = {
    ("flows-task", "s3:ListBucket"): (
        "s3fs asks whether a bucket is there by listing its root, then by its location."
    ),
}


def decisions(log: str) -> dict[str, dict[bool, set[str]]]:
    """What each role was allowed (True) and denied (False), from the emulator's log."""
    found: dict[str, dict[bool, set[str]]] = {}
    for line in re.findall(r"^decided (\{.*\})$", log, flags=re.MULTILINE):
        told = json.loads(line)
        role = found.setdefault(told["role"], {True: set(), False: set()})
        role[told["allowed"]].add(told["action"])
    return found


def grants(session: Any, prefix: str) -> dict[str, set[str]]:
    """What each role whose name begins with `prefix` is allowed; of a managed policy its name.

    Execution roles are left out: the emulator starts tasks by itself, in nobody's name.
    """
    details = session.client("iam").get_paginator("get_account_authorization_details")
    found: dict[str, set[str]] = {}
    for role in details.paginate(Filter=["Role"]).search("RoleDetailList[]"):
        if role["RoleName"].startswith(prefix) and "-execution-" not in role["RoleName"]:
            allowed = jmespath.search(
                "RolePolicyList[].PolicyDocument.Statement[?Effect=='Allow'][].Action[]", role
            )
            attached = jmespath.search("AttachedManagedPolicies[].PolicyName", role)
            found[role["RoleName"]] = {*allowed, *attached}
    return found


def problems(
    granted: Mapping[str, Iterable[str]], decided: Mapping[str, Mapping[bool, set[str]]]
) -> list[str]:
    """What was denied, what is granted for nothing, and exceptions that are none; a line each."""
    # Pulumi ends a name with a dash and seven characters of its own.
    may = {(name[:-8], action) for name, actions in granted.items() for action in actions}
    did, denied = (
        {(name[:-8], each) for name in granted for each in decided.get(name, {}).get(allowed, ())}
        for allowed in (True, False)
    )
    if not may:
        return ["no role of the stack was found, or none has rights: there is nothing to compare"]
    cloud = not any(name[:-8].endswith("-prefect-task") for name in granted)
    never = UNUSED | (UNUSED_WITH_CLOUD if cloud else {})
    excused = never | SOMETIMES
    stale = [("was used", right) for right in never if _has(did, right)]
    stale += [("isn't granted", right) for right in excused if not _has(may, right)]
    stale += [("wasn't denied", right) for right in DENIED if not _has(denied, right)]
    return [
        *(f"{role} was denied {action}" for role, action in _beside(denied, DENIED)),
        *(f"{role} may {each}, and nothing used it" for role, each in _beside(may - did, excused)),
        *(
            f"{action} of {end} is an exception in {__name__}, and {fact}: remove it"
            for fact, (end, action) in stale
        ),
    ]


def _has(rights: set[Right], wanted: Right) -> bool:
    end, action = wanted
    return any(role.endswith(end) and each == action for role, each in rights)


def _beside(rights: set[Right], exceptions: Iterable[Right]) -> list[Right]:
    return sorted(right for right in rights if not any(_has({right}, each) for each in exceptions))
