"""The Makefile and the front door: the same words, and options as variables."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from tests.conftest import ROOT
from trainyard.__main__ import app, main
from trainyard.tools.command_line import GIVEN_TO_MAKE, GOALS

MAKEFILE = (ROOT / "Makefile").read_text()
FORWARDED = re.findall(r"^FORWARDED := (.*)", MAKEFILE, re.MULTILINE)[0].split()
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    ROOT / "infra/README.md",
    *ROOT.glob(".github/workflows/*.yml"),
    ROOT / ".ci/run",
]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def variables(command: str) -> set[str]:
    """What a word of make takes, as its variables."""
    if command == "bench":
        from bench.taxi import app as bench

        arguments = bench.assemble_argument_collection()
    elif command in FORWARDED:
        arguments = app[command].assemble_argument_collection()
    else:
        assert re.search(rf"^OWN :=.* {command}\b", MAKEFILE, re.MULTILINE), command
        own = re.search(rf"^{command}_takes := (.*)", MAKEFILE, re.MULTILINE)
        return set(own[1].split()) if own else set()
    return {argument.field_info.name.upper() for argument in arguments}


# --- the two maps ---------------------------------------------------------------------------------
def test_make_help_and_trainyard_help_are_one_map() -> None:
    def of_make() -> Iterator[tuple[str, str, str]]:
        group = ""
        for line in make("help").stdout.splitlines():
            if line and not line.startswith(" "):
                group = line
                continue
            word, _, text = line.removeprefix("  make ").partition(" ")
            if word in FORWARDED:
                yield group, word, text.strip().removesuffix(" (STACK=)")

    def of_trainyard() -> Iterator[tuple[str, str, str]]:
        commands: list[App] = [app[name] for name in app if not name.startswith("-")]
        commands = [each for each in commands if each.name[0] in FORWARDED]
        for each in sorted(commands, key=lambda command: command.sort_key):
            (group,) = each.group
            text = each.help.splitlines()[0].removesuffix(".")
            yield group.name, each.name[0], text[0].lower() + text[1:]

    assert list(of_make()) == list(of_trainyard())


def test_make_help_says_which_words_take_a_stack() -> None:
    for name in FORWARDED:
        (line,) = re.findall(rf"^{name}:.*", MAKEFILE, re.MULTILINE)
        assert ("STACK=" in line.split("##")[1]) == ("STACK" in variables(name)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_gives_to_make_is_taken(page: Path) -> None:
    typed = re.findall(r"\bmake ([a-z]+)((?: [A-Z_]+=(?:\"[^\"]*\"|[^\s`\"]*))+)", page.read_text())
    for command, given in typed:
        names = set(re.findall(r" ([A-Z_]+)=", given))
        assert names <= variables(command), f"{page.name}: make {command}{given}"


# --- what is refused ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "given", "told"),
    [
        ("up", {"stack": "dev"}, "did you mean STACK=?"),
        ("demo", {"TRAILS": "3"}, "did you mean TRIALS=?"),
        ("demo", {"STACK": "dev"}, "it takes DATA= TRAIN="),
        ("image", {"CPU": "arm"}, '"arm64"'),
        ("drift", {}, "`make drift STACK=dev`"),
        ("preview", {"BASE": "origin/main"}, "`make preview STACK=dev`"),
    ],
)
def test_a_variable_that_nobody_reads_is_refused_before_anything(
    command: str,
    given: dict[str, str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(GIVEN_TO_MAKE, " ".join(given))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main([command])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["demo", "TRAILS=a b&c"], "did you mean TRIALS=?"),
        (["test", "TIER=docker"], "takes ALL= TIERS= TESTS= JOBS=, not TIER="),
        (["lint", "FILE=x"], "takes no variable, not FILE="),
        (["check", "TIERS=unit"], "takes JOBS=, not TIERS="),
        (
            ["status", "dev"],
            "no word `dev`: `make help` lists them (a stack is given as STACK=dev)",
        ),
    ],
)
def test_make_refuses_it_too(typed: list[str], told: str) -> None:
    done = make(*typed)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_of_several_words_each_takes_what_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make publish release STACK=dev`: only the second one takes the variable."""
    for given in (["check", "lint", "JOBS=1"], ["check", "JOBS=1"]):
        assert make("-n", *given).returncode == 0
    monkeypatch.setenv(GIVEN_TO_MAKE, "STACK")
    monkeypatch.setenv("STACK", "dve")
    monkeypatch.setenv(GOALS, "lint status")
    assert main(["lint"]) == 0
    assert main(["status"]) == 1  # there is no stack dve
    monkeypatch.setenv(GIVEN_TO_MAKE, "stack")
    with pytest.raises(SystemExit):  # none of them
        main(["status"])


def test_an_empty_stack_isnt_the_laptop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainyard.laptop.commands.run", lambda *_: pytest.fail("the laptop's"))
    assert main(["down", ""]) == 1
    monkeypatch.setenv(GIVEN_TO_MAKE, "STACK")
    monkeypatch.setenv("STACK", "")
    with pytest.raises(SystemExit):
        main(["down"])
    assert "STACK= is empty" in capsys.readouterr().err


def test_make_clean_is_about_this_folder_whatever_the_shell_says() -> None:
    assert "TRAINYARD_GIVEN_TO_MAKE" not in make("-n", "clean", STACK="dev").stdout


def test_a_stack_may_come_from_the_shell() -> None:
    assert "no infra/Pulumi.dve.yaml; did you mean dev?" in make("drift", STACK="dve").stderr


def test_what_make_starts_isnt_given_its_variables(tmp_path: Path) -> None:
    """Or a test that types `make demo` would be refused within `make test TIERS=server`."""
    probe = tmp_path / "Makefile"
    probe.write_text(
        f"MORE := probe\ninclude {ROOT}/Makefile\nprobe:\n\t@env | grep ^MAKEFLAGS || echo none\n"
    )
    assert make("-f", f"{probe}", "probe", "TIERS=server").stdout == "none\n"


# --- the command itself ---------------------------------------------------------------------------
def test_it_runs_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "trainyard").mkdir()  # of the user's own, and no module of ours
    (tmp_path / "trainyard/__main__.py").write_text("raise SystemExit('not this one')")
    done = subprocess.run(
        [ROOT / ".venv/bin/trainyard", "up", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for part in ("Changes", "Costs", "Undo"):
        assert part in done.stdout
    (tmp_path / "link").symlink_to(ROOT / ".venv/bin/trainyard")
    subprocess.run([tmp_path / "link", "up", "--help"], capture_output=True, check=True)


def test_bash_completes_commands_and_their_options(tmp_path: Path) -> None:
    home = {**os.environ, "HOME": f"{tmp_path}", "SHELL": "/bin/bash"}
    trainyard = ROOT / ".venv/bin/trainyard"
    subprocess.run([trainyard, "--install-completion"], env=home, check=True, capture_output=True)

    def complete(*words: str) -> list[str]:
        script = (
            f"for f in $(find {tmp_path} -type f -name '*trainyard*'); do . $f; done; "
            f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            'f=$(complete -p trainyard | sed -E "s/.*-F ([^ ]+).*/\\1/"); '
            '$f; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", script], env=home, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert complete("trainyard", "dep") == ["deploy"]
    assert complete("trainyard", "demo", "--tr") == ["--train", "--trials"]
