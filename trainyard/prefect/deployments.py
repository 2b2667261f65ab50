"""What Prefect holds of prefect.yaml's deployments after a deploy, as far as the file says it.

Defaults are filled in, and templates stay as they are written: each stack has its own values. No
flow is loaded, so what Prefect takes from the code is named and not looked up.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.types import ListOfNonEmptyStrings
from pydantic import TypeAdapter

Fields = dict[str, Any]


def read_deployments(path: Path) -> dict[tuple[str, str], Fields]:
    """(Flow's function, deployment's name) -> field -> value.

    Raises:
        ValueError: the file isn't one that Prefect can read.
    """
    try:
        config: Any = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"it isn't YAML: {error}") from None
    read = PrefectYamlModel.model_validate(config).model_dump(mode="json", exclude_unset=True)
    found = {}
    for each in read.get("deployments", ()):
        if each.get("name"):  # Prefect leaves out those without
            function = str(each.get("entrypoint")).rpartition(":")[2]
            found[function, each["name"]] = _fields(each, read.get("pull"))
    return found


def _fields(given: Fields, shared_pull: Any) -> Fields:
    pool, limit = given.get("work_pool") or {}, given.get("concurrency_limit")
    pull, enforced = given.get("pull", shared_pull), given.get("enforce_parameter_schema")
    fields = {
        "entrypoint": given.get("entrypoint"),
        "description": given.get("description") or "(the flow's own)",
        "version": given.get("version") or "(the code's own)",
        "tags": TypeAdapter(ListOfNonEmptyStrings).validate_python(given.get("tags") or ()),
        "parameters": given.get("parameters", {}),
        "enforce_parameter_schema": True if enforced is None else enforced,
        "paused": bool(given.get("paused")),
        "pull": pull if pull == [] else pull or shared_pull or "(the folder of the deploy)",
        "work_pool.name": pool.get("name"),
        "work_pool.work_queue_name": pool.get("work_queue_name") or "default",
        "work_pool.job_variables": pool.get("job_variables", {}),
    }
    if limit is not None:
        limits = limit if isinstance(limit, dict) else {"limit": limit}
        fields["concurrency_limit"] = {k: v for k, v in limits.items() if v is not None}
    for each in given.get("schedules") or ():
        names = [each[key] for key in ("slug", "cron", "interval", "rrule") if each.get(key)]
        _add(fields, f"schedules[{names[0] if names else ''}]", _as_read(_schedule, each))
    for index, each in enumerate(given.get("triggers") or (), start=1):
        spec = {"name": f"{given['name']}__automation_{index}"} | each
        _add(fields, f"triggers[{spec['name']}]", _as_read(_trigger, spec))
    return fields


def _add(fields: Fields, key: str, value: Fields) -> None:
    same = [other for other in fields if other == key or other.startswith(f"{key} #")]
    fields[f"{key} #{len(same) + 1}" if same else key] = value


def _as_read(read: Callable[[Fields], Fields], given: Fields) -> Fields:
    templates = {k: v for k, v in given.items() if isinstance(v, str) and "{{" in v}
    found = read({k: v for k, v in given.items() if k not in templates}) | templates
    return {k: v for k, v in found.items() if k not in ("name", "slug")}  # it is in the key


def _schedule(given: Fields) -> Fields:
    made = _schedule_config_to_deployment_schedule(given)
    when = made["schedule"].model_dump(mode="json")
    if "anchor_date" in when and not given.get("anchor_date"):
        when["anchor_date"] = "(the time of the deploy)"
    own = DeploymentScheduleCreate(**made).model_dump(include={"active", "parameters"})
    return {**when, **own}


def _trigger(given: Fields) -> Fields:
    (trigger,) = _initialize_deployment_triggers("", [given])
    return trigger.model_dump(mode="json")


# --- what differs ---------------------------------------------------------------------------------
MISSING = object()


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Place, value before, value after; MISSING where there is none."""
    if where and isinstance(old, list) and isinstance(new, list) and _nested([*old, *new]):
        old, new = ({f"[{i}]": each for i, each in enumerate(side)} for side in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**new, **old}:
            place = f"{where}.{key}" if where and not key.startswith("[") else f"{where}{key}"
            yield from differences(old.get(key, MISSING), new.get(key, MISSING), place)
    elif _json(old) != _json(new):  # 1 isn't True
        yield where, old, new


def _nested(values: Iterable[Any]) -> bool:
    return any(isinstance(each, dict) for each in values)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)
