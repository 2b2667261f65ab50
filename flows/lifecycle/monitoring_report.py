"""What people, and Prefect's automations, hear of a monitored month."""

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from flows.lifecycle.monitoring import Monitored
from flows.platform.events import DRIFT_LINE, drift_detected
from flows.platform.task_options import WAITS


@task(task_run_name="report-month", **WAITS)
def report_month(monitored: Monitored, data: str) -> None:
    """The limits as a page in Prefect; past one of them, an event that trains again.

    Of requests there is no event: a training reads the month's data set, which they aren't.

    Args:
        data: where the month comes from, for the run that trains.
    """
    lines = [f"# {monitored.summary}", "", f"Page with plots: `{monitored.page}`", ""]
    lines += ["| | found | limit | because |", "|---|---:|---:|---|"]
    lines += [
        f"| {'**past** ' if check.past else ''}{check.name} | {check.found} | {check.limit} "
        f"| {check.reason} |"
        for check in monitored.checks
    ]
    lines += ["", monitored.note]
    create_markdown_artifact(
        key=f"{monitored.model}-monitoring{'-served' * (monitored.of == 'served')}",
        markdown="\n".join(lines),
        description=monitored.summary,
    )
    if not monitored.past:
        get_run_logger().info("%s; %s", monitored.summary, monitored.page)
        return
    what = f"version {monitored.version} in {monitored.when}: {monitored.findings}"
    get_run_logger().warning(DRIFT_LINE, monitored.model, f"{what}; {monitored.page}")
    if monitored.of == "served":
        return
    drift_detected(monitored.model, monitored.month, monitored.version, monitored.findings, data)
