"""Train a linear regression on synthetic data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import flow, task
from sklearn.datasets import make_regression
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

Split = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
Trained = tuple[LinearRegression, NDArray[np.float64], NDArray[np.float64]]

# What these return lives no longer than the run.
IN_MEMORY: dict[str, Any] = {"persist_result": False, "cache_result_in_memory": True}


@task(**IN_MEMORY)
def make_regression_data(
    random_state: int, n_samples: int = 100, n_features: int = 1, noise: float = 0.2
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return X of shape (n_samples, n_features) and y of shape (n_samples,)."""
    X, y = make_regression(n_samples, n_features, noise=noise, random_state=random_state)
    return X, y


@task(**IN_MEMORY)
def make_train_test_split(
    X: NDArray[np.float64], y: NDArray[np.float64], random_state: int, test_size: float = 0.2
) -> Split:
    """Return X and y to train with, X and y to test with; `test_size` is the tests' share."""
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=test_size, random_state=random_state
    )
    return X_train, y_train, X_test, y_test


@task(**IN_MEMORY)
def train_linear_regressor(X: NDArray[np.float64], y: NDArray[np.float64]) -> LinearRegression:
    return LinearRegression().fit(X, y)


@flow(name="prepare-regressor-and-test-data", **IN_MEMORY)
def prepare_regressor_and_test_data(random_state: int, n_samples: int) -> Trained:
    """Return a trained model, and X and y to test it with."""
    X, y = make_regression_data(random_state, n_samples)
    X_train, y_train, X_test, y_test = make_train_test_split(X, y, random_state)
    return train_linear_regressor(X_train, y_train), X_test, y_test
