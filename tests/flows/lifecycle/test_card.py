"""The model card says what a version is, how good, from what, and what was decided."""

from flows.lifecycle.benchmarks import Measured
from flows.lifecycle.card import render
from flows.lifecycle.gate import Verdict
from tests.flows.lifecycle.models import Pipeline

FOUND = [
    Measured(name="mae", value=1.23456, unit="g"),
    Measured(name="model_size", value=123456, unit="bytes"),
    Measured(name="mae where shelf is low|flat", value=0.5, unit="g"),
]


def card(pipeline: Pipeline, verdict: Verdict, found: list[Measured] = FOUND) -> list[str]:
    lineage = pipeline.lineage("may", "april").model_copy(update={"image": "flows@sha256:1"})
    return render(pipeline.spec, lineage, verdict, found).splitlines()


def test_a_card_of_a_version_that_lost(pipeline: Pipeline) -> None:
    pipeline.champion_of(0.0)
    verdict = pipeline.decide(pipeline.register(1.0), {"mae": 2.5})
    assert verdict.comparison is not None
    lines = card(pipeline, verdict)
    text = "\n".join(lines)
    assert lines[0] == f"# {verdict.summary}"
    assert "kept champion v1: it isn't better (mae " in lines[0]
    assert pipeline.spec.about in lines
    assert "| mae | 1.235 g | 2.5 |" in lines
    assert "| model_size | 123,456 bytes |  |" in lines
    assert "Against version 1 on the same 200 rows of may, which neither has seen: mae " in text
    assert f"between {verdict.comparison.low:.4g} and {verdict.comparison.high:.4g} (95 %" in text
    assert lines.index("## Segments") < lines.index(r"| mae where shelf is low\|flat | 0.5 g |")
    sha256 = pipeline.lineage().seen[0].sha256
    assert f"| may | 1,000 | `{sha256[:16]}` |" in lines
    assert any(line.startswith("| april | 1,000 | ") for line in lines)
    assert f"- holdout: 200 rows of may, `{pipeline.lineage().holdout.sha256[:16]}`" in lines
    assert "- flow: `flows/tested.py:train`, commit `c0ffee`, image `flows@sha256:1`" in lines
    assert "- parameters: `{'grams': 1}`" in lines
    assert "- Prefect run: [run](http://prefect/run)" in lines


def test_a_first_version_without_segments_has_neither_comparison_nor_segments(
    pipeline: Pipeline,
) -> None:
    lines = card(pipeline, pipeline.decide(pipeline.register(1.0)), FOUND[:2])
    assert "the first one, mae " in lines[0]
    assert not [line for line in lines if line.startswith(("Against", "## Segments"))]
