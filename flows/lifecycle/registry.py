"""MLflow's registry: versions, what they were made from, and who has which alias.

MLflow compares nothing when it moves an alias, so whoever writes holds the lock `PROMOTION`
(`flows.platform.locks`). Readers take none: `champion` moves in one write.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from flows.lifecycle.champion import CHAMPION, CONTENT_TAG, hash_of_model
from flows.lifecycle.holdout import Holdout, SeenData
from flows.lifecycle.reference import Reference
from flows.lifecycle.spec import ModelSpec, load_spec

CHALLENGER, PREVIOUS = "challenger", "previous"
PROMOTION = "promotion"
"""The lock of all that moves aliases; `make deploy` makes its limit."""

SPEC_TAG = "trainyard.spec"
"""On a registered model: where its ModelSpec is."""
# On a version:
LINEAGE_TAG = "trainyard.lineage"
VERDICT_TAG = "trainyard.verdict"
REPLACED_TAG = "trainyard.replaced"
"""The version that was the champion before it."""
REJECTED_TAG = "trainyard.rejected"
"""Why it was taken back."""
FORCED_TAG = "trainyard.forced"
"""Why somebody made it the champion without a comparison."""


class RegistryError(ValueError):
    """The registry has no such model, version or alias, or not what is asked: says what it has."""


class Lineage(BaseModel):
    """What a version was made from."""

    flow_run: str
    """Prefect's id."""
    flow_run_url: str
    entrypoint: str
    parameters: dict[str, Any]
    commit: str
    image: str
    """With its digest; empty on a laptop."""
    scheduled: str
    seen: list[SeenData]
    holdout: Holdout
    reference: Reference | None = None


def recorded_lineage(client: MlflowClient, spec: ModelSpec, number: str) -> Lineage:
    """What a version was made from.

    Raises:
        RegistryError: nothing recorded it.
    """
    recorded = find_version(client, spec.name, number).tags.get(LINEAGE_TAG)
    if not recorded:
        raise RegistryError(
            f"{spec.name} version {number} has no record of the data that it has seen, so it can't "
            f"be compared; to replace it: `trainyard model promote {spec.name}/VERSION --force "
            "REASON`"
        )
    return Lineage.model_validate_json(recorded)


def register(
    client: MlflowClient,
    place: str,
    uri: str,
    run_id: str,
    lineage: Lineage,
    description: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Register a logged model as the next version, and as the challenger; gives its number.

    Doing it again for the same run gives the version that is there already.

    Args:
        place: where the spec is, such as `flows.wine.train:SPEC`.
        uri: of the logged model.
        run_id: the MLflow run that it was logged to.
        description: of the version.
        tags: of the version, beside those that the lifecycle reads (`trainyard.`).
    """
    spec = load_spec(place)
    # `register_model` asks MLflow's globals, which a resumed run may not have set yet
    mlflow.set_tracking_uri(client.tracking_uri)
    if not _versions_of(client, spec.name, run_id):
        own = {
            CONTENT_TAG: hash_of_model(uri, client.tracking_uri),
            LINEAGE_TAG: lineage.model_dump_json(),
        }
        mlflow.register_model(uri, spec.name, tags={**(tags or {}), **own})
    number = _versions_of(client, spec.name, run_id)[0]
    client.update_model_version(spec.name, number, description=description)
    client.set_registered_model_tag(spec.name, SPEC_TAG, place)
    if not client.get_registered_model(spec.name).description:
        client.update_registered_model(spec.name, spec.about)
    if aliases(client, spec.name).get(CHAMPION) != number:
        client.set_registered_model_alias(spec.name, CHALLENGER, number)
    return number


def aliases(client: MlflowClient, model: str) -> dict[str, str]:
    """Which version has which alias.

    Raises:
        RegistryError: there is no such model.
    """
    try:
        found = client.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [each.name for each in registered(client)]
        raise RegistryError(
            f"there is no model {model!r}; there is {', '.join(known) or 'none'}: train it first"
        ) from None
    return {alias: str(number) for alias, number in found.items()}


def registered(client: MlflowClient) -> list[RegisteredModel]:
    """All models, by name; MLflow gives a page at a time."""
    found: list[RegisteredModel] = []
    token: str | None = ""
    while token is not None:
        page = client.search_registered_models(page_token=token or None)
        found += page
        token = page.token or None
    return sorted(found, key=lambda model: model.name)


def find_version(client: MlflowClient, model: str, wanted: str) -> ModelVersion:
    """The version with a number or an alias.

    Raises:
        RegistryError: there is none.
    """
    known = aliases(client, model)
    try:
        return client.get_model_version(model, known.get(wanted, wanted))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        numbers = [each.version for each in versions(client, model)]
        there = ", ".join([f"@{alias}" for alias in known] + [f"/{number}" for number in numbers])
        raise RegistryError(f"{model} has no version {wanted!r}; it has {there}") from None


def versions(client: MlflowClient, model: str) -> list[ModelVersion]:
    """All versions, the newest first."""
    found = client.search_model_versions(f"name = '{model}'")
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def spec_of(client: MlflowClient, model: str) -> tuple[ModelSpec, str]:
    """A registered model's spec, and where it is.

    Raises:
        RegistryError: there is no such model, no run of a pipeline registered it, or its spec is
            another model's now.
        SpecError: the spec isn't there.
    """
    aliases(client, model)
    place = client.get_registered_model(model).tags.get(SPEC_TAG)
    if not place:
        raise RegistryError(f"{model} has no tag {SPEC_TAG}: no pipeline of `flows` registered it")
    spec = load_spec(place)
    if spec.name != model:
        raise RegistryError(
            f"{model} names the spec {place}, which is {spec.name}'s now: use that name, or the "
            "code that trained it"
        )
    return spec, place


def promote(client: MlflowClient, model: str, number: str, tags: dict[str, str]) -> None:
    """Make a version the champion, and the champion `previous`. The caller holds the lock.

    A kill between the writes leaves the old champion in its place, and doing it again ends it.

    Args:
        tags: put on the version first: why.
    """
    before = aliases(client, model).get(CHAMPION)
    if before != number:
        tags = tags | {REPLACED_TAG: before or ""}
    for key, value in tags.items():
        client.set_model_version_tag(model, number, key, value)
    client.delete_model_version_tag(model, number, REJECTED_TAG)
    if before not in (None, number):
        client.set_registered_model_alias(model, PREVIOUS, str(before))
    client.set_registered_model_alias(model, CHAMPION, number)
    _delete_alias(client, model, CHALLENGER, number)


def roll_back(client: MlflowClient, model: str, reason: str) -> tuple[str, str]:
    """Make `previous` the champion again; gives the version taken back and the one restored.

    The one taken back is marked as rejected. `previous` becomes the version that the restored one
    had replaced, if that wasn't rejected. The caller holds the lock.

    Raises:
        RegistryError: there is no champion, or no other version that was one before.
    """
    known = aliases(client, model)
    removed, restored = known.get(CHAMPION), known.get(PREVIOUS)
    tags = {str(version.version): version.tags for version in versions(client, model)}
    if removed and restored == removed:  # a promotion was killed between its writes
        restored = _replaced_by(removed, tags)
    if not (removed and restored):
        has = ", ".join(f"{alias} {number}" for alias, number in known.items()) or "no alias"
        raise RegistryError(
            f"{model} can't be rolled back: no version was the champion before ({has}); make one "
            f"the champion with `trainyard model promote {model}/VERSION --force REASON`"
        )
    client.set_model_version_tag(model, removed, REJECTED_TAG, reason)
    tags[removed][REJECTED_TAG] = reason
    client.set_registered_model_alias(model, CHAMPION, restored)
    if older := _replaced_by(restored, tags):
        client.set_registered_model_alias(model, PREVIOUS, older)
    else:
        _delete_alias(client, model, PREVIOUS, known[PREVIOUS])
    return removed, restored


def _replaced_by(number: str, tags: dict[str, dict[str, str]]) -> str:
    """The version that this one replaced; empty if it is deleted, rejected, or there was none."""
    older = tags[number].get(REPLACED_TAG, "")
    return older if older in tags and REJECTED_TAG not in tags[older] else ""


def _versions_of(client: MlflowClient, model: str, run_id: str) -> list[str]:
    found = client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
    return sorted((str(each.version) for each in found), key=int)


def _delete_alias(client: MlflowClient, model: str, alias: str, number: str) -> None:
    if aliases(client, model).get(alias) == number:
        with suppress(MlflowException):
            client.delete_registered_model_alias(model, alias)
