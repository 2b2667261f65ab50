"""Benchmarks of a regression model; runner.py chooses them by their tags.

nnbench's decorators can't be combined with Prefect's.
"""

import pickle
import time
from typing import Any

import numpy as np
from nnbench import core
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, mean_squared_error


@core.benchmark(tags=("metric",))
def mae(model: Any, X_test: NDArray[np.float64], y_test: NDArray[np.float64]) -> float:
    """Mean absolute error."""
    return float(mean_absolute_error(y_test, model.predict(X_test)))


@core.benchmark(tags=("metric",))
def mse(model: Any, X_test: NDArray[np.float64], y_test: NDArray[np.float64]) -> float:
    """Mean squared error."""
    return float(mean_squared_error(y_test, model.predict(X_test)))


@core.benchmark(name="Model size (bytes)", tags=("metadata",))
def model_size(model: Any) -> int:
    return len(pickle.dumps(model))


@core.benchmark(name="Inference time (s)", tags=("metadata",))
def inference_time(model: Any, X_test: NDArray[np.float64], n_iter: int = 100) -> float:
    """Mean of `n_iter` predictions of all of X_test."""
    start = time.perf_counter()
    for _ in range(n_iter):
        model.predict(X_test)
    return (time.perf_counter() - start) / n_iter
