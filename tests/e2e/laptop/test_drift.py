"""A month that has drifted trains again by itself: the laptop stack, as prefect.yaml has it."""

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pytest

from flows.taxi.synthetic import synthetic_month
from tests.e2e.laptop.clones import Clone, read_outputs

pytestmark = pytest.mark.server

http = httpx.Client(trust_env=False, timeout=60)
MODEL = "taxi-trip-duration"
ROWS = 8_000
START, END = pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")


class Taxi:
    """The stack's taxi deployments, on a folder of months."""

    def __init__(self, clone: Clone) -> None:
        self.clone, self.data = clone, clone.folder / "months"
        outputs = read_outputs(clone)
        self.api, self.mlflow = outputs["prefect_api_url"], outputs["tracking_uri"]
        self.data.mkdir()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        answer = http.request(method, f"{self.api}/{path}", json=body, auth=self.clone.login)
        return answer.raise_for_status().json()

    def put(self, month: str, *changes: pl.Expr) -> None:
        rows = synthetic_month(month, ROWS).with_columns(*changes)
        rows.write_parquet(self.data / f"green_tripdata_{month}.parquet")

    def run(self, deployment: str, **parameters: object) -> str:
        """Run a deployment to its end, on this data; gives the run's id."""
        found = self.ask("GET", f"deployments/name/{deployment}/{deployment}")["id"]
        given = {"parameters": {"data": str(self.data), **parameters}}
        made = self.ask("POST", f"deployments/{found}/create_flow_run", given)["id"]
        self.wait(made)
        return str(made)

    def wait(self, run: str) -> None:
        end = time.monotonic() + 240
        while (state := self.ask("GET", f"flow_runs/{run}")["state"])["type"] != "COMPLETED":
            assert state["type"] not in ("FAILED", "CRASHED", "CANCELLED"), state
            assert time.monotonic() < end, state
            time.sleep(1)

    def trainings(self) -> list[dict[str, Any]]:
        """The runs of taxi-train, the oldest first."""
        asked = {"flows": {"name": {"any_": ["taxi-train"]}}, "sort": "START_TIME_ASC"}
        return list(self.ask("POST", "flow_runs/filter", asked))

    def watch(self, month: str, wait: bool = True) -> dict[str, Any] | None:
        """What the schedules do with a month; gives the training that follows by itself."""
        known = {each["id"] for each in self.trainings()}
        self.run("taxi-score", month=month)
        self.run("taxi-monitor", month=month)
        end = time.monotonic() + (60 if wait else 10)
        while not (new := [each for each in self.trainings() if each["id"] not in known]):
            if time.monotonic() > end:
                return None
            time.sleep(1)
        self.wait(new[0]["id"])
        (after,) = (each for each in self.trainings() if each["id"] not in known)
        return dict(after)

    def champion(self) -> str:
        asked = {"name": MODEL, "alias": "champion"}
        url = f"{self.mlflow}/api/2.0/mlflow/registered-models/alias"
        found = http.get(url, params=asked).raise_for_status().json()
        return str(found["model_version"]["version"])

    def card(self, run: dict[str, Any]) -> str:
        asked = {
            "artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": [f"{MODEL}-card"]}}
        }
        (page,) = self.ask("POST", "artifacts/filter", asked)
        return str(page["data"])


@pytest.fixture(scope="module")
def taxi(clone: Clone) -> Iterator[Taxi]:
    """A champion of two months like all others."""
    clone.run("up")
    clone.run("deploy")
    taxi = Taxi(clone)
    for month in ("2023-01", "2023-02"):
        taxi.put(month)
    months = {"train_month": "2023-01", "valid_month": "2023-02"}
    taxi.run("taxi-train", **months)
    yield taxi
    clone.run("down")


def test_a_month_like_the_others_trains_nothing(taxi: Taxi) -> None:
    before = taxi.champion()
    taxi.put("2023-03")
    assert taxi.watch("2023-03", wait=False) is None
    assert taxi.champion() == before


def test_doubled_fares_train_once_and_the_champion_stays(taxi: Taxi) -> None:
    before = taxi.champion()
    taxi.put("2023-04", pl.col("fare_amount") * 2)
    training = taxi.watch("2023-04")
    assert training
    assert training["parameters"]["train_month"] == "2023-04"
    assert taxi.champion() == before
    kept = rf"kept champion v{before}: (it isn't better|no better than noise)"
    assert re.search(kept, taxi.card(training))
    known = len(taxi.trainings())
    taxi.run("taxi-monitor", month="2023-04")  # the event comes again
    time.sleep(10)
    assert len(taxi.trainings()) == known


def test_slower_trips_train_a_new_champion_without_a_hand_on_it(taxi: Taxi) -> None:
    before = taxi.champion()
    taxi.put("2023-05", (START + (END - START) * 1.5).alias("lpep_dropoff_datetime"))
    training = taxi.watch("2023-05")
    assert training
    assert int(taxi.champion()) > int(before)
    assert f"is the new champion: better than v{before}" in taxi.card(training)
