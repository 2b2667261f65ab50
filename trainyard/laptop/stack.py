"""The stack itself: what it consists of, and how it comes up and goes down as one."""

import operator
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from pydantic import ValidationError

from trainyard.contract.outputs import (
    FLOWS_DATABASE,
    SERVE_LOG,
    ProcessWorkPool,
    StackOutputs,
    deploy_environment,
)
from trainyard.laptop import containers, processes
from trainyard.laptop.folder import Folder
from trainyard.laptop.services import (
    LABELS,
    USUAL_PORTS,
    WORKER,
    Health,
    Running,
    State,
    command_of,
    give_up_lost_runs,
)
from trainyard.paths import REPO
from trainyard.tools.console import console, done, say, tail
from trainyard.tools.errors import StackError
from trainyard.tools.waiting import wait_until

START_TIMEOUT = 180.0
NO_IMAGE = "not-used-on-a-laptop"


@dataclass
class _Start:
    """How far `up` has come."""

    alive: list[str]
    started: list[str] = field(default_factory=list)
    healthy: list[str] = field(default_factory=list)


class Stack:
    """The stack of one clone, which keeps all it writes in the clone's `.trainyard`."""

    def __init__(self, code: Path = REPO) -> None:
        self.code = code
        self.home = code / ".trainyard"
        self.artifacts = self.home / "artifacts"
        self.logs = self.home / "logs"
        self.env_file = self.home / "env"
        self._folder = Folder(self.home)
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
        login = self._folder.login()
        own = ("PREFECT_", "MLFLOW_", "_MLFLOW_", "TRAINYARD_")
        kept = {
            key: value
            for key, value in os.environ.items()
            if key in (FLOWS_DATABASE, SERVE_LOG) or not key.startswith(own)
        }
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
            "PREFECT_API_AUTH_STRING": login,
            "PREFECT_SERVER_API_AUTH_STRING": login,
            "PREFECT_HOME": str(self.home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    @property
    def image(self) -> str:
        """What runs are started from as containers; empty where they are processes."""
        return self._read().image

    def outputs(self) -> StackOutputs:
        """What the stack hands to `register` and `prefect deploy`.

        Raises:
            StackError: it isn't up, or somebody else listens on one of its ports.
        """
        state = self._read()
        services = state.services
        if not {"prefect", "mlflow"} <= services.keys():
            raise StackError("the stack isn't running: `make up` starts it")
        for name in USUAL_PORTS:
            if not processes.listens(self.home, name, services[name].port):
                raise StackError(f"{self._obituary(name)}\n`make up` starts it again")
        return self._outputs(state)

    def _outputs(self, state: State) -> StackOutputs:
        services = state.services
        kind = containers.work_pool if state.image else ProcessWorkPool
        return StackOutputs(
            stack="laptop",
            prefect_api_url=f"{services['prefect'].url}/api",
            tracking_uri=str(services["mlflow"].url),
            artifact_store=str(self.artifacts),
            code_dir=containers.CODE if state.image else str(self.code),
            work_pool=kind(name=state.pool),
            active_schedules=False,  # nobody waits for a laptop's
        )

    def up(
        self,
        meanwhile: Callable[[StackOutputs], None] | None = None,
        *,
        image: str | None = None,
    ) -> list[str]:
        """Start what doesn't run, wait until all is healthy; return what was started.

        Args:
            meanwhile: is called when Prefect knows of the stack, while the rest still starts.
            image: what runs are started from as containers; empty for processes, None for what the
                stack has, or processes.

        Raises:
            StackError: something died or didn't answer, or a stack that is up starts runs in the
                other way. What this call started is stopped.
        """
        with self._folder.alone():
            state = self._read()
            alive = [name for name in LABELS if self._alive(name, state)]
            if not alive and state.services:
                say("the stack was up and is gone, as after a restart: starting it anew", "yellow")
            elif alive:
                for name in state.services.keys() - alive:
                    say(self._obituary(name), "yellow")
            self._choose(state, image, alive)
            start = _Start(alive=alive)
            try:
                if len(alive) < len(LABELS):
                    self._start_missing(state, start, meanwhile)
                told = self._outputs(state)
                with console.status("waiting for MLflow and the worker"):
                    self._wait(["prefect", "mlflow", "worker"], state, start)
                outputs = self.outputs()
                self._write_for_others(outputs)  # of another image, perhaps
                if outputs != told:  # MLflow has lost its port meanwhile
                    self.register(outputs)
            except BaseException:
                with processes.cleaning_up():
                    if alive:
                        for name in start.started:
                            self._end(name)
                    else:
                        self._end_all()
                raise
            return start.started

    def _choose(self, state: State, image: str | None, alive: list[str]) -> None:
        """How runs are started from now on."""
        if image is None:
            image = state.image
        if "worker" in alive and bool(image) != bool(state.image):
            kind = "containers" if state.image else "processes"
            raise StackError(f"the stack is up, and its runs are {kind}: `make down` first")
        state.image = image
        self._write(self._state_file, state.model_dump_json(indent=2))

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
            self._wait(["prefect"], state, start)
            outputs = self._outputs(state)
            self._write_for_others(outputs)
            if outputs.prefect_api_url != f"{old_url}/api" and "worker" in start.alive:
                start.alive.remove("worker")  # it would go on asking where nobody is
                self._end("worker")
        with console.status("telling Prefect about the stack"):
            changed = self.register(outputs)
            done(f"{'register':<9} {changed}")
            if "worker" not in start.alive:
                give_up_lost_runs(outputs)
                self._start("worker", state, start)
        if meanwhile:
            meanwhile(outputs)

    def down(self) -> bool:
        """Stop what `up` started, and nothing else; False if nothing ran."""
        with self._folder.alone():
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
        """Raise StackError where a service that was started has died."""
        state = self._read()
        for name in state.services:
            if not self._alive(name, state):
                raise StackError(self._obituary(name))

    def _obituary(self, name: str, *, starting: bool = False) -> str:
        return f"{LABELS[name]} has died; {tail(self.log(name), first_error=starting)}"

    def where_to_look(self) -> None:
        outputs = self.outputs()
        say(f"  Prefect    {outputs.prefect_api_url.removesuffix('/api')}")
        say(f"  MLflow     {outputs.tracking_uri}")
        self.show_folders()

    def show_folders(self) -> None:
        say(f"  login      {self._folder.login_file}   (Prefect's page asks for its line, once)")
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
        service = command_of(name, self.home, port, state)
        now = datetime.now(UTC)
        if name not in start.started:
            start.started.append(name)
        environment = self.environment() | service.environment
        pid = processes.start(name, service.command, environment, service.folder, self.log(name))
        state.services[name] = Running(pid=pid, started=now, port=port, pool=state.pool)
        self._write(self._state_file, state.model_dump_json(indent=2))

    def _lost_its_port(self, name: str, state: State) -> bool:
        """Whether a service has died because its port was taken after it was chosen."""
        port = state.services[name].port
        return port is not None and (
            not processes.is_free(port) or "already in use" in tail(self.log(name))
        )

    def _end(self, name: str) -> None:
        processes.end(processes.of_stack(self.home, name))
        if name == "worker":  # its runs, which nobody would look after
            containers.remove(str(self.artifacts))

    def _alive(self, name: str, state: State) -> bool:
        running = state.services.get(name)
        return running is not None and processes.alive(self.home, name, running.pid)

    def _healthy(self, name: str, state: State, patience: float = 2) -> bool:
        pages = {"prefect": "api/ready", "mlflow": "health"}
        try:
            if page := pages.get(name):
                running = state.services[name]
                answers = self._http.get(f"{running.url}/{page}", timeout=patience).is_success
                # another stack may have taken the port since it was chosen
                return answers and processes.listens(self.home, name, running.port)
            api = f"{state.services['prefect'].url}/api"
            asked = f"{api}/work_pools/{state.pool}/workers/filter"
            login = httpx.BasicAuth(*self._folder.login().split(":", 1))
            workers = self._http.post(asked, json={}, timeout=patience, auth=login).json()
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
        def waiting() -> list[str]:
            for name in [*start.alive, *start.started]:
                if self._alive(name, state):
                    continue
                if name not in start.started or not self._lost_its_port(name, state):
                    raise StackError(f"while starting: {self._obituary(name, starting=True)}")
                self._end(name)  # what it has started itself
                self._start(name, state, start)
            for name in names:
                if name not in start.healthy and self._healthy(name, state):
                    start.healthy.append(name)
                    if name in start.started:
                        done(f"{LABELS[name]:<9} {state.services[name].where}")
            return [name for name in names if name not in start.healthy]

        if left := wait_until(operator.not_, waiting, seconds=START_TIMEOUT, every=0.2):
            raise StackError(
                f"{LABELS[left[0]]} doesn't answer after {START_TIMEOUT:.0f} s;"
                f" {tail(self.log(left[0]), first_error=True)}"
            )

    def _end_all(self) -> bool:
        # The worker and its runs first, while there is still a server to report to. By the mark,
        # not by the state file: it finds them even if that is lost.
        worker = processes.of_stack(self.home, "worker")
        processes.end(worker)
        runs = containers.remove(str(self.artifacts))
        others = processes.of_stack(self.home)
        processes.end(others)
        for file in (self._state_file, self._outputs_file, self.env_file):
            file.unlink(missing_ok=True)
        return bool(worker or others or runs)

    # --- files -------------------------------------------------------------------
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
        kept = ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "PREFECT_HOME", "PYTHONPATH")
        exports = {key: self.environment()[key] for key in (*kept, "NO_PROXY", "no_proxy")} | {
            "PREFECT_API_URL": outputs.prefect_api_url,
            "MLFLOW_TRACKING_URI": outputs.tracking_uri,
            "TRAINYARD_ARTIFACT_STORE": outputs.artifact_store,
        }
        exports |= deploy_environment(outputs, self.image or NO_IMAGE)
        lines = [
            "# `. .trainyard/env` points prefect, mlflow and python at the running laptop stack.",
            "unset PREFECT_PROFILE PREFECT_API_KEY",
            *(f"export {key}={shlex.quote(value)}" for key, value in sorted(exports.items())),
            f'export PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(self._folder.login_file))})"',
            f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',
        ]
        self._write(self.env_file, "\n".join(lines) + "\n")

    @staticmethod
    def _write(path: Path, text: str) -> None:
        part = path.with_name(f"{path.name}.part")
        part.write_text(text)
        part.replace(path)
