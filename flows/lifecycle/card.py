"""The model card: what a version is, how good, what it was made from, and what was decided."""

from collections.abc import Sequence

from flows.lifecycle.benchmarks import Measured
from flows.lifecycle.gate import Verdict
from flows.lifecycle.registry import Lineage
from flows.lifecycle.spec import ModelSpec


def render(
    spec: ModelSpec, lineage: Lineage, verdict: Verdict, measured: Sequence[Measured]
) -> str:
    """The card as Markdown."""
    segments = [each for each in measured if " where " in each.name]
    plain = [each for each in measured if each not in segments]
    compared = verdict.comparison
    metric = spec.metrics[0]
    return "\n".join(
        [
            f"# {verdict.summary}",
            "",
            spec.about,
            "",
            *_table(
                ("benchmark", "value", "limit"), [(*_row(e), _limit(verdict, e)) for e in plain]
            ),
            "",
            *(
                [
                    f"Against version {verdict.champion} on the same "
                    f"{verdict.holdout.rows if verdict.holdout else 0:,} rows of "
                    f"{verdict.holdout.data if verdict.holdout else ''}, which neither has seen: "
                    f"{metric.name} {metric.show(compared.challenger)} and "
                    f"{metric.show(compared.champion)}; the gain lies between {compared.low:.4g} "
                    f"and {compared.high:.4g} (95 %, paired bootstrap over rows).",
                    "",
                ]
                if compared
                else []
            ),
            *(
                ["## Segments", "", *_table(("segment", "value"), map(_row, segments)), ""]
                if segments
                else []
            ),
            "## Lineage",
            "",
            *_table(
                ("data", "rows", "SHA-256"),
                [(each.name, f"{each.rows:,}", f"`{each.sha256[:16]}`") for each in lineage.seen],
            ),
            "",
            f"- holdout: {lineage.holdout.rows:,} rows of {lineage.holdout.data}, "
            f"`{lineage.holdout.sha256[:16]}`",
            f"- flow: `{lineage.entrypoint}`, commit `{lineage.commit or 'unknown'}`"
            + (f", image `{lineage.image}`" if lineage.image else ""),
            f"- parameters: `{lineage.parameters}`",
            f"- Prefect run: [{lineage.flow_run}]({lineage.flow_run_url})",
            "",
        ]
    )


def _table(heads: Sequence[str], rows: object) -> list[str]:
    listed = [*rows]  # type: ignore[misc]
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(map(_cell, row))} |" for row in listed),
    ]


def _cell(value: object) -> str:
    return str(value).replace("|", r"\|")


def _row(each: Measured) -> tuple[str, str]:
    return each.name, str(each)


def _limit(verdict: Verdict, each: Measured) -> str:
    return f"{verdict.limits[each.name]:g}" if each.name in verdict.limits else ""
