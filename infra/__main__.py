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
from infra.environment import Surroundings, environment
from infra.naming import READY, RELEASE, STACK_TAG, Location, Names
from infra.readiness import NOTHING_DONE
from infra.releases import Told
from infra.settings import SettingsError, parse


def main() -> None:
    """Settings -> components -> outputs."""
    try:
        settings = parse(pulumi.get_stack(), CONFIG.get())
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None
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
        boundary = settings.permissions_boundary or location.boundary_arn
        try:
            aws.iam.get_policy(arn=boundary, opts=ask)
        except Exception as error:
            raise pulumi.RunError(
                f"the policy that bounds this stack's roles can't be read: {boundary}. "
                f"`make bootstrap` makes trainyard-boundary, once an account. ({error})"
            ) from None
        zones = aws.get_availability_zones(state="available", opts=ask).names
        names = Names(settings.stack)
        noted = aws.ssm.get_parameters_by_path(path=names.parameters, opts=ask)
        found = dict(zip(noted.names, noted.values, strict=True))
        if (told := found.get(names.parameter(RELEASE), NOTHING_DONE)) != NOTHING_DONE:
            # Noted there and not in a file: whoever runs `make up` keeps what was released.
            images = Told.model_validate_json(told).release.images
            settings = settings.with_images(**images.model_dump())
        around = Surroundings(
            location=location,
            boundary=boundary,
            zones=tuple(sorted(zones)),
            noted=json.loads(found.get(names.parameter(READY), NOTHING_DONE)),
        )
        outputs = environment(settings, around, opts)
    for name, value in outputs.items():
        pulumi.export(name, value)


main()
