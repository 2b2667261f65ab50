"""A stack's configuration: `Pulumi.<stack>.yaml` read, parsed into settings; and Pulumi.yaml's.

All that is wrong with a file is reported together: the key, its value, and what is allowed.
"""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from trainyard.contract.settings import PROJECT, ContradictionError, Settings
from trainyard.paths import PROGRAM

# What Pulumi.yaml can declare.
PULUMI_TYPES = ("string", "boolean", "integer", "array", "object")


class Problem(NamedTuple):
    """One thing that is wrong with the settings."""

    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}: should be {self.allowed}"


class SettingsError(ValueError):
    """Everything that is wrong with a stack's settings."""

    def __init__(self, stack: str, problems: list[Problem]):
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"Pulumi.{stack}.yaml can't be used:\n{lines}")


def config_of(stack: str) -> dict[str, Any]:
    """What a stack's file says, as it is: setting with its namespace -> value."""
    path = PROGRAM / f"Pulumi.{stack}.yaml"
    if not path.exists():
        raise FileNotFoundError(f"there is no stack {stack}: {path} is missing")
    return read_config(path)


def read_config(path: Path) -> dict[str, Any]:
    """A stack's file, with the namespace that Pulumi gives to keys without one."""
    stack = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
    try:
        with path.open() as text:  # a file has a name, which YAML's error then says
            file = yaml.safe_load(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise SettingsError(stack, [Problem("the file", why, "YAML")]) from None
    config = (file.get("config") or {}) if isinstance(file, dict) else file
    if not isinstance(config, dict):
        should_be = "a map with `config:`, and under it setting: value"
        raise SettingsError(stack, [Problem("the file", f"{config}", should_be)])
    named = {f"{key}": value for key, value in config.items()}
    return {k if ":" in k else f"{PROJECT}:{k}": v for k, v in named.items()}


def as_texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings as Pulumi hands them over: lists and maps as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}


S = TypeVar("S", bound=Settings)


def parse(stack: str, config: Mapping[str, Any], model: type[S]) -> S:
    """The settings of a stack, from its configuration: values by `trainyard:profile`, `aws:region`.

    Raises:
        SettingsError: something is wrong with them; it has all of it.
    """
    problems: list[Problem] = []
    given: dict[str, Any] = {"stack": stack}
    for key, value in sorted(config.items()):
        namespace, _, name = key.partition(":")
        if namespace == PROJECT:
            given[name] = value
        elif key == "aws:region":
            given["region"] = value
        elif namespace == "aws":
            # The stack's provider is explicit, so it would never see this.
            should_be = "left to the environment (AWS_PROFILE, ...)"
            problems.append(Problem(key, _shown(value), should_be))
    try:
        settings = model.model_validate(given)
    except ValidationError as error:
        raise SettingsError(stack, [*problems, *_problems(error, given, model)]) from None
    if problems:
        raise SettingsError(stack, problems)
    return settings


def _problems(
    error: ValidationError, given: Mapping[str, Any], model: type[Settings]
) -> Iterator[Problem]:
    known = model.model_json_schema()["properties"]
    reported = set()
    for fault in error.errors():
        key = str(fault["loc"][0])
        cause = fault.get("ctx", {}).get("error")
        if fault["type"] == "extra_forbidden":
            near = get_close_matches(key, known, n=1)
            like = f"; did you mean {near[0]}?" if near else ""
            should_be = f"left out: it isn't a setting{like}"
        else:
            key = to_camel(key)  # a default has failed by its field's name
            should_be = str(cause) if isinstance(cause, ContradictionError) else allowed(known[key])
        if key not in reported:
            reported.add(key)
            where = {"stack": "the stack's name", "region": "aws:region"}
            yield Problem(where.get(key, f"{PROJECT}:{key}"), _shown(given.get(key)), should_be)


def _shown(value: Any) -> str:
    if value is None:
        return "(not set)"
    return value if isinstance(value, str) and value else json.dumps(value)


def described(model: type[Settings]) -> dict[str, dict[str, Any]]:
    """What a stack's file may set: key -> its JSON schema, with `allowed` and `by`."""
    known: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    return {key: schema for key, schema in known.items() if key not in ("stack", "region")}


def allowed(schema: Mapping[str, Any]) -> str:
    if schema.get("allowed"):
        return str(schema["allowed"])
    if "minimum" in schema:
        least, most = schema["minimum"], schema.get("maximum")
        return f"{least} to {most}" if most else f"{least} or more"
    *others, last = schema.get("enum", ("true", "false"))
    return f"{', '.join(others)} or {last}"


def declared(model: type[Settings]) -> dict[str, dict[str, Any]]:
    """The settings as Pulumi.yaml declares them; TypeError where it knows no such type."""
    out = {}
    for key, schema in described(model).items():
        kind = schema.get("type")
        if kind not in PULUMI_TYPES:
            raise TypeError(f"a setting is a str, bool, int, Literal, tuple or dict: not {key}")
        out[key] = {
            "type": kind,
            **({"items": {"type": "string"}} if kind == "array" else {}),
            "description": f"{schema['description']} Allowed: {allowed(schema)}.",
            "default": schema["default"],
        }
    return out
