"""Rows in the body of a request: JSON, Parquet or Arrow, checked by the pipeline's own row model.

What passes is a frame with the columns and types that the batch scorer's rows have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import polars as pl
import polars.selectors as cs
from pydantic import Field, NaiveDatetime, TypeAdapter, ValidationError, create_model

from flows.lifecycle.spec import ServedRow, SpecError

JSON = "application/json"
# Each is read by its footer first, so that one of too many rows is never in memory.
TABLES: dict[str, Callable[[BytesIO], pl.LazyFrame]] = {
    "application/vnd.apache.parquet": pl.scan_parquet,
    "application/vnd.apache.arrow.file": pl.scan_ipc,
}
TYPES: dict[Any, pl.DataType] = {
    bool: pl.Boolean(),
    float: pl.Float64(),
    int: pl.Int64(),
    str: pl.String(),
    NaiveDatetime: pl.Datetime("us"),
}
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Limits:
    """How much a request may ask for."""

    bytes: int = 10_000_000
    rows: int = 50_000
    seconds: float = 20.0
    """For the body to arrive, and again for the answer."""
    at_once: int = 64
    """Requests under way."""
    bytes_at_once: int = 100_000_000
    """Of all their bodies: a stack's task has 1 GB of memory."""


class RequestError(Exception):
    """A request that isn't answered: what the client is told, in one sentence.

    Args:
        status: HTTP's.
        kind: by which metrics count it.
        detail: what is wrong and what to do.
    """

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail


class RowReader:
    """Reads rows of one kind.

    Args:
        row: what a row has.
        limits: beyond which a body is refused.

    Raises:
        SpecError: a field is of a type that no column has.
    """

    def __init__(self, row: type[ServedRow], limits: Limits) -> None:
        self.limits = limits
        fields = row.model_fields.items()
        self._fields = {field.alias or name: name for name, field in fields}
        self.schema = {
            field.alias or name: _column_type(f"{row.__name__}.{name}", field.annotation)
            for name, field in fields
        }
        # the first bad row is told: a million bad ones would cost a million messages
        rows = Annotated[
            list[row],  # type: ignore[valid-type]
            Field(min_length=1, max_length=limits.rows, fail_fast=True),
        ]
        self._rows: TypeAdapter[Any] = TypeAdapter(rows)
        self._body = create_model("Rows", rows=(rows, ...))
        self.json_schema = self._body.model_json_schema(ref_template="#/components/schemas/{model}")
        self.example = {
            field.alias or name: (field.examples or [None])[0] for name, field in fields
        }

    def read(self, body: bytes, content_type: str) -> pl.DataFrame:
        """Read the rows of a body.

        Raises:
            RequestError: they can't be read, or one isn't as the row model wants it.
        """
        media, _, parameters = (part.strip().lower() for part in content_type.partition(";"))
        if media == JSON:
            charset = parameters.removeprefix("charset=").strip('"')
            if charset not in ("", "utf-8", "utf8"):
                raise RequestError(415, "type", f"JSON in {charset}: send it in UTF-8")
            return self._checked(self._body.model_validate_json, body)
        if media in TABLES:
            table = self._table(media, body).fill_nan(None)  # pandas' way to write a missing value
            # a column has one type: what casts without a loss passes, as it does in a month's file
            return self._checked(self._rows.validate_python, table.to_dicts(), strict=False)
        raise RequestError(
            415,
            "type",
            f"content type {media or 'missing'}: send `Content-Type: {JSON}`, or one of "
            f"{', '.join(TABLES)}",
        )

    def example_frame(self) -> pl.DataFrame:
        """The example of the row model, as a frame of one row."""
        return self._frame([self._rows.validate_python([self.example], strict=False)[0]])

    def _checked(self, validate: Any, given: object, **options: bool) -> pl.DataFrame:
        try:
            found = validate(given, **options)
        except ValidationError as error:
            raise self._refusal(error) from None
        return self._frame(found if isinstance(found, list) else found.rows)

    def _frame(self, rows: Sequence[ServedRow]) -> pl.DataFrame:
        columns = {
            column: [getattr(row, name) for row in rows] for column, name in self._fields.items()
        }
        try:
            return pl.DataFrame(columns, schema=self.schema)
        except (OverflowError, TypeError, pl.exceptions.PolarsError):
            raise RequestError(422, "rows", "a whole number is beyond 64 bits") from None

    def _table(self, media: str, body: bytes) -> pl.DataFrame:
        """The needed columns of a Parquet or Arrow file."""
        kind = media.rpartition("apache.")[2]
        try:
            table = TABLES[media](BytesIO(body))
            there = table.collect_schema()
            missing = [name for name in self.schema if name not in there]
            if missing:
                raise RequestError(422, "rows", f"no column {', '.join(missing)}")
            nested = [n for n in self.schema if there[n].is_nested() or there[n] == pl.Binary]
            if nested:
                raise RequestError(422, "rows", f"column {nested[0]} holds {there[nested[0]]}")
            count = table.select(pl.len()).collect().item()
            if count > self.limits.rows:
                raise self._too_many(count)
            read = table.select(self.schema.keys()).collect()
            plain = read.with_columns((cs.categorical() | cs.enum()).cast(pl.String))
        # on some broken files polars panics, which is no PolarsError
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            fault = (str(error).splitlines() or [""])[0]
            raise RequestError(
                400, "unreadable", f"the body is no whole {kind} file: {fault}"
            ) from None
        # a page of a file may stand for any number of equal texts
        text = sum(each.str.len_bytes().sum() for each in plain.select(cs.string()))
        if text > self.limits.bytes:
            raise RequestError(413, "size", f"{text:,} bytes of text: {self._allowed()}")
        return plain

    def _refusal(self, error: ValidationError) -> RequestError:
        """What is wrong with a body, in a sentence."""
        faults = error.errors(include_url=False, include_input=False)
        first = faults[0]
        if first["type"] == "json_invalid":
            fault = first["msg"].removeprefix("Invalid JSON: ")
            return RequestError(400, "unreadable", f"the body is no JSON in UTF-8: {fault}")
        whole = first["loc"] in ((), ("rows",))  # of the rows together
        if whole and first["type"] == "too_long":
            return self._too_many(first["ctx"]["actual_length"])
        if whole and first["type"] == "too_short":
            return RequestError(422, "rows", "no rows: send at least one")
        if whole:
            return RequestError(422, "rows", 'send {"rows": [{...}, ...]}: ' + first["msg"])
        told = [f"{_place(fault['loc'])}: {fault['msg']}" for fault in faults[:SHOWN_FAULTS]]
        more = len(faults) - len(told)
        return RequestError(422, "rows", "; ".join(told) + (f"; and {more} more" if more else ""))

    def _too_many(self, count: int | None) -> RequestError:
        rows = f"{count:,} rows" if count else "too many rows"
        return RequestError(413, "size", f"{rows}: {self._allowed()}")

    def _allowed(self) -> str:
        return f"a request has {self.limits.rows:,} rows and {self.limits.bytes:,} bytes at most"


def _place(loc: tuple[int | str, ...]) -> str:
    """Where a fault is, such as rows[3].trip_distance."""
    path = loc if loc[0] == "rows" else ("rows", *loc)
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def _column_type(what: str, annotation: Any) -> pl.DataType:
    """The type of a field's column: of what it is beside None."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0]
    if len(kinds) != 1 or kind not in TYPES:
        names = ", ".join(known.__name__ for known in TYPES)
        raise SpecError(f"{what} is {annotation}: make it one of {names}, or None beside it")
    return TYPES[kind]
