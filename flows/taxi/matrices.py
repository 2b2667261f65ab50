"""XGBoost's matrices of any number of months, read one month at a time.

A column of a matrix is stored in quantile bins, a byte a value, so 20 million rows take 1.4 GB with
what training adds. The model is the one that all months in memory would give, byte for byte.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import gettempdir
from uuid import uuid4

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

ROWS_IN_MEMORY = 20_000_000
"""Up to so many; the bins of more lie on disk, where a fit takes twice as long."""

Numbers = tuple[NDArray[np.float32], NDArray[np.float64]]
"""A month's features, shape (n, 5), and durations in minutes, shape (n,)."""
ReadMonth = Callable[[], Numbers]


class _Months(xgb.DataIter):
    """Gives XGBoost a month whenever it asks for the next one; it asks several times for each."""

    def __init__(self, months: Sequence[ReadMonth], on_disk: bool = False) -> None:
        self.months, self.place = months, 0
        # the matrix removes its files when it goes
        prefix = str(Path(gettempdir(), f"xgboost-{uuid4()}")) if on_disk else None
        super().__init__(cache_prefix=prefix, on_host=False)

    def next(self, input_data: Callable[..., None]) -> bool:
        if self.place == len(self.months):
            return False
        features, durations = self.months[self.place]()
        self.place += 1
        input_data(data=features, label=durations)
        return True

    def reset(self) -> None:
        self.place = 0


def matrices(
    train: Sequence[ReadMonth], valid: ReadMonth, rows: int, rows_in_memory: int = ROWS_IN_MEMORY
) -> tuple[xgb.DMatrix, xgb.DMatrix]:
    """The training months' matrix, and the validation month's in the same bins.

    Args:
        rows: of all training months.
    """
    kind = xgb.QuantileDMatrix if rows <= rows_in_memory else xgb.ExtMemQuantileDMatrix
    training = kind(_Months(train, on_disk=rows > rows_in_memory))
    return training, xgb.QuantileDMatrix(_Months([valid]), ref=training)
