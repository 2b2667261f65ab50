"""What flows let others know, as Prefect's events: `register` makes automations that pass it on."""

from prefect.events import emit_event


def model_promoted(model: str, version: str, description: str) -> None:
    """Say that a registered model's version has become the champion."""
    emit_event(
        "trainyard.model.promoted",
        resource={"prefect.resource.id": f"trainyard.model.{model}"},
        payload={"model": model, "version": version, "description": description},
    )
