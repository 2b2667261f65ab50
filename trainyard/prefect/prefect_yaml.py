"""Refuses what Prefect would swallow in prefect.yaml, before anything is deployed.

`prefect deploy` ignores keys it doesn't know, writes nothing in place of a variable that isn't set,
and goes through the deployments one by one, so a mistake shows up as half a deploy or as a run
that fails at six in the morning. This finds all of them at once, without a server.
"""

import argparse
import contextlib
import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.cli.deploy._triggers import DeploymentTriggerAdapter
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.exceptions import MissingFlowError, ParameterTypeError, ScriptError
from prefect.flows import load_flow_from_entrypoint
from prefect.logging.loggers import disable_logger
from prefect.types.names import BANNED_CHARACTERS
from prefect.utilities.importtools import import_object
from prefect.utilities.schema_tools import validate
from prefect.utilities.templating import PlaceholderType, find_placeholders
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from trainyard.contract.fargate_sizes import Size
from trainyard.contract.outputs import ProcessWorkPool, StackOutputs, deploy_environment
from trainyard.prefect.work_pool import ecs_variables

# `make lint` runs before any stack exists, and only the names matter then.
STAND_IN = StackOutputs(
    stack="laptop",
    prefect_api_url="http://127.0.0.1:4200/api",
    tracking_uri="http://127.0.0.1:5000",
    artifact_store="/tmp/artifacts",  # noqa: S108  never written to
    code_dir="/app",
    work_pool=ProcessWorkPool(name="the-stacks-work-pool"),
)

_STEPS = ("build", "push", "pull")

_SECRET_NAME = re.compile(
    r"(^|[_-])(api)?(key|token|password|passwd|passphrase|secret|credentials?|auth_string|webhook)"
    r"([_-]?\d+)?$",
    re.IGNORECASE,
)
# AWS keys, Prefect Cloud, GitHub and Slack tokens, Slack's webhooks, PEM files, passwords in
# addresses
_SECRET_VALUE = re.compile(
    r"\bA(KI|SI)A[A-Z0-9]{16}\b|\bpn[ub]_\w{20}|\bgh[pousr]_\w{20}|\bxox[a-z]-\w|-----BEGIN"
    r"|//hooks\.slack\.com/services/|://[^/\s:@]+:[^/\s@]+@"
)


def problems(path: Path, environment: Mapping[str, str]) -> list[str]:
    """All that is wrong with a prefect.yaml, one line each; entrypoints are relative to its folder.

    `environment` is what the file's templates may use, no more: `deploy_environment` of
    trainyard/contract/outputs.py.
    """
    try:
        config = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506  a SafeLoader
    except FileNotFoundError:
        found = ["no such file"]
    except (OSError, UnicodeDecodeError) as error:
        found = [f"can't be read: {error}"]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        found = [f"line {line}: isn't YAML: {error.problem}"]
    except yaml.YAMLError as error:
        found = [f"isn't YAML: {' '.join(str(error).split())}"]
    else:
        # from its own folder, as `prefect deploy` and the runs load the flows
        with contextlib.chdir(path.resolve().parent):
            found = list(_file(config, environment))
    return [f"{path.name}: {problem}" for problem in found]


def deployments(path: Path, environment: Mapping[str, str]) -> set[str]:
    """What a file without problems declares, each as Prefect calls it: `flow/name`."""
    found = set()
    for raw in yaml.safe_load(path.read_text())["deployments"]:
        rendered = _render(raw, environment)
        flow = _flow(rendered["entrypoint"])
        if isinstance(flow, str):
            raise ValueError(f"{path.name}: {rendered['name']}: {flow}")
        found.add(f"{flow.name}/{rendered['name']}")
    return found


def main() -> int:
    """Check a file as far as it goes without a stack."""
    parser = argparse.ArgumentParser(
        prog="python -m trainyard.prefect.prefect_yaml",
        description="Check prefect.yaml as far as it goes without a stack.",
    )
    parser.add_argument("file", nargs="?", type=Path, default=Path("prefect.yaml"))
    path = parser.parse_args().file
    # A file that is right where schedules rest may be wrong where they start runs.
    stacks = [STAND_IN.model_copy(update={"active_schedules": each}) for each in (True, False)]
    environments = [deploy_environment(stack, image="the-stacks-image") for stack in stacks]
    found = list(dict.fromkeys(p for each in environments for p in problems(path, each)))
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    count = len(yaml.safe_load(path.read_text())["deployments"])
    print(f"{path.name}: {count} deployment{'s'[: count != 1]}, no problems")
    return 0


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: YAML silently keeps the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is there twice in one mapping",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return node


def _file(config: Any, environment: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(config, dict):
        yield f"line 1: isn't a mapping but {_kind(config)}; it needs at least `deployments:`"
        return
    # `definitions` holds YAML anchors; Prefect ignores it as it ignores any key
    yield from _unknown("", config, [*_keys(PrefectYamlModel), "definitions"])
    wrong = _type_errors("", PrefectYamlModel, config, {"deployments"})
    yield from wrong.values()
    for section in _STEPS:
        if section not in wrong:
            yield from _steps(section, config.get(section), environment)

    deployments = config.get("deployments")
    if not isinstance(deployments, list) or not deployments:
        yield "deployments: there are none; give a list of at least one"
        return
    seen: set[tuple[str, str]] = set()
    for index, deployment in enumerate(deployments):
        if not isinstance(deployment, dict):
            yield f"deployments[{index}]: isn't a mapping but {_kind(deployment)}"
            continue
        where = f"deployments[{deployment.get('name') or index}]"
        yield from _deployment(where, deployment, config, environment, seen)


def _deployment(
    where: str,
    raw: dict[str, Any],
    config: dict[str, Any],
    environment: Mapping[str, str],
    seen: set[tuple[str, str]],
) -> Iterator[str]:
    yield from _unknown(where, raw, _keys(DeploymentConfig))
    # steps are looked at apart: they are filled in on the worker
    stored = {key: each for key, each in raw.items() if key not in _STEPS}
    yield from _placeholders(where, stored, _step_ids(raw, config), environment)
    # these have checks of their own: their errors inside Prefect's unions are unreadable
    apart = {"schedule", "schedules", "concurrency_limit", "sla", "triggers"}
    wrong = _type_errors(where, DeploymentConfig, raw, apart)
    yield from wrong.values()
    # A key of the wrong type is reported once, and no check looks into it.
    rendered = {k: v for k, v in _render(raw, environment).items() if k not in wrong}

    flow = None
    entrypoint = rendered.get("entrypoint")
    if "entrypoint" not in wrong and not _unfilled(entrypoint):
        loaded = _flow(entrypoint)
        if isinstance(loaded, str):
            yield f"{where}.entrypoint: {loaded}"
        else:
            flow = loaded
    if flow and rendered.get("flow_name") not in (None, flow.name):
        yield (
            f"{where}.flow_name: Prefect ignores it, the flow is called {flow.name!r};"
            " remove it, or name the flow with @flow(name=...)"
        )
    if "name" not in wrong:
        yield from _name(where, rendered.get("name"), flow, entrypoint, seen)
    if "work_pool" not in wrong:
        yield from _work_pool(where, raw.get("work_pool"), rendered.get("work_pool"), environment)
    watched = environment.get("TRAINYARD_WORK_POOL")
    if "tags" not in wrong and watched and watched not in (rendered.get("tags") or []):
        yield (
            f"{where}.tags: without the pool's name nobody notices a run that goes silent;"
            ' add "{{ $TRAINYARD_WORK_POOL }}"'
        )
    if "parameters" not in wrong:
        yield from _parameters_and_schedules(where, flow, rendered)
    yield from _concurrency_limit(f"{where}.concurrency_limit", raw.get("concurrency_limit"))
    yield from _triggers(f"{where}.triggers", flow, rendered.get("triggers"))
    rest = {key: each for key, each in rendered.items() if key not in ("work_pool", *_STEPS)}
    yield from _secrets(where, rest, by_name=False)
    for section in _STEPS:
        if section not in wrong:
            yield from _steps(f"{where}.{section}", raw.get(section), environment)
    if "pull" not in wrong and raw.get("pull", config.get("pull")) in (None, {}):
        yield (
            f"{where}.pull: there is no pull step, so runs would look for the code in the folder"
            " that deployed them; give one for all at the top of the file"
        )
    if raw.get("sla") is not None:
        yield (
            f"{where}.sla: only Prefect Cloud has these; a server of your own writes this"
            " deployment and then fails before the next; remove it"
        )


# --- one part of a deployment each --------------------------------------------


def _name(
    where: str, name: Any, flow: Flow[..., Any] | None, entrypoint: Any, seen: set[tuple[str, str]]
) -> Iterator[str]:
    if not name:
        yield f"{where}.name: missing, so Prefect would skip the deployment; give it one"
        return
    if bad := [c for c in BANNED_CHARACTERS if c in name]:
        yield f"{where}.name: Prefect refuses {' '.join(bad)} in names; leave it out"
    key = (flow.name if flow else str(entrypoint), name)
    if key in seen:
        yield (
            f"{where}.name: there are two of this name for the flow {key[0]!r},"
            " and the second would overwrite the first; rename one"
        )
    seen.add(key)


def _work_pool(where: str, raw: Any, pool: Any, environment: Mapping[str, str]) -> Iterator[str]:
    where = f"{where}.work_pool"
    if not pool:
        yield f"{where}: missing, so no worker would run it; give it a size, such as *small"
        return
    yield from _unknown(where, raw, _keys(WorkPoolConfig))
    name, expected = pool.get("name"), environment.get("TRAINYARD_WORK_POOL")
    if not name:
        yield f'{where}.name: missing; write name: "{{{{ $TRAINYARD_WORK_POOL }}}}"'
    elif expected and name != expected and not _unfilled(name):
        yield (
            f"{where}.name: the stack has no pool {name!r}, only {expected!r};"
            ' write name: "{{ $TRAINYARD_WORK_POOL }}"'
        )
    variables = pool.get("job_variables") or {}
    if not variables.get("image"):
        yield (
            f"{where}.job_variables.image: missing, so a container would start from Prefect's own"
            ' image, without your code; write image: "{{ $TRAINYARD_IMAGE }}"'
        )
    yield from _secrets(f"{where}.job_variables", variables, by_name=True)
    yield from _job_variables(f"{where}.job_variables", variables)


def _job_variables(where: str, given: dict[str, Any]) -> Iterator[str]:
    """What a run on ECS wouldn't get, or AWS would refuse at its start; a laptop takes anything."""
    schema = ecs_variables({}, capacity="FARGATE")
    known = schema["properties"]
    yield from _unknown(where, given, known, "the work pool")
    sound = {name: value for name, value in given.items() if name in known}
    if _unfilled(sound):
        return
    wrong = validate(sound, schema, ignore_required=True)
    yield from (f"{where}{each.json_path[1:]}: {each.message}" for each in wrong)
    if wrong:
        return
    try:
        Size(*(sound.get(each, known[each]["default"]) for each in ("cpu", "memory")))
    except ValueError as error:
        yield f"{where}.{'cpu' if 'cpu' in sound else 'memory'}: {error}"


def _parameters_and_schedules(
    where: str, flow: Flow[..., Any] | None, deployment: dict[str, Any]
) -> Iterator[str]:
    given = deployment.get("parameters") or {}
    schedules = deployment.get("schedules")
    if flow:
        yield from _parameters(f"{where}.parameters", flow, given)
        if not schedules:  # with schedules it is each schedule's run that must have all it needs
            yield from _missing(f"{where}.parameters", flow, given)
    if deployment.get("schedule") is not None:
        yield f"{where}.schedule: deprecated; write a list under `schedules`"
    if schedules is None:
        return
    if not isinstance(schedules, list):
        yield f"{where}.schedules: isn't a list but {_kind(schedules)}"
        return
    for index, schedule in enumerate(schedules):
        if not isinstance(schedule, dict):
            yield f"{where}.schedules[{index}]: isn't a mapping but {_kind(schedule)}"
            continue
        here = f"{where}.schedules[{schedule.get('slug') or index}]"
        yield from _schedule(here, schedule)
        extra = schedule.get("parameters") or {}
        if flow and isinstance(extra, dict):
            yield from _parameters(f"{here}.parameters", flow, extra, given)
            yield from _missing(f"{here}.parameters", flow, {**given, **extra})


def _schedule(where: str, schedule: dict[str, Any]) -> Iterator[str]:
    yield from _unknown(where, schedule, _keys(RawScheduleConfig))
    kinds = [kind for kind in ("cron", "interval", "rrule") if schedule.get(kind) is not None]
    if len(kinds) != 1:
        yield f"{where}: has {' and '.join(kinds) or 'no time'}; give one of cron, interval, rrule"
        return
    if not schedule.get("timezone"):
        yield f"{where}.timezone: missing, so it would be UTC; name one, such as America/New_York"
    if schedule.get("active") is None:
        yield (
            f"{where}.active: missing, so it would start runs where the stack's schedules rest;"
            ' write active: "{{ $TRAINYARD_ACTIVE_SCHEDULES }}", or true'
        )
    known = {key: value for key, value in schedule.items() if key in _keys(RawScheduleConfig)}
    wrong = _type_errors(where, RawScheduleConfig, known, set())
    yield from wrong.values()
    if wrong or _unfilled(known):
        return
    try:
        config = RawScheduleConfig.model_validate(known).model_dump(mode="json", exclude_unset=True)
        DeploymentScheduleCreate.model_validate(_schedule_config_to_deployment_schedule(config))
    except ValidationError as error:
        for each in error.errors():
            field = [part for part in each["loc"] if part in known][-1:] or kinds
            yield f"{where}.{field[0]}: {_message(each)}"
    except Exception as error:  # whatever the libraries below say of a date or a rule
        yield f"{where}.{kinds[0]}: {error}"


def _concurrency_limit(where: str, limit: Any) -> Iterator[str]:
    if limit is None:
        return
    strategies = " or ".join(strategy.value for strategy in ConcurrencyLimitStrategy)
    if not isinstance(limit, dict):
        yield (
            f"{where}: {limit!r} doesn't say what happens to a run too many;"
            f" write limit: and collision_strategy: ({strategies})"
        )
        return
    yield from _unknown(where, limit, _keys(ConcurrencyLimitSpec))
    if limit.get("collision_strategy") is None:
        yield f"{where}.collision_strategy: missing; write {strategies}"
    number = limit.get("limit")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        yield f"{where}.limit: {number!r} isn't a number of runs; write 1 or more"
    known = set(_keys(ConcurrencyLimitSpec)) - {"limit"}
    rest = {key: each for key, each in limit.items() if key in known and each is not None}
    yield from _type_errors(where, ConcurrencyLimitConfig, {"limit": 1, **rest}, set()).values()


def _triggers(where: str, flow: Flow[..., Any] | None, triggers: Any) -> Iterator[str]:
    if triggers is None:
        return
    if not isinstance(triggers, list) or not all(isinstance(each, dict) for each in triggers):
        yield f"{where}: isn't a list of mappings"
        return
    for index, trigger in enumerate(triggers):
        here = f"{where}[{trigger.get('name') or index}]"
        try:
            model = DeploymentTriggerAdapter.validate_python({"name": "unnamed", **trigger})
        except ValidationError as error:
            for each in error.errors():
                # the first part of the place is the kind of trigger
                at = "".join(f".{part}" for part in each["loc"][1:])
                yield f"{here}{at}: {_message(each)}"
            continue
        yield from _unknown(here, trigger, _keys(type(model)))
        yield from _secrets(f"{here}.job_variables", model.job_variables, by_name=True)
        if flow:  # values often come from the event, so only the names can be wrong here
            yield from _unknown_parameters(f"{here}.parameters", flow, model.parameters or {})


def _steps(where: str, steps: Any, environment: Mapping[str, str]) -> Iterator[str]:
    """Steps run on the worker: a wrong name or input would show up there, at the first run."""
    for index, step in enumerate(_step_list(steps)):
        here = f"{where}[{index}]"
        name, inputs = next(iter(step.items()), ("", None))
        if len(step) != 1 or not isinstance(inputs or {}, dict):
            yield f"{here}: a step is a mapping of one name to its inputs"
            continue
        here, inputs = f"{here}.{name}", inputs or {}
        try:
            accepted = inspect.signature(import_object(name)).parameters
        except Exception as error:
            yield f"{here}: can't be imported ({_said(error)}); check its name"
            continue
        any_input = [each for each in accepted.values() if each.kind is each.VAR_KEYWORD]
        if not any_input:
            yield from _unknown(here, inputs, [*accepted, "id", "requires"], name)
        for each in accepted.values():
            if each.default is each.empty and each.name not in inputs and each not in any_input:
                yield f"{here}.{each.name}: missing; the step needs it"
        yield from _placeholders(here, inputs, None, environment)
        yield from _secrets(here, _render(inputs, environment), by_name=True)


# --- flows and their parameters -----------------------------------------------


def _flow(entrypoint: Any) -> Flow[..., Any] | str:
    """The flow of an entrypoint, or what is wrong with it."""
    if not entrypoint:
        return "missing; write path/to/file.py:flow_function"
    file, separator, function = entrypoint.rpartition(":")
    script = Path(file) if separator and file.endswith(".py") else None
    if script and not script.is_file():
        return f"there is no file {file}"
    if script and not script.resolve().is_relative_to(Path.cwd()):
        return f"{file} is outside this folder, so no image would have it; move it in"
    # Each entrypoint is imported as if it were alone: Prefect leaves its folder on the path.
    before = sys.path[:]
    try:
        # Prefect deploys a flow that doesn't import, by reading its signature; the run fails.
        return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except MissingFlowError as error:
        if "is not a flow" in str(error):
            return f"{function} isn't a flow; decorate it with @flow"
        names = re.findall(r"^(?:async )?def (\w+)", script.read_text(), re.M) if script else []
        return f"{file} has no {function}{_meant(function, names)}"
    except ScriptError as error:
        return f"{file} doesn't import: {_said(error.user_exc)}"
    except (Exception, SystemExit) as error:  # a module that exits on import must not end the lint
        return f"doesn't import: {_said(error)}; write path/to/file.py:flow_function"
    finally:
        sys.path[:] = before


def _parameters(
    where: str, flow: Flow[..., Any], given: dict[str, Any], inherited: Mapping[str, Any] = {}
) -> Iterator[str]:
    """Names that the flow doesn't take and values that it can't use, among the given ones."""
    yield from _unknown_parameters(where, flow, given)
    schema = flow.parameters
    # as JSON, which is how Prefect keeps them
    every = to_jsonable_python({**inherited, **given})
    known = {name: value for name, value in every.items() if name in schema.properties}
    if _unfilled(known):
        return
    # Stricter than a run: the server refuses "20" for a number, where a run would cast it.
    of_schema = validate(
        {name: value for name, value in known.items() if name in given},
        schema.model_dump_for_openapi(),
        ignore_required=True,
    )
    yield from (f"{where}{each.json_path[1:]}: {each.message}" for each in of_schema)
    if of_schema or not known.keys() >= set(schema.required):
        return
    try:
        with disable_logger("prefect.flows"):  # it logs what it raises
            flow.validate_parameters(known)
    except ParameterTypeError as error:
        for line in str(error).splitlines()[1:]:
            place = line.removeprefix(" - ")
            if re.split(r"[.:]", place)[0] in given:
                yield f"{where}.{place}"


def _unknown_parameters(
    where: str, flow: Flow[..., Any], given: Mapping[str, Any]
) -> Iterator[str]:
    names = flow.parameters.properties
    return _unknown(where, given, names, f"the flow {flow.name!r}")


def _missing(where: str, flow: Flow[..., Any], given: Mapping[str, Any]) -> Iterator[str]:
    for name in flow.parameters.required:
        if name not in given:
            yield f"{where}.{name}: missing; the flow {flow.name!r} needs it"


# --- templates and secrets ----------------------------------------------------


def _placeholders(
    where: str, value: Any, step_ids: set[str] | None, environment: Mapping[str, str]
) -> Iterator[str]:
    """What no value will be found for; `step_ids` is None in a step, which a worker fills in."""
    for at, _, text in _leaves(where, value):
        if not isinstance(text, str):
            continue
        at_run_time = step_ids is None or ".triggers" in at  # a trigger's event fills it in
        rest = text
        for full, name, kind in sorted(find_placeholders(text)):
            rest = rest.replace(full, "")
            if kind is PlaceholderType.ENV_VAR:
                variable = name.lstrip("$")
                if variable not in environment:
                    yield (
                        f"{at}: ${variable} isn't set by the stack, so Prefect would write nothing"
                        f" in its place{_meant(variable, environment)}"
                    )
                elif not environment[variable]:
                    yield f"{at}: ${variable} is empty; the stack has to give it a value"
            elif at_run_time:
                continue
            elif kind is PlaceholderType.BLOCK_DOCUMENT:
                yield (
                    f"{at}: Prefect would store the block's value in the deployment, readable by"
                    " all; load the block in the flow, or name a secret in the stack's setting"
                    " flowSecrets"
                )
            elif kind is PlaceholderType.VARIABLE:
                yield (
                    f"{at}: Prefect would store the variable's value of today, or nothing if it"
                    " is missing; read it in the flow (Variable.get)"
                )
            elif name.partition(".")[0] not in ("ctx", *(step_ids or ())):
                yield f"{at}: nothing gives {full} a value; write {{{{ $NAME }}}}"
        if "{{" in rest and not at_run_time:
            yield f"{at}: Prefect doesn't understand {text!r}; write {{{{ $NAME }}}}"


def _step_list(steps: Any) -> list[Any]:
    if isinstance(steps, dict):  # Prefect takes a single step without a list
        return [steps] if steps else []
    return steps if isinstance(steps, list) else []


def _step_ids(*sections: dict[str, Any]) -> set[str]:
    """The names under which steps' results can be used."""
    steps = [
        step
        for section in sections
        for name in _STEPS
        for step in _step_list(section.get(name))
        if isinstance(step, dict)
    ]
    inputs = [each for step in steps for each in step.values() if isinstance(each, dict)]
    return {each["id"] for each in inputs if isinstance(each.get("id"), str)}


def _render(value: Any, environment: Mapping[str, str]) -> Any:
    """The value as Prefect would fill it in; what has no value stays as it is written."""
    if isinstance(value, dict):
        return {key: _render(each, environment) for key, each in value.items()}
    if isinstance(value, list):
        return [_render(each, environment) for each in value]
    if isinstance(value, str):
        for full, name, kind in find_placeholders(value):
            if kind is PlaceholderType.ENV_VAR:
                value = value.replace(full, environment.get(name.lstrip("$")) or full)
    return value


def _unfilled(value: Any) -> bool:
    """Whether a placeholder is left in a rendered value: it has been reported already."""
    return any(isinstance(leaf, str) and "{{" in leaf for _, _, leaf in _leaves("", value))


def _secrets(where: str, value: Any, by_name: bool) -> Iterator[str]:
    """What looks like a secret: Prefect shows all of this to whoever can open its pages."""
    for at, name, leaf in _leaves(where, value):
        if leaf in (None, "") or isinstance(leaf, bool) or str(leaf).startswith("arn:"):
            continue
        named = by_name and _SECRET_NAME.search(name) and not _unfilled(leaf)
        if named or _SECRET_VALUE.search(str(leaf)):
            yield (
                f"{at}: looks like a secret, and Prefect keeps it as plain text;"
                " keep it in Secrets Manager and name it in the stack's setting flowSecrets, which"
                " hands it to runs; or rename it if it isn't one"
            )


def _leaves(where: str, value: Any, name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each scalar as (place, name, value)."""
    if isinstance(value, dict):
        if set(value) == {"name", "value"}:  # how AWS writes a container's environment
            yield f"{where}[{value['name']}]", str(value["name"]), value["value"]
            return
        for key, each in value.items():
            yield from _leaves(f"{where}.{key}", each, str(key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(f"{where}[{index}]", each, name)
    else:
        yield where, name, value


# --- words --------------------------------------------------------------------


def _at(where: str, part: Any) -> str:
    return f"{where}.{part}" if where else str(part)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _unknown(
    where: str, given: Mapping[str, Any], allowed: Iterable[str], by: str = "Prefect"
) -> Iterator[str]:
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            yield f"{_at(where, key)}: {by} doesn't know it{_meant(str(key), allowed)}"


def _meant(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    if close := difflib.get_close_matches(word, known, n=1):
        return f"; did you mean {close[0]}?"
    return f"; there is {', '.join(known)}" if known else ""


def _type_errors(
    where: str, model: type[BaseModel], given: dict[str, Any], apart: set[str]
) -> dict[str, str]:
    """Prefect's own verdict on the types, by the key that it is about."""
    try:
        model.model_validate({key: each for key, each in given.items() if key not in apart})
    except ValidationError as error:
        found: dict[str, str] = {}
        for each in error.errors():
            # inside a union the place ends with the type that was tried: too much
            at = where
            value: Any = given
            for part in each["loc"]:
                try:
                    value = value[part]
                except (KeyError, IndexError, TypeError):
                    break
                at = _at(at, part)
            found.setdefault(str(each["loc"][0]), f"{at}: {_message(each)}")
        return found
    return {}


def _message(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}, not {error['input']!r}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return names.get(type(value), f"{value!r}")


if __name__ == "__main__":
    sys.exit(main())
