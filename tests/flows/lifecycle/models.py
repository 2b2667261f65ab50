"""A pipeline for tests: tiny registered models of y = x, each wrong by as much as it is told."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import skops.io
import yaml
from mlflow import MlflowClient
from pydantic import Field
from sklearn.linear_model import LinearRegression

from flows.lifecycle.batch import Batch
from flows.lifecycle.benchmarks import Measured
from flows.lifecycle.gate import Verdict, decide
from flows.lifecycle.holdout import SeenData, keep_holdout
from flows.lifecycle.reference import keep_reference
from flows.lifecycle.registry import Lineage, aliases, register
from flows.lifecycle.serving_log import Answered, RequestLog, now
from flows.lifecycle.serving_metrics import Metrics
from flows.lifecycle.spec import Limit, Metric, ModelSpec, Monitoring, ServedRow, Values, distance

REFERENCE_ROWS = 4000
PLACE = "flows.wine.spec:TESTED"
MLMODEL = {
    "flavors": {
        "sklearn": {"serialization_format": "skops", "pickled_model": "model.skops"},
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.skops"},
    }
}


def mae(true: Values, predicted: Values) -> float:
    return float(np.abs(true - predicted).mean())


def closeness(true: Values, predicted: Values) -> float:
    return -mae(true, predicted)


def answer_known(model: Any, given: Any) -> Values:
    """As a model that answers NaN where it has no answer."""
    x = np.asarray(given, dtype=float).reshape(-1)
    return np.where(np.isnan(x), np.nan, model.predict(np.nan_to_num(x).reshape(-1, 1)))


class Thing(ServedRow):
    """What a served model is asked about."""

    x: float | None = Field(le=1000, examples=[1.5])


MAE = Metric("mae", "g", higher_is_better=False, score=mae)
CLOSENESS = Metric("closeness", "", higher_is_better=True, score=closeness)
SPEC = ModelSpec(
    name="tested",
    about="Grams of a thing.",
    metrics=(MAE, CLOSENESS),
    target="y",
    model_input=lambda rows: rows.select("x").to_numpy(),
    row_error=distance,
    segments={"shelf": pl.col("shelf")},
    monitoring=Monitoring(
        columns={"x": pl.col("x"), "shelf": pl.col("shelf")},
        truth=pl.col("y"),
        identity=("x",),
        stability=Limit(0.1, "months are alike"),
        missing=Limit(0.05, "things are weighed"),
        unknown=Limit(0.01, "there are two shelves"),
        quarantined=Limit(0.1, "scales work"),
        volume=Limit(2, "as many things come each month"),
        error=Limit(0.2, "noise is 1 g"),
    ),
    served=Thing,
)


def things(count: int = 200, seed: int = 0) -> pl.DataFrame:
    """Rows whose y is x and noise of 1 g."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 10, count)
    y = x + random.normal(size=count)
    return pl.DataFrame({"x": x, "y": y, "shelf": ["low", "high", "low", "low"] * (count // 4)})


def wrong_by(grams: float) -> LinearRegression:
    """A model that predicts x + `grams`."""
    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = np.array([1.0]), grams, 1
    return model


def data(name: str, held_out_by: Sequence[str] = ("x", "y", "shelf")) -> SeenData:
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    uri = f"file:///{name}"
    return SeenData(name=name, sha256=sha256, uri=uri, rows=1000, held_out_by=[*held_out_by])


def answered(*x: float | None, grams: float = 1.0, **given: Any) -> Answered:
    """A request that version 1, the champion, has answered just now: with x + `grams`."""
    by = {"alias": "champion", "version": "1", "at": now(), "request": uuid4().hex, **given}
    rows = pl.DataFrame({"x": x}, schema={"x": pl.Float64})
    answers = pl.DataFrame({"prediction": rows["x"].fill_null(float("nan")) + grams})
    return Answered(rows, answers, rows["x"].is_not_null(), seconds=0.5, **by)


@dataclass(frozen=True)
class Pipeline:
    """A registered model of a test's own, with its holdouts."""

    client: MlflowClient
    store: str
    spec: ModelSpec = field(default_factory=lambda: replace(SPEC, name=f"tested-{uuid4().hex}"))

    def logged(self, model: Any) -> tuple[str, str]:
        """Log a model as MLflow does: its URI and its run."""
        experiment = self.client.create_experiment(uuid4().hex)
        run = self.client.create_run(experiment).info.run_id
        found = self.client.create_logged_model(experiment, "model", run)
        folder = Path(found.artifact_location)
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text(yaml.safe_dump(MLMODEL))
        skops.io.dump(model, folder / "model.skops")
        self.client.finalize_logged_model(found.model_id, "READY")
        return found.model_uri, run

    def lineage(self, month: str = "may", *saw_whole: str) -> Lineage:
        """What saw a month but its holdout, and other months whole."""
        seen = data(month)
        held_out = things(seed=int(seen.sha256[:8], 16))
        return Lineage(
            flow_run="run",
            flow_run_url="http://prefect/run",
            entrypoint="flows/tested.py:train",
            parameters={"grams": 1},
            commit="c0ffee",
            image="",
            scheduled="2024-03-05 06:00",
            seen=[seen, *(data(each, held_out_by=[]) for each in saw_whole)],
            holdout=keep_holdout(held_out, self.spec.name, self.store, seen),
            reference=keep_reference(
                [Batch(things(REFERENCE_ROWS), pl.DataFrame())], month, self.spec.name, self.store
            ),
        )

    def register(self, model: Any, *months: str) -> str:
        """Register a model that saw these months (`lineage`); gives its version."""
        uri, run = self.logged(wrong_by(model) if isinstance(model, float) else model)
        return register(self.client, PLACE, uri, run, self.lineage(*months), "a model")

    def decide(
        self, number: str, limits: Mapping[str, float] | None = None, refusal: str = ""
    ) -> Verdict:
        measured = [Measured(name="mae", value=2.0, unit="g")]
        measured += [Measured(name="closeness", value=-2.0, higher_is_better=True)]
        return decide(self.client, self.spec, number, measured, limits or {}, self.store, refusal)

    def champion_of(self, *grams: float) -> list[str]:
        """Register models and let each become the champion; gives their versions."""
        numbers = [self.register(each) for each in grams]
        for number in numbers:
            assert self.decide(number).promoted
        return numbers

    def log(self, *requests: Answered) -> None:
        """Log requests, a file each, as a server does."""
        for request in requests:
            log = RequestLog(self.store, self.spec, request.rows.columns, 1.0, Metrics())
            log.add(request)
            log.write(last=True)

    def aliases(self) -> dict[str, str]:
        return aliases(self.client, self.spec.name)

    def tags(self, number: str) -> dict[str, str]:
        return dict(self.client.get_model_version(self.spec.name, number).tags)

    def numbers(self) -> list[str]:
        found = self.client.search_model_versions(f"name = '{self.spec.name}'")
        return sorted(str(version.version) for version in found)

    def everything(self) -> object:
        """All that the registry says, to compare before and after."""
        model = self.client.get_registered_model(self.spec.name)
        return self.aliases(), model.tags, {each: self.tags(each) for each in self.numbers()}

    def files(self, number: str) -> Path:
        """The folder that the artifact store has a version in."""
        source = self.client.get_model_version(self.spec.name, number).source
        model = self.client.get_logged_model(source.removeprefix("models:/"))
        return Path(model.artifact_location)
