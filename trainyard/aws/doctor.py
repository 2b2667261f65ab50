"""`make doctor [STACK=]`: look at what the commands need, and say what to do where it isn't so."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trainyard.aws.ecs_tasks import aws
from trainyard.aws.pulumi_cli import HOW_TO_INSTALL, OLDEST_PULUMI, Pulumi, typed
from trainyard.aws.stack import run_deployer
from trainyard.contract.stack_config import SettingsError, config_of
from trainyard.paths import PROGRAM, REPO
from trainyard.prefect.health import Check, guarded, tell
from trainyard.tools.errors import StackError

ENVIRONMENTS = {"laptop": ".venv", "infra": ".venv-infra", "policy": ".venv-policy"}


# --- this machine ---------------------------------------------------------------------------------
def machine(*, pulumi_needed: bool) -> Iterator[Check]:
    version = sys.version.split()[0]
    yield Check("Python", version)
    yield tool("git", ["git", "--version"], "https://git-scm.com: images carry their commit")
    docker = ["docker", "info", "--format", "{{.ServerVersion}}"]
    todo = "start or install it, for `make image` and `make rehearse`"
    yield tool("Docker", docker, todo, optional=True)
    yield pulumi_version(needed=pulumi_needed)
    todo = "https://cli.github.com, for `make bootstrap REPO=`"
    yield tool("gh", ["gh", "--version"], todo, optional=True)
    for group, folder in ENVIRONMENTS.items():
        yield environment(group, REPO / folder)


def tool(what: str, command: list[str], todo: str, *, optional: bool = False) -> Check:
    if not shutil.which(command[0]):
        return Check(what, f"there is no `{command[0]}` on PATH", todo, optional)
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    said = (done.stdout or done.stderr).strip().splitlines() or ["it says nothing"]
    if done.returncode:
        return Check(what, (done.stderr.strip().splitlines() or said)[0], todo, optional)
    return Check(what, re.sub(r"^\D*", "", said[0]) or said[0])


def pulumi_version(*, needed: bool) -> Check:
    """`pulumi`, new enough for what the commands ask of it."""
    found = tool("pulumi", ["pulumi", "version"], HOW_TO_INSTALL, optional=not needed)
    parts = tuple(map(int, re.findall(r"\d+", found.found)[:3]))
    if not found.todo and parts < OLDEST_PULUMI:
        todo = f"{'.'.join(map(str, OLDEST_PULUMI))} or newer: {HOW_TO_INSTALL}"
        return Check("pulumi", found.found, todo, optional=not needed)
    return found


def environment(group: str, folder: Path) -> Check:
    what, lock = f"environment {group}", REPO / f"requirements/{group}.txt"
    # .venv holds `dev` where the tests have run, which is `laptop` and more.
    stamps = [folder / f".{name}" for name in (group, *(["dev"] if group == "laptop" else []))]
    built = [stamp for stamp in stamps if stamp.exists()]
    if not built:
        return Check(what, "not built yet", "make does, where it is needed", optional=True)
    if max(stamp.stat().st_mtime for stamp in built) < lock.stat().st_mtime:
        return Check(what, "older than its lock", f"make {folder.name}/.{group}")
    if missing := [name for stamp in built for name in _missing(folder, stamp.name[1:])]:
        again = " ".join(f"{folder.name}/{stamp.name}" for stamp in built)
        return Check(what, f"without {', '.join(missing[:5])}", f"rm {again} && make {again}")
    return Check(what, "as its lock")


def _missing(folder: Path, group: str) -> Iterator[str]:
    """What a lock names and its environment hasn't, in that version."""
    packages = [str(path) for path in folder.glob("lib/python*/site-packages")]
    found = {(canonicalize_name(each.name), each.version) for each in distributions(path=packages)}
    for line in (REPO / f"requirements/{group}.txt").read_text().splitlines():
        if re.match(r"\w", line):
            wanted = Requirement(line.rstrip(" \\"))
            version = str(wanted.specifier).removeprefix("==")
            if wanted.marker and not wanted.marker.evaluate():
                continue
            if (canonicalize_name(wanted.name), version) not in found:
                yield f"{wanted.name} {version}"


# --- a stack --------------------------------------------------------------------------------------
def stack(name: str, session: Any = None) -> Iterator[Check]:
    """A stack on AWS, from the outside in: what needs the one before isn't looked at without it."""
    import boto3

    settings = guarded("settings", lambda: _settings(name), f"make bootstrap STACK={name}")
    yield settings
    if settings.failed:
        return
    config = config_of(name)
    session = session or boto3.Session(region_name=config["aws:region"])
    credentials = guarded(
        "credentials",
        lambda: _credentials(session, str(config.get("trainyard:accountId", ""))),
        "log in to AWS: `aws sso login`, or AWS_PROFILE or AWS_ACCESS_KEY_ID in this shell",
    )
    yield credentials
    if credentials.failed:
        return
    pulumi = Pulumi(name)
    state = guarded("Pulumi's state", lambda: _state(pulumi), f"make bootstrap STACK={name}")
    yield state
    yield guarded("lock", lambda: _lock(pulumi, session), typed(name, "cancel"))
    try:
        outputs = pulumi.outputs()
    except StackError:
        return  # the state isn't reached: said above
    if "tasks" not in outputs:
        yield Check("stack", "it isn't up", f"make up STACK={name}")
        return
    held = outputs["held_back"]
    found = f"held back: {', '.join(held)}" if held else "up"
    yield Check("stack", found, outputs["next"] if held else "")
    yield from images(session, outputs)
    yield from services(session, outputs)
    if "prefect" in held or "worker" in held:
        return  # nothing there to ask
    todo = "see the lines above; `make up` starts what is missing"
    yield guarded("inside", lambda: _inside(pulumi, outputs), todo)


def _settings(name: str) -> Check:
    with suppress(SettingsError):  # all of it is told below
        config_of(name)  # raises where there is no such file
    # A process, because the settings are the owner's to extend: the tool doesn't import them.
    file = PROGRAM / f"Pulumi.{name}.yaml"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "infra.settings", str(file)],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return Check("settings", done.stderr.strip(), f"correct infra/{file.name}")
    return Check("settings", f"infra/{file.name}")


def _credentials(session: Any, account: str) -> Check:
    who = session.client("sts").get_caller_identity()
    found = f"{who['Arn']} in {session.region_name}"
    if account and who["Account"] != account:
        return Check("credentials", found, f"the stack is in the account {account}: log in there")
    return Check("credentials", found)


def _state(pulumi: Pulumi) -> Check:
    state = pulumi.state()
    if pending := state.get("pending_operations"):
        todo = f"an up was killed: {typed(pulumi.stack, 'refresh')} mends the state"
        return Check("Pulumi's state", f"{len(pending)} pending operations", todo)
    return Check("Pulumi's state", f"{len(state.get('resources') or ())} resources")


def _lock(pulumi: Pulumi, session: Any) -> Check:
    url = pulumi.workspace.who_am_i().url or ""
    bucket = re.match(r"s3://([^/?]+)", url)
    if not bucket:
        return Check("lock", f"not looked for in {url or 'an unknown state'}")
    s3 = session.client("s3")
    found = s3.list_objects_v2(Bucket=bucket[1], Prefix=".pulumi/locks/").get("Contents", [])
    if not found:
        return Check("lock", "nobody holds the state")
    lock = json.loads(s3.get_object(Bucket=bucket[1], Key=found[0]["Key"])["Body"].read())
    stack = found[0]["Key"].split("/")[-2]
    return Check(
        "lock",
        f"{lock['username']}@{lock['hostname']} holds {stack} since {lock['timestamp']}",
        f"wait for that `up`; if it was killed, {typed(stack, 'cancel')}",
    )


def images(session: Any, outputs: dict[str, Any]) -> Iterator[Check]:
    named = {
        "flow": outputs["flow_image"],
        "worker": outputs["servers"]["prefect"],
        "mlflow": outputs["servers"]["mlflow"],
    }
    for image, reference in named.items():
        if reference:
            todo = "push it again: `make publish` from its commit, then `make release`"
            look = partial(_image, session, f"image {image}", reference)
            yield guarded(f"image {image}", look, todo)


def _image(session: Any, what: str, reference: str) -> Check:
    digest = reference.rpartition("@")[2]
    at = re.match(r"(\d{12})\.dkr\.ecr\.([\w-]+)\.amazonaws\.com[\w.]*/([^@]+)@", reference)
    if not at:
        return Check(what, f"{digest[:19]}, which ECR doesn't hold: not looked for")
    account, region, repository = at.groups()
    found = session.client("ecr", region_name=region).describe_images(
        registryId=account, repositoryName=repository, imageIds=[{"imageDigest": digest}]
    )
    if not found["imageDetails"]:  # AWS raises an error of its own
        raise LookupError(f"{repository} has no {digest[:19]}")
    return Check(what, f"{digest[:19]} is in {repository}")


def services(session: Any, outputs: dict[str, Any]) -> Iterator[Check]:
    """Each service runs as often as it should; where not, why its last task stopped."""
    ecs, cluster = session.client("ecs"), outputs["tasks"]["cluster"]
    for label, name in outputs["services"].items():
        what = f"service {label}"
        todo = f"make up STACK={outputs['trainyard']['stack']}"
        yield guarded(what, partial(_service, ecs, cluster, what, name), todo)


def _service(ecs: Any, cluster: str, what: str, name: str) -> Check:
    described = ecs.describe_services(cluster=cluster, services=[name])["services"]
    if not described:
        return Check(what, "is gone", "make drift says what else is; make up brings it back")
    running, desired = described[0]["runningCount"], described[0]["desiredCount"]
    found = f"{running} of {desired} run"
    if running >= desired:
        return Check(what, found)
    stopped = ecs.list_tasks(cluster=cluster, serviceName=name, desiredStatus="STOPPED")["taskArns"]
    if not stopped:
        return Check(what, f"{found}, none has stopped", "it starts: look again in two minutes")
    tasks = ecs.describe_tasks(cluster=cluster, tasks=stopped)["tasks"]
    last = max(tasks, key=lambda task: str(task.get("stoppedAt", "")))
    why = [last.get("stoppedReason", "")]
    for container in last["containers"]:
        if container.get("reason") or container.get("exitCode"):
            code = container.get("exitCode", "none")
            reason = container.get("reason", "")
            why.append(f"{container['name']}: exit code {code} {reason}".strip())
    found += f"; the last one stopped: {'; '.join(filter(None, why))}"
    log = "its log is in CloudWatch, under /trainyard/<stack>/"
    return Check(what, found, f"{log}; an image or a secret that isn't there is named above")


def _inside(pulumi: Pulumi, outputs: dict[str, Any]) -> Check:
    run_deployer(pulumi, outputs, aws(outputs), "--doctor")
    return Check("inside", "as the lines above say")


def doctor(name: str = "") -> int:
    """Look at this machine, and at a stack where one is named; gives the exit code."""
    failed = tell(machine(pulumi_needed=bool(name)))
    if name:
        failed |= tell(stack(name))
    return failed
