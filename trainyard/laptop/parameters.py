"""What `make demo` gives to its run, refused before anything starts where the flow refuses it."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from trainyard.paths import REPO
from trainyard.tools.errors import StackError

# The tag of the deployments that `make demo` can run.
DEMO = "demo"


@dataclass(frozen=True)
class Demo:
    """A deployment that `make demo` runs, and what it gives to its run."""

    name: str
    entrypoint: str
    parameters: dict[str, Any]


def demo_of(
    flow: str,
    data: str | None = None,
    train: str | None = None,
    valid: str | None = None,
    trials: int | None = None,
) -> Demo:
    """Find the deployment of `flows/<flow>/` with the tag `demo`, and check what the user gave.

    What they left out is prefect.yaml's, or the flow's.

    Raises:
        StackError: there is no such deployment or folder of data, or the flow refuses a value: all
            that is wrong.
    """
    declared = _declared(flow)
    name, entrypoint = str(declared.get("name")), str(declared.get("entrypoint"))
    try:
        model = _parameters_of(entrypoint)
    except Exception:  # whatever is wrong there, `deploy` says it better
        model = None
    takes = model.model_fields.keys() if model else {"data", "train_month"}
    typed = {"DATA": data, "TRAIN": train, "VALID": valid, "TRIALS": trials}
    problems = []
    if {"data", "train_month"} <= takes:
        data = data or "synthetic"
        if data == "synthetic" and not train and not valid:
            train, valid = "2023-01", "2023-02"  # the same demo whatever the day
    at = "data_path" if "data_path" in takes else "data"
    if data and data not in ("synthetic", "tlc") and "://" not in data:
        path = Path(data).expanduser().resolve()  # the run starts in another folder
        if not path.is_dir() and not (at == "data_path" and path.is_file()):
            problems.append(f"no such {'file or ' * (at == 'data_path')}folder: {path}")
        data = str(path)
    every = {at: data, "train_month": train, "valid_month": valid, "num_trials": trials}
    given = {key: value for key, value in every.items() if value is not None}
    names = dict(zip(every, typed, strict=True))
    for key, said in _refused(model, {**(declared.get("parameters") or {}), **given}):
        variable = names.get(key, "")
        value = f"={typed.get(variable)}"
        if not variable or re.search("[@?#]", value):  # which may have a password
            value = ""
        problems.append(f"{variable or key}{value}: {said}")
    if problems:
        raise StackError("\n  ".join(problems))
    return Demo(name, entrypoint, given)


def _declared(flow: str) -> dict[str, Any]:
    """What prefect.yaml says of a pipeline's demo."""
    try:
        listed = yaml.safe_load((REPO / "prefect.yaml").read_text())["deployments"]
        demos = {
            Path(each["entrypoint"]).parent.name: each
            for each in listed
            if DEMO in (each.get("tags") or ())
        }
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}  # `deploy` says what is wrong with it
    if flow not in demos:
        raise StackError(
            f"no deployment of flows/{flow}/ has the tag `{DEMO}` in prefect.yaml; FLOW= may be "
            f"{', '.join(demos) or 'nothing yet'}"
        )
    return dict(demos[flow])


def _refused(model: type[BaseModel] | None, every: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a flow refuses of the parameters that a run would have."""
    if model is None:
        return
    try:
        model(**{name: each for name, each in every.items() if "{{" not in str(each)})
    except ValidationError as error:
        for each in error.errors():
            if each["type"] == "extra_forbidden":
                takes = ", ".join(model.model_fields) or "none"
                yield str(each["loc"][0]), f"the flow has no such parameter; it takes {takes}"
            elif each["type"] != "missing":  # such as one that a template gives
                yield str(each["loc"][0]), each["msg"].removeprefix("Value error, ")


def _parameters_of(entrypoint: str) -> type[BaseModel]:
    """Return a model of a flow's parameters, as Prefect makes one.

    Of the flow's module only what its signature needs is loaded: all of it, with MLflow and Polars,
    would take ten seconds.
    """
    file, _, name = entrypoint.rpartition(":")
    module = ast.parse((REPO / file).read_text())
    (flow,) = (each for each in module.body if getattr(each, "name", "") == name)
    assert isinstance(flow, ast.FunctionDef | ast.AsyncFunctionDef)  # noqa: S101
    empty = ast.FunctionDef(name, flow.args, [ast.Pass()], [])
    used, needed = _used(flow.args), list[ast.stmt]()
    while more := [e for e in module.body if e not in (flow, *needed) and used & set(_names(e))]:
        needed = [each for each in module.body if each in needed or each in more]
        used |= {name for each in more for name in _used(each)}
    space: dict[str, Any] = {"__name__": name}
    code = ast.fix_missing_locations(ast.Module([*needed, empty], []))
    exec(compile(code, file, "exec"), space)  # noqa: S102  the owner's own flow
    parameters = inspect.signature(space[name], eval_str=True).parameters.values()
    fields: dict[str, Any] = {
        each.name: (each.annotation, ... if each.default is each.empty else each.default)
        for each in parameters
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model(name, __config__=config, **fields)


def _used(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module gives: an import, an assignment or a definition."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign):
        for each in ast.walk(statement):
            if isinstance(each, ast.alias):
                yield each.asname or each.name.split(".")[0]
            elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                yield each.id
