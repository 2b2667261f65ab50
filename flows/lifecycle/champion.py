"""Load a registered model: only the files that were registered, and nothing that is unpickled."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CONTENT_TAG = "trainyard.sha256"
"""On a model version: the hash of its files when it was registered."""


class ModelRefusedError(RuntimeError):
    """A model must not be loaded: the message says which, why and what to do."""


def load_champion(
    model_name: str, trusted_types: Sequence[str], alias: str = CHAMPION, tracking_uri: str = ""
) -> Any:
    """Load the version that has the alias, with this repository's code.

    Args:
        model_name: in MLflow's registry.
        trusted_types: the classes beside scikit-learn's own that it may hold, whatever it says.
        alias: whose version is loaded.
        tracking_uri: MLflow's; without it, what MLFLOW_TRACKING_URI says.

    Returns:
        The scikit-learn pipeline.

    Raises:
        ModelRefusedError: its files aren't those that were registered, or would be unpickled.
        mlflow.exceptions.MlflowException: there is no such model or alias.
        skops.io.exceptions.UntrustedTypesFoundException: it holds a class not in `trusted_types`.
    """
    import skops.io

    client = MlflowClient(tracking_uri or None)
    version = client.get_model_version_by_alias(model_name, alias)
    return skops.io.loads(_checked_file(*_identity(client, version)), trusted=list(trusted_types))


def load_version(client: MlflowClient, version: ModelVersion, trusted_types: Sequence[str]) -> Any:
    """Load a registered version, as `load_champion` does."""
    import skops.io

    return skops.io.loads(version_file(client, version), trusted=list(trusted_types))


def version_file(client: MlflowClient, version: ModelVersion) -> bytes:
    """The model's file as skops wrote it, once all of the version's files were checked.

    A process fetches it once: a run needs its own model and the champion's several times.

    Raises:
        ModelRefusedError: its files aren't those that were registered, or would be unpickled.
    """
    return _file_once(*_identity(client, version))


def _identity(client: MlflowClient, version: ModelVersion) -> tuple[str, str, str, str]:
    recorded = version.tags.get(CONTENT_TAG, "")
    return client.tracking_uri, version.name, str(version.version), recorded


def _checked_file(tracking_uri: str, model: str, number: str, recorded: str) -> bytes:
    what = f"{model} version {number}"
    uri = MlflowClient(tracking_uri).get_model_version_download_uri(model, number)
    with tempfile.TemporaryDirectory() as folder:
        files = _fetched(uri, tracking_uri, Path(folder))
        require_registered_content(content_hash(files), recorded, what)
        return _skops_file(files, what).read_bytes()


_file_once = lru_cache(maxsize=4)(_checked_file)


def logged_file(uri: str, tracking_uri: str) -> bytes:
    """The file of a model that was logged just now, as skops wrote it."""
    mlflow.set_tracking_uri(tracking_uri)  # what fetches a logged model asks MLflow's globals
    with tempfile.TemporaryDirectory() as folder:
        return _skops_file(_fetched(uri, tracking_uri, Path(folder)), uri).read_bytes()


def hash_of_model(uri: str, tracking_uri: str) -> str:
    """The content hash of a logged model's files, as the artifact store has them now."""
    with tempfile.TemporaryDirectory() as folder:
        return content_hash(_fetched(uri, tracking_uri, Path(folder)))


def content_hash(files: Path) -> str:
    """One SHA-256 of all files in a folder: their names and what is in them."""
    whole = hashlib.sha256()
    for path in sorted(path for path in files.rglob("*") if path.is_file()):
        name, content = path.relative_to(files).as_posix(), path.read_bytes()
        whole.update(f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode())
    return whole.hexdigest()


def require_registered_content(found: str, recorded: str, what: str) -> None:
    """Stop unless the hash is the one that was recorded.

    Raises:
        ModelRefusedError: it isn't, or none was.
    """
    if not recorded:
        raise ModelRefusedError(
            f"{what} has no tag {CONTENT_TAG}: no training run registered it, or one from before "
            "there was a content hash; train again"
        )
    if found != recorded:
        raise ModelRefusedError(
            f"{what} isn't what was registered: its files have the hash {found}, and the registry "
            f"says {recorded}; find out who changed them, and train again"
        )


def _fetched(uri: str, tracking_uri: str, folder: Path) -> Path:
    """Copy a model's files into `folder`: what is hashed there is what is loaded."""
    mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=tracking_uri)
    described = list(folder.rglob("MLmodel"))
    if len(described) != 1:
        raise ModelRefusedError(
            f"{uri} has {len(described)} files named MLmodel, and a model has one: find out who "
            "changed its files, and train again"
        )
    found = described[0].parent
    # what is no part of it goes from the copy: MLflow's note of this download, and bytecode that
    # loads have left beside the sources, which Python would prefer to them
    (found / "registered_model_meta").unlink(missing_ok=True)
    for cache in list(found.rglob("__pycache__")):
        shutil.rmtree(cache)
    return found


def _skops_file(files: Path, what: str) -> Path:
    """Return a scikit-learn model's file, if MLmodel says that skops reads it."""
    described = yaml.safe_load((files / "MLmodel").read_text())
    flavors = described.get("flavors") or {}
    sklearn, pyfunc = (flavors.get(name) or {} for name in ("sklearn", "python_function"))
    if (
        flavors.keys() != {"sklearn", "python_function"}
        or sklearn.get("serialization_format") != "skops"
        or pyfunc.get("loader_module") != "mlflow.sklearn"
    ):
        raise ModelRefusedError(
            f"{what} is of the flavours {', '.join(sorted(flavors)) or 'none'}, format "
            f"{sklearn.get('serialization_format')}: only scikit-learn models in the format skops "
            "are loaded here, because others run code that they hold"
        )
    return files / Path(sklearn["pickled_model"]).name
