"""The stack's folder, its owner's alone: one command writes there at a time."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from trainyard.tools.errors import StackError


class Folder:
    """A clone's `.trainyard`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.login_file = path / "prefect-login"

    def login(self) -> str:
        """Return Prefect's `user:password`; the stack's first command makes it.

        Raises:
            StackError: the folder can't be written.
        """
        owner_only = partial(os.open, mode=0o600)
        with self._writable(), open(self.login_file, "a+", opener=owner_only) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two first commands make one login
            file.seek(0)
            login = file.read().strip()
            if not login:
                login = f"trainyard:{secrets.token_urlsafe(24)}"
                file.write(f"{login}\n")
        return login

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Two commands at once would start everything twice.

        Raises:
            StackError: another one is at it, or the folder can't be written.
        """
        with self._writable():
            lock = (self.path / "lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(
                    f"another command is starting or stopping the stack in {self.path};"
                    " try again when it is done"
                ) from None
            yield

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)  # Prefect's database, its key and its login are the user's own
            yield
        except OSError as error:
            raise StackError(f"the stack's folder can't be written: {error}") from error
