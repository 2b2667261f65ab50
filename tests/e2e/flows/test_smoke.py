"""The smoke flow: it completes where the stack works, and says what doesn't."""

import re

import pytest

from flows.platform import artifact_store
from flows.smoke import smoke as module
from flows.smoke.smoke import smoke
from tests.e2e.flows.whole_runs import Place, ended, run

pytestmark = pytest.mark.server


def test_it_completes_where_all_works(here: Place, caplog: pytest.LogCaptureFixture) -> None:
    made = run(smoke)
    assert ended(made)[0] == "Completed"
    assert any(
        re.match(r"scheduled for .*Z, started at .*Z: \d+\.\d s later", m) for m in caplog.messages
    )
    assert (here.folder / "store/smoke" / str(made.id)).read_text() == f"the smoke run {made.id}"
    (experiment,) = [e for e in here.client.search_experiments() if e.name == "smoke"]
    (tracked,) = here.client.search_runs([experiment.experiment_id])
    assert tracked.data.tags["prefect.flow_run_id"] == str(made.id)


def test_a_store_that_loses_what_was_written_is_told(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read", lambda path: artifact_store.read(path)[:3])
    monkeypatch.setattr(module.check_artifact_store, "retries", 0)
    state, message = ended(run(smoke))
    assert state == "Failed"
    assert "/smoke/" in message
    assert "b'the', and b'the smoke run" in message


def test_an_mlflow_that_is_down_is_told_with_its_address(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(module.check_tracking, "retries", 0)
    state, message = ended(run(smoke))
    assert (state, "http://127.0.0.1:9" in message) == ("Failed", True)
