"""Ends of runs that people must hear of: Prefect's names of them, and what its logs say then."""

# Events and logs have a state's name, not its type: a run out of time is Failed only by type.
FAILED = ("Failed", "TimedOut")

# Words that a line of a run's log has. Its process ends with 0, so it is the log that tells.
LOG_FAILED = (
    *(("Flow run '", f"Finished in state {name}(") for name in FAILED),
    # of parameters that don't fit: before the run has a logger of its own
    ("prefect.engine", "Finished in state Failed("),
)
LOG_CRASHED = ("Flow run '", "Finished in state Crashed(")
# in the log of whoever found the process gone: the run's own supervisor, or the worker
LOG_FOUND_CRASHED = ("Reported flow run '", "as crashed")
# in the worker's log, of what ECS says
LOG_TASK_GONE = ("Marking flow run ", "as crashed")
