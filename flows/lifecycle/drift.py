"""How far a column's values have moved from a reference's: population stability.

The index is the sum of (q - p) ln(q / p) over bins, where p and q are the shares of the reference's
and of the new values (Siddiqi, "Credit Risk Scorecards" (2006), ch. 8). Bins hold a tenth of the
reference each, so a few absurd values are a few values in the last bin, however absurd they are.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel

TENTHS = np.linspace(0, 1, 11)[1:-1]
RARE = 0.01
"""Categories with a smaller share of the reference are taken together."""
FEWEST = 5
"""And those of fewer rows: that so few come again is luck."""
OTHERS = "others"
FEW = 10
"""Numbers of no more values, such as flags, are categories."""
CHANCE = 0.999
"""How sure it has to be that an index isn't the luck of few rows."""


class Shift(BaseModel):
    """One column of a month against the reference's."""

    column: str
    stability: float
    """The index; 0 where nothing has moved."""
    by_chance: float
    """An index that rows of one and the same population stay below, with a confidence of 99.9 %."""
    bins: list[str]
    before: list[float]
    """Share of the reference's values in each bin."""
    now: list[float]
    """Share of the month's."""
    missing_before: float
    missing: float
    """Share of the month's rows without a value."""
    unknown: float
    """Share of the month's rows with a category that the reference hasn't."""
    unknown_by_chance: float = 0
    """A share that rows of one population stay below: few rows haven't all of its categories."""

    @property
    def newly_missing(self) -> float:
        return self.missing - self.missing_before


def shift(column: str, reference: pl.Series, month: pl.Series) -> Shift:
    """Compare n values with m others.

    Numbers are compared by tenths of the reference; what has few values, or no numbers, by value.

    Raises:
        ValueError: the reference or the month has no rows.
    """
    if reference.is_empty() or month.is_empty():
        raise ValueError(f"{column}: there are no rows to compare")
    old, new = _values(reference), _values(month)
    unknown, unknown_by_chance = 0, 0.0
    if old.dtype.is_numeric() and new.dtype.is_numeric() and old.n_unique() > FEW:
        bins, before, now = _tenths(old.to_numpy(), new.to_numpy())
    else:
        old, new = (each.cast(pl.String).str.strip_suffix(".0") for each in (old, new))
        bins, before, now = _categories(old, new)
        unknown = int((~new.is_in(old.unique().implode())).sum())
        unknown_by_chance = _unknown_by_chance(old, len(new))
    smooth_before, smooth_now = _shares(before + 0.5), _shares(now + 0.5)
    return Shift(
        column=column,
        stability=float(((smooth_now - smooth_before) * np.log(smooth_now / smooth_before)).sum()),
        by_chance=_by_chance(len(bins), len(old), len(new)),
        bins=list(bins),
        before=_shares(before).tolist(),
        now=_shares(now).tolist(),
        missing_before=1 - len(old) / len(reference),
        missing=1 - len(new) / len(month),
        unknown=unknown / len(month),
        unknown_by_chance=unknown_by_chance * len(new) / len(month),
    )


def _values(column: pl.Series) -> pl.Series:
    """What is there: numbers as they are, other things as text."""
    if not column.dtype.is_numeric():
        return column.drop_nulls().cast(pl.String)
    # `replace` takes -0 for 0, too: as text they would be two values
    return column.cast(pl.Float64).fill_nan(None).drop_nulls().replace(0, 0)


def _tenths(
    old: NDArray[np.float64], new: NDArray[np.float64]
) -> tuple[Sequence[str], NDArray[np.float64], NDArray[np.float64]]:
    """Bins by quantiles of the old values, and how many of each side are in them.

    A value that is several tenths by itself has a bin of its own, so what falls below it is seen.
    """
    tenths, times = np.unique(np.quantile(old, TENTHS), return_counts=True)
    ends = {edge: f"≤ {edge:.4g}" for edge in tenths}
    ends |= {np.nextafter(edge, -np.inf): f"< {edge:.4g}" for edge in tenths[times > 1]}
    edges = np.sort([*ends])
    before, now = (
        np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).astype(float)
        for values in (old, new)
    )
    bins = [*(ends[edge] for edge in edges), f"> {tenths[-1]:.4g}"]
    return bins, before, now


def _categories(
    old: pl.Series, new: pl.Series
) -> tuple[Sequence[str], NDArray[np.float64], NDArray[np.float64]]:
    """The frequent ones of the old values, the most frequent first, and all others together."""
    counts = old.value_counts(sort=True)
    names = [name for name, rows in counts.iter_rows() if rows >= max(RARE * len(old), FEWEST)]

    def counted(values: pl.Series) -> NDArray[np.float64]:
        found = dict(values.value_counts().iter_rows())
        kept = [found.get(name, 0) for name in names]
        return np.array([*kept, len(values) - sum(kept)], dtype=float)

    return [*names, OTHERS], counted(old), counted(new)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(counts / (counts.sum() or 1))


def _by_chance(bins: int, old: int, new: int) -> float:
    """The index of equal populations is (1/n + 1/m) times a chi-squared of bins - 1 degrees.

    Yurdakul, "Statistical Properties of Population Stability Index" (2018), ch. 3.
    """
    from scipy.stats import chi2  # type: ignore[import-untyped]  # slow: only where it is used

    if bins < 2 or not (old and new):
        return 0
    return float(chi2.ppf(CHANCE, bins - 1) * (1 / old + 1 / new))


def _unknown_by_chance(old: pl.Series, new: int) -> float:
    """The share of what no row has is that of what one row has, about.

    Good, "The population frequencies of species" (1953): its deviation needs what two rows have.
    """
    from scipy.stats import binom, norm

    if old.is_empty() or not new:  # of a reference without a value, nothing is known
        return 1
    rows = old.value_counts()["count"]
    once, twice = int((rows == 1).sum()), int((rows == 2).sum())
    share = (once + norm.ppf(CHANCE) * np.sqrt(once + 2 * twice)) / len(old)
    return float(binom.ppf(CHANCE, new, min(share, 1)) / new)
