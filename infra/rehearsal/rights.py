"""What a stack's roles may do, against what they did in a rehearsal.

Nothing that its containers called was denied, and nothing is granted that nobody used.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Rights that a rehearsal doesn't use, by role and action, and why they are given all the same.
UNUSED: Mapping[tuple[str, str], str] = {
    ("-task", "s3:AbortMultipartUpload"): "A large artifact whose upload fails half-way.",
    ("-task", "kms:Decrypt"): "S3 asks KMS in the role's name; the emulator's S3 does not.",
    ("-task", "kms:GenerateDataKey"): "S3 asks KMS in the role's name; the emulator's S3 does not.",
    ("worker-task", "ecs:StopTask"): "A run that is cancelled.",
    (
        "worker-task",
        "logs:GetLogEvents",
    ): "The last lines of a run that died before it could speak.",
    ("worker-task", "sqs:ChangeMessageVisibility"): "An event that takes minutes to handle.",
    ("deployer-task", "ssm:GetParameter"): "With Prefect Cloud the Deployer isn't needed.",
    ("network-flow-logs", "logs:CreateLogStream"): "The emulator's network writes no flow logs.",
    ("network-flow-logs", "logs:PutLogEvents"): "The emulator's network writes no flow logs.",
    **{
        ("tunnel-task", f"ssmmessages:{action}"): "Systems Manager's tunnels have no emulator."
        for action in (
            "CreateControlChannel",
            "CreateDataChannel",
            "OpenControlChannel",
            "OpenDataChannel",
        )
    },
}
# What a role asks for and does without.
DENIED: Mapping[tuple[str, str], str] = {
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
    iam = session.client("iam")
    found: dict[str, set[str]] = {}
    for role in iam.list_roles()["Roles"]:
        name = role["RoleName"]
        if not name.startswith(prefix) or "-execution-" in name:
            continue
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        found[name] = {policy["PolicyName"] for policy in attached}
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            for statement in document["Statement"]:
                if statement["Effect"] == "Allow":
                    found[name] |= set(statement["Action"])
    return found


def problems(
    granted: Mapping[str, Iterable[str]], decided: Mapping[str, Mapping[bool, set[str]]]
) -> list[str]:
    """What was denied, and what is granted for nothing; a line each."""
    found = []
    for name, actions in sorted(granted.items()):
        # Pulumi ends a name with a dash and seven characters of its own.
        role, did = name[:-8], decided.get(name, {True: set(), False: set()})
        for list_of, actions_found, text in (
            (DENIED, did[False], "was denied {}"),
            (UNUSED, set(actions) - did[True], "may {}, and nothing used it"),
        ):
            excused = {action for end, action in list_of if role.endswith(end)}
            found += [f"{role} {text.format(each)}" for each in sorted(actions_found - excused)]
    return found
