import pickle
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import mlflow
import pytest
import skops.io
import yaml
from mlflow import MlflowClient
from sklearn.linear_model import LinearRegression
from skops.io.exceptions import UntrustedTypesFoundException

from flows.lifecycle.champion import (
    CHAMPION,
    CONTENT_TAG,
    ModelRefusedError,
    content_hash,
    hash_of_model,
    load_champion,
)
from flows.taxi.features import RouteAndDistance

FLAVORS = {
    "sklearn": {"serialization_format": "skops", "pickled_model": "model.skops"},
    "python_function": {"loader_module": "mlflow.sklearn", "model_path": "model.skops"},
}
OURS = "flows.taxi.features.RouteAndDistance"


class Runs:
    """What a pickle that runs code looks like."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


def logged(
    client: MlflowClient, flavors: object = FLAVORS, model: object = None
) -> tuple[str, Path]:
    """A registered model: its name, and the folder that the artifact store has it in."""
    experiment = client.create_experiment(uuid4().hex)
    run = client.create_run(experiment).info.run_id
    found = client.create_logged_model(experiment, "model", run)
    folder = Path(found.artifact_location)
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    (folder / "code/features.py").write_text("# ours\n")
    skops.io.dump(model or LinearRegression(), folder / "model.skops")
    client.finalize_logged_model(found.model_id, "READY")
    name = uuid4().hex
    mlflow.set_tracking_uri(client.tracking_uri)
    tags = {CONTENT_TAG: hash_of_model(found.model_uri, client.tracking_uri)}
    mlflow.register_model(found.model_uri, name, tags=tags)
    client.set_registered_model_alias(name, CHAMPION, "1")
    return name, folder


def load(client: MlflowClient, name: str, *trusted: str) -> object:
    return load_champion(name, trusted, tracking_uri=client.tracking_uri)


def test_what_was_registered_is_loaded(client: MlflowClient) -> None:
    name, _ = logged(client, model=LinearRegression(fit_intercept=False))
    model = load(client, name)
    assert isinstance(model, LinearRegression)
    assert not model.fit_intercept


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\nimport os\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a line in its code": lambda folder: append(folder / "code/features.py"),
    "a byte in its model": lambda folder: append(folder / "model.skops"),
    "another flavour": lambda folder: (folder / "MLmodel").write_text(
        yaml.safe_dump({"flavors": FLAVORS | {"sklearn": {"serialization_format": "cloudpickle"}}})
    ),
    "one file more": lambda folder: (folder / "code/more.py").touch(),
    "one file less": lambda folder: (folder / "code/features.py").unlink(),
    "another name": lambda folder: (folder / "code/features.py").rename(folder / "code/x.py"),
    "bytecode without a source": lambda folder: (folder / "code/a.pyc").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_model_that_was_changed_since_is_refused(
    client: MlflowClient, change: Callable[[Path], object]
) -> None:
    name, folder = logged(client)
    change(folder)
    with pytest.raises(ModelRefusedError, match=rf"{name} version 1 isn't what was registered: "):
        load(client, name)


@pytest.mark.parametrize("count", [0, 2])
def test_a_model_without_its_one_description_is_refused(client: MlflowClient, count: int) -> None:
    name, folder = logged(client)
    (folder / "code/MLmodel").write_bytes((folder / "MLmodel").read_bytes())
    if not count:
        for path in list(folder.rglob("MLmodel")):
            path.unlink()
    with pytest.raises(ModelRefusedError, match=f"has {count} files named MLmodel, and a model ha"):
        load(client, name)


def test_bytecode_that_a_load_leaves_is_no_change_and_is_not_taken(client: MlflowClient) -> None:
    name, folder = logged(client)
    (folder / "code/__pycache__").mkdir()
    (folder / "code/__pycache__/features.cpython-311.pyc").write_bytes(b"whatever")
    load(client, name)


def test_a_version_that_nobody_hashed_is_refused(client: MlflowClient) -> None:
    name, _ = logged(client)
    client.delete_model_version_tag(name, "1", CONTENT_TAG)
    with pytest.raises(ModelRefusedError, match=f"has no tag {CONTENT_TAG}: .*train again"):
        load(client, name)


SKLEARN, PYFUNC = FLAVORS["sklearn"], FLAVORS["python_function"]
PICKLED = [
    FLAVORS | {"sklearn": SKLEARN | {"serialization_format": "cloudpickle"}},
    FLAVORS | {"sklearn": SKLEARN | {"serialization_format": "pickle"}},
    FLAVORS | {"sklearn": {"pickled_model": "model.skops"}},  # MLflow takes it for a pickle
    FLAVORS | {"python_function": {"loader_module": "mlflow.pyfunc.model"}},
    {"python_function": PYFUNC},
    FLAVORS | {"pytorch": {"model_data": "data"}},
    {},
    None,
]


@pytest.mark.parametrize("flavors", PICKLED)
def test_a_registered_model_that_would_be_unpickled_is_refused(
    client: MlflowClient, tmp_path: Path, flavors: object
) -> None:
    trace = tmp_path / "it ran"
    name, folder = logged(client, flavors)
    (folder / "model.skops").write_bytes(pickle.dumps(Runs(trace)))
    client.set_model_version_tag(name, "1", CONTENT_TAG, content_hash(folder))
    with pytest.raises(ModelRefusedError, match="only scikit-learn models in the format skops"):
        load(client, name)
    assert not trace.exists()


def test_a_class_that_only_the_model_trusts_is_refused(client: MlflowClient) -> None:
    own = FLAVORS | {"sklearn": SKLEARN | {"skops_trusted_types": [OURS]}}
    name, _ = logged(client, own, RouteAndDistance())
    with pytest.raises(UntrustedTypesFoundException):
        load(client, name)
    assert isinstance(load(client, name, OURS), RouteAndDistance)


def test_another_alias_may_be_asked_for(client: MlflowClient) -> None:
    name, _ = logged(client)
    client.set_registered_model_alias(name, "previous", "1")
    assert load_champion(name, (), alias="previous", tracking_uri=client.tracking_uri)
    assert client.get_registered_model(name).aliases.keys() == {CHAMPION, "previous"}
