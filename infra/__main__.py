"""Trainyard's stacks on AWS: `account` once an account, and one an environment. Pulumi runs this
file.
"""

import json
import sys
from pathlib import Path

import pulumi
import pulumi_aws as aws
from pulumi.runtime.config import CONFIG

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.account import account
from infra.environment import environment
from infra.settings import Settings, parse
from infra.site import AwsContext
from trainyard.contract.naming import READY, RELEASE, STACK_TAG, Location, Names
from trainyard.contract.readiness import NOTHING_DONE
from trainyard.contract.release import ReleaseRecord
from trainyard.contract.stack_config import SettingsError


def main() -> None:
    """Settings -> components -> outputs."""
    settings = read_settings()
    # Explicit, so that tags and the allowed account hold for every resource.
    provider = aws.Provider(
        "aws",
        region=settings.region,
        allowed_account_ids=[settings.account_id] if settings.account_id else None,
        default_tags={"tags": {"Project": "trainyard", STACK_TAG: settings.stack, **settings.tags}},
    )
    opts, ask = pulumi.ResourceOptions(provider=provider), pulumi.InvokeOptions(provider=provider)
    location = Location(
        partition=aws.get_partition(opts=ask).partition,
        account=aws.get_caller_identity(opts=ask).account_id,
        region=settings.region,
    )
    if settings.kind == "account":
        outputs = account(settings, location, opts)
    else:
        noted = read_parameters(settings, ask)
        context = aws_context(settings, location, noted, ask)
        outputs = environment(with_release(settings, noted), context, opts)
    for name, value in outputs.items():
        pulumi.export(name, value)


def read_settings() -> Settings:
    """The settings of the stack that Pulumi runs."""
    try:
        return parse(pulumi.get_stack(), CONFIG.get())
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None


def read_parameters(settings: Settings, ask: pulumi.InvokeOptions) -> dict[str, str]:
    """What the tool has noted in the stack's parameters: name -> text."""
    names = Names(settings.stack)
    found = aws.ssm.get_parameters_by_path(path=names.parameters, opts=ask)
    values = dict(zip(found.names, found.values, strict=True))
    parts = (READY, RELEASE)
    return {part: values.get(names.parameter(part), NOTHING_DONE) for part in parts}


def with_release(settings: Settings, noted: dict[str, str]) -> Settings:
    """The settings with the images of the stack's last release.

    It is noted in the stack and not in a file: whoever runs `make up` keeps what was released.
    """
    if noted[RELEASE] == NOTHING_DONE:
        return settings
    images = ReleaseRecord.model_validate_json(noted[RELEASE]).release.images
    return settings.with_images(**images.model_dump())


def aws_context(
    settings: Settings, location: Location, noted: dict[str, str], ask: pulumi.InvokeOptions
) -> AwsContext:
    """Look up what has to be there before an environment."""
    boundary = settings.permissions_boundary or location.boundary_arn
    try:
        aws.iam.get_policy(arn=boundary, opts=ask)
    except Exception as error:
        raise pulumi.RunError(
            f"the policy that bounds this stack's roles can't be read: {boundary}. "
            f"`make bootstrap` makes trainyard-boundary, once an account. ({error})"
        ) from None
    zones = aws.get_availability_zones(state="available", opts=ask).names
    return AwsContext(
        location=location,
        boundary=boundary,
        zones=tuple(sorted(zones)),
        noted=json.loads(noted[READY]),
    )


main()
