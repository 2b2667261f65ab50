"""An environment's stack: everything but what an account has once. Read `environment` as the list
of its parts; parts.py is how each is made.
"""

from collections.abc import Mapping
from dataclasses import asdict

import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra import parts as make
from infra.components.database import Database
from infra.components.network import open_port
from infra.components.prefect_server import PORT as PREFECT_PORT
from infra.components.tracking_server import PORT as MLFLOW_PORT
from infra.serving import label_of, load_balancer, model_servers
from infra.settings import Settings
from infra.site import (
    AwsContext,
    Site,
    needs_database,
    own_prefect,
    own_tracking,
    prepare,
    servers_of,
)
from infra.stack_outputs import Parts, one_off_tasks, stack_outputs
from trainyard.contract.naming import OUTPUTS, READY, RELEASE, RELEASES
from trainyard.contract.readiness import NOTHING_DONE, gone


def environment(
    settings: Settings, context: AwsContext, opts: ResourceOptions
) -> dict[str, Input[object]]:
    """Make an environment's components; returns the stack's outputs."""
    site = prepare(settings, context, opts)
    store = make.artifact_store(site)
    cluster = make.ecs_cluster(site)
    # A stack runs no server of a kind that it has elsewhere, so it may need no database at all.
    database = make.postgres(site) if needs_database(settings) else None
    tracking = server = flows_database = None
    if database and own_tracking(settings):
        tracking = make.tracking_server(site, cluster, database, store)
    if database and own_prefect(settings):
        server = make.prefect_server(site, cluster, database)
    if database and settings.flows_database:
        flows_database = make.flows_database(site, database)
    tracking_uri = tracking.uri if tracking else settings.tracking_uri
    api = server.api if server else make.prefect_cloud(settings)
    run_secrets = make.secrets_of_runs(settings, api, tracking, flows_database)
    run_environment = make.environment_of_runs(tracking, flows_database)
    runs_args = make.runs_args(site, store, run_secrets)
    flow_runs = make.runs(site, runs_args)
    observer = make.event_observer(site, cluster)
    balancer = load_balancer(site)
    parts = Parts(
        placement=site.placement,
        store=store,
        cluster=cluster,
        tracking=tracking,
        tracking_uri=tracking_uri,
        server=server,
        api=api,
        run_secrets=run_secrets,
        run_environment=run_environment,
        flows_database=flows_database,
        flow_runs=flow_runs,
        observer=observer,
        worker=make.prefect_worker(site, cluster, api, flow_runs, observer),
        deployer=make.flow_deployer(site, api),
        models=make.models_task(site, api, tracking_uri, store, runs_args, run_environment),
        tunnel=make.ui_tunnel(site),
        load_balancer=balancer,
        model_servers=model_servers(site, cluster, tracking, store, balancer),
    )
    open_ports(site, parts)
    if database and flows_database:
        open_flows_database(site, database, parts)
    make.watch(site, cluster, database, flow_runs, observer, parts.services)
    keep_parameters(site, outputs := stack_outputs(settings, site.location, parts))
    held = held_back(site, parts, context.noted)
    return {
        "trainyard": outputs,
        "services": Output.all(**{name: s.service_name for name, s in parts.services.items()}),
        "tasks": one_off_tasks(parts),
        **served_at(parts),
        "servers": asdict(servers_of(settings)),
        "flow_image": settings.flow_image,
        "held_back": held,
        "next": next_step(settings, held),
    }


def held_back(site: Site, parts: Parts, noted: Mapping[str, object]) -> list[str]:
    """What waits for `make up`: to be migrated, to be registered, or to be forgotten."""
    made = [*parts.services, *(["flows"] if parts.flows_database else [])]
    held = [label for label in made if not getattr(site.may_run, label, True)]
    held += [label_of(model) for model in site.settings.serve if not site.models_may_run]
    return held + [each for each in gone(noted, servers_of(site.settings)) if each not in held]


def served_at(parts: Parts) -> dict[str, Input[object]]:
    """Where models are served, for those who ask them and for the owner's DNS."""
    urls: dict[str, Input[object]] = {model: s.url for model, s in parts.model_servers.items()}
    balancer = {"load_balancer": parts.load_balancer.dns_name} if parts.load_balancer else {}
    return {**({"served": Output.all(**urls)} if urls else {}), **balancer}


def open_flows_database(site: Site, database: Database, parts: Parts) -> None:
    """Let flow runs, and the task of `trainyard model`, reach their own database."""
    for who, part in (("flows", parts.flow_runs), ("models", parts.models)):
        name = site.names(f"{who}-flows-database")
        database.let_in(name, part.security_group_id, site.opts)


def open_ports(site: Site, parts: Parts) -> None:
    """Open each server's port to the security groups that call it."""
    callers = {
        "flows": parts.flow_runs.security_group_id,
        "worker": parts.worker.service.security_group_id,
        "deployer": parts.deployer.security_group_id,
        "models": parts.models.security_group_id,
        "tunnel": parts.tunnel.security_group_id,
    }
    served = {
        label_of(model): server.service.security_group_id
        for model, server in parts.model_servers.items()
    }
    servers = (("prefect", "Prefect", PREFECT_PORT), ("mlflow", "MLflow", MLFLOW_PORT))
    for part, what, port in servers:
        if part not in parts.services:
            continue
        for who, group in {**callers, **(served if part == "mlflow" else {})}.items():
            if (who, part) == ("worker", "mlflow"):
                continue  # it starts runs, and tracks none
            open_port(
                site.names(f"{who}-{part}"),
                port,
                what=what,
                source=group,
                target=parts.services[part].security_group_id,
                opts=site.opts,
            )


def keep_parameters(site: Site, outputs: Input[object]) -> None:
    """StackOutputs, and what `make up` and `make release` note, in Systems Manager's store."""
    aws.ssm.Parameter(
        site.names(OUTPUTS),
        name=site.names.parameter(OUTPUTS),
        description="StackOutputs: what register and deploy read",
        type="String",
        value=Output.json_dumps(outputs),
        opts=site.opts,
    )
    for part, value, what in (
        (READY, NOTHING_DONE, "What `make up` has done to this stack"),
        (RELEASE, NOTHING_DONE, "The release that this stack was last told to run"),
        (RELEASES, "[]", "Releases whose smoke run completed here, the newest first"),
    ):
        aws.ssm.Parameter(
            site.names(part),
            name=site.names.parameter(part),
            description=what,
            type="String",
            value=value,
            # The commands write them; here they are made, and removed with the stack.
            opts=ResourceOptions.merge(site.opts, ResourceOptions(ignore_changes=["value"])),
        )


def next_step(settings: Settings, held: list[str]) -> str:
    """What to type now."""
    if not settings.flow_image or not settings.worker_image:
        return f"push to main, or make publish release STACK={settings.stack}   # no images yet"
    if held:
        later = ", ".join(held)
        return f"make up STACK={settings.stack}   # migrates, registers, then starts: {later}"
    return f"make deploy STACK={settings.stack}   # or: make ui STACK={settings.stack}"
