"""Refuses what Prefect would swallow in prefect.yaml, all at once, before anything is deployed."""

import contextlib
import difflib
import inspect
import json
import math
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import yaml
from prefect import Flow, exceptions, flows
from prefect.cli.deploy import _models
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.steps.core import RESERVED_KEYWORDS as RESERVED
from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
from prefect.logging.loggers import disable_logger
from prefect.settings import get_current_settings
from prefect.utilities import importtools, schema_tools
from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator
from ruamel.yaml import YAML, YAMLError  # type: ignore[attr-defined]

from trainyard.contract.fargate_sizes import Size
from trainyard.contract.outputs import DEPLOY_VARIABLES
from trainyard.prefect.lint_schedules import Schedule
from trainyard.prefect.work_pool import ecs_variables

_KEY = r"(^|_|api)(token|pass(word|wd|phrase)?|secret|credentials?|auth_string|webhook)_?\d*$"
_KEY += r"|(api|secret|access|private)_?key_?\d*$"  # not a cache's
_LEAK = r"A[KS]IA\w{9}|(pn[ub]|gh[pousr]|_pat)_\w{20}|xox.-|hooks.slack|-BEGIN"
_LEAK += r"|//[^/@\s]*:[^/@\s{}]+@|(?i:https?://[^/@\s{}]+@)"  # a template may stand there
_LEAK += r"|(?i:[?&]([\w-]*(token|secret|signature|api_?key|password)|sig)=[^{&\s])"
_NOT = "/%&<>[:cntrl:]"
_CURES = {
    "active": 'write active: "{{ $TRAINYARD_ACTIVE_SCHEDULES }}", or true to start runs everywhere',
    "collision_strategy": "write ENQUEUE or CANCEL_NEW",
    "concurrency_limit": "write limit: and collision_strategy: (ENQUEUE or CANCEL_NEW)",
    "cron": "write minute, hour, day, month, weekday; a zone belongs into timezone:",
    "entrypoint": "write path/to/file.py:flow_function",
    "interval": "write seconds, PT1H or '01:00:00'; months and years are for cron or rrule",
    "image": 'write image: "{{ $TRAINYARD_IMAGE }}"',
    "name": "give it one line without / % & < >",
    "schedule": "it is deprecated; write a list under `schedules`",
    "secret": "keep it in Secrets Manager and name it in the setting flowSecrets, or rename it",
    "sla": "only Prefect Cloud has these; remove it",
    "template": "write {{ $NAME }}, load it in the flow, or name it in the setting flowSecrets",
    "timezone": "it would be UTC; name one, such as America/New_York",
    "work_pool": "no worker would run it; give it a size, such as *small",
}


class _Steps(BaseModel):  # Prefect's models, as strict as a run is
    @field_validator("build", "push", "pull", check_fields=False)
    @classmethod
    def _can_be_called(cls, steps: Any) -> Any:
        if wrong := [step for step in steps or () if len(step) != 1]:
            keys = ", ".join(wrong[0]) or "none"
            raise ValueError(
                f"a step has one key, not {keys}; indent its inputs, or start it with -"
            )
        for name, inputs in [call for step in steps or () for call in step.items()]:
            takes: Any = ""
            try:
                takes = inspect.signature(importtools.import_object(name))
                takes.bind(**{k: v for k, v in dict(inputs or {}).items() if k not in RESERVED})
            except Exception as error:
                raise ValueError(f"{name}{takes}: {error}") from None
        return steps


class _Limit(ConcurrencyLimitConfig):
    limit: Annotated[int, Field(ge=1)]
    collision_strategy: ConcurrencyLimitStrategy


def _fires(trigger: Any) -> Any:
    if trigger.type == "metric" and not _on_cloud():
        raise ValueError("only Prefect Cloud has metric triggers; remove it, or use an event")
    if trigger.type in ("compound", "sequence"):
        if not trigger.triggers:
            raise ValueError("it has no triggers to wait for; list some")
        return [_fires(each) for each in trigger.triggers] and trigger
    if trigger.type == "event":
        labels = {**trigger.match.root, **trigger.match_related.root}
        if not (labels or trigger.expect):
            raise ValueError("every event would start a run; name those in expect: or match:")
        if not all([*labels.keys(), *labels.values(), *trigger.expect, *trigger.after]):
            raise ValueError("no event is empty, so none would start a run; write its name")
        if trigger.threshold < 1:
            raise ValueError("no number of events would start a run; make threshold 1 or more")
    return trigger


def _on_cloud() -> bool:
    """Whether the API is Prefect Cloud's, or, where none is set, a stack's will be."""
    settings = get_current_settings()
    if settings.api.url:
        return settings.api.url.startswith(str(settings.cloud.api_url))
    files = [each.read_text() for each in Path("infra").glob("Pulumi.*.yaml")]
    return bool(re.search(r"^\s+trainyard:prefect:\s+cloud\b", "\n".join(files), re.M))


_Trigger = Annotated[DeploymentTriggerTypes, AfterValidator(_fires)]


_Name = Annotated[str, Field(pattern=rf"^[^\s{_NOT}]([^{_NOT}]*[^\s{_NOT}])?$")]


class _Deployment(_Steps, _models.DeploymentConfig):
    name: _Name
    entrypoint: str
    work_pool: _models.WorkPoolConfig
    tags: list[Annotated[str, Field(coerce_numbers_to_str=True)]] | None = None
    schedule: None = None
    schedules: list[Schedule] | None = None  # type: ignore[assignment]
    concurrency_limit: _Limit | None = None  # type: ignore[assignment]
    triggers: list[_Trigger] | None = None  # type: ignore[assignment]
    sla: None = None


class _Document(_Steps, _models.PrefectYamlModel):
    deployments: Annotated[list[_Deployment], Field(min_length=1)]  # type: ignore[assignment]


def _once(names: list[str]) -> list[str]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is there twice; keep the place that it should have")
    return names


class _Definitions(BaseModel):  # beside anchors
    work_queues: Annotated[list[_Name], AfterValidator(_once)] | None = None


class _Defined(BaseModel):
    definitions: _Definitions | None = None


_BELONGS = {
    **dict.fromkeys(_Limit.model_fields, "concurrency_limit"),
    **dict.fromkeys(Schedule.model_fields, "schedules"),
    **dict.fromkeys(_Deployment.model_fields, "a deployment"),
    **dict.fromkeys(ecs_variables({}, "FARGATE")["properties"], "work_pool.job_variables"),
    **dict.fromkeys(("work_queue_name", "job_variables"), "work_pool"),
}


class _Misread(str):
    """Text that YAML without quotes takes for a date, or for a number in base 60."""


def _as_written(loader: Any, node: Any) -> Any:
    made = getattr(loader, f"construct_yaml_{node.tag.rpartition(':')[2]}")(node)
    return made if isinstance(made, int | float) and ":" not in node.value else _Misread(node.value)


class _Loader(yaml.SafeLoader):
    yaml_constructors = yaml.SafeLoader.yaml_constructors | {
        f"tag:yaml.org,2002:{each}": _as_written for each in ("int", "float", "timestamp")
    }


def lint(path: Path) -> int:
    """Print what is wrong on any stack, whether schedules rest or start runs; return 1 if so."""
    stack = dict.fromkeys(DEPLOY_VARIABLES, "the-stacks-own") | {"TRAINYARD_DATA": "synthetic"}
    active = ({"TRAINYARD_ACTIVE_SCHEDULES": each} for each in ("true", "false"))
    found = dict.fromkeys(problem for each in active for problem in problems(path, stack | each))
    print("\n".join(found) or f"{path.name}: no problems", file=sys.stderr if found else None)
    return 1 if found else 0


def problems(path: Path, environment: Mapping[str, str]) -> list[str]:
    """All that is wrong with a file whose templates may use `environment`, one line each."""
    try:
        YAML(typ="safe", pure=True).load(path)  # refuses a key that is there twice
        config = yaml.load(path.read_text(), _Loader)  # noqa: S506  a safe one
        json.dumps(config)
    except (OSError, TypeError, ValueError, YAMLError, yaml.YAMLError) as error:
        mark, said = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        return [f"{path.name}: {f'line {mark.line + 1}: ' if mark else ''}can't be read: {said}"]
    if not isinstance(config, dict):
        what = "is empty" if config is None else f"is a {type(config).__name__}, not a mapping"
        return [f"{path.name}: {what}; write `deployments:` and a list of them"]
    with contextlib.chdir(path.resolve().parent):  # as `prefect deploy` and the runs load flows
        return [": ".join((path.name, *each)) for each in _File(config, environment).found.items()]


class _File:
    def __init__(self, config: dict[str, Any], environment: Mapping[str, str]) -> None:
        self.config = {key: each for key, each in config.items() if key != "definitions"}  # anchors
        self.environment = {name: value for name, value in environment.items() if value}
        self.step_ids = re.findall(r'"id": "([\w-]+)"', json.dumps(config))
        self.found, self.shapeless, self.names = dict[str, str](), set[Any](), set[str]()
        filled = self.filled(self.config, ())
        plain = json.loads(json.dumps(self.config))
        defined = config.get("definitions")
        if isinstance(defined, dict):
            defined = {key: each for key, each in defined.items() if key == "work_queues"}
        own: Any = {"definitions": defined}
        # Prefect looks before it fills in, too
        models = ((_Defined, own), (_Document, filled), (_models.PrefectYamlModel, plain))
        for model, given in models:
            try:
                model.model_validate(given, extra="forbid")
            except ValidationError as error:
                names = re.findall(r'"(\w+)": \{', json.dumps(_Document.model_json_schema()))
                for each in error.errors():
                    key, said = str(each["loc"][-1]), each["msg"].removeprefix("Value error, ")
                    if each["type"] in ("extra_forbidden", "invalid_key"):
                        said = f"Prefect doesn't know it{_meant(key, [*_BELONGS, *names])}"
                        if key in _BELONGS:
                            said += f"; it belongs under {_BELONGS[key]}"
                    elif each["type"] not in ("missing", "value_error"):
                        said = f"{said.partition(' or instance')[0]}, not {each['input']!r}"
                    self.add(each["loc"], f"{said}; {_CURES[key]}" if key in _CURES else said)
                self.shapeless |= {each["loc"][:3] for each in error.errors()}
        listed = [] if ("deployments",) in self.shapeless else filled["deployments"]
        for at, each in ((("deployments", index), each) for index, each in enumerate(listed)):
            if at not in self.shapeless:
                sound = {k: v for k, v in each.items() if (*at, k) not in self.shapeless}
                self.deployment(at, {"pull": filled.get("pull")} | sound)

    def where(self, at: tuple[Any, ...]) -> str:
        where = re.sub(r"\.(\d+)", r"[\1]", re.sub(r"\.\w+\[.*", "", ".".join(map(str, at))))
        with contextlib.suppress(IndexError, KeyError, TypeError):
            name = self.config["deployments"][at[1]]["name"] or at[1]
            where = where.replace(f"deployments[{at[1]}]", f"deployments[{name}]", 1)
        return repr(where)[1:-1]

    def add(self, at: tuple[Any, ...], said: str) -> None:
        if at[:3] not in self.shapeless:  # the first explains those that follow
            self.found.setdefault(self.where(at), " ".join(said.split()))

    def deployment(self, at: Any, given: dict[str, Any]) -> None:
        pool, name = given.get("work_pool", {}), self.environment["TRAINYARD_WORK_POOL"]
        if name not in (given.get("tags") or ()):
            self.add((*at, "tags"), 'add "{{ $TRAINYARD_WORK_POOL }}", or no silent run is noticed')
        if not given["pull"]:
            self.add((*at, "pull"), "without a step no run finds the code; write one at the top")
        if pool.get("name") != name:
            self.add((*at, "work_pool", "name"), 'the stack only has "{{ $TRAINYARD_WORK_POOL }}"')
        jobs = ecs_variables({}, "FARGATE")
        size = {key: jobs["properties"][key]["default"] for key in ("cpu", "memory")}
        takes: Any = "the work pool", jobs, lambda own: Size(**{k: (size | own)[k] for k in size})
        self.accept((*at, "work_pool", "job_variables"), pool.get("job_variables", {}), {}, takes)
        try:
            flow = load_flow(str(given.get("entrypoint")))
        except ValueError as error:
            return self.add((*at, "entrypoint"), str(error))
        if given.get("flow_name") not in (None, flow.name):
            self.add((*at, "flow_name"), f"remove it: the flow's own name is {flow.name!r}")
        if (full := f"{flow.name}/{given.get('name')}") in self.names:
            self.add((*at, "name"), f"there are two {full}, and one would overwrite the other")
        self.names.add(full)
        takes = f"flow {flow.name!r}", flow.parameters.model_dump(), flow.validate_parameters
        base, schedules = given.get("parameters") or {}, given.get("schedules")
        partial = schedules or (*at, "schedules") in self.shapeless  # those may give the others
        self.accept((*at, "parameters"), base, {}, takes, partial)
        for key in ("schedules", "triggers"):
            for index, run in enumerate(given.get(key) or ()):
                if run.get("slug") in [each.get("slug") or 0 for each in given[key][:index]]:
                    self.add((*at, key, index, "slug"), "another schedule has it; rename one")
                own, place = run.get("parameters") or {}, (*at, key, index, "parameters")
                self.accept(place, own, base, takes, key == "triggers")
        return None

    def accept(self, at: Any, own: Any, base: Any, takes: Any, partial: Any = False) -> None:
        (by, schema, check), every = takes, base | own
        known = schema["properties"]
        for key in own.keys() - known.keys():
            self.add((*at, key), f"{by} doesn't know it{_meant(key, known)}")
        missing = set(schema["required"]) - every.keys()
        for key in () if partial else missing:
            self.add((*at, key), f"missing; {by} needs it; {_CURES.get(key, 'give it a value')}")
        fixed = {k: v for k, v in own.items() if not re.search("{{|__prefect_kind", str(v))}
        for each in schema_tools.validate(fixed, schema, ignore_required=True):
            pair = f"{each.instance!r} {each.validator_value}"  # what is there, and what is wanted
            cure = "; quote it" if re.match(r"([-\d.e]+|True|False) .*string", pair) else ""
            if re.match(r"'[-+]?\d[\d.e+-]*' .*(integer|number)", pair):
                cure = "; write it without quotes, as 512 or 1.0e-4"
            self.add((*at, *each.absolute_path), each.message + cure)
        clean = not missing and every.keys() <= known.keys()
        clean = clean and not any(each.startswith(self.where(at)) for each in self.found)
        if clean and not re.search("{{|__prefect_kind", str(every)):
            try:
                with disable_logger("prefect.flows"):  # it logs what it raises
                    check(every)
            except (ValueError, exceptions.ParameterTypeError) as error:
                if not base or any(f"- {key}" in str(error) for key in own):
                    self.add(at, str(error))

    def filled(self, value: Any, at: tuple[Any, ...]) -> Any:
        if isinstance(value, list):
            return [self.filled(each, (*at, index)) for index, each in enumerate(value)]
        if isinstance(value, dict):
            if value.keys() == {"name", "value"}:  # AWS's kind of variable
                self.filled(value["value"], (*at, value["name"]))
            pairs = [(k if isinstance(k, str) else json.dumps(k), v) for k, v in value.items()]
            return {key: self.filled(each, (*at, key)) for key, each in pairs}
        if isinstance(value, float) and not math.isfinite(value):
            self.add(
                at, "JSON has no infinity and no NaN, so Prefect can't keep it; write a number"
            )
        text = str(value) if isinstance(value, str) else ""
        if isinstance(value, _Misread) and (at[-1] != "interval" or text.count(":") < 2):
            cure = _CURES["interval"] if at[-1] == "interval" else "quote it"
            self.add(at, f"without quotes, YAML takes {text} for a date or a number; {cure}")
        steps = {"build", "push", "pull"} & {at[0], *at[2:3]}
        later = steps or at[2:3] == ("triggers",)  # filled in when they run
        for full in re.findall(r"\{\{.*?\}\}", text):
            name = full.strip("{} ")
            if name.startswith("$"):
                if name[1:] not in self.environment:
                    self.add(at, f"the stack sets no {name}{_meant(name[1:], self.environment)}")
                text = text.replace(full, self.environment.get(name[1:], full))
            elif not later and name.split(".")[0] not in ("ctx", *self.step_ids):
                self.add(at, f"{full} would be empty, or readable by all; {_CURES['template']}")
        named = re.search(_KEY, str(at[-1]), re.I) and (steps or "job_variables" in at)
        if (named and not re.search("^arn:|{{|^$", text)) or re.search(_LEAK, text):
            self.add(at, f"looks like a secret, and all can read it; {_CURES['secret']}")
        return text or value


def load_flow(entrypoint: str) -> Flow[..., Any]:
    file, _, function = entrypoint.rpartition(":")
    if Path(file).is_absolute() or not Path(file).resolve().is_relative_to(Path.cwd()):
        raise ValueError("images only have this folder; write path/in/it.py:flow_function")
    try:
        with patch("sys.path", sys.path[:]):  # a run loads it as if it were the only flow
            return flows.load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except (Exception, SystemExit) as error:  # a module that exits must not end the lint
        said = f"{type(error).__name__}: {error}"
        if "not found in" in said and Path(file).is_file():
            said += _meant(function, re.findall(r"def (\w+)", Path(file).read_text()))
        raise ValueError(said) from None


def _meant(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.67)
    listed = f"; there is {', '.join(known)}" if len(known) < 12 else ""
    return f"; did you mean {close[0]}?" if close and close[0] != word else listed
