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
        from bench.__main__ import app as bench

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
        ("demo", {"STACK": "dev"}, "it takes FLOW= DATA= TRAIN="),
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


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("TIERS=unit sever", "there is no sever; did you mean server?"),
        ("TESTS=tests/flws", "there is no tests/flws; did you mean tests/flows?"),
    ],
)
def test_tests_that_there_are_not_are_refused_with_those_that_were_meant(
    given: str, meant: str
) -> None:
    environments = ("policy", "emulator", "infra", "checkov", "dvc")
    built = [f"-o.venv-{each}/.{each}" for each in environments]
    done = make("test", given, "-o.venv/.dev", "-o.go/.built", *built)
    assert done.returncode == 2
    assert meant in done.stderr
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


# --- an installation that fails -------------------------------------------------------------------
def install(folder: Path, **environment: str) -> str:
    """What make says where it can't build its uv, in a clone that has nothing yet."""
    (folder / "requirements").mkdir(exist_ok=True)
    (folder / "requirements/uv.txt").write_text((ROOT / "requirements/uv.txt").read_text())
    (folder / "Makefile").write_text(MAKEFILE)
    names = ("PIP_", "UV_", "HTTP_", "HTTPS_", "ALL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    done = subprocess.run(
        ["make", "--no-print-directory", ".uv/bin/uv"],
        cwd=folder,
        env={**kept, "PIP_RETRIES": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    return done.stdout + done.stderr


def python_that(folder: Path, does: str) -> str:
    """A Python that is new enough, and can't make an environment."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\n{does}\nexit 1\n')
    path.chmod(0o755)
    return f"{path}"


@pytest.mark.parametrize("python", ["/usr/bin/nope", "ls"])
def test_a_python_that_isnt_one_is_told_by_its_setting(python: str, tmp_path: Path) -> None:
    said = install(tmp_path, PYTHON=python)
    assert f"PYTHON={python} is no Python 3.11 or newer" in said
    assert "venv" not in said


@pytest.mark.parametrize("setting", ["UV_INDEX_URL", "PIP_INDEX_URL", "HTTPS_PROXY"])
def test_an_index_that_does_not_answer_is_told_by_its_setting(setting: str, tmp_path: Path) -> None:
    environment = {setting: "http://127.0.0.1:9/simple"}
    if setting != "UV_INDEX_URL":  # one really asks, for that takes ten seconds
        said = "ERROR: No matching distribution found for uv (from versions: none)"
        environment["PYTHON"] = python_that(tmp_path, f"echo '{said}'")
    said = install(tmp_path, **environment)
    assert f"No package index answers as it should. Set in this shell: {setting}. " in said
    assert "UV_DEFAULT_INDEX or PIP_INDEX_URL" in said
    assert "No matching distribution" not in said


def test_locks_that_cannot_be_written_say_why_and_stay(tmp_path: Path) -> None:
    install(tmp_path, PYTHON=python_that(tmp_path, "exit 1"))
    uv = tmp_path / ".uv/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(
        "#!/bin/sh\necho 'error: Failed to fetch: http://127.0.0.1:9/simple/uv/'\nexit 2\n"
    )
    uv.chmod(0o755)
    done = subprocess.run(
        ["make", "lock"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "No package index answers as it should." in done.stderr
    assert sorted(path.name for path in (tmp_path / "requirements").iterdir()) == ["uv.txt"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("echo 'OSError: [Errno 28] No space left on device' >&2", "The disk is full: df -h . "),
        ("echo 'Disk quota exceeded'", "The disk is full: df -h . "),
        ("echo 'ensurepip is not available'", "apt install python3-venv"),
        ("echo 'something else'", "something else\n"),
    ],
)
def test_what_stopped_an_installation_is_told_with_the_next_step(
    fault: str, told: str, tmp_path: Path
) -> None:
    said = install(tmp_path, PYTHON=python_that(tmp_path, fault))
    assert told in said
    assert not (tmp_path / ".make-probe").exists()


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
