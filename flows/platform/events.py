"""What flows let others know, as Prefect's events: `register` makes automations that pass it on."""

from prefect.events import emit_event


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
