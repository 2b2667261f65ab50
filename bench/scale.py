"""`make bench SCALE=1`: the whole flow on more and more rows, and beside it all of them in memory.

Each size is a run in a process of its own, with one trial, on synthetic months of one seed. The
peer gets what the pipeline has made of the months: it reads all features at once and fits the same.
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import polars as pl
import xgboost as xgb
from rich.console import Console
from rich.table import Table

from bench.flow_process import Cost, environment_of, in_own_process, peak
from bench.page import show
from flows.taxi.models import loads
from flows.taxi.months import months_until
from flows.taxi.search import search
from flows.taxi.source import FILE_NAME
from flows.taxi.synthetic import synthetic_month

TRAIN, VALID = "2023-01", "2023-02"
SEED = 42
SIZES = {100_000: 1, 1_000_000: 1, 5_000_000: 5, 20_000_000: 20}
"""Rows to train on, and in how many months they come; the validation month has as many as one."""
IN_MEMORY = 5_000_000
"""The peer is asked up to so many rows."""

Given = ParamSpec("Given")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Peer:
    """A fit to all rows at once."""

    cost: Cost
    same: bool
    """Whether its model is the flow's, byte for byte."""


def alone(work: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
    """Do some work in a process of its own: a process has one peak of memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *given, **named).result()


def make_months(folder: Path, months: list[str], rows: int) -> None:
    """Write synthetic months, named as TLC does."""
    for month in months:
        synthetic_month(month, rows, SEED).write_parquet(folder / FILE_NAME.format(month=month))


def in_memory(features: list[Path], models: list[Path]) -> Peer:
    """Fit to all features at once: the last file is the validation month's.

    Args:
        models: the flow's, among which there is one of XGBoost.
    """
    start = time.perf_counter()
    whole = pl.concat(pl.read_parquet(path) for path in features[:-1])
    later = pl.read_parquet(features[-1])
    train = xgb.QuantileDMatrix(whole.drop("duration").to_numpy(), label=whole["duration"])
    valid = xgb.QuantileDMatrix(
        later.drop("duration").to_numpy(), label=later["duration"], ref=train
    )
    (trial,) = search(train, valid, 1, SEED)
    cost = Cost(peak(), time.perf_counter() - start)
    lasts = [loads(path.read_bytes())[-1] for path in models]
    (booster,) = (each.get_booster() for each in lasts if isinstance(each, xgb.XGBRegressor))
    return Peer(cost, bytes(booster.save_raw("ubj")) == trial.booster)


def main(console: Console) -> None:
    """Measure each size and show the table."""
    found: dict[int, tuple[Cost, Peer | None]] = {}
    for rows, count in SIZES.items():
        with tempfile.TemporaryDirectory() as temporary, console.status("") as status:
            folder, months = Path(temporary), [*months_until(TRAIN, count), VALID]
            status.update(f"{rows:,} rows: making months")
            alone(make_months, folder, months, rows // count)
            status.update(f"{rows:,} rows: the flow")
            given = {"num_months": count, "num_trials": 1, "seed": SEED}
            cost = in_own_process(str(folder), (TRAIN, VALID), folder, **given)
            peer = None
            if rows <= IN_MEMORY:
                status.update(f"{rows:,} rows: all in memory")
                (run,) = Path(environment_of(folder)["TRAINYARD_ARTIFACT_STORE"], "runs").iterdir()
                features = [run / "features" / f"{month}.parquet" for month in months]
                peer = alone(in_memory, features, sorted((run / "models").iterdir()))
            found[rows] = cost, peer
    show(
        console,
        "scale",
        table(found),
        f"synthetic months, seed {SEED}, at most 1 million rows each",
    )


def table(found: dict[int, tuple[Cost, Peer | None]]) -> Table:
    """What was measured, beside what the project wants."""
    result = Table(
        title="taxi-train on more and more rows: contract, features, baseline, one trial, release",
        caption="wanted: below 2,000 MB at 20 million rows, time linear, the same model\n"
        "s / million: of each million rows more than the line above\n"
        "in memory: a fit alone, to all features at once",
    )
    for heading in ("rows", "peak", "time", "s / million", "in memory: peak", "the same model"):
        result.add_column(heading, justify="right")
    before, took = 0, 0.0
    for rows, (cost, peer) in found.items():
        slope = (cost.seconds - took) / (rows - before) * 1e6
        result.add_row(
            f"{rows:,}",
            f"{cost.megabytes:,.0f} MB",
            f"{cost.seconds:.1f} s",
            f"{slope:.1f}" if before else "",
            f"{peer.cost.megabytes:,.0f} MB" if peer else "",
            ("yes" if peer.same else "no") if peer else "",
        )
        before, took = rows, cost.seconds
    return result
