"""What MiniStack's IAM lacks for a rehearsal.

- ECS calls are authorized on the resources that AWS's service authorization reference names, with ecs:cluster. iam:PassRole is checked
  on the roles that RunTask (its overrides', else its task definition's) and RegisterTaskDefinition pass, and ecs:TagResource on a task
  started with tags (MiniStack asks for the cluster, and never for PassRole).
- iam:PermissionsBoundary is known of the calls that make, change and bound roles. Requests count as made by TLS.
- Log streams, parameters by path, database groups, budgets, alarms, dashboards, rules and images are authorized by their names.
- EC2's calls are authorized on each resource that they name or make, with its tags: network_authorization.py. Tags of databases, clusters,
  tasks, images, rules and Cloud Map are known to conditions too.
- A token's `repository_id` and `ref` are known to trust policies, beside its audience and subject.
- What a role was allowed or denied for the first time stands in the emulator's log, as "decided {...}".
"""

import contextlib
import contextvars
import json
import re

import network_authorization
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import cognito, ecs, iam, rds, servicediscovery, sts, tagging

# Of the request being authorized: condition keys, and the rights that it needs beside its own action's.
CALL = contextvars.ContextVar("call")
# Where a call to ECS names its resource: action -> (kind, field).
ECS = {
    "StopTask": ("task", "task"),
    "DescribeTasks": ("task", "tasks"),
    "CreateCluster": ("cluster", "clusterName"),
    "DescribeClusters": ("cluster", "clusters"),
    "DeleteCluster": ("cluster", "cluster"),
    "CreateService": ("service", "serviceName"),
    "DescribeServices": ("service", "services"),
    "UpdateService": ("service", "service"),
    "DeleteService": ("service", "service"),
    "TagResource": ("resource", "resourceArn"),
    "UntagResource": ("resource", "resourceArn"),
}
# What MiniStack authorizes on `*`, although AWS knows better: service -> field -> how its resource begins.
NAMED = {
    "events": {"Rule": "rule/"},
    "ssm": {"Path": "parameter", "Names": "parameter"},
    "rds": {"DBSubnetGroupName": "subgrp:", "DBParameterGroupName": "pg:"},
    "budgets": {"BudgetName": "budget/"},
    "monitoring": dict.fromkeys(("AlarmNames", "AlarmNames.member.1"), "alarm:")
    | dict.fromkeys(("DashboardName", "DashboardNames", "DashboardNames.member.1"), "dashboard/"),
    "sns": {"SubscriptionArn": ""},
    "ecr": {"repositoryName": "repository/"},
}
# The emulator's address stands for AWS's, which is reached by TLS: policies that refuse anything else must not refuse it.
SECURE = {"aws:securetransport": "true", "s3:tlsversion": "1.3"}


def resource_arn(
    service, method, path, headers, body, query, *rest, _original=iam_actions.extract_resource_arn
):
    CALL.set({})
    given = {}
    with contextlib.suppress(ValueError):
        given = json.loads(body or b"{}")
    if not isinstance(given, dict):
        given = {}
    if service == "ecs" and (found := ecs_resource(headers, given)):
        return found
    if service == "ec2":
        asked = {name: first(value) for name, value in query.items()}
        if needed := network_authorization.checks(asked):
            (_, on, keys), *also = needed
            also = [(f"ec2:{action}", arn, keys) for action, arn, keys in also]
            CALL.set({"context": keys, "also": also})
            return on
    if service == "iam":
        role = iam._roles.get(iam_actions._query_param(query, "RoleName")) or {}
        bound = iam_actions._query_param(query, "PermissionsBoundary")
        if bound := bound or role.get("PermissionsBoundary"):
            CALL.set({"context": {"iam:PermissionsBoundary": bound}})
    found = _original(service, method, path, headers, body, query, *rest)
    if service == "logs" and given.get("logStreamName"):
        found = f"{found}:log-stream:{given['logStreamName']}"
    if found == "*" or (service == "events" and "Rule" in given):
        found = named(service, {**query, **given, **given.get("Budget", {})}) or found
    return found.replace(":rule/default/", ":rule/")  # the default bus has no name in a rule's ARN


def named(service, given):
    tagged = dict.fromkeys(("ResourceName", "ResourceArn", "ResourceARN"), "")
    for field, prefix in {**tagged, **NAMED.get(service, {})}.items():
        name = str(first(given.get(field)) or "")
        if name.startswith("arn:"):
            return name.rsplit(":", 1)[0] if field == "SubscriptionArn" else name
        if name and prefix:
            region = "" if prefix in ("budget/", "dashboard/") else get_region()
            signed = "cloudwatch" if service == "monitoring" else service
            return f"arn:aws:{signed}:{region}:{get_account_id()}:{prefix}{name}"
    return None


def first(value):
    return (value[0] if value else None) if isinstance(value, list) else value


def ecs_resource(headers, given):
    """On what an ECS call is authorized; notes which rights it needs beside."""
    action = headers.get("x-amz-target", "").rsplit(".", 1)[-1]
    cluster = given.get("cluster") or ""
    context = {"ecs:cluster": ecs_arn("cluster", cluster or "default")}
    CALL.set({"context": context})
    if action in ("RunTask", "StartTask"):
        asked = given.get("taskDefinition")
        definition = ecs._task_defs.get(ecs._resolve_td_key(asked)) or {}
        tagged = {**context, "ecs:CreateAction": action}
        also = [("ecs:TagResource", ecs_arn("task", "*", cluster), tagged)]
        overrides = {k: v for k, v in (given.get("overrides") or {}).items() if v}
        passed = passed_roles({**definition, **overrides})
        CALL.set({"context": context, "also": also * bool(given.get("tags")) + passed})
        return definition.get("taskDefinitionArn") or ecs_arn("task-definition", asked or "")
    if action == "RegisterTaskDefinition":
        CALL.set({"context": context, "also": passed_roles(given)})
        return ecs_arn("task-definition", f"{given.get('family', '')}:*")
    if re.fullmatch("DeregisterTaskDefinition|DescribeTaskDefinition|List.*", action):
        return given.get("resourceArn") or "*"
    if action in ECS:
        kind, field = ECS[action]
        name = first(given.get(field)) or ("default" if kind == "cluster" else "*")
        return ecs_arn(kind, name, cluster)
    return None


def passed_roles(definition):
    to_tasks = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    roles = [definition.get(key) for key in ("taskRoleArn", "executionRoleArn")]
    return [("iam:PassRole", role, to_tasks) for role in roles if role]


def ecs_arn(kind, name, cluster=""):
    if name.startswith("arn:") or kind == "resource":
        return name
    middle = f"{cluster.rsplit('/', 1)[-1] or 'default'}/" if kind in ("service", "task") else ""
    return f"arn:aws:ecs:{get_region()}:{get_account_id()}:{kind}/{middle}{name}"


DECIDED = set()  # (role, action, whether it was let through), each told once


def decide(access_key, action, service, region, resource, context, _original=iam_evaluator.enforce):
    """Ask MiniStack, and tell what a role did for the first time."""
    denied = _original(access_key, action, service, region, resource, context)
    if session := sts._sessions.get(access_key):
        told = {"role": session["Arn"].split("/")[1], "action": action, "allowed": not denied}
        decision = tuple(told.values())
        if decision not in DECIDED:
            DECIDED.add(decision)
            print("decided", json.dumps({**told, "on": resource}), flush=True)
    return denied


def enforce(access_key, action, service, region, resource_arn="*", service_context=None):
    if service == "budgets" and "Tag" not in action:  # AWS has two for the rest of its calls
        action = f"budgets:{'View' if ':Describe' in action else 'Modify'}Budget"
    call = CALL.get({}) if service in ("ec2", "ecs", "iam") else {}
    asked = service_context or {}
    if service == "ec2" and call and not action.endswith("Tags"):
        asked = {}  # its tags are those of one of the resources
    denied = decide(
        access_key, action, service, region, resource_arn, {**asked, **call.get("context", {})}
    )
    for also, resource, conditions in call.get("also", []):
        prefix = also.split(":")[0]
        given = {**asked, **conditions} if prefix == service else conditions
        denied = denied or decide(access_key, also, prefix, region, resource, given)
    return denied


def condition_key(key, context, _original=iam_evaluator._resolve_condition_key):
    return SECURE.get(key.lower()) or _original(key, context)


def token_principal(token, *rest, _original=sts._web_identity_principal):
    principal, keys = _original(token, *rest)
    with contextlib.suppress(KeyError, ValueError):
        claims = cognito._decode_id_token_unverified(token)
        host = claims["iss"].split("://", 1)[-1]
        keys |= {
            f"{host}:{name}": claims[name] for name in ("repository_id", "ref") if name in claims
        }
    return principal, keys


def tagged(store):
    """The tags that a service of MiniStack's keeps by ARN, as `tagging` wants them."""
    return lambda: iter(store.items())


def install():
    tagging._RESOURCE_TAG_COLLECTORS |= {
        "ecr": tagging._collect_ecr,
        "ecs": tagging._collect_ecs,
        "events": tagging._collect_eventbridge,
        "rds": tagged(rds._tags),
        "servicediscovery": tagged(servicediscovery._resource_tags),
    }
    iam_actions.extract_resource_arn, iam_evaluator.enforce = resource_arn, enforce
    iam_evaluator._resolve_condition_key = condition_key
    sts._web_identity_principal = token_principal
