"""What flows let others know, as Prefect's events: `register` makes automations that pass it on."""

from prefect.events import emit_event

DRIFT_LINE = "drift of %s: %s"
"""What a run logs of drift: model, description. A stack's alarm `drift` counts such lines."""


def model_promoted(model: str, version: str, description: str) -> None:
    """Say that a registered model's version has become the champion."""
    emit_event(
        "trainyard.model.promoted",
        resource={"prefect.resource.id": f"trainyard.model.{model}"},
        payload={"model": model, "version": version, "description": description},
    )


def model_taken_back(model: str, removed: str, restored: str, reason: str) -> None:
    """Say that a champion was taken back, and which version is the champion again."""
    emit_event(
        "trainyard.model.taken-back",
        resource={"prefect.resource.id": f"trainyard.model.{model}"},
        payload={"model": model, "version": removed, "restored": restored, "reason": reason},
    )


def older_data_used(data: str, used: str, reason: str) -> None:
    """Say that a run goes on with older data, because newer data couldn't be had."""
    emit_event(
        "trainyard.data.older-used",
        resource={"prefect.resource.id": f"trainyard.data.{data}"},
        payload={"data": data, "used": used, "reason": reason},
    )


def drift_detected(model: str, month: str, version: str, description: str, data: str) -> None:
    """Say that a month's rows have drifted from what a model's version was trained on.

    What listens takes it once for each resource and version, however often it is sent.

    Args:
        description: what has drifted, a sentence.
        data: the address that the month's rows came from: a run that trains again reads it there.
    """
    emit_event(
        "trainyard.drift.detected",
        resource={
            "prefect.resource.id": f"trainyard.drift.{model}.{month}",
            "trainyard.model": model,
            "trainyard.version": version,
        },
        payload={
            "model": model,
            "month": month,
            "version": version,
            "description": description,
            "data": data,
        },
    )
