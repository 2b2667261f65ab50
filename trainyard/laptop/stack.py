"""The stack itself: what it consists of, and how it comes up and goes down as one."""

import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from pydantic import BaseModel, ValidationError

from trainyard.contract.outputs import ProcessWorkPool, StackOutputs, deploy_environment
from trainyard.laptop import processes
from trainyard.paths import REPO
from trainyard.tools.console import console, done, say, tail
from trainyard.tools.errors import StackError

POOL = "trainyard"
WORKER = "laptop"
LABELS = {"prefect": "Prefect", "mlflow": "MLflow", "worker": "worker"}
USUAL_PORTS = {"prefect": 4200, "mlflow": 5000}
START_TIMEOUT = 180.0


class Running(BaseModel):
    """A service that was started, and may have died since."""

    pid: int
    started: datetime
    port: int | None = None

    @property
    def url(self) -> str | None:
        """Where it listens, if it does."""
        return f"http://127.0.0.1:{self.port}" if self.port else None

    @property
    def where(self) -> str:
        return self.url or f"polls the pool {POOL}"


class State(BaseModel):
    """What `.trainyard/state.json` remembers."""

    services: dict[str, Running] = {}


@dataclass
class _Start:
    """How far `up` has come."""

    alive: list[str]
    started: list[str] = field(default_factory=list)
    healthy: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Health:
    """One service as `status` finds it."""

    service: str
    state: str
    running: Running | None
    memory: int


class Stack:
    """The stack of one clone, which keeps all it writes in the clone's `.trainyard`."""

    def __init__(self, code: Path = REPO) -> None:
        self.code = code
        self.home = code / ".trainyard"
        self.artifacts = self.home / "artifacts"
        self.logs = self.home / "logs"
        self.env_file = self.home / "env"
        self._state_file = self.home / "state.json"
        self._outputs_file = self.home / "outputs.json"
        self._http = httpx.Client(trust_env=False)  # not through a proxy of the user's

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def environment(self) -> dict[str, str]:
        """Everybody's environment here: the user's, without their own Prefect and MLflow.

        A profile, an API key or a tracking server of the user's own must not leak into the
        stack, nor the stack into it.
        """
        own = ("PREFECT_", "MLFLOW_", "_MLFLOW_", "TRAINYARD_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        binaries = str(Path(sys.executable).parent)
        no_proxy = kept.get("no_proxy") or kept.get("NO_PROXY")
        loopback = f"{no_proxy},127.0.0.1,localhost" if no_proxy else "127.0.0.1,localhost"
        return kept | {
            processes.STACK: str(self.home),
            "PATH": f"{binaries}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PYTHONPATH": str(self.code),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": loopback,
            "no_proxy": loopback,
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    def outputs(self) -> StackOutputs:
        """What the stack hands to `register` and `prefect deploy`.

        Raises:
            StackError: it isn't up.
        """
        services = self._read().services
        if not {"prefect", "mlflow"} <= services.keys():
            raise StackError("the stack isn't running: `make up` starts it")
        return StackOutputs(
            stack="laptop",
            prefect_api_url=f"{services['prefect'].url}/api",
            tracking_uri=str(services["mlflow"].url),
            artifact_store=str(self.artifacts),
            code_dir=str(self.code),
            work_pool=ProcessWorkPool(name=POOL),
        )

    def up(self, meanwhile: Callable[[StackOutputs], None] | None = None) -> list[str]:
        """Start what doesn't run, wait until all is healthy; return what was started.

        `meanwhile` is called when Prefect knows of the stack, while the rest still starts.

        Raises:
            StackError: something died or didn't answer. What this call started is stopped.
        """
        with self._alone():
            state = self._read()
            alive = [name for name in LABELS if self._alive(name, state)]
            if not alive and state.services:
                say("the stack was up and is gone, as after a restart: starting it anew", "yellow")
            elif alive:
                for name in state.services.keys() - alive:
                    say(self._obituary(name), "yellow")
            start = _Start(alive=alive)
            try:
                if len(alive) < len(LABELS):
                    self._start_missing(state, start, meanwhile)
                with console.status("waiting for MLflow and the worker"):
                    self._wait(["prefect", "mlflow", "worker"], state, start)
            except BaseException:
                with cleaning_up():
                    if alive:
                        for name in start.started:
                            self._end(name)
                    else:
                        self._end_all()
                raise
            return start.started

    def _start_missing(
        self, state: State, start: "_Start", meanwhile: Callable[[StackOutputs], None] | None
    ) -> None:
        for folder in (self.home / "prefect", self.home / "mlflow", self.artifacts, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        with console.status("starting Prefect and MLflow"):
            old_url = state.services["prefect"].url if "prefect" in state.services else None
            for name in LABELS.keys() - start.alive:
                self._end(name)  # what it left: MLflow's web process, a worker's runs
            for name in ("prefect", "mlflow"):
                if name not in start.alive:
                    self._start(name, state, start)
            outputs = self.outputs()
            self._write_for_others(outputs)
            if outputs.prefect_api_url != f"{old_url}/api" and "worker" in start.alive:
                start.alive.remove("worker")  # it would go on asking where nobody is
                self._end("worker")
            self._wait(["prefect"], state, start)
        with console.status("telling Prefect about the stack"):
            changed = self.register(outputs)
            done(f"{'register':<9} {changed}")
            if "worker" not in start.alive:
                _give_up_lost_runs(outputs)
                self._start("worker", state, start)
        if meanwhile:
            meanwhile(outputs)

    def down(self) -> bool:
        """Stop what `up` started, and nothing else; False if nothing ran."""
        with self._alone():
            return self._end_all()

    def status(self) -> list[Health]:
        state = self._read()
        found = []
        for name in LABELS:
            running = state.services.get(name)
            if running is None:
                condition = "not started"
            elif not self._alive(name, state):
                condition = "dead"
            else:
                condition = "running" if self._healthy(name, state, 10) else "not answering"
            used = processes.memory(processes.of_stack(self.home, name))
            found.append(Health(name, condition, running, used))
        return found

    @staticmethod
    def register(outputs: StackOutputs) -> str:
        """Tell Prefect about the stack; return what changed, in a few words.

        Raises:
            StackError: Prefect can't be reached or refuses.
        """
        # only now, because importing Prefect's client takes seconds
        from trainyard.prefect.register import RegisterError, register, summary

        try:
            return summary(register(outputs))
        except RegisterError as error:
            raise StackError(str(error)) from error

    def check_alive(self) -> None:
        """See that all that was started still runs.

        Raises:
            StackError: something has died.
        """
        state = self._read()
        for name in state.services:
            if not self._alive(name, state):
                raise StackError(self._obituary(name))

    def _obituary(self, name: str) -> str:
        return f"{LABELS[name]} has died; {tail(self.log(name))}"

    def where_to_look(self) -> None:
        """Print the places that a user opens next."""
        outputs = self.outputs()
        say(f"  Prefect    {outputs.prefect_api_url.removesuffix('/api')}")
        say(f"  MLflow     {outputs.tracking_uri}")
        self.show_folders()

    def show_folders(self) -> None:
        """Print where the stack keeps what a user may want to see."""
        say(f"  artifacts  {self.artifacts}")
        say(f"  logs       {self.logs}")
        say(f"  a shell    . {shlex.quote(str(self.env_file))}   (then: prefect deploy --all)")

    # --- one service -------------------------------------------------------------

    def _start(self, name: str, state: State, start: "_Start") -> None:
        before = state.services.get(name)
        port = None
        if usual := USUAL_PORTS.get(name):
            wanted = before.port if before and before.port else usual
            port = processes.choose_port(wanted)
            if port != wanted:
                say(f"port {wanted} is taken: {LABELS[name]} uses {port}", "yellow")
        environment, folder = self.environment(), self.home
        python = [sys.executable, "-m"]
        if name == "prefect":
            command = [*python, "prefect", "server", "start", "--host", "127.0.0.1"]
            command += ["--port", str(port)]
            # or its pages look for the API on 4200, whatever the port
            environment["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{port}/api"
            environment["PREFECT_SERVER_EVENTS_MESSAGING_BROKER"] = (
                "trainyard.prefect.patches.sqlite_messaging"
            )
        elif name == "mlflow":
            folder = self.home / "mlflow"
            command = [*python, "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
            command += ["--artifacts-destination", str(self.artifacts / "mlflow")]
            command += ["--allowed-hosts", "localhost:*,127.0.0.1:*"]
            # 404 MB instead of 1.4 GB; nothing here uses jobs
            environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        else:
            command = [*python, "prefect", "worker", "start", "--type", "process", "--name", WORKER]
            command += ["--pool", POOL, "--no-create-pool-if-not-found"]
            environment |= {
                "PREFECT_API_URL": f"{state.services['prefect'].url}/api",
                # a person is waiting: look for runs every 2 s instead of 10
                "PREFECT_WORKER_QUERY_SECONDS": "2",
                # the page's Cancel button ends the process too
                "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
            }
        now = datetime.now(UTC)
        start.started.append(name)
        pid = processes.start(name, command, environment, folder, self.log(name))
        state.services[name] = Running(pid=pid, started=now, port=port)
        self._write(self._state_file, state.model_dump_json(indent=2))

    def _end(self, name: str) -> None:
        processes.end(processes.of_stack(self.home, name))

    def _alive(self, name: str, state: State) -> bool:
        running = state.services.get(name)
        return running is not None and processes.alive(self.home, name, running.pid)

    def _healthy(self, name: str, state: State, patience: float = 2) -> bool:
        try:
            if name == "prefect":
                return self._http.get(
                    f"{state.services[name].url}/api/ready", timeout=patience
                ).is_success
            if name == "mlflow":
                return self._http.get(
                    f"{state.services[name].url}/health", timeout=patience
                ).is_success
            api = f"{state.services['prefect'].url}/api"
            asked = f"{api}/work_pools/{POOL}/workers/filter"
            workers = self._http.post(asked, json={}, timeout=patience).json()
            # Prefect remembers workers: an earlier one of this name counts as online for a while
            return any(
                worker["name"] == WORKER
                and worker["status"] == "ONLINE"
                and datetime.fromisoformat(worker["last_heartbeat_time"])
                >= state.services[name].started
                for worker in workers
            )
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False

    def _wait(self, names: list[str], state: State, start: "_Start") -> None:
        deadline = time.monotonic() + START_TIMEOUT
        waiting = [name for name in names if name not in start.healthy]
        while waiting:
            for name in [*start.alive, *start.started]:
                if not self._alive(name, state):
                    raise StackError(f"while starting: {self._obituary(name)}")
            for name in [each for each in waiting if self._healthy(each, state)]:
                waiting.remove(name)
                start.healthy.append(name)
                if name in start.started:
                    done(f"{LABELS[name]:<9} {state.services[name].where}")
            if waiting and time.monotonic() > deadline:
                name = waiting[0]
                raise StackError(
                    f"{LABELS[name]} doesn't answer after {START_TIMEOUT:.0f} s;"
                    f" {tail(self.log(name))}"
                )
            if waiting:
                time.sleep(0.2)

    def _end_all(self) -> bool:
        # The worker and its runs first, while there is still a server to report to. By the mark,
        # not by the state file: it finds them even if that is lost.
        worker = processes.of_stack(self.home, "worker")
        processes.end(worker)
        others = processes.of_stack(self.home)
        processes.end(others)
        for file in (self._state_file, self._outputs_file, self.env_file):
            file.unlink(missing_ok=True)
        return bool(worker or others)

    # --- files -------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two commands at once would start everything twice."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            lock = (self.home / "lock").open("w")
        except OSError as error:
            raise StackError(f"the stack's folder can't be written: {error}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(
                    f"another command is starting or stopping the stack in {self.home};"
                    " try again when it is done"
                ) from None
            yield

    def _read(self) -> State:
        try:
            return State.model_validate_json(self._state_file.read_bytes())
        except FileNotFoundError:
            return State()
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise StackError(
                f"{self._state_file} can't be read ({reason});"
                " `make down` stops what runs and removes it"
            ) from error

    def _write_for_others(self, outputs: StackOutputs) -> None:
        self._write(self._outputs_file, outputs.model_dump_json(indent=2))
        base = self.environment()
        exports = {
            key: base[key]
            for key in (
                "DO_NOT_TRACK",
                "MLFLOW_DISABLE_TELEMETRY",
                "NO_PROXY",
                "PREFECT_HOME",
                "PYTHONPATH",
                "no_proxy",
            )
        }
        exports["PREFECT_API_URL"] = outputs.prefect_api_url
        exports["MLFLOW_TRACKING_URI"] = outputs.tracking_uri
        exports["TRAINYARD_ARTIFACT_STORE"] = outputs.artifact_store
        exports |= self.deploy_variables(outputs)
        lines = [
            "# `. .trainyard/env` points prefect, mlflow and python at the running laptop stack.",
            "unset PREFECT_PROFILE PREFECT_API_KEY PREFECT_API_AUTH_STRING",
            *(f"export {key}={shlex.quote(value)}" for key, value in sorted(exports.items())),
            f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',
        ]
        self._write(self.env_file, "\n".join(lines) + "\n")

    @staticmethod
    def deploy_variables(outputs: StackOutputs) -> dict[str, str]:
        """What prefect.yaml's templates use."""
        return deploy_environment(outputs, image="not-used-on-a-laptop")

    @staticmethod
    def _write(path: Path, text: str) -> None:
        part = path.with_name(f"{path.name}.part")
        part.write_text(text)
        part.replace(path)


def _give_up_lost_runs(outputs: StackOutputs) -> None:
    """Mark as crashed the runs whose worker was stopped under them.

    Nobody else would: they would look as if they ran for ever.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed

    going = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    with (
        temporary_settings({PREFECT_API_URL: outputs.prefect_api_url}),
        get_client(sync_client=True) as client,
    ):
        for run in client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=going))
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        ):
            client.set_flow_run_state(
                run.id, Crashed(message="the stack was stopped under this run"), force=True
            )


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Let nobody interrupt this: it would leave something behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
