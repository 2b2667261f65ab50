"""A `gh` for tests: it keeps what GitHub would in the JSON file that FAKE_GH names.

Fields of that file set by a test: `logged_in`, and `plan`, where "free" refuses protection rules.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each call of the program would import it
    import pytest


class FakeGitHub:
    """What a test sees of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **state: Any):
        self.file = folder / "github.json"
        self.file.write_text(json.dumps({"logged_in": True, "plan": "team", **state}))
        program = folder / "bin/gh"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {__file__} "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_GH", str(self.file))

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.file.read_text()).get(name, {})

    def set(self, **state: Any) -> None:
        self.file.write_text(json.dumps({**json.loads(self.file.read_text()), **state}))


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def fields(arguments: list[str]) -> dict[str, str]:
    given = [arguments[i + 1] for i, a in enumerate(arguments) if a in ("-F", "-f")]
    return dict(each.split("=", 1) for each in given)


def answer(github: dict[str, Any], arguments: list[str]) -> str:
    if not github["logged_in"]:
        sys.exit("To get started with GitHub CLI, please run:  gh auth login")
    command = " ".join(arguments[:2])
    github.setdefault("calls", []).append(arguments)
    if command == "api user":
        return "42"
    if arguments[0] == "api":
        path = next(a for a in arguments if a.startswith("repos/"))
        environments = github.setdefault("environments", {})
        if path.endswith("/environments"):
            return "\n".join(environments)
        if path.endswith("/deployment-branch-policies"):
            environments[path.split("/")[-2]]["branches"] = [fields(arguments)["name"]]
        elif option(arguments, "--method") == "PUT":
            if github["plan"] == "free" and fields(arguments):
                sys.exit("gh: Failed to create the environment protection rule. (HTTP 422)")
            environments[path.split("/")[-1]] = fields(arguments)
        return ""
    if command == "variable set":
        place = option(arguments, "--env") or "repository"
        variables = github.setdefault("variables", {}).setdefault(place, {})
        variables[arguments[2]] = option(arguments, "--body")
        return ""
    if command == "label create":
        github.setdefault("labels", []).append(arguments[2])
        return ""
    issues = github.setdefault("issues", [])
    if command == "issue list":
        label = option(arguments, "--label")
        return "\n".join(
            str(n) for n, i in enumerate(issues, 1) if i["open"] and i["label"] == label
        )
    if command == "issue create":
        label = option(arguments, "--label")
        if label not in github.get("labels", []):
            sys.exit(f"could not add label: '{label}' not found")
        body = Path(option(arguments, "--body-file")).read_text()
        issues.append({"title": option(arguments, "--title"), "label": label, "body": body})
        issues[-1]["open"] = True
        return f"https://github.com/acme/rides/issues/{len(issues)}"
    if command == "issue edit":
        issues[int(arguments[2]) - 1]["body"] = Path(option(arguments, "--body-file")).read_text()
        return ""
    if command == "issue close":
        issues[int(arguments[2]) - 1]["open"] = False
        return ""
    return "" if command == "auth status" else sys.exit(f"unknown command {arguments}")


if __name__ == "__main__":
    file = Path(os.environ["FAKE_GH"])
    state = json.loads(file.read_text())
    said = answer(state, sys.argv[1:])
    file.write_text(json.dumps(state))
    print(said)
