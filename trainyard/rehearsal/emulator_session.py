"""A rehearsal's AWS: the emulator in its container, IAM enforced, reachable from this machine only.

It has the address that ECS gives to credentials; beyond MiniStack: emulator/emulator.py.
"""

import base64
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import IO, Any, TypeVar

import boto3
import httpx
import yaml

from trainyard.aws.pulumi_cli import HOW_TO_INSTALL, Pulumi
from trainyard.contract.naming import REHEARSAL
from trainyard.contract.outputs import WEBHOOK
from trainyard.contract.settings import PROJECT
from trainyard.contract.stack_config import config_of
from trainyard.delivery.images import base_image, index_options
from trainyard.paths import PROGRAM, REPO
from trainyard.rehearsal.inventory import inventory
from trainyard.tools import waiting
from trainyard.tools.docker import DockerError, client, docker
from trainyard.tools.errors import StackError

Found = TypeVar("Found")
NETWORK, SUBNET, ADDRESS = "trainyard-rehearsal", "169.254.170.0/24", "169.254.170.2"
# This machine, as containers of that network see it.
GATEWAY = "169.254.170.1"
CONTAINER = "trainyard-emulator"
OWNER = "trainyard.home"  # the emulator's label: the home of the session that started it
IMAGE = "trainyard-emulator"
# What GitHub would say of a job; the emulator doesn't check signatures.
REPOSITORY = {"githubRepository": "acme/rides", "githubOwnerId": "11", "githubRepositoryId": "22"}
SUBJECT = "repo:acme@11/rides@22:environment:{environment}"
# Whatever a stack's file says: nothing is kept, and the account is the emulator's.
DECIDED = {"durable": False, "accountId": "", "permissionsBoundary": "", "backend": ""}


class RehearsalError(StackError):
    """The rehearsal can't go on; the message says what to do."""


def wait_until(
    check: Callable[[], Found | None],
    seconds: float,
    problem: Callable[[], str],
    *meanwhile: type[Exception],
) -> Found:
    """Wait until the answer is true, and give it; RehearsalError, of `problem`, where it isn't."""
    with suppress(*meanwhile):
        if found := waiting.wait_until(bool, check, seconds=seconds, meanwhile=meanwhile):
            return found
    raise RehearsalError(problem())


def missing() -> str | None:
    """What this machine lacks for a rehearsal, in words; None when nothing."""
    if platform.system() != "Linux":
        return "it is not Linux, where containers are reached by their addresses"
    try:
        client()
    except DockerError as error:
        return str(error)
    return None if shutil.which("pulumi") else f"there is no pulumi on PATH: {HOW_TO_INSTALL}"


@dataclass
class Session:
    """The emulator, and a folder for Pulumi's state and project beside it."""

    home: Path
    port: int = 4566
    base: str = field(default_factory=base_image)

    # --- the emulator -----------------------------------------------------------------------------
    def start(self) -> None:
        """Build and start the emulator, unless this session has done so.

        A machine has one, for its address is fixed: another session's is left alone.
        """
        owner = self.owner()
        if owner not in (None, self.home.resolve()):
            raise RehearsalError(
                f"another rehearsal's emulator runs on this machine, that of {owner}. End it where "
                "it was begun (`make down STACK=rehearsal`, or let its tests end); if nobody does, "
                f"`docker rm -f {CONTAINER}`, and start this one again"
            )
        if owner and self.answers():
            return
        folder = self.home / "emulator"
        shutil.copytree(Path(__file__).parent / "emulator", folder, dirs_exist_ok=True)
        shutil.copy(REPO / "requirements/emulator.txt", folder)
        built = docker(
            *("build", "-q", "--network", "host", "--build-arg", f"BASE={self.base}"),
            *(*index_options(), "-t", IMAGE, str(folder)),
            check=False,
        )
        if built.returncode:
            raise RehearsalError(f"the emulator's image wasn't built:\n{built.stderr[-2000:]}")
        self.stop()
        # A new emulator is empty, whatever the state of Pulumi's says of the last one.
        for folder in (self.home / "state", self.project):
            shutil.rmtree(folder, ignore_errors=True)
        self._before.unlink(missing_ok=True)
        try:
            docker("network", "create", "--subnet", SUBNET, "--gateway", GATEWAY, NETWORK)
            docker(
                *("run", "-d", "--name", CONTAINER, "--hostname", CONTAINER),
                *("--label", f"{OWNER}={self.home.resolve()}"),
                *("--network", NETWORK, "--ip", ADDRESS),
                *("-p", f"127.0.0.1:{self.port}:4566"),
                *("-v", "/var/run/docker.sock:/var/run/docker.sock"),
                *("-e", "AUTH=true"),
                # Found out by itself, it sometimes is not: then a database would be on localhost.
                *("-e", f"DOCKER_NETWORK={NETWORK}"),
                IMAGE,
            )
        except DockerError as error:
            self.stop()  # a network without its emulator
            raise self.refused(str(error)) from error
        wait_until(
            self.answers, 60, lambda: f"the emulator doesn't answer; see `docker logs {CONTAINER}`"
        )

    def refused(self, why: str) -> Exception:
        if "overlaps" in why:
            why = (
                f"another Docker network has addresses of {SUBNET}, where ECS gives credentials: "
                "`docker network ls`, and `docker network inspect`, tell which. Remove it, and "
                "start this again"
            )
        elif "port is already allocated" in why or "address already in use" in why:
            why = (
                f"port {self.port} of this machine is taken, and the emulator needs it: end what "
                "listens there (`docker ps`, or `ss -ltnp`, tells), and start this again"
            )
        return RehearsalError(why)

    def leftovers(self) -> str:
        """What a destroyed stack has left, in words; empty when nothing."""
        before, after = json.loads(self._before.read_text()), inventory(self.root)
        left = {kind: found for kind, found in after.items() if found != before[kind]}
        # Tasks that have ended leave a container each: the emulator's way, and not the stack's.
        running = self.containers(running=True)
        return f"destroy left {left or ''} {running}" if left or running else ""

    @property
    def _before(self) -> Path:
        """What is in the account before the stack is."""
        return self.home / "before.json"

    @property
    def root(self) -> Any:
        return boto("test", "test", url=self.url)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/_ministack/health", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Remove the emulator and all that it started, unless it is another session's."""
        if self.owner() not in (None, self.home.resolve()):
            return

        def left() -> list[str]:
            docker("rm", "-f", "-v", CONTAINER, *self.containers(), check=False)
            docker("network", "rm", NETWORK, check=False)
            named = ("-f", f"name=^{NETWORK}$", "--format", "{{.Name}}")
            return [*self.containers(), *docker("network", "ls", *named).stdout.split()]

        # What the emulator was about to remove itself takes its time.
        wait_until(
            lambda: not left(),
            10,
            lambda: f"Docker keeps {', '.join(left())}: try `docker rm -f` and `docker network rm`",
        )

    def log(self) -> str:
        said = docker("logs", CONTAINER)
        return said.stdout + said.stderr

    def owner(self) -> Path | None:
        """The home of the session whose emulator runs on this machine."""
        shown = f'{{{{.Label "{OWNER}"}}}}'
        found = docker("ps", "--filter", f"name=^{CONTAINER}$", "--format", shown).stdout
        return Path(found.strip()) if found.strip() else None

    def runs(self) -> bool:
        return self.owner() == self.home.resolve()

    def containers(self, *, running: bool = False) -> list[str]:
        """Containers that the emulator started, and what else is on its network."""
        filters = (f"network={NETWORK}", f"label=ministack.instance={CONTAINER}:4566")
        which = [] if running else ["-a"]
        shown = [docker("ps", *which, "-f", f, "--format", "{{.Names}}") for f in filters]
        return sorted({name for found in shown for name in found.stdout.split()} - {CONTAINER})

    # --- this machine's side ----------------------------------------------------------------------
    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def project(self) -> Path:
        """A project of its own around the same program: Pulumi writes into stacks' files."""
        return self.home / "project"

    def alone(self) -> None:
        """Keep what the shell says of AWS, Prefect and proxies from this process, for good."""
        for name in [*os.environ]:
            if name.startswith(("AWS_", "PREFECT_")) or name == WEBHOOK:
                del os.environ[name]
        os.environ |= {
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "PREFECT_HOME": str(self.home / "client"),  # where no profile is
        }
        kept = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        # One by one, for httpx knows no ranges. Pulumi may need the proxy for its plugins.
        ours = ("localhost", "127.0.0.1", *map(str, IPv4Network(SUBNET).hosts()))
        for name in ("no_proxy", "NO_PROXY"):
            os.environ[name] = ",".join(filter(None, (kept, *ours)))

    def prepare(self, stack: str, **settings: Any) -> None:
        """Write the project and a stack's settings, from the repository's; the account's own."""
        self.project.mkdir(parents=True, exist_ok=True)
        (self.home / "state").mkdir(exist_ok=True)
        project = yaml.safe_load((PROGRAM / "Pulumi.yaml").read_text())
        project["main"] = str(PROGRAM)
        project["runtime"]["options"]["virtualenv"] = str(REPO / ".venv-infra")
        (self.project / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        config: dict[str, Any] = {}
        if stack != "account":
            with suppress(FileNotFoundError):
                config = config_of(stack)
        config |= {f"trainyard:{k}": v for k, v in {**DECIDED, **settings}.items()}
        config["aws:region"] = "us-east-1"
        path = self.project / f"Pulumi.{stack}.yaml"
        file = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump({**file, "config": config}))

    def settings(self) -> dict[str, Any]:
        """What the stack `rehearsal` was last told."""
        parts = ((key.partition(":"), value) for key, value in self.pulumi().settings().items())
        return {name: value for (owner, _, name), value in parts if owner == PROJECT}

    def unpin_images(self) -> None:
        """Leave the images of the stack `rehearsal` to releases; the next one has to follow."""
        kept = {k: v for k, v in self.settings().items() if not k.endswith("Image")}
        self.prepare(REHEARSAL, **kept)

    def environment(self) -> dict[str, str]:
        """Variables with which `pulumi` and boto3 work on the emulator, as its root."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # Without `metadata=skip` a file of attributes stands beside each state. Pulumi killed
            # while it writes one leaves it empty, and no command reads that state any more.
            "PULUMI_BACKEND_URL": f"file://{self.home / 'state'}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE": "rehearsal",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

    def begin(self, log: IO[str] | None = None, /, **settings: Any) -> None:
        """Start the emulator, make the account's stack in it, and prepare the stack `rehearsal`."""
        self.start()
        self.prepare("account", kind="account", stateBucket="acme-state", **REPOSITORY)
        account = self.pulumi("account", log=log, advise=False)
        account.make()
        account.api.up()
        if not self._before.exists():
            self._before.write_text(json.dumps(inventory(self.root)))
        self.prepare(REHEARSAL, **settings)
        self.pulumi(log=log, advise=False).make()

    def pulumi(self, stack: str = REHEARSAL, **options: Any) -> Pulumi:
        """A stack's `pulumi`; as the emulator's root, unless `environment` says otherwise."""
        given = {"environment": self.environment(), "ask": False, **options}
        return Pulumi(stack, self.project, **given)

    def deploy_role(self) -> dict[str, str]:
        """An hour's credentials to deploy with: GitHub's role's, which so is shown to be enough."""
        role = self.pulumi("account", advise=False).outputs()["deploy_role_arn"]
        return self.take_role(role, SUBJECT.format(environment="dev"))

    def take_role(self, role_arn: str, subject: str, **claims: str) -> dict[str, str]:
        """Credentials of a role, taken as a job of GitHub takes it."""
        given = self.root.client("sts").assume_role_with_web_identity(
            RoleArn=role_arn,
            RoleSessionName="rehearsal",
            WebIdentityToken=token(subject, **claims),
            DurationSeconds=3600,
        )["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }


def boto(*credentials: str, url: str) -> Any:
    """A boto3 session that works on the emulator."""
    os.environ["AWS_ENDPOINT_URL"] = url  # a session takes it from nowhere else
    return boto3.Session(*credentials, region_name="us-east-1")


def token(subject: str, **others: str) -> str:
    """A token as GitHub gives to a job, but for its signature; with other claims where given."""
    now = int(time.time())
    claims = {
        "iss": "https://token.actions.githubusercontent.com",
        "aud": "sts.amazonaws.com",
        "sub": subject,
        "repository_id": REPOSITORY["githubRepositoryId"],
        "iat": now,
        "exp": now + 3600,
        **others,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return b".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=") for part in (*parts, b"signature")
    ).decode()
