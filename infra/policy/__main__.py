"""The policy pack: infra/policy/rules.py as Pulumi runs it beside a preview (`make preview`)."""

import sys
from contextlib import suppress
from pathlib import Path

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

sys.path.append(str(Path(__file__).resolve().parents[2]))  # Pulumi runs the folder by itself
from infra.policy.rules import RULES, Rule


def stack_of(urn: str) -> str:
    """The stack that a resource belongs to: urn:pulumi:STACK::PROJECT::TYPE::NAME."""
    return urn.split("::")[0].rsplit(":", 1)[-1]


def policy(rule: Rule) -> ResourceValidationPolicy:
    """A rule as Pulumi knows it."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type not in rule.types:
            return
        if rule.prod_only and stack_of(args.urn) != "prod":
            return
        # What a preview doesn't know yet isn't judged.
        with suppress(UnknownValueError):
            for fault in rule.check(args.props):
                report(f"{fault} ({rule.ids})", None)

    return ResourceValidationPolicy(
        name=rule.name,
        description=f"{rule.says} {rule.ids}",
        enforcement_level=EnforcementLevel.MANDATORY,
        validate=validate,
    )


PolicyPack(name="trainyard", policies=[policy(rule) for rule in RULES])
