"""What an environment hands to the tool: StackOutputs, checked against the contract as they are
built, and what operating the stack needs beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulumi import Input, Output
from pydantic import BaseModel

from infra.components.artifact_store import ArtifactStore
from infra.components.cluster import Cluster
from infra.components.event_observer import EventObserver
from infra.components.fargate import Service
from infra.components.flow_runs import FlowRuns
from infra.components.flows_database import FlowsDatabase
from infra.components.load_balancer import LoadBalancer
from infra.components.model_server import ModelServer
from infra.components.network import Placement
from infra.components.one_off_task import OneOffTask
from infra.components.prefect_api import PrefectApi
from infra.components.prefect_server import PrefectServer
from infra.components.secret import SecretField
from infra.components.tracking_server import TrackingServer
from infra.components.worker import Worker
from infra.serving import label_of
from infra.settings import Settings
from trainyard.contract.naming import Location
from trainyard.contract.outputs import EcsWorkPool, StackOutputs


@dataclass(frozen=True)
class Parts:
    """The components that StackOutputs and alarms are about."""

    placement: Placement
    store: ArtifactStore
    cluster: Cluster
    tracking: TrackingServer | None
    tracking_uri: Input[str]
    """MLflow's, the stack's own or the one that the settings name."""
    server: PrefectServer | None
    api: PrefectApi
    run_secrets: Mapping[str, SecretField]
    run_environment: Mapping[str, Input[str]]
    flows_database: FlowsDatabase | None
    flow_runs: FlowRuns
    observer: EventObserver
    worker: Worker
    deployer: OneOffTask
    models: OneOffTask
    tunnel: OneOffTask
    load_balancer: LoadBalancer | None
    """Of served models."""
    model_servers: Mapping[str, ModelServer]

    @property
    def services(self) -> dict[str, Service]:
        """The ECS services, by the name that they have in alarms and outputs."""
        found = {"worker": self.worker, "mlflow": self.tracking, "prefect": self.server}
        served = {label_of(model): part for model, part in self.model_servers.items()}
        return {name: part.service for name, part in {**found, **served}.items() if part}


def build(model: type[BaseModel], **fields: Input[Any]) -> Output[dict[str, Any]]:
    """Build a contract's object: names are checked now, values as soon as they are known.

    Raises:
        TypeError: a field is missing, or the contract has none of that name.
    """
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    missing, unknown = required - fields.keys(), fields.keys() - model.model_fields.keys()
    if missing or unknown:
        raise TypeError(f"{model.__name__} lacks {sorted(missing)} and knows no {sorted(unknown)}")
    return Output.all(**fields).apply(
        lambda values: model.model_validate(values).model_dump(mode="json")
    )


def stack_outputs(settings: Settings, location: Location, parts: Parts) -> Output[dict[str, Any]]:
    """StackOutputs of an environment, as a document."""
    return build(
        StackOutputs,
        stack=settings.stack,
        prefect_api_url=parts.api.url,
        tracking_uri=parts.tracking_uri,
        artifact_store=parts.store.flows_uri,
        code_dir="/app",
        work_pool=_work_pool(settings, location, parts),
        active_schedules=settings.active_schedules,
        training_data=settings.training_data,
        notify_webhook_secret=settings.notify_webhook_secret_arn,
    )


def _work_pool(settings: Settings, location: Location, parts: Parts) -> Output[dict[str, Any]]:
    return build(
        EcsWorkPool,
        name=settings.work_pool_name,
        region=location.region,
        cluster_arn=parts.cluster.arn,
        vpc_id=parts.placement.vpc_id,
        subnet_ids=list(parts.placement.task_subnet_ids),
        security_group_ids=[parts.flow_runs.security_group_id],
        assign_public_ip=parts.placement.public_addresses,
        capacity_provider="FARGATE_SPOT" if settings.sizes.spot else "FARGATE",
        cpu_architecture=settings.cpu_architecture.upper(),
        execution_role_arn=parts.flow_runs.execution_role_arn,
        task_role_arn=parts.flow_runs.task_role_arn,
        log_group=parts.flow_runs.log_group_name,
        queue_name=parts.observer.queue_name,
        environment=dict(parts.run_environment),
        secrets={
            variable: secret.value_from
            for variable, secret in parts.run_secrets.items()
            if variable != parts.api.secret_variable
        },
        api_secret_variable=parts.api.secret_variable,
        api_secret=parts.api.secret.value_from,
    )


def one_off_tasks(parts: Parts) -> Output[dict[str, Any]]:
    """What starting the stack's one-off tasks takes (trainyard/aws/ecs_tasks.py)."""
    tasks: dict[str, tuple[Input[str], Input[str]]] = {
        "deployer": (parts.deployer.task.definition.arn, parts.deployer.security_group_id),
        "models": (parts.models.task.definition.arn, parts.models.security_group_id),
        "tunnel": (parts.tunnel.task.definition.arn, parts.tunnel.security_group_id),
    }
    for name, server in (("migrate-mlflow", parts.tracking), ("migrate-prefect", parts.server)):
        if server:
            tasks[name] = (server.migration.definition.arn, server.service.security_group_id)
    if parts.flows_database:
        migration = parts.flows_database.migration.definition.arn
        tasks["migrate-flows"] = (migration, parts.flow_runs.security_group_id)
    return Output.all(
        cluster=parts.cluster.arn,
        subnets=list(parts.placement.task_subnet_ids),
        public_addresses=parts.placement.public_addresses,
        definitions={name: definition for name, (definition, _) in tasks.items()},
        security_groups={name: group for name, (_, group) in tasks.items()},
    )
