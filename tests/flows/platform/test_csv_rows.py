"""What is read of a CSV, and what a broken one is told."""

from pathlib import Path

import polars as pl
import pytest

from flows.platform.contract import ContractError
from flows.platform.csv_rows import read_rows

HEADER = "id,color,size\n"


def rows(tmp_path: Path, content: str | bytes, most: int = 100) -> pl.DataFrame:
    """The columns id and size of a file."""
    path = tmp_path / "f.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(path, "f.csv", ["id", "size"], most)


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}1,red,9\n2,,\n",
        f"{HEADER}1,red,9\n2,,",
        f"\ufeff{HEADER}1,red,9\n2,,\n",
        f"{HEADER}1,red,9\n2,,\n".replace("\n", "\r\n"),
        '"id","color","size"\n"1","red, ""dark""","9"\n"2",,\n',
        "size,more,id,color,x\n9,,1,red,\n,,2,,\n",
    ],
    ids=[
        "plain",
        "no newline at its end",
        "BOM",
        "CRLF",
        "quoted",
        "more columns in another order",
    ],
)
def test_it_is_read_by_its_header_with_the_lines(tmp_path: Path, content: str) -> None:
    found = rows(tmp_path, content)
    assert found.columns == ["row", "id", "size", "fault"]
    assert found.rows() == [(2, "1", "9", None), (3, "2", None, None)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("2,red", "too few fields"),
        ("2", "too few fields"),
        ("", "too few fields"),
        ("2,red,7,8", "too many fields"),
        ("2,re,d,7,8,9", "too many fields"),
        ('2,"re,d",7', None),
        (",,", None),
    ],
)
@pytest.mark.parametrize("end", ["", "\n3,blue,5\n"], ids=["last", "in the middle"])
def test_half_a_row_is_known_by_its_line(
    tmp_path: Path, line: str, fault: str | None, end: str
) -> None:
    found = rows(tmp_path, f"{HEADER}1,red,9\n{line}{end}")
    assert dict(found.select("row", "fault").iter_rows()) == {
        row: fault if row == 3 else None for row in found["row"]
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "f.csv: it is empty; export it again"),
        (HEADER, "f.csv: no rows under its header; export it again"),
        ("id,color\n1,red\n", r"f.csv: no column size \(it has id, color\); rename the column"),
        ("id;size\n1;9\n", r"no column id, size \(it has id;size\); write .*not semicolons"),
        ("id\tsize\n1\t9\n", "write commas between fields, not tabs"),
        ("\n" + HEADER + "1,red,9\n", r"no column id, size \(it has none\)"),
        ("id,size,id\n1,9,2\n", "f.csv: two columns are called id; keep one of them"),
        (f'{HEADER}1,red,9\n2,"red,8\n3,red,7\n', "f.csv: line 3 has a quote that doesn't end"),
        (f'{HEADER}1,red,9\n2,"re\nd",8\n', "f.csv: line 3 has a quote that doesn't end in it"),
        (f"{HEADER}1,red,9\n2,caf\u00e9,8\n".encode("latin-1"), "f.csv: line 3 isn't UTF-8; conv"),
        (f"{HEADER}1,red,9\n".encode("utf-16"), "f.csv: line 1 isn't UTF-8"),
        (f"{HEADER}1,red,9\n".replace("\n", "\r"), "f.csv: it can't be read as CSV"),
        (HEADER + "1,red,9\n" * 101, "f.csv: more than 100 rows; split it into several files"),
    ],
)
def test_what_is_no_such_csv_is_refused_with_the_line_and_what_to_do(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        rows(tmp_path, content)
