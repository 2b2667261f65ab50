"""Sort the rows of a file by a schema: those that keep to it, and what is wrong with the others."""

from collections.abc import Mapping

import dataframely as dy
import polars as pl


class ContractError(ValueError):
    """Data that must not be used: the message names the file, the fault and what to do."""


class _Numbered(dy.Schema):
    """What `sort_rows` carries along beside a row's own columns."""

    row = dy.UInt32()
    # what is wrong with it before any rule is asked
    fault = dy.String(nullable=True, check=lambda fault: fault.is_null())


def sort_rows(
    schema: type[dy.Schema], rows: pl.DataFrame, file: str, max_bad_share: float
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Sort rows into those that satisfy a schema and the others.

    Args:
        schema: the rules.
        rows: with the columns of `schema`, whose order is the one that rules are asked in; `row`,
            the number of each; and `fault`, what is wrong with it before any rule is asked.
        file: the file's name, for messages.
        max_bad_share: the share of bad rows, 0 to 1, beyond which the file is refused.

    Returns:
        The good rows; of the bad ones `row` and the first `rule` that each breaks, such as
        "trip_distance > 100"; and the bad rows by rule, most frequent first.

    Raises:
        ContractError: more bad rows than `max_bad_share`.
    """
    numbered: type[dy.Schema] = type(schema.__name__, (schema, _Numbered), {})
    good, failure = numbered.filter(rows)
    broken = failure.details()
    # in the order of the columns: a missing timestamp counts before the duration it leaves missing
    rules = [
        rule for column in rows.columns for rule in broken.columns if rule.startswith(f"{column}|")
    ]
    bad = broken.select(
        "row",
        rule=pl.coalesce(
            "fault",
            *(
                pl.when(pl.col(rule) == "invalid").then(pl.lit(_named(schema, rule)))
                for rule in rules
            ),
        ),
    )
    counts = dict(
        bad["rule"].value_counts().sort("count", "rule", descending=[True, False]).iter_rows()
    )
    advice = "correct the file, or raise the limit if it is right as it is"
    require_few_bad(counts, rows.height, max_bad_share, file, advice)
    return good.select(schema.column_names()), bad, counts


def require_few_bad(
    counts: Mapping[str, int], rows: int, max_bad_share: float, source: str, advice: str
) -> None:
    """Refuse data with a greater share of bad rows; `counts` has them by rule.

    Raises:
        ContractError: it has.
    """
    bad = sum(counts.values())
    if bad > max_bad_share * rows:
        raise ContractError(
            f"{source}: {bad:,} of {rows:,} rows can't be used ({bad / rows:.1%}, the limit is "
            f"{max_bad_share:.1%}): {listed(counts)}; {advice}"
        )


def unreadable(values: Mapping[str, pl.Expr]) -> pl.Expr:
    """A row's fault: the first column that has something from which its value can't be read."""
    return pl.coalesce(
        pl.when(pl.col(name).is_not_null() & value.is_null()).then(pl.lit(f"{name} unreadable"))
        for name, value in values.items()
    )


def listed(counts: Mapping[str, int]) -> str:
    """Rules with the rows that break each, for messages."""
    return ", ".join(f"{rule} ({count:,})" for rule, count in counts.items())


def lossless(value: pl.Expr, given: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """A column in another type, null where that would change a value or where it is no number.

    Args:
        value: of the type `given`; text is read as numbers.
    """
    if isinstance(given, pl.String):
        value, given = value.str.strip_chars().cast(pl.Float64, strict=False), pl.Float64()
    cast = value.cast(wanted, strict=False)
    unchanged = cast.cast(given, strict=False) == value
    return pl.when(unchanged & cast.is_finite() if wanted.is_float() else unchanged).then(cast)


def _named(schema: type[dy.Schema], rule: str) -> str:
    """Return a rule of dataframely's, such as "trip_distance|max", as "trip_distance > 100"."""
    column, kind = rule.split("|")
    broken = {"min": "<", "min_exclusive": "<=", "max": ">", "max_exclusive": ">="}
    if kind == "max_length":
        return f"{column} longer than {getattr(schema.columns()[column], kind)}"
    if kind in broken:
        bound = getattr(schema.columns()[column], kind)
        return f"{column} {broken[kind]} {f'{bound:g}' if isinstance(bound, float) else bound}"
    return f"{column} {'missing' if kind == 'nullability' else 'not allowed'}"
