"""MiniStack with what it lacks for rehearsing ECS workloads. Written for 1.5.33: it replaces functions by name.

- Task roles. A container's credentials are a session of its task definition's role, served at the address and by the variable
  that the SDKs accept (MiniStack gives every task the same made-up role, at an address that botocore refuses).
- entryPoint, user, readonlyRootFilesystem, memory, initProcessEnabled, dropped capabilities, healthCheck and stopTimeout of a container
  are honoured. A task is described with its health, what was killed for its memory says so, and a service replaces what is unhealthy, and
  waits for what isn't yet healthy.
- A task whose image can't be pulled says so as ECS does, CannotPullContainerError, and not only a service's.
- A task that is stopped has stopped when its containers have, with their exit codes; its service starts another.
- A service's task is found by the other containers under its Cloud Map name, from its start to its end.
- ECS calls are authorized on the resources that AWS's service authorization reference names, with ecs:cluster, and iam:PassRole is checked
  on the roles that RunTask (its overrides', else its task definition's) and RegisterTaskDefinition pass, and ecs:TagResource on a task
  started with tags (MiniStack asks for the cluster, and never for PassRole).
- A token's `repository_id` is known to trust policies, beside its audience and subject.
- iam:PermissionsBoundary is known of the calls that make, change and bound roles.
- What a role was allowed or denied for the first time stands in the emulator's log, as "decided {...}".
- A database is published on this machine's loopback only, not on all of its addresses.
- Requests count as made by TLS, and budgets are authorized by the actions that AWS has for them.
- Calls for a log stream are authorized on it, and not on its group.
- Parameters by path, database groups, budgets, alarms, dashboards, rules and images are authorized by their names.
- A call takes effect once, however often the SDK sends it: CreateVpc and others know no client token, and an answer that never arrives
  would leave a second VPC, of which Pulumi knows nothing. Terraform's provider, on a busy machine, asks again now and then for what was
  answered in milliseconds, on a connection that stayed open; Hypercorn leaves a request unanswered that comes as it closes an idle
  connection. On AWS it would too, but a rehearsal's question is what the program leaves. Repeated calls stand in the emulator's log.
- Docker pushes to, and pulls from, the account that made the repository last (MiniStack knows a registry's account by its host name only).
- "ECS Task State Change" events go to EventBridge as AWS sends them, so rules, queues and observers see tasks start and stop.

It has to run in a container whose address on its network is 169.254.170.2, the one that ECS uses: see the Dockerfile beside it.
"""

import asyncio
import contextlib
import contextvars
import json
import time
import uuid

from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import (
    get_account_id,
    get_region,
    set_request_account_id,
    set_request_region,
)
from ministack.services import cognito, ecr, ecs, eventbridge, iam, imds, rds, servicediscovery, sts

ECS_STOP_TIMEOUT_SECONDS = (
    30  # what ECS waits between SIGTERM and SIGKILL unless a container says otherwise
)
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
    account, name = role.split(":")[4], role.rsplit("/", 1)[1]
    key, secret, token, expires = (
        iam._gen_session_access_key(),
        iam._gen_secret(),
        iam._gen_session_token(),
        time.time() + 3600,
    )
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{task}",
            "UserId": f"{sts._role_id(role)}:{task}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": expires,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
            "SourceAccessKeyId": "",
            "SourcePrincipalArn": "",
            "SessionTags": {},
            "SessionPolicies": None,
        },
    )
    return {
        "AccessKeyId": key,
        "SecretAccessKey": secret,
        "Token": token,
        "RoleArn": role,
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
    }


async def metadata_request(method, path, *rest, _original=imds.handle_request):
    credential = path.rsplit("/", 1)[1] if path.startswith("/v2/credentials/") else None
    if credential in ROLE_OF:
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps(task_credentials(credential)).encode(),
        )
    return await _original(method, path, *rest)


# authorization ----------------------------------------------------------------------------------------------------
# Of the request being authorized: the roles it passes, the cluster it names.
CALL = contextvars.ContextVar("call")
# Actions that AWS authorizes by another name than the call's.
CALLED = {
    "budgets:CreateBudget": "budgets:ModifyBudget",
    "budgets:DeleteBudget": "budgets:ModifyBudget",
    "budgets:UpdateBudget": "budgets:ModifyBudget",
    "budgets:DescribeBudget": "budgets:ViewBudget",
    "budgets:DescribeNotificationsForBudget": "budgets:ViewBudget",
    "budgets:DescribeSubscribersForNotification": "budgets:ViewBudget",
    "budgets:CreateNotification": "budgets:ModifyBudget",
    "budgets:CreateSubscriber": "budgets:ModifyBudget",
}
# The emulator's address stands for AWS's, which is reached by TLS: policies that refuse anything else must not refuse it.
SECURE = {"aws:securetransport": "true", "s3:tlsversion": "1.3"}


def arn_of(kind, name, cluster=""):
    if name.startswith("arn:"):
        return name
    middle = f"{cluster.rsplit('/', 1)[-1] or 'default'}/" if kind in ("service", "task") else ""
    return f"arn:aws:ecs:{get_region()}:{get_account_id()}:{kind}/{middle}{name}"


def named(service, given, query):
    """The resource of a call that MiniStack authorizes on `*`, although AWS knows better."""
    here = f"{get_region()}:{get_account_id()}"

    def asked(key):
        value = given.get(key) or given.get("Budget", {}).get(key) or query.get(key)
        return value[0] if isinstance(value, list) and value else value

    tagged = asked("ResourceName") or asked("ResourceArn") or asked("ResourceARN")
    if isinstance(tagged, str) and tagged.startswith("arn:"):
        return tagged
    kinds = {
        "events": {"Rule": "rule/"},
        "ssm": {"Path": "parameter", "Names": "parameter"},
        "rds": {"DBSubnetGroupName": "subgrp:", "DBParameterGroupName": "pg:"},
        "budgets": {"BudgetName": "budget/"},
        "monitoring": {
            "AlarmNames": "alarm:",
            "AlarmNames.member.1": "alarm:",
            "DashboardName": "dashboard/",
            "DashboardNames": "dashboard/",
            "DashboardNames.member.1": "dashboard/",
        },
        "sns": {"SubscriptionArn": ""},
        "ecr": {"repositoryName": "repository/"},
    }
    for key, prefix in kinds.get(service, {}).items():
        name = asked(key)
        if isinstance(name, str) and name:
            name = name.rsplit(":", 1)[0] if key == "SubscriptionArn" else name
            if name.startswith("arn:"):
                return name
            where = f":{get_account_id()}" if prefix in ("budget/", "dashboard/") else here
            signed = "cloudwatch" if service == "monitoring" else service
            return f"arn:aws:{signed}:{where}:{prefix}{name}"
    return None


def boundary_of(query):
    """What iam:PermissionsBoundary says of a call: the boundary that it sets, else the one that its role has."""
    role = iam._roles.get(iam_actions._query_param(query, "RoleName")) or {}
    return iam_actions._query_param(query, "PermissionsBoundary") or role.get("PermissionsBoundary")


def resource_arn(
    service, method, path, headers, body, query, *rest, _original=iam_actions.extract_resource_arn
):
    CALL.set({})
    try:
        given = json.loads(body or b"{}")
    except ValueError:
        given = {}
    if service == "iam":
        CALL.set({"boundary": boundary_of(query)})
    if service != "ecs":
        found = _original(service, method, path, headers, body, query, *rest)
        if service == "logs" and given.get("logStreamName"):
            found = f"{found}:log-stream:{given['logStreamName']}"
        if found == "*" or (service == "events" and "Rule" in given):
            found = named(service, given if isinstance(given, dict) else {}, query) or found
        return found.replace(
            ":rule/default/", ":rule/"
        )  # the default bus has no name in a rule's ARN
    action = headers.get("x-amz-target", "").rsplit(".", 1)[-1]
    cluster = given.get("cluster") or ""
    runs = action in ("RunTask", "StartTask")
    definition = (
        (ecs._task_defs.get(ecs._resolve_td_key(given.get("taskDefinition"))) or {})
        if runs
        else given
    )
    roles = [
        (given.get("overrides") or {}).get(k) or definition.get(k)
        for k in ("taskRoleArn", "executionRoleArn")
    ]
    CALL.set(
        {
            "passes": [role for role in roles if role]
            if runs or action == "RegisterTaskDefinition"
            else [],
            "tagged": arn_of("task", "*", cluster) if runs and given.get("tags") else None,
            "action": action,
            "cluster": arn_of("cluster", cluster or "default"),
        }
    )
    if runs:
        return definition.get("taskDefinitionArn") or arn_of(
            "task-definition", given.get("taskDefinition", "")
        )
    if action == "RegisterTaskDefinition":
        return arn_of("task-definition", f"{given.get('family', '')}:*")
    if action in ("DeregisterTaskDefinition", "DescribeTaskDefinition") or action.startswith(
        "List"
    ):
        return given.get("resourceArn") or "*"
    if action in ("StopTask", "DescribeTasks"):
        return arn_of("task", given.get("task") or (given.get("tasks") or ["*"])[0], cluster)
    if action in ("TagResource", "UntagResource"):
        return given.get("resourceArn", "*")
    if action in ("CreateCluster", "DescribeClusters", "DeleteCluster"):
        name = given.get("clusterName") or cluster or (given.get("clusters") or ["default"])[0]
        return arn_of("cluster", name)
    if action in ("UpdateService", "DeleteService", "CreateService", "DescribeServices"):
        return arn_of(
            "service",
            given.get("service") or given.get("serviceName") or (given.get("services") or ["*"])[0],
            cluster,
        )
    return _original(service, method, path, headers, body, query, *rest)


DECIDED = set()  # (role, action, whether it was let through), each told once


def decide(access_key, action, *args, _original=iam_evaluator.enforce, **kwargs):
    """Ask MiniStack, and tell what a role did for the first time."""
    denied = _original(access_key, action, *args, **kwargs)
    session = sts._sessions.get(access_key)
    if session:
        role = session["Arn"].split("/")[1]
        decision = (role, action, not denied)
        if decision not in DECIDED:
            DECIDED.add(decision)
            told = {"role": role, "action": action, "allowed": not denied}
            print("decided", json.dumps({**told, "on": kwargs.get("resource_arn")}), flush=True)
    return denied


def condition_key(key, ctx, _original=iam_evaluator._resolve_condition_key):
    return SECURE.get(key.lower()) or _original(key, ctx)


def enforce(
    access_key,
    action,
    service,
    region,
    *args,
    service_context=None,
    **kwargs,
):
    call = CALL.get({})
    action = CALLED.get(action, action)
    service_context = dict(service_context or {})
    if service == "ecs" and call:
        service_context["ecs:cluster"] = call["cluster"]
    if service == "iam" and call.get("boundary"):
        service_context["iam:PermissionsBoundary"] = call["boundary"]
    denied = decide(
        access_key, action, service, region, *args, service_context=service_context, **kwargs
    )
    if service == "ecs" and not denied and call.get("tagged"):  # a task that is tagged as it starts
        denied = decide(
            access_key,
            "ecs:TagResource",
            service,
            region,
            resource_arn=call["tagged"],
            service_context={**service_context, "ecs:CreateAction": call["action"]},
        )
    for role in call.get("passes", []) if service == "ecs" and not denied else []:
        denied = decide(
            access_key,
            "iam:PassRole",
            "iam",
            region,
            resource_arn=role,
            service_context={"iam:PassedToService": "ecs-tasks.amazonaws.com"},
        )
        if denied:
            break
    return denied


def token_principal(token, *rest, _original=sts._web_identity_principal):
    principal, keys = _original(token, *rest)
    with contextlib.suppress(KeyError, ValueError):
        claims = cognito._decode_id_token_unverified(token)
        host = claims["iss"].split("://", 1)[-1]
        keys |= {f"{host}:repository_id": claims["repository_id"]}
    return principal, keys


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
    linux = cdef.get("linuxParameters") or {}
    check = cdef.get("healthCheck")
    kwargs.update(
        {
            k: v
            for k, v in {
                "entrypoint": cdef.get("entryPoint"),
                "user": cdef.get("user"),
                "read_only": cdef.get("readonlyRootFilesystem"),
                "working_dir": cdef.get("workingDirectory"),
                "mem_limit": f"{memory}m" if memory else None,
                "memswap_limit": f"{memory}m" if memory else None,  # Fargate doesn't swap
                "init": linux.get("initProcessEnabled"),
                "cap_drop": (linux.get("capabilities") or {}).get("drop"),
                "healthcheck": check
                and {
                    "test": check["command"],
                    "interval": check.get("interval", 30) * 10**9,
                    "timeout": check.get("timeout", 5) * 10**9,
                    "retries": check.get("retries", 3),
                    "start_period": check.get("startPeriod", 0) * 10**9,
                },
            }.items()
            if v
        }
    )
    if cdef.get("readonlyRootFilesystem"):
        kwargs["tmpfs"] = {
            m["containerPath"]: "" for m in cdef.get("mountPoints", []) if not m.get("readOnly")
        }
    kwargs["labels"]["stop-timeout"] = str(cdef.get("stopTimeout") or ECS_STOP_TIMEOUT_SECONDS)
    return kwargs


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
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
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
def announce(task):
    detail = {k: v for k, v in task.items() if not k.startswith("_") and v not in ("", None)}
    eventbridge._dispatch_event(
        {
            "EventId": str(uuid.uuid4()),
            "Source": "aws.ecs",
            "DetailType": "ECS Task State Change",
            "Detail": json.dumps(detail, default=str),
            "EventBusName": "default",
            "Time": int(time.time()),
            "Resources": [task["taskArn"]],
            "Account": get_account_id(),
            "Region": get_region(),
        }
    )


def announcing(original):
    def mark(task_arn, task, *args, **kwargs):
        changed = original(task_arn, task, *args, **kwargs)
        if changed:
            announce(task)
        return changed

    return mark


def main():
    iam_actions.extract_resource_arn, iam_evaluator.enforce = resource_arn, enforce
    iam_evaluator._resolve_condition_key = condition_key
    sts._web_identity_principal = token_principal
    app.app = once
    ecs._register_metadata, imds.handle_request = register_metadata, metadata_request
    ecs._build_run_kwargs, Container.stop = run_kwargs, stop
    ecs._run_docker_container = run_container
    ecs._maybe_mark_stopped, ecs._record_service_task_healthy = look, healthy
    ecs._mark_task_stopped, ecs._dispatch_action = mark_stopped, dispatch
    rds._run_rds_container = run_database
    ecr._select_registry_request_scope = registry_scope
    ecs._ACTION_MAP["DescribeTaskDefinition"] = describe_task_definition
    for name in (
        "_mark_task_pending",
        "_mark_task_activating",
        "_mark_task_running",
        "_mark_task_stopped",
    ):
        setattr(ecs, name, announcing(getattr(ecs, name)))
    app.main()


if __name__ == "__main__":
    main()
