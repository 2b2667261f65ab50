"""`make drills`: run drills, and write what was observed into docs/reliability.md.

Drills that can't disturb each other run at the same time: most of their time is waiting.
"""

import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event

from rich.console import Console

from trainyard.contract.generated import between_marks
from trainyard.delivery.images import current_commit
from trainyard.paths import REPO
from trainyard.rehearsal.drills import DRILLS, PARTS, WAVES
from trainyard.rehearsal.emulator_session import RehearsalError
from trainyard.rehearsal.rehearse import bring_up, perform
from trainyard.rehearsal.scene import Drill, Scene, deployed
from trainyard.rehearsal.stack import Rehearsal
from trainyard.tools.command_line import nearest
from trainyard.tools.console import say
from trainyard.tools.errors import StackError

REPORT: Path = REPO / "docs/reliability.md"
Wave = Sequence[Drill]


@dataclass(frozen=True)
class Result:
    """One drill, and what came of it."""

    drill: Drill
    observed: str  # or why it failed
    seconds: float
    ran: str  # when, and of which commit: `2026-11-28, 1a2b3c4d5e6f`
    failed: bool = False


def run_drill(rehearsal: Rehearsal, drill: Drill, harm_done: Event, console: Console) -> Result:
    started, failed = time.monotonic(), False
    try:
        with rehearsal.prefect() as client, deployed(rehearsal) as deployment:
            observed = drill.act(Scene(rehearsal, client, deployment, harm_done))
    except Exception as error:  # whatever it is: the others go on to their ends
        observed, failed = f"{type(error).__name__}: {error}", True
    finally:
        harm_done.set()
    ran = f"{datetime.now(UTC):%Y-%m-%d}, {current_commit().tag}"
    took = time.monotonic() - started
    line = f"{'✗' if failed else '✓'} {drill.name:<28} {took:6.0f} s  {observed}"
    console.print(line, soft_wrap=True, markup=False)
    return Result(drill, observed, took, ran, failed)


def run_wave(rehearsal: Rehearsal, wave: Wave, console: Console) -> list[Result]:
    """Run drills at the same time, all to their end."""
    pool, begun = ThreadPoolExecutor(len(wave)), []
    try:
        for drill in wave:
            harm_done = Event()
            begun.append(pool.submit(run_drill, rehearsal, drill, harm_done, console))
            harm_done.wait()
        return [each.result() for each in begun]
    finally:
        pool.shutdown(wait=False)  # Ctrl-C ends the emulator, and so the drills


def run_waves(waves: Sequence[Wave], rehearsal: Rehearsal, console: Console) -> None:
    """Run these drills, and write down what was observed of those that kept their promises."""
    bring_up(rehearsal, console)
    results: list[Result] = []
    for wave in waves:
        with console.status(", ".join(drill.name for drill in wave)):
            results += run_wave(rehearsal, wave, console)
    kept = [result for result in results if not result.failed]
    REPORT.write_text(written(REPORT.read_text(), kept))
    if broken := [result.drill.name for result in results if result.failed]:
        raise RehearsalError(f"these drills failed: {', '.join(broken)}")


def written(text: str, results: Sequence[Result]) -> str:
    """The report, with the rows of these drills as they went; the others' last runs stay."""
    found = re.findall(r"^(\| [^|]+ \(`([a-z-]+)`\) \|.*)$", text, re.MULTILINE)
    rows = {name: row for row, name in found}
    for each in results:
        title, observed = each.drill.title, each.observed.replace("|", "\\|")
        cells = (f"{title} (`{each.drill.name}`)", observed, f"{each.seconds:.0f}", each.ran)
        rows[each.drill.name] = f"| {' | '.join(cells)} |"
    head = ["| drill | observed | seconds | last run |", "| --- | --- | --- | --- |"]
    table = [*head, *(rows[name] for name in DRILLS if name in rows)]
    return between_marks(text, "drills", "\n".join(table) + "\n\n")


def chosen(only: str) -> Sequence[Wave]:
    """The waves of a choice: all, one drill's, or today's part."""
    if only == "today":
        return PARTS[datetime.now(UTC).toordinal() % len(PARTS)]
    if only and only not in DRILLS:
        meant = nearest(only, list(DRILLS)) or ":"
        known = ", ".join(DRILLS)
        raise StackError(f"there is no drill {only}{meant} ONLY=today, or one of {known}")
    return ((DRILLS[only],),) if only else WAVES


def drills_command(only: str, *, keep: bool) -> int:
    waves = chosen(only)
    say(f"drills: {', '.join(drill.name for wave in waves for drill in wave)}")
    # Prefect Cloud's side isn't ours to break: the drills run with a server of the stack's own.
    return perform("drills", "self-hosted", partial(run_waves, waves), keep=keep)
