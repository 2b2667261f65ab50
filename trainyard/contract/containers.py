"""How every container of a stack on AWS is confined and logged: its own tasks, and flow runs."""

from typing import Any

# The user that our images run as, and the one folder that they may write.
USER, SCRATCH = "1000:1000", "/tmp"  # noqa: S108 (a container's own)
SCRATCH_VOLUME = "scratch"


def without_privileges() -> dict[str, Any]:
    """Fields of a container definition: no capabilities, and an init that hands signals on."""
    return {"linuxParameters": {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}}}


def read_only() -> dict[str, Any]:
    """Fields of a container definition: not root, and nothing to write on but SCRATCH."""
    return {
        "user": USER,
        "readonlyRootFilesystem": True,
        "mountPoints": [{"sourceVolume": SCRATCH_VOLUME, "containerPath": SCRATCH}],
    }


def logged(group: Any, region: str, prefix: str, **options: str) -> dict[str, Any]:
    """Fields of a container definition: its output goes to a log group that exists.

    Args:
        group: the group's name; within a Pulumi program it may be an output.
        prefix: what its streams' names begin with.
        options: more options of the awslogs driver.
    """
    given = {"group": group, "region": region, "stream-prefix": prefix}
    ours = {f"awslogs-{name}": value for name, value in given.items()}
    return {"logConfiguration": {"logDriver": "awslogs", "options": {**ours, **options}}}
