"""The account's stack: what an AWS account has once, before its first environment."""

from pulumi import Input, ResourceOptions

from infra.components.boundary import Boundary, BoundaryArgs
from infra.components.delivery_roles import DeliveryRoles, DeliveryRolesArgs
from infra.components.image_registry import ImageRegistry, ImageRegistryArgs
from infra.settings import Settings
from trainyard.contract.naming import Location, Names


def account(
    settings: Settings, location: Location, opts: ResourceOptions
) -> dict[str, Input[object]]:
    """Make the account's components; returns the stack's outputs."""
    names = Names(settings.stack)
    registry = ImageRegistry(names("images"), ImageRegistryArgs(durable=settings.durable), opts)
    if not settings.permissions_boundary:
        Boundary(
            names("boundary"),
            BoundaryArgs(location=location, source_prefixes=settings.source_prefixes),
            opts,
        )
    outputs: dict[str, Input[object]] = {
        "repositories": registry.urls,
        "region": location.region,
        "next": "make up STACK=dev",
    }
    if settings.github_repository:
        roles = DeliveryRoles(
            names("github"),
            DeliveryRolesArgs(
                location=location,
                repository=settings.github_repository,
                owner_id=settings.github_owner_id,
                repository_id=settings.github_repository_id,
                provider_arn=settings.github_oidc_provider_arn,
                environments=settings.deploy_environments,
                state_bucket=settings.state_bucket,
                state_key_arn=settings.state_key_arn,
                permissions_boundary=settings.permissions_boundary,
                roles_boundary=settings.permissions_boundary or location.boundary_arn,
            ),
            opts,
        )
        outputs |= {
            "deploy_role_arn": roles.deploy_role_arn,
            "preview_role_arn": roles.preview_role_arn,
        }
    return outputs
