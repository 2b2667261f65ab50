"""The profiles: sizes and durability of an environment, as a table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Profile:
    """What a profile decides: sizes, and how much can fail before a user notices."""

    zones: int
    nat_gateways: int
    """None: tasks live in public subnets, with an address each and no way in."""
    spot: bool
    """Services run on Fargate Spot too: a third of the price, restarted when AWS wants to."""
    workers: int
    model_servers: int
    """Tasks of each served model."""
    database_class: str
    database_standby: bool
    backup_days: int
    container_insights: bool
    customer_key: bool
    """The artifact store has a KMS key, policy and audit trail of its own (1 $ a month)."""
    flow_logs: bool
    access_logs: bool
    log_days: int


_STANDARD = Profile(
    zones=2,
    nat_gateways=1,
    spot=False,
    workers=1,
    model_servers=2,
    database_class="db.t4g.small",
    database_standby=False,
    backup_days=14,
    container_insights=True,
    customer_key=True,
    flow_logs=True,
    access_logs=True,
    log_days=90,
)
PROFILES: Mapping[str, Profile] = {
    "minimal": replace(
        _STANDARD,
        nat_gateways=0,
        spot=True,
        model_servers=1,
        database_class="db.t4g.micro",
        backup_days=7,
        container_insights=False,
        customer_key=False,
        flow_logs=False,
        access_logs=False,
        log_days=30,
    ),
    "standard": _STANDARD,
    "ha": replace(
        _STANDARD,
        zones=3,
        nat_gateways=3,
        workers=2,
        database_class="db.t4g.medium",
        database_standby=True,
        backup_days=30,
        log_days=365,
    ),
}
