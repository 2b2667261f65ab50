"""The stack's processes: each carries the stack's folder and its own name in its environment.

That mark, not a pid, says whose a process is. A pid is soon another process's; the mark is
inherited by what a process starts (a worker's runs live in it too) and survives the loss of
whatever was written down.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from trainyard.tools.waiting import wait_until

STACK = "TRAINYARD_STACK_DIR"
SERVICE = "TRAINYARD_STACK_SERVICE"


def start(
    service: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> int:
    """Start a service in the background, out of reach of the terminal's Ctrl-C; return its pid."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  our own command, no shell
            command,
            env={**environment, SERVICE: service},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Until the system has made its environment, it would be taken for another's, and for dead.
    wait_until(
        bool, lambda: process.poll() is not None or _has_mark(process.pid), seconds=10, every=0.01
    )
    process.returncode = 0  # it outlives us: Python shouldn't warn that it still runs
    return process.pid


def alive(home: Path, service: str, pid: int) -> bool:
    """Whether `pid` runs and is this stack's `service`, not a later process of the same number."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and _is_of(process, home, service)
    except psutil.Error:
        return False


def of_stack(home: Path, service: str | None = None) -> list[psutil.Process]:
    """Every process of the stack, or of one service: itself and all that it started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and _is_of(process, home, service):
                found.append(process)
    return found


def memory(processes: Sequence[psutil.Process]) -> int:
    """Resident memory of all of them, in bytes."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def end(processes: Sequence[psutil.Process]) -> None:
    """Ask them to stop; after 10 seconds, make them."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=10)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def listens(home: Path, service: str, port: int | None) -> bool:
    """Whether it is this stack's `service` that listens on the port, and nobody else."""
    for process in of_stack(home, service):
        with suppress(psutil.Error):
            for each in process.net_connections("tcp"):
                if each.status == psutil.CONN_LISTEN and each.laddr[1] == port:
                    return True
    return False


def choose_port(usual: int) -> int:
    """Return the usual port, or a free one when somebody else has it."""
    if is_free(usual):
        return usual
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _has_mark(pid: int) -> bool:
    with suppress(psutil.Error):
        return SERVICE in psutil.Process(pid).environ()
    return False


def _is_of(process: psutil.Process, home: Path, service: str | None) -> bool:
    environment = process.environ()
    return environment.get(STACK) == str(home) and service in (None, environment.get(SERVICE))


def is_free(port: int) -> bool:
    # Both, because neither sees all: a socket can be bound beside one that listens on every
    # address (macOS), and one that is bound may not listen yet.
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return False
    # as the servers do, which take a port that was just given up
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Let nobody interrupt this: it would leave something behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
