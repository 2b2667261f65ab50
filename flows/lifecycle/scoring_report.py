"""What people see of a scoring run."""

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from flows.lifecycle.scoring import Scored
from flows.platform.task_options import WAITS


@task(task_run_name="report-scores", **WAITS)
def report_scores(scored: Scored) -> None:
    """How many rows have scores, and why others have none, as a page in Prefect."""
    answered = scored.rows - scored.unanswered
    summary = (
        f"{scored.model} version {scored.version} has scored {answered:,} of {scored.rows:,} rows "
        f"of {scored.month}"
    )
    rules = [f"| {rule} | {rows:,} |" for rule, rows in scored.quarantined.items()]
    lines = [f"# {summary}", "", f"Scores: `{scored.scores}`", ""]
    if rules:
        lines += ["| quarantined because | rows |", "|---|---:|", *rules, ""]
        lines += [f"Quarantine: `{scored.quarantine}`", ""]
    get_run_logger().info("%s", summary)
    create_markdown_artifact(
        key=f"{scored.model}-scores", markdown="\n".join(lines), description=summary
    )
