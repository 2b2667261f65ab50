"""The benchmarks of all versions of a model, as Parquet in the artifact store: a file a version."""

from typing import TYPE_CHECKING

import polars as pl

from flows.lifecycle.benchmarks import Measured
from flows.lifecycle.registry import Lineage
from flows.lifecycle.spec import ModelSpec
from flows.platform.artifact_store import artifact_path, read_parquet, write_parquet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "version": pl.Int64,
    "benchmark": pl.String,
    "value": pl.Float64,
    "unit": pl.String,
    "commit": pl.String,
    "scheduled": pl.String,
    "flow_run": pl.String,
}
SHOWN = 30
"""The newest versions that are read."""


def record(store: str, model: str, number: str, lineage: Lineage, found: list[Measured]) -> str:
    """Write what was measured of a version; gives the file."""
    rows = [
        {
            "version": int(number),
            "benchmark": each.name,
            "value": each.value,
            "unit": each.unit,
            "commit": lineage.commit,
            "scheduled": lineage.scheduled,
            "flow_run": lineage.flow_run,
        }
        for each in found
    ]
    path = artifact_path(store, "benchmarks", model, f"{int(number):06}.parquet")
    write_parquet(pl.DataFrame(rows, schema=COLUMNS), path)
    return str(path)


def read_history(store: str, model: str) -> pl.DataFrame:
    """What was measured of the newest versions, a row a number, the oldest version first."""
    folder = artifact_path(store, "benchmarks", model)
    files = sorted(folder.glob("*.parquet"), key=str)[-SHOWN:] if folder.exists() else []
    return pl.concat([pl.DataFrame(schema=COLUMNS), *map(read_parquet, files)])


def plot(history: pl.DataFrame, spec: ModelSpec, champion: str | None) -> "Figure":
    """The deciding metric by version; the champion stands out."""
    from matplotlib.figure import Figure

    metric = spec.metrics[0]
    shown = history.filter(pl.col("benchmark") == metric.name).sort("version")
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(shown["version"], shown["value"], marker="o", color="tab:gray")
    best = shown.filter(pl.col("version").cast(pl.String) == (champion or ""))
    axes.plot(best["version"], best["value"], "o", color="tab:green", label="champion")
    better = "higher" if metric.higher_is_better else "lower"
    label = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
    axes.set(xlabel="version", ylabel=label, title=f"{spec.name}: {better} is better")
    axes.set_xticks(shown["version"])
    axes.legend()
    return figure
