"""How a worker starts a stack's flow runs: StackOutputs -> the work pool's base job template.

Prefect fills {{ names }} with the template's variables, which a deployment may override
(`work_pool.job_variables` in prefect.yaml); the rest is fixed.
"""

from typing import Any

from trainyard.contract.containers import (
    SCRATCH,
    SCRATCH_VOLUME,
    logged,
    read_only,
    without_privileges,
)
from trainyard.contract.fargate_sizes import FREE_DISK, LEAST_DISK, MOST_DISK, RUN
from trainyard.contract.naming import STACK_TAG
from trainyard.contract.outputs import FLOWS_DATABASE, DockerWorkPool, EcsWorkPool, StackOutputs

IMAGE = {
    "type": "string",
    "title": "Image",
    "description": "What a run's container is started from, by digest.",
    "minLength": 1,
}
IN_A_CONTAINER = {"HOME": SCRATCH, "PREFECT_HOME": f"{SCRATCH}/prefect"}
ON_ECS = {
    # 2 + 4 + ... + 128 s, so that runs wait for a server that is replaced; 5 are Prefect's own.
    "PREFECT_CLIENT_MAX_RETRIES": "7",
    # What a server says whose database is too busy, or away for a moment.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
    # A run on Spot capacity is told two minutes ahead: it stops, and starts again elsewhere.
    "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
}
# The label that says whose a run's container is.
CONTAINER_OF = "trainyard.artifact-store"


def result_block(outputs: StackOutputs) -> str:
    """The block that keeps the stack's results, as Prefect names it: type/name."""
    kind = "s3-bucket" if outputs.artifact_store.startswith("s3://") else "local-file-system"
    return f"{kind}/trainyard-results"


def base_job_template(outputs: StackOutputs) -> dict[str, Any]:
    environment = {
        # The automations count on it. It costs no more than Prefect's own 180 s.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": result_block(outputs),
        "PYTHONPATH": outputs.code_dir,
        "MLFLOW_TRACKING_URI": outputs.tracking_uri,
        "TRAINYARD_ARTIFACT_STORE": outputs.artifact_store,
    }
    pool = outputs.work_pool
    if isinstance(pool, EcsWorkPool):
        return _ecs(pool, outputs.stack, environment)
    if isinstance(pool, DockerWorkPool):
        return _docker(pool, outputs.artifact_store, environment)
    return _process(environment)


def _process(environment: dict[str, str]) -> dict[str, Any]:
    return {
        "job_configuration": {
            # Said outright because what Prefect puts here by default prepares the code in a
            # process of its own first: 2.5 s more for each run, for code that is already there.
            "command": "{{ command }}",
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "name": "{{ name }}",
            "stream_output": "{{ stream_output }}",
            "working_dir": "{{ working_dir }}",
        },
        "variables": {
            "type": "object",
            "properties": {
                **_common("python -m prefect.engine", environment),
                "stream_output": {
                    "type": "boolean",
                    "title": "Stream output",
                    "description": "Write a run's output to the worker's log.",
                    "default": True,
                },
                "working_dir": _string("Where a run starts; empty for a temporary folder."),
                "image": _string(
                    "What a run's container is started from. Ignored by this pool, whose runs are"
                    " processes: it is here so that the same prefect.yaml serves every stack."
                ),
            },
        },
    }


def _docker(
    pool: DockerWorkPool, artifact_store: str, environment: dict[str, str]
) -> dict[str, Any]:
    tracking = environment["MLFLOW_TRACKING_URI"]
    if not pool.host_network:  # Docker's name for the machine; the worker puts it into Prefect's
        tracking = tracking.replace("127.0.0.1", "host.docker.internal")
    # the worker fills it in from its own environment: a password isn't kept in Prefect
    given = {FLOWS_DATABASE: f"{{{{ ${FLOWS_DATABASE} }}}}"}
    environment = IN_A_CONTAINER | environment | {"MLFLOW_TRACKING_URI": tracking} | given
    return {
        "job_configuration": {
            "command": "{{ command }}",
            "env": "{{ env }}",
            "image": "{{ image }}",
            "image_pull_policy": "IfNotPresent",
            "labels": {CONTAINER_OF: artifact_store},
            "name": "{{ name }}",
            "network_mode": "host" if pool.host_network else None,
            # A container that was removed can't say how it ended.
            "auto_remove": False,
            "stream_output": True,
            "mem_limit": "{{ memory }}m",
            "memswap_limit": "{{ memory }}m",
            "volumes": [f"{artifact_store}:{artifact_store}"],
            "container_create_kwargs": {
                "user": pool.user,
                "read_only": True,  # but for SCRATCH, which is a volume of the image
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges"],
            },
        },
        "variables": {
            "type": "object",
            "required": ["image"],
            "properties": {
                **_common("prefect flow-run execute", environment),
                "image": IMAGE,
                "memory": {
                    "type": "integer",
                    "title": "Memory",
                    "description": "MiB of a run; one that needs more is ended.",
                    "default": 4096,
                },
            },
        },
    }


def _ecs(pool: EcsWorkPool, stack: str, environment: dict[str, str]) -> dict[str, Any]:
    region = {"AWS_DEFAULT_REGION": pool.region}
    environment = region | IN_A_CONTAINER | ON_ECS | environment | pool.environment
    secrets = pool.secrets | {pool.api_secret_variable: pool.api_secret}
    return {
        "job_configuration": {
            "command": "{{ command }}",
            # The worker hands its own PREFECT_* settings on, in plain text. These it must not:
            # a run gets them as secrets of its container.
            "env": {"PREFECT_API_KEY": None, "PREFECT_API_AUTH_STRING": None},
            "labels": "{{ labels }}",
            "name": "{{ name }}",
            "cluster": pool.cluster_arn,
            # A worker that is replaced goes on with the revision that is there.
            "match_latest_revision_in_family": True,
            "auto_deregister_task_definition": False,
            "task_definition": {
                "cpu": "{{ cpu }}",
                "memory": "{{ memory }}",
                "ephemeralStorage": {"sizeInGiB": "{{ disk }}"},
                "networkMode": "awsvpc",
                "requiresCompatibilities": ["FARGATE"],
                "runtimePlatform": {
                    "operatingSystemFamily": "LINUX",
                    "cpuArchitecture": pool.cpu_architecture,
                },
                "executionRoleArn": pool.execution_role_arn,
                "taskRoleArn": pool.task_role_arn,
                "volumes": [{"name": SCRATCH_VOLUME}],
                # AWS says so of a definition that doesn't, and the worker would take that for
                # a difference: a new revision at every start of a worker.
                "enableFaultInjection": False,
                "containerDefinitions": [_container(pool, secrets)],
            },
            "task_run_request": {
                "cluster": pool.cluster_arn,
                "launchType": "{{ launch_type }}",
                # Here, and not as the worker's variables, so that it asks EC2 nothing.
                "networkConfiguration": {
                    "awsvpcConfiguration": {
                        "subnets": list(pool.subnet_ids),
                        "securityGroups": list(pool.security_group_ids),
                        "assignPublicIp": "ENABLED" if pool.assign_public_ip else "DISABLED",
                    }
                },
                # The worker puts the command and the environment here.
                "overrides": {"containerOverrides": [{"name": "prefect"}]},
                "tags": {"Project": "trainyard", STACK_TAG: stack},
            },
        },
        "variables": ecs_variables(environment, pool.capacity_provider),
    }


def ecs_variables(environment: dict[str, str], capacity: str) -> dict[str, Any]:
    """What a deployment may choose of a run on ECS, and what it is without a choice."""
    return {
        "type": "object",
        "required": ["image"],
        "properties": {
            **_common("prefect flow-run execute", environment),
            "image": IMAGE,
            "cpu": {
                "type": "integer",
                "title": "CPU",
                "description": "CPU units of a run; 1024 are a virtual CPU.",
                "default": RUN.cpu,
            },
            "memory": {
                "type": "integer",
                "title": "Memory",
                "description": "MiB of a run; Fargate has certain pairs of CPU and memory.",
                "default": RUN.memory,
            },
            "disk": {
                "type": "integer",
                "title": "Disk",
                "description": f"GiB of disk of a run; those above {FREE_DISK} are paid for.",
                "minimum": LEAST_DISK,
                "maximum": MOST_DISK,
                "default": LEAST_DISK,
            },
            "launch_type": {
                "type": "string",
                "title": "Launch type",
                "description": "FARGATE_SPOT is cheaper, and may be taken away.",
                "enum": ["FARGATE", "FARGATE_SPOT"],
                "default": capacity,
            },
        },
    }


def _container(pool: EcsWorkPool, secrets: dict[str, str]) -> dict[str, Any]:
    return {
        # The name by which Prefect's observer knows the container that is the run.
        "name": "prefect",
        "image": "{{ image }}",
        "essential": True,
        **read_only(),
        **without_privileges(),
        # Fargate's longest: time to reach the next task, and to be rescheduled.
        "stopTimeout": 120,
        "secrets": [{"name": k, "valueFrom": v} for k, v in sorted(secrets.items())],
        **logged(pool.log_group, pool.region, "flows", **{"awslogs-create-group": "false"}),
    }


def _common(command: str, environment: dict[str, str]) -> dict[str, Any]:
    return {
        "name": _string("The name of the process or task."),
        "command": _string("What starts a run.", default=command),
        "env": {
            "type": "object",
            "title": "Environment variables",
            "description": "Environment variables of a run, beside the worker's own.",
            "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "default": environment,
        },
        "labels": {
            "type": "object",
            "title": "Labels",
            "description": "Labels of the process, or tags of the task.",
            "additionalProperties": {"type": "string"},
        },
    }


def _string(description: str, default: str | None = None) -> dict[str, Any]:
    return {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "description": description,
        "default": default,
    }
