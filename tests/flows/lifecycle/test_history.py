"""The benchmarks of versions, beside each other."""

from pathlib import Path

from matplotlib.figure import Figure

from flows.lifecycle.benchmarks import Measured
from flows.lifecycle.history import SHOWN, plot, read_history, record
from tests.flows.lifecycle.models import SPEC, Pipeline


def write(pipeline: Pipeline, number: str, value: float) -> str:
    found = [
        Measured(name="mae", value=value, unit="g"),
        Measured(name="model_size", value=900, unit="bytes"),
    ]
    return record(pipeline.store, "tested", number, pipeline.lineage(), found)


def test_nothing_was_measured_yet(tmp_path: Path) -> None:
    assert read_history(str(tmp_path), "tested").is_empty()


def test_what_was_recorded_is_read_in_the_order_of_versions(pipeline: Pipeline) -> None:
    for number in ("10", "9", "1"):
        assert Path(write(pipeline, number, float(number))).exists()
    found = read_history(pipeline.store, "tested")
    assert found["version"].to_list() == [1, 1, 9, 9, 10, 10]
    assert found.row(0, named=True) == {
        "version": 1,
        "benchmark": "mae",
        "value": 1.0,
        "unit": "g",
        "commit": "c0ffee",
        "scheduled": "2024-03-05 06:00",
        "flow_run": "run",
    }
    assert read_history(pipeline.store, "other").is_empty()


def test_a_version_that_is_measured_again_is_there_once(pipeline: Pipeline) -> None:
    write(pipeline, "1", 5.0)
    write(pipeline, "1", 4.0)
    assert read_history(pipeline.store, "tested")["value"].to_list() == [4.0, 900.0]


def test_the_newest_versions_are_read(pipeline: Pipeline) -> None:
    for number in range(1, SHOWN + 3):
        write(pipeline, str(number), 1.0)
    versions = read_history(pipeline.store, "tested")["version"].unique().sort().to_list()
    assert versions == [*range(3, SHOWN + 3)]


def test_the_plot_shows_the_deciding_metric_and_the_champion(pipeline: Pipeline) -> None:
    for number, value in (("1", 5.0), ("2", 4.0), ("3", 4.5)):
        write(pipeline, number, value)
    history = read_history(pipeline.store, "tested")
    figure = plot(history, SPEC, "2")
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    line, champion = axes.lines
    assert [*zip(line.get_xdata(), line.get_ydata(), strict=True)] == [(1, 5), (2, 4), (3, 4.5)]
    assert [*zip(champion.get_xdata(), champion.get_ydata(), strict=True)] == [(2, 4)]
    assert (axes.get_ylabel(), axes.get_title()) == ("mae, g", "tested: lower is better")
    assert not len(plot(history, SPEC, None).axes[0].lines[1].get_xdata())
