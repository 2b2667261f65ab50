"""`trainyard model ...`: list, show, promote, take back, reproduce and serve registered models.

The tool starts it where MLflow can be reached: on the laptop, or as a task in the stack's network.
"""

import argparse
import re
import sys
from uuid import UUID

import httpx
import mlflow
import polars as pl
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from polars.exceptions import PolarsError
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.flow_runs import resume_flow_run
from prefect.settings import PREFECT_API_URL
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from flows.lifecycle import gate, history
from flows.lifecycle.benchmarks import METADATA, METRIC
from flows.lifecycle.champion import CHAMPION
from flows.lifecycle.gate import Verdict
from flows.lifecycle.registry import (
    CHALLENGER,
    FORCED_TAG,
    PROMOTION,
    REJECTED_TAG,
    VERDICT_TAG,
    RegistryError,
    aliases,
    find_version,
    recorded_lineage,
    registered,
    spec_of,
    versions,
)
from flows.lifecycle.reproduce import reproduce
from flows.lifecycle.rollback import take_back
from flows.lifecycle.tasks import CARD, measure
from flows.platform.events import model_promoted
from flows.platform.locks import exclusive
from flows.platform.settings import Settings, load_settings
from flows.platform.tracking import require_server

# a terminal's width where there is one; a log keeps a row in a line
console = Console(markup=False, width=None if sys.stdout.isatty() else 180)


def main() -> int:
    parser = argparse.ArgumentParser(prog="trainyard model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "card", "promote", "rollback", "reproduce", "serve"):
        command = commands.add_parser(name)
        command.add_argument("model", nargs="?" if name == "list" else None)
        if name == "promote":
            command.add_argument("--force", metavar="REASON", default="")
        if name == "rollback":
            command.add_argument("--reason", required=True)
        if name == "serve":
            command.add_argument("--port", type=int, default=8000)
            # of a stack's service (infra/components/model_server.py)
            command.add_argument("--hosts", nargs="+", default=[])
    given = parser.parse_args()
    name, wanted = _parts(given.model or "")
    try:
        settings = load_settings()
        if not getattr(given, "hosts", []):  # a stack's service waits for it
            require_server(settings.tracking_uri)
        client = MlflowClient(settings.tracking_uri)
        if given.command == "list":
            show_versions(client, settings, name) if name else show_models(client)
        elif given.command == "card":
            show_card(client, name, wanted or CHAMPION)
        elif given.command == "promote":
            return promote(client, name, wanted or CHALLENGER, given.force)
        elif given.command == "rollback":
            champion = aliases(client, name).get(CHAMPION)
            if wanted and champion != str(find_version(client, name, wanted).version):
                raise RegistryError(
                    f"`rollback` takes the champion back, which is version {champion}, and not "
                    f"{wanted}: write `rollback {name}`"
                )
            console.print(take_back(settings.tracking_uri, name, given.reason))
        elif given.command == "serve":
            # here, because the other commands don't need a server's libraries
            from flows.lifecycle.serve import serve

            serve(client, name, wanted or CHAMPION, given.port, given.hosts)
        else:
            console.print(reproduce(client, name, wanted or CHAMPION))
    except (
        RuntimeError,
        ValueError,
        OSError,
        MlflowException,
        PolarsError,
        PrefectException,
    ) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except httpx.TransportError as error:
        sys.stderr.write(f"Prefect at {PREFECT_API_URL.value()} doesn't answer: {error}\n")
        return 1
    return 0


def show_models(client: MlflowClient) -> None:
    table = Table("model", "champion", "challenger", "previous", "what it is", box=None)
    for model in registered(client):
        has = {alias: str(number) for alias, number in model.aliases.items()}
        cells = (has.get(alias, "") for alias in ("champion", "challenger", "previous"))
        table.add_row(model.name, *cells, model.description or "")
    console.print(table if table.row_count else "no model is registered yet: train one first")


def show_versions(client: MlflowClient, settings: Settings, name: str) -> None:
    """A row a version: aliases, what the gate said, and its metrics beside each other."""
    spec, _ = spec_of(client, name)
    known = aliases(client, name)
    measured = history.read_history(settings.artifact_store, name)
    metrics = spec.metrics
    heads = ["version", "alias", *(each.name for each in metrics), "size", "µs a row", "verdict"]
    table = Table(*heads, box=None)
    for version in versions(client, name):
        rows = measured.filter(pl.col("version") == int(version.version))
        values = dict(zip(rows["benchmark"], rows["value"], strict=True))
        shown = [each.show(values[each.name]) if each.name in values else "" for each in metrics]
        size, speed = values.get("model_size"), values.get("inference_batch_p50")
        table.add_row(
            str(version.version),
            ", ".join(alias for alias, number in known.items() if number == str(version.version)),
            *shown,
            f"{size / 1e3:,.0f} kB" if size else "",
            f"{speed:.2f}" if speed else "",
            _verdict(version.tags),
        )
    console.print(table)


def show_card(client: MlflowClient, name: str, wanted: str) -> None:
    """The version's model card, and what became of it since."""
    version = find_version(client, name, wanted)
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        text = mlflow.artifacts.load_text(f"runs:/{version.run_id}/{CARD}")
    except MlflowException:
        raise RegistryError(
            f"{name} version {version.version} has no card in its MLflow run {version.run_id}: a "
            "pipeline's run writes it once it has decided; `trainyard model list` has the verdicts"
        ) from None
    recorded = version.tags.get(VERDICT_TAG)
    if recorded and (now := Verdict.model_validate_json(recorded).summary) not in text:
        text += f"\nSince then compared again: {now}\n"
    for tag, since in ((REJECTED_TAG, "taken back"), (FORCED_TAG, "promoted by a person")):
        if tag in version.tags:
            text += f"\nSince then {since}: {version.tags[tag]}\n"
    console.print(Markdown(text) if console.is_terminal else text)


def promote(client: MlflowClient, name: str, wanted: str, force: str) -> int:
    """Compare with the champion and promote the winner; a run that waits for a yes gets it."""
    spec, place = spec_of(client, name)
    version = find_version(client, name, wanted)
    number = str(version.version)
    if aliases(client, name).get(CHAMPION) == number:
        console.print(f"{name} version {number} is the champion already")
        return 0
    if force:
        with exclusive(PROMOTION):
            verdict = gate.force(client, name, number, force)
    elif _resumed(UUID(recorded_lineage(client, spec, number).flow_run)):
        console.print(f"{name} version {number}: its run has your yes, and compares once more")
        return 0
    else:
        recorded = version.tags.get(VERDICT_TAG)
        limits = Verdict.model_validate_json(recorded).limits if recorded else spec.limits
        store = load_settings().artifact_store
        with console.status("comparing with the champion"):
            measured = measure(client, place, number, METRIC, METADATA)
            with exclusive(PROMOTION):
                verdict = gate.decide(client, spec, number, measured, limits, store)
    console.print(verdict.summary)
    if verdict.promoted:
        model_promoted(name, number, verdict.summary)
        return 0
    console.print("`--force REASON` promotes it all the same")
    return 1


def _resumed(flow_run: UUID) -> bool:
    """Say yes to a run that is paused; whether it was."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(flow_run).state
        except ObjectNotFound:
            return False
    if state is None or not state.is_paused():
        return False
    resume_flow_run(flow_run, run_input={"promote": True})
    return True


def _parts(text: str) -> tuple[str, str]:
    """`NAME@ALIAS` or `NAME/VERSION` as a name, and an alias or a number."""
    name, _, wanted = re.sub("[@/]", "\n", text, count=1).partition("\n")
    return name, wanted


def _verdict(tags: dict[str, str]) -> str:
    if REJECTED_TAG in tags:
        return f"taken back: {tags[REJECTED_TAG]}"
    recorded = tags.get(VERDICT_TAG)
    return Verdict.model_validate_json(recorded).reason if recorded else ""


if __name__ == "__main__":
    sys.exit(main())
