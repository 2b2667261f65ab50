"""MiniStack with what it lacks for rehearsing ECS workloads. Written for 1.5.33: it replaces functions by name.

- A container's credentials are a session of its task's role, at the address and by the variable that the SDKs accept (MiniStack
  gives every task the same made-up role, at an address that botocore refuses).
- entryPoint, user, readonlyRootFilesystem, memory, initProcessEnabled, dropped capabilities, healthCheck and stopTimeout are honoured.
- A task says its health, what was killed for its memory, and CannotPullContainerError. A service replaces what is unhealthy, and waits
  for what isn't yet healthy. A stopped task has stopped when its containers have, with their exit codes; its service starts another.
- A service's task is found by the other containers under its Cloud Map name, from its start to its end.
- "ECS Task State Change" events go to EventBridge as AWS sends them, so rules, queues and observers see tasks start and stop.
- A database is published on this machine's loopback only, not on all of its addresses.
- A call takes effect once, however often the SDK sends it: CreateVpc and others know no client token, and an answer that is lost (a busy
  machine, an idle connection that Hypercorn closes) would leave a second VPC that Pulumi doesn't know. The log names repeated calls.
- Docker pushes to, and pulls from, the account that made the repository last (MiniStack knows a registry's account by its host name only).
- Calls are authorized as on AWS where MiniStack differs: authorization.py.

It has to run in a container whose address on its network is 169.254.170.2, the one that ECS uses: see the Dockerfile beside it.
"""

import asyncio
import contextlib
import json
import time
import uuid

import authorization
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container
from ministack import app
from ministack.core.responses import (
    get_account_id,
    get_region,
    set_request_account_id,
    set_request_region,
)
from ministack.services import ecr, ecs, eventbridge, iam, imds, rds, servicediscovery, sts

# What ECS waits between SIGTERM and SIGKILL unless a container says otherwise, in seconds.
STOP_TIMEOUT = 30
ROLE_OF = {}  # credential id -> (role ARN, task id)


# task roles -------------------------------------------------------------------------------------------------------
def register_metadata(
    task_arn, cluster_arn, td, cdef, launch_type, env, *rest, _original=ecs._register_metadata
):
    token = _original(task_arn, cluster_arn, td, cdef, launch_type, env, *rest)
    credential = env["AWS_CONTAINER_CREDENTIALS_FULL_URI"].rsplit("/", 1)[1]
    overrides = ecs._tasks.get(task_arn, {}).get("overrides") or {}
    role = overrides.get("taskRoleArn") or td.get("taskRoleArn")
    if role:
        ROLE_OF[credential] = (role, task_arn.rsplit("/", 1)[1])
    else:  # as on ECS: no role, no credentials
        del env["AWS_CONTAINER_CREDENTIALS_FULL_URI"], env["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    env.setdefault("AWS_REGION", get_region())
    env.setdefault("AWS_DEFAULT_REGION", get_region())
    return token


def task_credentials(credential):
    role, task = ROLE_OF[credential]
    key, expires = iam._gen_session_access_key(), time.time() + 3600
    session = {
        "Arn": sts._assumed_role_arn(role, task)[0],
        "UserId": f"{sts._role_id(role)}:{task}",
        "SecretAccessKey": iam._gen_secret(),
        "SessionToken": iam._gen_session_token(),
        "Expiration": expires,
        "AccountId": role.split(":")[4],
        "PrincipalType": "AssumedRole",
    }
    sts.register_session(key, session)
    return {
        "AccessKeyId": key,
        "SecretAccessKey": session["SecretAccessKey"],
        "Token": session["SessionToken"],
        "RoleArn": role,
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
    }


async def metadata_request(method, path, *rest, _original=imds.handle_request):
    credential = path.rsplit("/", 1)[1] if path.startswith("/v2/credentials/") else None
    if credential in ROLE_OF:
        body = json.dumps(task_credentials(credential)).encode()
        return 200, {"Content-Type": "application/json"}, body
    return await _original(method, path, *rest)


# containers -------------------------------------------------------------------------------------------------------
def cloud_map_names(task_arn):
    """The names of the service that a task belongs to."""
    cluster = task_arn.split("/")[1]
    group = ecs._tasks[task_arn]["group"].removeprefix("service:")
    service = ecs._services.get(f"{cluster}/{group}") or {}
    for registry in service.get("serviceRegistries", []):
        found = servicediscovery._services[registry["registryArn"].rsplit("/", 1)[1]]
        yield f"{found['Name']}.{servicediscovery._namespaces[found['NamespaceId']]['Name']}"


def run_kwargs(cdef, td, *rest, _original=ecs._build_run_kwargs):
    kwargs = _original(cdef, td, *rest)
    names = list(cloud_map_names(kwargs["labels"]["com.amazonaws.ecs.task-arn"]))
    # Docker's resolver answers with the running containers of an alias. A task's address is its first container's.
    if names and cdef["name"] == td["containerDefinitions"][0]["name"]:
        endpoint = ecs._get_docker().api.create_endpoint_config(aliases=names)
        kwargs["networking_config"] = {kwargs["network"]: endpoint}
    memory = cdef.get("memory") or td.get("memory")
    limit = f"{memory}m" if memory else None
    linux = cdef.get("linuxParameters") or {}
    given = {
        "entrypoint": cdef.get("entryPoint"),
        "user": cdef.get("user"),
        "read_only": cdef.get("readonlyRootFilesystem"),
        "working_dir": cdef.get("workingDirectory"),
        "mem_limit": limit,
        "memswap_limit": limit,  # Fargate doesn't swap
        "init": linux.get("initProcessEnabled"),
        "cap_drop": (linux.get("capabilities") or {}).get("drop"),
        "healthcheck": health_check(cdef.get("healthCheck")),
    }
    kwargs.update({name: value for name, value in given.items() if value})
    if cdef.get("readonlyRootFilesystem"):
        kwargs["tmpfs"] = {
            m["containerPath"]: "" for m in cdef.get("mountPoints", []) if not m.get("readOnly")
        }
    kwargs["labels"]["stop-timeout"] = str(cdef.get("stopTimeout") or STOP_TIMEOUT)
    return kwargs


def health_check(check):
    return check and {
        "test": check["command"],
        "interval": check.get("interval", 30) * 10**9,
        "timeout": check.get("timeout", 5) * 10**9,
        "retries": check.get("retries", 3),
        "start_period": check.get("startPeriod", 0) * 10**9,
    }


def run_container(docker_client, cdef, *rest, _original=ecs._run_docker_container, **kwargs):
    try:
        docker_client.images.get(cdef["image"])
    except ImageNotFound:
        kwargs["refresh_image"] = True
    return _original(docker_client, cdef, *rest, **kwargs)


def stop(self, *, timeout=None, _original=Container.stop):
    return _original(self, timeout=int(self.labels.get("stop-timeout", timeout or 5)))


def describe_task_definition(data, _original=ecs._describe_task_definition):
    found = ecs._task_defs.get(ecs._resolve_td_key(data.get("taskDefinition")))
    if found:  # AWS says so of every definition, whether it was registered with it or not
        found.setdefault("enableFaultInjection", False)
    return _original(data)


def containers_of(task):
    """A task's containers: as ECS describes them, and as Docker runs them."""
    for described, docker_id in zip(task["containers"], list(task["_docker_ids"]), strict=False):
        with contextlib.suppress(APIError):
            yield described, ecs._get_docker().containers.get(docker_id)


def look(task, docker_client=None, _original=ecs._maybe_mark_stopped):
    health = set()
    for described, container in containers_of(task):
        state = container.attrs["State"]
        if "Health" in state:
            known = {"healthy": "HEALTHY", "unhealthy": "UNHEALTHY"}
            # Docker also calls a container unhealthy that is paused, or was a moment ago.
            if not state["Health"]["FailingStreak"]:
                del known["unhealthy"]
            described["healthStatus"] = known.get(state["Health"]["Status"], "UNKNOWN")
            health.add(described["healthStatus"])
    # The worst counts, as on ECS.
    task["healthStatus"] = next(
        (h for h in ("UNHEALTHY", "UNKNOWN", "HEALTHY") if h in health), "UNKNOWN"
    )
    if task["healthStatus"] == "UNHEALTHY" and task["group"].startswith("service:"):
        reason, code = "Task failed container health checks", "ServiceSchedulerInitiated"
        if ecs._mark_task_stopped(task["taskArn"], task, reason, code):
            ecs._record_service_task_failure(task)
            ecs._cleanup_task_resources(task, ecs._get_docker())
        return None
    return _original(task, docker_client)


def healthy(svc_key, task, _original=ecs._record_service_task_healthy):
    """A deployment goes on when its task is healthy, not only when it runs."""
    definition = ecs._task_defs[ecs._resolve_td_key(task["taskDefinitionArn"])]
    if any(c.get("healthCheck") for c in definition["containerDefinitions"]):
        while task["healthStatus"] != "HEALTHY" and ecs._task_is_active(task["taskArn"], task):
            time.sleep(0.1)
    return _original(svc_key, task)


def mark_stopped(
    task_arn, task, reason, stop_code, exit_code=None, _original=ecs._mark_task_stopped
):
    by_call = stop_code in ("UserInitiated", "ServiceSchedulerInitiated")
    if ecs._task_is_active(task_arn, task):
        if by_call:
            task["desiredStatus"] = "STOPPED"  # whoever watches the task leaves it alone meanwhile
        for described, container in containers_of(task):
            if container.attrs["State"]["OOMKilled"]:
                described["reason"] = "OutOfMemoryError: Container killed due to memory usage"
            if by_call:
                with contextlib.suppress(APIError):  # another call has removed it
                    container.stop()
                    described["exitCode"] = container.wait()["StatusCode"]
        task["desiredStatus"] = "RUNNING"
    return _original(task_arn, task, reason, stop_code, exit_code)


def dispatch(action, data, _original=ecs._dispatch_action):
    answer = _original(action, data)
    if action == "StopTask":  # the service of a task that someone stops starts another
        cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
        task = ecs._resolve_task(data["task"], cluster) or {}
        service = task.get("group", "").removeprefix("service:")
        ecs._reconcile_service_tasks(cluster, f"{cluster}/{service}")
    return answer


# repeated calls ---------------------------------------------------------------------------------------------------
ANSWERS = {}  # an SDK's invocation id -> the answer to its first attempt, as soon as there is one
KEPT_ANSWERS = 2000


async def once(scope, receive, send, _original=app.app):
    headers = dict(scope.get("headers", ()))
    call = headers.get(b"amz-sdk-invocation-id")
    if not call or scope.get("method") in (None, "GET", "HEAD"):
        return await _original(scope, receive, send)
    earlier = await asyncio.shield(ANSWERS[call]) if call in ANSWERS else None
    if earlier:
        body = (await receive()).get("body", b"")  # enough to tell which call
        what = headers.get(b"x-amz-target") or body[:60]
        print("repeated:", headers.get(b"amz-sdk-request"), scope["path"], what, flush=True)
        for message in earlier:
            await send(message)
        return None
    pending = ANSWERS[call] = asyncio.get_running_loop().create_future()
    answer = []

    async def kept(message):
        answer.append(message)
        await send(message)

    try:
        return await _original(scope, receive, kept)
    finally:  # a refusal or an error is no effect: the next attempt is a call of its own
        done = answer and answer[0]["status"] < 300 and not answer[-1].get("more_body")
        pending.set_result(answer if done else None)
        if not done:
            ANSWERS.pop(call, None)
        while len(ANSWERS) > KEPT_ANSWERS:
            del ANSWERS[next(iter(ANSWERS))]


# images -----------------------------------------------------------------------------------------------------------
def registry_scope(name, *_):
    found = [
        (repository["createdAt"], account, region)
        for (account, region, stored), repository in ecr._repositories.all_items()
        if stored == name
    ]
    if found:
        _, account, region = max(found)
        set_request_account_id(account)
        set_request_region(region)


# databases --------------------------------------------------------------------------------------------------------
def run_database(docker_client, engine, kwargs, *rest, _original=rds._run_rds_container, **more):
    kwargs["ports"] = {inside: ("127.0.0.1", port) for inside, port in kwargs["ports"].items()}
    return _original(docker_client, engine, kwargs, *rest, **more)


# events -----------------------------------------------------------------------------------------------------------
def announcing(original):
    def mark(task_arn, task, *args, **kwargs):
        changed = original(task_arn, task, *args, **kwargs)
        if changed:
            shown = {k: v for k, v in task.items() if not k.startswith("_") and v not in ("", None)}
            eventbridge._dispatch_event(
                {
                    "EventId": str(uuid.uuid4()),
                    "Source": "aws.ecs",
                    "DetailType": "ECS Task State Change",
                    "Detail": json.dumps(shown, default=str),
                    "EventBusName": "default",
                    "Time": int(time.time()),
                    "Resources": [task_arn],
                    "Account": get_account_id(),
                    "Region": get_region(),
                }
            )
        return changed

    return mark


def main():
    authorization.install()
    app.app = once
    ecs._register_metadata, imds.handle_request = register_metadata, metadata_request
    ecs._build_run_kwargs, Container.stop = run_kwargs, stop
    ecs._run_docker_container = run_container
    ecs._maybe_mark_stopped, ecs._record_service_task_healthy = look, healthy
    ecs._mark_task_stopped, ecs._dispatch_action = mark_stopped, dispatch
    rds._run_rds_container = run_database
    ecr._select_registry_request_scope = registry_scope
    ecs._ACTION_MAP["DescribeTaskDefinition"] = describe_task_definition
    for state in ("pending", "activating", "running", "stopped"):
        name = f"_mark_task_{state}"
        setattr(ecs, name, announcing(getattr(ecs, name)))
    app.main()


if __name__ == "__main__":
    main()
