"""A piece of a data set, of which any number may be read one after the other."""

from typing import NamedTuple

import polars as pl


class Batch(NamedTuple):
    """Some rows of a month's data."""

    rows: pl.DataFrame
    """As the spec's `model_input` takes them, and what tells one from another."""
    bad: pl.DataFrame
    """Those that can't be read, with the `rule` that each breaks."""
