"""Two small synthetic months and what is trained on them: made once for all tests."""

from dataclasses import dataclass

import xgboost as xgb
from sklearn.pipeline import Pipeline

from flows.taxi.contract import CheckedMonth, check
from flows.taxi.features import TripFeatures
from flows.taxi.matrices import Numbers, matrices
from flows.taxi.models import boosted_pipeline, fit_baseline
from flows.taxi.search import Trial, search
from flows.taxi.synthetic import synthetic_month


@dataclass(frozen=True)
class Trained:
    """Tests must not change it."""

    train: CheckedMonth
    valid: CheckedMonth
    features: TripFeatures
    baseline: Pipeline
    trials: list[Trial]

    @property
    def best(self) -> Trial:
        return min((t for t in self.trials if t.booster), key=lambda trial: trial.rmse_valid or 0)

    @property
    def boosted(self) -> Pipeline:
        return boosted_pipeline(self.features, self.best.booster or b"")

    def search(self, num_trials: int, seed: int) -> list[Trial]:
        train, valid = (
            (self.features.transform(month.kept), month.kept["duration"].to_numpy())
            for month in (self.train, self.valid)
        )
        return search(*in_memory(train, valid), num_trials, seed)


def in_memory(train: Numbers, valid: Numbers) -> tuple[xgb.DMatrix, xgb.DMatrix]:
    return matrices([lambda: train], lambda: valid, len(train[1]))


def train_small() -> Trained:
    train, valid = (
        check(synthetic_month(month, rows=6_000), month, month, max_bad_share=1)
        for month in ("2023-01", "2023-02")
    )
    features = TripFeatures().fit(train.kept)
    result = Trained(train, valid, features, fit_baseline([lambda: train.course]), [])
    result.trials.extend(result.search(num_trials=3, seed=42))
    return result
