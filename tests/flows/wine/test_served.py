"""Wines that the served model is asked about."""

import json

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flows.lifecycle.scoring import answered_by, answers
from flows.lifecycle.serving_rows import JSON, Limits, RowReader
from flows.wine.served import Wine
from flows.wine.spec import SPEC, TARGET
from flows.wine.train import read_wines


def test_answers_are_the_batch_scorers() -> None:
    wines = read_wines()
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(SPEC.model_input(wines), wines[TARGET].to_numpy())
    sent = json.dumps({"rows": wines.drop(TARGET).to_dicts()}).encode()
    found, _ = answers(model, SPEC, RowReader(Wine, Limits()).read(sent, JSON))
    assert found["prediction"].equals(answered_by(model, SPEC, wines)[0]["prediction"])
