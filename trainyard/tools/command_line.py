"""What every command of the front door has in common: its options given to make, and its errors."""

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from difflib import get_close_matches

from cyclopts import App, ArgumentCollection, CycloptsError, MissingArgumentError, Token

from trainyard.paths import REPO
from trainyard.tools.errors import StackError

# Names of the variables that were given to make, as KEEP in `make demo KEEP=1`: the Makefile sets
# it, and make itself puts each into the environment.
GIVEN_TO_MAKE = "TRAINYARD_GIVEN_TO_MAKE"
GOALS = "TRAINYARD_GOALS"  # what make was asked for, as `publish release`
ERROR_LOG = REPO / ".trainyard/error.log"


def options_given_to_make(
    app: App, commands: tuple[str, ...], arguments: ArgumentCollection, *, others: App | None = None
) -> None:
    """Read `make demo KEEP=1 DATA=tlc` as `trainyard demo --keep --data tlc`.

    STACK may also come from the shell's environment, as with any variable of make. `others` may be
    given beside this command, as in `make publish release`.
    """
    if GIVEN_TO_MAKE not in os.environ:
        return
    takes = {argument.field_info.name.upper(): argument for argument in arguments}
    given = os.environ[GIVEN_TO_MAKE].split()
    taken = {*takes, *_taken_by_others(given, others)}
    for name in given:
        if name not in taken:
            command = " ".join(commands) or app.name[0]
            raise CycloptsError(msg=refusal(f"make {command}", name, list(takes)))
    if "STACK" in given and not os.environ["STACK"]:
        raise CycloptsError(msg="STACK= is empty: which stack?")
    for name in {*given, "STACK"} & takes.keys():
        if value := os.environ.get(name):
            takes[name].append(Token(keyword=name, value=value, source="make"))


def _taken_by_others(given: Sequence[str], others: App | None) -> set[str]:
    goals = os.environ.get(GOALS, "").split()
    if others is None or len(goals) <= 1:
        return set()
    taken = {
        argument.field_info.name.upper()
        for goal in goals
        if goal in others
        for argument in others[goal].assemble_argument_collection()
    }
    if any(goal not in others for goal in goals):  # such as `test`, whose variables make knows
        taken |= {name for name in given if name.isupper()}
    return taken


def refusal(command: str, name: str, takes: Sequence[str]) -> str:
    """Say that a command doesn't take a variable of make, and which one was meant."""
    known = " ".join(f"{each}=" for each in takes) or "none"
    meant = nearest(name.upper(), takes, after="=") or f"; it takes {known}"
    return f"`{command}` takes no {name}={meant}"


def nearest(word: str, known: Sequence[str], after: str = "") -> str:
    """Suggest the known word that was meant, or nothing."""
    found = get_close_matches(word, known, n=1)
    return f"; did you mean {found[0]}{after}?" if found else ""


def usage_error(error: CycloptsError) -> str:
    """Say what is wrong with what was typed, and how it is typed right."""
    command = " ".join(error.command_chain or ())
    missing = isinstance(error, MissingArgumentError) and error.argument
    if missing and missing.field_info.name == "stack":
        way = f"make {command} STACK=dev" if GIVEN_TO_MAKE in os.environ else f"{command} dev"
        return f"{command} needs to know which stack: `{way}`, for example"
    return f"{error}\n`.venv/bin/trainyard {command} --help` says more".replace("  ", " ")


def run(app: Callable[..., object], arguments: Sequence[str] | None) -> int:
    """Run a command, and give its exit status; 1 after one message where AWS or we refuse."""
    try:
        status = app(arguments, result_action="return_value")
    except Exception as error:
        if not isinstance(error, (StackError, OSError)) and not _of_aws(error):
            raise
        from trainyard.tools.console import fail  # rich, which `--help` needn't load

        fail(str(error))
        _keep_traceback(arguments)
        return 1
    return status if isinstance(status, int) else 0


def _of_aws(error: Exception) -> bool:
    """Whether AWS refuses, or isn't reached. Asked without boto3, which a laptop needn't load."""
    return any(each.__module__ == "botocore.exceptions" for each in type(error).__mro__)


def _keep_traceback(arguments: Sequence[str] | None) -> None:
    typed = shlex.join(["trainyard", *(sys.argv[1:] if arguments is None else arguments)])
    from trainyard.tools.console import errors

    try:
        ERROR_LOG.parent.mkdir(mode=0o700, exist_ok=True)
        ERROR_LOG.write_text(f"{datetime.now():%F %T} {typed}\n{traceback.format_exc()}")
    except OSError:  # such as a full disk: the message has been said
        return
    errors.print(f"  traceback: {os.path.relpath(ERROR_LOG)}", style="dim", soft_wrap=True)
