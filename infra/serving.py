"""How servers of models are made and watched: settings -> a component's arguments, as parts.py."""

from collections.abc import Mapping

from infra.components.artifact_store import ArtifactStore
from infra.components.cluster import Cluster
from infra.components.fargate import Service
from infra.components.load_balancer import LoadBalancer, LoadBalancerArgs
from infra.components.model_server import ModelServer, ModelServerArgs
from infra.components.observability import (
    CHAMPION_REFUSED,
    REQUEST_FAILED,
    Alarm,
    Observability,
    serving_alarms,
)
from infra.components.secret import SecretField
from infra.components.tracking_server import ADMIN, TrackingServer
from infra.site import Site


def label_of(model: str) -> str:
    """A served model's name among the stack's services."""
    return f"serve-{model}"


def load_balancer(site: Site) -> LoadBalancer | None:
    """HTTPS in front of served models, where the settings have a certificate."""
    settings = site.settings
    if not (settings.serve and settings.serve_domain and site.models_may_run):
        return None
    return LoadBalancer(
        site.names("serve"),
        LoadBalancerArgs(
            placement=site.placement,
            prefix=site.names.prefix,
            certificate_arn=settings.serve_certificate_arn,
            domain=settings.serve_domain,
            from_cidrs=settings.serve_from_cidrs,
            from_security_groups=settings.serve_from_security_groups,
        ),
        site.opts,
    )


def model_servers(
    site: Site,
    cluster: Cluster,
    tracking: TrackingServer | None,
    store: ArtifactStore,
    balancer: LoadBalancer | None,
) -> dict[str, ModelServer]:
    """A server for each model that the settings name; none before MLflow has been there once."""
    settings = site.settings
    if tracking:
        secrets = {"MLFLOW_TRACKING_PASSWORD": tracking.admin.field("password")}
    else:  # another MLflow's, as flow runs have them
        given = settings.flow_secrets.items()
        secrets = {name: SecretField(arn) for name, arn in given if name.startswith("MLFLOW_")}
    where = {"MLFLOW_TRACKING_URI": tracking.uri if tracking else settings.tracking_uri}
    return {
        model: ModelServer(
            site.names(label_of(model)),
            ModelServerArgs(
                platform=site.platform,
                placement=site.placement,
                cluster=cluster,
                namespace=site.names.namespace,
                model=model,
                image=settings.flow_image,
                count=settings.sizes.model_servers,
                max_count=settings.serve_max_tasks,
                spot=settings.sizes.spot,
                waits=site.may_run.mlflow or not tracking,
                environment=where | ({"MLFLOW_TRACKING_USERNAME": ADMIN} if tracking else {}),
                secrets=secrets,
                store=store,
                log_group=site.names.log_group(label_of(model)),
                log_percent=settings.serve_log_percent,
                from_cidrs=settings.serve_from_cidrs,
                from_security_groups=settings.serve_from_security_groups,
                load_balancer=balancer,
            ),
            site.opts,
        )
        for model in (settings.serve if site.models_may_run else ())
    }


def alarms_of_serving(
    observability: Observability, services: Mapping[str, Service], models: tuple[str, ...]
) -> list[Alarm]:
    """What served models log, counted. (That a service runs is every service's alarm.)"""
    served = [label_of(model) for model in models if label_of(model) in services]
    for label in served:
        log = services[label].task.log_group_name
        observability.count("RequestsFailed", log, f"{label}-failed", REQUEST_FAILED)
        observability.count("ChampionsRefused", log, f"{label}-refused", CHAMPION_REFUSED)
    return serving_alarms(observability.namespace) if served else []
