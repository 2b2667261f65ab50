"""The front door: which command and which target, and what an error looks like."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trainyard import __version__
from trainyard.__main__ import main
from trainyard.aws import doctor, drift
from trainyard.aws import stack as operations
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.laptop import commands
from trainyard.prefect.backfill_request import Backfill
from trainyard.rehearsal import target
from trainyard.tools import command_line
from trainyard.tools.errors import StackError


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("not what was asked for")


def ended(*arguments: str) -> int | str | None:
    """The exit code of what is typed wrongly."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_an_unknown_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("deplyo", "dev") == 2
    said = "".join(capsys.readouterr())
    assert '"deploy"' in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["drift"], "`drift dev`"),
        (["up", "dev", "prod"], "prod"),
        (["image", "--cpu", "arm"], "arm64"),
        (["drift", "dev", "--isue"], "--issue"),
    ],
)
def test_what_is_typed_wrongly_is_named_and_nothing_is_done(
    typed: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("subprocess.Popen", refuse)
    assert ended(*typed) == 2
    said = "".join(capsys.readouterr())
    assert told in said
    assert "Traceback" not in said


def test_help_shows_the_defaults_that_say_something(capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--help"])
    said = capsys.readouterr().out
    assert "[default: taxi]" in said
    assert said.count("[default:") == 1


def test_the_version_is_the_tools_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


def test_an_error_of_ours_is_one_message_and_its_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "ERROR_LOG", tmp_path / ".trainyard/error.log")

    def fail(*_: Any, **__: Any) -> int:
        raise StackError("the stack dev isn't up: `make up STACK=dev`")

    monkeypatch.setattr(drift, "drift", fail)
    assert main(["drift", "dev"]) == 1
    said = capsys.readouterr()
    assert said.err == (
        "✗ the stack dev isn't up: `make up STACK=dev`\n  traceback: .trainyard/error.log\n"
    )
    assert said.out == ""
    kept = (tmp_path / ".trainyard/error.log").read_text()
    assert "trainyard drift dev" in kept
    assert "in fail" in kept


def test_a_stack_that_isnt_there_is_told_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status", "dve"]) == 1
    said = capsys.readouterr().err
    assert "did you mean dev?" in said
    assert "`make bootstrap STACK=dve`" in said


def test_any_other_error_is_ours_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise KeyError("held_back")

    monkeypatch.setattr(drift, "drift", fail)
    with pytest.raises(KeyError):
        main(["drift", "dev"])


def test_a_commands_exit_code_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in (0, 1, 2):
        monkeypatch.setattr(drift, "drift", lambda *_, code=code, **__: code)
        assert main(["drift", "dev"]) == code


def test_a_rehearsal_is_not_looked_for_on_aws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "doctor", refuse)
    assert main(["doctor", "rehearsal"]) == 1
    assert "`make rehearse`" in capsys.readouterr().err


# --- which target ---------------------------------------------------------------------------------
@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the commands reach."""
    seen = list[str]()

    def on_laptop(act: Any) -> int:
        act = getattr(act, "func", act)
        seen.append(f"laptop {act.__name__}")
        return 0

    def on_stack(command: str) -> Any:
        def act(pulumi: Pulumi) -> dict[str, Any]:
            seen.append(f"{command} {pulumi.stack} in {pulumi.folder.name}")
            return {"next": "make deploy"}

        return act

    monkeypatch.setattr(commands, "run", on_laptop)
    for command in ("up", "down", "status", "deploy"):
        monkeypatch.setattr(operations, command, on_stack(command))
    monkeypatch.setattr(target, "end_rehearsal", lambda: seen.append("the rehearsal ends"))
    return seen


def test_without_a_stack_it_is_the_laptops(chosen: list[str]) -> None:
    for command in ("up", "status", "deploy", "down"):
        assert main([command]) == 0
    assert chosen == ["laptop up", "laptop status", "laptop register_and_deploy", "laptop down"]


def test_models_are_the_laptops_or_a_stacks(
    chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[Sequence[str]]()
    monkeypatch.setattr(operations, "model", lambda _, arguments: given.append(arguments))
    assert main(["model", "list"]) == 0
    assert chosen == ["laptop model"]
    assert main(["model", "promote", "wine/3", "dev", "--force", "we know better"]) == 0
    assert main(["model", "rollback", "wine", "dev", "--reason=too slow"]) == 0
    assert given == [
        ["promote", "wine/3", "--force=we know better"],
        ["rollback", "wine", "--reason=too slow"],
    ]


def test_a_model_is_served_on_the_laptop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = list[Sequence[str]]()
    monkeypatch.setattr(commands, "run", lambda act: seen.append(act.keywords["arguments"]) or 0)
    assert main(["model", "serve", "wine@previous", "--port", "0"]) == 0
    assert main(["serve", "wine"]) == 0
    monkeypatch.setenv(command_line.GIVEN_TO_MAKE, "MODEL PORT")
    monkeypatch.setenv("MODEL", "wine")
    monkeypatch.setenv("PORT", "8001")
    assert main(["serve"]) == 0
    wanted = [["serve", "wine@previous", "--port=0"], ["serve", "wine"]]
    assert seen == [*wanted, ["serve", "wine", "--port=8001"]]
    monkeypatch.delenv(command_line.GIVEN_TO_MAKE)
    assert main(["model", "serve", "wine", "dev"]) == 1
    said = capsys.readouterr().err
    assert "serves on a laptop: leave `dev` away" in said
    assert "`serve` names in infra/Pulumi.dev.yaml: set it, then `make up STACK=dev`" in said
    assert len(seen) == 3


def test_a_backfill_is_the_laptops_or_a_stacks(
    chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[Backfill]()
    monkeypatch.setattr(
        operations,
        "backfill",
        lambda _, request: given.append(Backfill.model_validate_json(request)) or 130,
    )
    months = ["taxi-score/taxi-score", "2023-01..2023-06"]
    assert main(["backfill", *months]) == 0
    assert chosen == ["laptop backfill"]
    more = ["-p", "data=tlc", "--parameter", "rows=1", "--parallel", "3", "--again"]
    assert main(["backfill", *months, "dev", *more]) == 130
    assert given == [
        Backfill(
            deployment=months[0],
            months=months[1],
            parameters=("data=tlc", "rows=1"),
            parallel=3,
            again=True,
        )
    ]


def test_a_backfill_that_is_typed_wrongly_starts_no_task(
    chosen: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operations, "backfill", refuse)
    assert main(["backfill", "a/b", "2023-06..2023-01", "dev", "-p", "data"]) == 1
    said = capsys.readouterr().err
    assert "the last one is before the first\n  -p data: write NAME=VALUE" in said


def test_make_gives_a_backfill_its_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = list[Backfill]()
    monkeypatch.setattr(commands, "run", lambda act: seen.append(act.keywords["request"]) or 0)
    given = {
        "DEPLOYMENT": "taxi-score/taxi-score",
        "MONTHS": "2023-01..2023-06",
        "PARAMETER": "data=tlc",
        "AGAIN": "1",
    }
    monkeypatch.setenv(command_line.GIVEN_TO_MAKE, " ".join(given))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["backfill"]) == 0
    (request,) = seen
    assert (request.deployment, request.months) == (given["DEPLOYMENT"], given["MONTHS"])
    assert (request.parameters, request.again, request.parallel) == (("data=tlc",), True, 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["card"], "which model? `trainyard model card NAME`"),
        (["rollback", "wine"], "why? `trainyard model rollback wine --reason TEXT`"),
        (["promote", "wine", "--reason", "x"], "`promote` takes no --reason"),
        (["list", "--force", "x"], "`list` takes no --force"),
        (["card", "wine", "--port", "1"], "`card` takes no --port"),
        (["serve"], "which model? `trainyard model serve NAME`"),
    ],
)
def test_a_command_about_models_that_says_too_little_or_too_much_is_refused(
    arguments: list[str], told: str, chosen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", *arguments]) == 1
    assert told in capsys.readouterr().err
    assert chosen == []


def test_a_stacks_setting_says_whether_its_schedules_start_runs(
    chosen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "dev", "--schedules"]) == 1
    assert "activeSchedules" in capsys.readouterr().err
    assert chosen == []


def test_a_stack_on_aws_is_found_by_its_name(
    chosen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("up", "status", "deploy", "down"):
        assert main([command, "dev"]) == 0
    assert chosen == [f"{each} dev in infra" for each in ("up", "status", "deploy", "down")]
    assert "make deploy" in capsys.readouterr().out  # what an `up` says is next


def test_a_rehearsal_is_begun_by_up_found_by_others_and_ended_by_down(
    chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*, released: bool = False) -> Pulumi:
        chosen.append(f"begun{' for a release' * released}")
        return Pulumi("rehearsal")

    def found(*, released: bool = False) -> Pulumi:
        chosen.append(f"found{' for a release' * released}")
        return Pulumi("rehearsal")

    monkeypatch.setattr(target, "opened", begun)
    monkeypatch.setattr(target, "found", found)
    for command in ("up", "status", "deploy", "down"):
        assert main([command, "rehearsal"]) == 0
    assert chosen == [
        *("begun", "up rehearsal in infra"),
        *("found", "status rehearsal in infra"),
        *("found", "deploy rehearsal in infra"),
        "the rehearsal ends",
    ]
    chosen.clear()
    monkeypatch.setattr("trainyard.delivery.release.wanted_release", lambda: None)
    monkeypatch.setattr("trainyard.delivery.release.release", lambda *_, **__: None)
    assert main(["release", "rehearsal"]) == 0
    assert chosen == ["begun for a release"]
    chosen.clear()
    monkeypatch.setattr("trainyard.delivery.release.rollback", lambda *_, **__: None)
    assert main(["rollback", "rehearsal"]) == 0
    assert chosen == ["found for a release"]
