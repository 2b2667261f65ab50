"""What a backfill runs: its deployment, each month's parameters, and how many runs at a time.

What was asked for is held against what Prefect has, before any run: all that is wrong is one error.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.utilities.schema_tools.validation import validate

from trainyard.prefect.backfill_request import MAX_MONTHS, MONTH, Backfill

T = TypeVar("T")
Ask = Callable[..., Any]
"""Calls the client for us, again where Prefect is away."""


class BackfillError(Exception):
    """A backfill can't be run, or not go on: the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """What is run."""

    name: str
    """Of the deployment, with its flow's."""
    deployment: DeploymentResponse
    months: dict[str, dict[str, Any]]
    """Month -> what its run is given."""
    limit: int | None
    """How many runs of the deployment Prefect lets work at a time; None where it doesn't say."""
    parallel: int
    """How many of ours; never more than that."""

    def parameters(self, month: str) -> dict[str, Any]:
        """All that a month's run has: what it is given, and the deployment's own."""
        return self.deployment.parameters | self.months[month]


def make_plan(client: SyncPrefectClient, request: Backfill, ask: Ask) -> Plan:
    """Find the deployment, and check what was asked for.

    Raises:
        BackfillError: all that is wrong.
    """
    faults = [*request.faults()]
    found = _deployments(client, ask)
    name = _meant(request.deployment, [*found])
    if name is None:
        faults.insert(0, _unknown(request.deployment, [*found]))
        raise BackfillError("\n  ".join(faults))
    deployment = found[name]
    given = {month: {**request.values(), MONTH: month} for month in request.every_month()}
    faults += _refused(name, deployment, request.values(), list(given)[:MAX_MONTHS])
    limit = _limit_of(deployment)
    if limit == 0:
        faults.append(
            f"{name} has the concurrency limit 0 in prefect.yaml: none of its runs starts"
        )
    if faults:
        raise BackfillError("\n  ".join(faults))
    parallel = request.parallel if limit is None else min(request.parallel, limit)
    return Plan(name, deployment, given, limit, parallel)


def pages(ask: Ask, read: Callable[..., list[T]], **given: Any) -> Iterator[T]:
    """Everything that Prefect has; it gives as much at a time as it likes."""
    offset = 0
    while page := ask(read, offset=offset, **given):
        yield from page
        offset += len(page)


def _deployments(client: SyncPrefectClient, ask: Ask) -> dict[str, DeploymentResponse]:
    """All there are, by `flow/name`."""
    flows = {flow.id: flow.name for flow in pages(ask, client.read_flows)}
    found = pages(ask, client.read_deployments)
    named = {f"{flows.get(each.flow_id, '?')}/{each.name}": each for each in found}
    return dict(sorted(named.items()))


def _meant(typed: str, names: list[str]) -> str | None:
    """The one with that name, or the only one whose second part it is."""
    ends = [name for name in names if name.rpartition("/")[2] == typed]
    return typed if typed in names else ends[0] if len(ends) == 1 else None


def _unknown(typed: str, names: list[str]) -> str:
    if not names:
        return f"Prefect has no deployment {typed}, nor any other: `make deploy` makes them"
    ends = [name for name in names if name.rpartition("/")[2] == typed]
    near = ends or get_close_matches(typed, names, n=3)
    there = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    return f"Prefect has no deployment {typed}; {there}"


def _refused(
    name: str, deployment: DeploymentResponse, values: dict[str, Any], months: list[str]
) -> Iterator[str]:
    """What the flow doesn't take, by the schema that Prefect has of its parameters."""
    schema = deployment.parameter_openapi_schema or {}
    takes = schema.get("properties") or {}
    if MONTH not in takes:
        yield (
            f"{name} has no parameter `{MONTH}`, which tells its runs apart; it takes "
            f"{', '.join(takes) or 'none'}"
        )
        return
    for each in values:
        if each not in takes:
            yield f"-p {each}=: the flow has no such parameter; it takes {', '.join(takes)}"
    known = {each: value for each, value in values.items() if each in takes and each != MONTH}
    example = {MONTH: months[0]} if months else {}
    # What the deployment gives by itself is the deploy's business.
    for each, why in _invalid(schema, deployment.parameters | known | example):
        if each in known:
            text = json.dumps(known[each])
            as_text = not isinstance(known[each], str) and each not in dict(
                _invalid(schema, {each: text})
            )
            hint = f"; as text it is '{each}={json.dumps(text)}'" if as_text else ""
            yield f"-p {each}=: {why}{hint}"
        elif not each:
            yield why
    whys = {month: dict(_invalid(schema, {MONTH: month})).get(MONTH) for month in months}
    if bad := [month for month in months if whys[month]]:
        more = f" (and {len(bad) - 1} more)" * (len(bad) > 1)
        yield f"{bad[0]}{more}: {whys[bad[0]]}"


def _invalid(schema: dict[str, Any], parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Parameter -> what Prefect refuses of it; "" -> what it misses."""
    for error in validate(parameters, schema):
        inner = [each.message for each in error.context or () if each.validator_value != "null"]
        yield str(next(iter(error.path), "")), (inner or [error.message])[0]


def _limit_of(deployment: DeploymentResponse) -> int | None:
    limit = deployment.global_concurrency_limit
    return limit.limit if limit and limit.active else None
