"""The stages prepare, train and evaluate: files in, files out. They know neither DVC nor Prefect.

`python -m flows.iris.stages prepare` runs one in DVC's folder, as dvc.yaml says.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from polars.exceptions import PolarsError

from flows.iris.params import Params, Split, Train, load_params
from flows.lifecycle.spec import Values, pandas_frame

TARGET = "species"
MEASUREMENTS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
SPECIES = ["setosa", "versicolor", "virginica"]

RAW = "data/iris.csv"
TRAIN, TEST, HOLDOUT = "out/train.csv", "out/test.csv", "out/holdout.csv"
MODEL, METRICS = "out/model.skops", "out/metrics.json"


class IrisError(ValueError):
    """A file isn't what a stage needs: the message names it, the fault and what to do."""


def prepare(folder: Path, params: Split) -> None:
    """Split the irises: a fifth is held out whatever the parameters, the rest trains and tests.

    The stages work in a folder, in which every file has the name that dvc.yaml gives it.
    """
    from sklearn.model_selection import train_test_split

    from flows.lifecycle.holdout import held_out

    irises = read_irises(folder / RAW)
    unseen = held_out(irises)
    rest = irises.filter(~unseen)
    train, test = train_test_split(
        range(len(rest)),
        test_size=params.test_size,
        random_state=params.seed,
        stratify=rest[TARGET].to_list(),
    )
    for name, rows in ((TRAIN, rest[train]), (TEST, rest[test]), (HOLDOUT, irises.filter(unseen))):
        (folder / name).parent.mkdir(exist_ok=True)
        rows.write_csv(folder / name)


def train(folder: Path, params: Train) -> None:
    """Fit a logistic regression."""
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = read_irises(folder / TRAIN)
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1 / params.regularization, max_iter=params.max_iter),
    )
    model.fit(model_input(rows), rows[TARGET].to_numpy())
    (folder / MODEL).write_bytes(skops.io.dumps(model))


def evaluate(folder: Path) -> None:
    """Score the model on the test rows."""
    import skops.io

    rows = read_irises(folder / TEST)
    true = rows[TARGET].to_numpy()
    predicted = skops.io.load(folder / MODEL).predict(model_input(rows))
    scores = {score.__name__: score(true, predicted) for score in (accuracy, f1_macro)}
    (folder / METRICS).write_text(json.dumps(scores))


def accuracy(true: Values, predicted: Values) -> float:
    return float(np.mean(true == predicted))


def f1_macro(true: Values, predicted: Values) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, average="macro", zero_division=0))


def model_input(irises: pl.DataFrame) -> pd.DataFrame:
    return pandas_frame(irises.select(MEASUREMENTS))


def read_irises(file: Path) -> pl.DataFrame:
    """Return the irises of a CSV: four measurements in cm, and the species.

    Raises:
        IrisError: it is missing or no such CSV, or a row lacks a value or has another species.
    """
    schema = pl.Schema({**dict.fromkeys(MEASUREMENTS, pl.Float64()), TARGET: pl.String()})
    try:
        irises = pl.read_csv(file, schema=schema)
    except (OSError, PolarsError) as error:
        fault = str(error).splitlines()[0]
        raise IrisError(f"{file} can't be read: {fault}; restore or correct it") from error
    bad = irises.with_row_index("line", offset=2).filter(
        pl.any_horizontal(pl.all().is_null()) | ~pl.col(TARGET).is_in(SPECIES)
    )
    if len(bad):
        raise IrisError(
            f"{file}: line {bad['line'][0]} lacks a measurement, or its species is none of "
            f"{', '.join(SPECIES)}; correct it"
        )
    return irises


def main(stage: str, params: Params, folder: Path = Path()) -> None:
    match stage:
        case "prepare":
            prepare(folder, params.split)
        case "train":
            train(folder, params.train)
        case "evaluate":
            evaluate(folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1], load_params(Path("params.yaml")))
    except ValueError as error:
        sys.exit(str(error))
