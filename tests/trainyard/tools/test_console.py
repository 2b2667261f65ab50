"""What is quoted of a service's log."""

from pathlib import Path

import pytest

from trainyard.tools.console import tail

FRAMES = """Traceback (most recent call last):
  File "/x/base.py", line 1, in _commit_impl
    self.engine.dialect.do_commit(self.connection)
    ^^^^^^^^^^^^
"""
PREFECT = f"""
 ___ ___
Check out the dashboard at http://127.0.0.1:4200
ERROR:    {FRAMES}sqlite3.OperationalError: database or disk is full

The above exception was the direct cause of the following exception:

{FRAMES * 20}    return await get_async_"""
MLFLOW = """Registry store URI not provided. Using backend store URI.
2026/11/29 05:41:02 ERROR mlflow.cli: Error initializing backend store
2026/11/29 05:41:02 ERROR mlflow.cli: (sqlite3.DatabaseError) file is not a database
[SQL: SELECT name FROM sqlite_master]
(Background on this error at: https://sqlalche.me/e/21/4xp6)
"""
MLFLOW += FRAMES * 20 + "sqlite3.DatabaseError: file is not a database\n"


@pytest.mark.parametrize(
    ("log", "quoted"),
    [
        (PREFECT, ["sqlite3.OperationalError: database or disk is full"]),
        (
            MLFLOW,
            [
                "2026/11/29 05:41:02 ERROR mlflow.cli: Error initializing backend store",
                "2026/11/29 05:41:02 ERROR mlflow.cli: (sqlite3.DatabaseError) file is not a "
                "database",
                "sqlite3.DatabaseError: file is not a database",
            ],
        ),
        ("one\nCRITICAL: two\n" + "three\n" * 99, ["CRITICAL: two", *["three"] * 14]),
        ("one\ntwo\n", ["one", "two"]),
    ],
)
def test_the_first_error_is_quoted_without_frames(
    log: str, quoted: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "service.log"
    path.write_text(log)
    what, *lines = tail(path, first_error=True).splitlines()
    assert what in (f"the first error in {path}:", f"the end of {path}:")
    assert lines == [f"  │ {line}" for line in quoted]


def test_the_end_is_the_last_lines_that_say_something(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    assert tail(path) == f"its log is empty: {path}"
    path.write_text("ERROR: long ago\n" + "\n".join(f"{n}\n" for n in range(15)) + FRAMES)
    assert tail(path).splitlines() == [f"the end of {path}:", *(f"  │ {n}" for n in range(15))]
