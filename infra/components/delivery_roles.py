"""DeliveryRoles: what GitHub's workflows may do here, by a token that names repository and
environment. No keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components import iam
from infra.components.delivery_rights import (
    manage,
    manage_network,
    manage_roles,
    push_images,
    read_for_plans,
    read_parameters,
    use_state,
)
from infra.components.delivery_serving import manage_serving
from trainyard.contract.naming import PREVIEW_ENVIRONMENT, Location

ISSUER = "token.actions.githubusercontent.com"


@dataclass(frozen=True)
class DeliveryRolesArgs:
    """Arguments of DeliveryRoles."""

    location: Location
    repository: str
    owner_id: str
    repository_id: str
    provider_arn: str
    """GitHub's provider where the account has it already; empty makes it."""
    environments: Sequence[str]
    state_bucket: str
    state_key_arn: str
    permissions_boundary: str
    """On these two roles, where an organization asks for one; they aren't bounded otherwise."""
    roles_boundary: str
    """On every role that the deploy role makes."""


class DeliveryRoles(pulumi.ComponentResource):
    """Create GitHub's two roles: one deploys, from its environments only, one can only look.

    GitHub's OIDC provider is created too, unless `provider_arn` names the account's.

    Inputs: `repository` with its numbers, and `environments`, which the roles trust;
    `state_bucket` and `state_key_arn` of Pulumi's state; `roles_boundary`, which has to be on every
    role that the deploy role creates.
    Outputs: `deploy_role_arn`, `preview_role_arn`.
    Idle cost: free.
    """

    deploy_role_arn: Output[str]
    preview_role_arn: Output[str]

    def __init__(self, name: str, args: DeliveryRolesArgs, opts: ResourceOptions | None = None):
        super().__init__("trainyard:delivery:DeliveryRoles", name, None, opts)
        provider_arn: Input[str] = args.provider_arn
        if not args.provider_arn:
            provider_arn = aws.iam.OpenIdConnectProvider(
                f"{name}-oidc",
                url=f"https://{ISSUER}",
                client_id_lists=["sts.amazonaws.com"],
                opts=ResourceOptions(parent=self),
            ).arn
        state = (args.location, args.state_bucket, args.state_key_arn)
        self.deploy_role_arn = self._role(
            f"{name}-deploy",
            "Deploys Trainyard's stacks",
            trust(args, provider_arn, args.environments),
            {
                "manage": manage(args.location),
                "serving": manage_serving(args.location),
                "network": manage_network(args.location),
                "roles": manage_roles(args.location, args.roles_boundary, f"{name}-*"),
                "state": use_state(*state, write=True),
                "images": push_images(args.location),
                "read": [read_for_plans()],
            },
            args,
        )
        self.preview_role_arn = self._role(
            f"{name}-preview",
            "Previews Trainyard's stacks and looks for drift",
            trust(args, provider_arn, [PREVIEW_ENVIRONMENT]),
            {
                "read": [read_for_plans(), read_parameters(args.location)],
                "state": use_state(*state, write=False),
            },
            args,
        )
        self.register_outputs({"deploy_role_arn": self.deploy_role_arn})

    def _role(
        self,
        name: str,
        description: str,
        trusted: Output[str],
        policies: dict[str, list[iam.Statement]],
        args: DeliveryRolesArgs,
    ) -> Output[str]:
        role = aws.iam.Role(
            name,
            description=description,
            assume_role_policy=trusted,
            max_session_duration=2 * 3600,  # a database takes its time
            permissions_boundary=args.permissions_boundary or None,
            opts=ResourceOptions(parent=self),
        )
        for part, statements in policies.items():
            # Managed policies: together they are longer than a role's inline ones may be.
            policy = aws.iam.Policy(
                f"{name}-{part}",
                policy=iam.document(*statements),
                opts=ResourceOptions(parent=self),
            )
            aws.iam.RolePolicyAttachment(
                f"{name}-{part}",
                role=role.name,
                policy_arn=policy.arn,
                opts=ResourceOptions(parent=self),
            )
        return role.arn


def subject(repository: str, owner_id: str, repository_id: str, environment: str) -> str:
    """The subject of a token for a job in an environment, in GitHub's immutable form (since July
    2026).

    The numbers stay with the repository: who takes over a deleted name doesn't take over its
    rights.
    """
    owner, _, name = repository.partition("/")
    return f"repo:{owner}@{owner_id}/{name}@{repository_id}:environment:{environment}"


def trust(
    args: DeliveryRolesArgs, provider_arn: Input[str], environments: Sequence[str]
) -> Output[str]:
    """Only jobs of this repository, in these environments."""
    exactly: dict[str, Input[str] | Sequence[Input[str]]] = {
        f"{ISSUER}:aud": "sts.amazonaws.com",
        f"{ISSUER}:sub": [
            subject(args.repository, args.owner_id, args.repository_id, each)
            for each in environments
        ],
        f"{ISSUER}:repository_id": args.repository_id,
    }
    return iam.document(
        iam.Statement(
            "GitHub",
            "Allow",
            ("sts:AssumeRoleWithWebIdentity",),
            principals={"Federated": [provider_arn]},
            conditions={"StringEquals": exactly},
        )
    )
