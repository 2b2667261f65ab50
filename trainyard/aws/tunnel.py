"""`make ui STACK=`: a stack's private pages, through a task inside its VPC."""

import json
import signal
import subprocess
from typing import Any

import httpx

from trainyard.aws.ecs_tasks import EcsTasks, aws, region_of, stopped
from trainyard.aws.pulumi_cli import Pulumi
from trainyard.aws.stack import made
from trainyard.tools.console import say
from trainyard.tools.errors import StackError
from trainyard.tools.waiting import wait_until


def tunnels(outputs: dict[str, Any]) -> list[tuple[str, str, int]]:
    """The stack's private pages: name, host, port."""
    of = outputs["trainyard"]
    urls = {"MLflow": httpx.URL(of["tracking_uri"]), "Prefect": httpx.URL(of["prefect_api_url"])}
    return [
        (name, url.host, url.port)
        for name, url in urls.items()
        if url.host.endswith(".trainyard.internal") and url.port
    ]


def ui(pulumi: Pulumi) -> None:
    """Open the private pages here until Ctrl-C: a task in the VPC forwards their ports."""
    outputs = made(pulumi)
    pages = tunnels(outputs) if "trainyard" in outputs else []
    if not pages:
        say("the stack has no private pages: MLflow and Prefect are elsewhere")
        return
    cloud = aws(outputs)
    say("starting the tunnel (about a minute)")
    arn = cloud.start_task("tunnel", remote_control=True)
    sessions: list[subprocess.Popen[bytes]] = []
    try:
        target = _target(cloud, arn)
        for name, host, port in pages:
            parameters = {"host": [host], "portNumber": [str(port)], "localPortNumber": [str(port)]}
            command = [
                *("aws", "ssm", "start-session", "--target", target),
                *("--document-name", "AWS-StartPortForwardingSessionToRemoteHost"),
                *("--parameters", json.dumps(parameters)),
                *("--region", region_of(outputs)),
            ]
            sessions.append(subprocess.Popen(command))  # noqa: S603
            say(f"{name}: http://localhost:{port}")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except FileNotFoundError:
        raise StackError(
            "a tunnel needs the AWS CLI and its Session Manager plug-in on this machine"
        ) from None
    finally:
        for session in sessions:
            session.terminate()
        cloud.session.client("ecs").stop_task(
            cluster=cloud.tasks["cluster"], task=arn, reason="make ui has ended"
        )
        say("the tunnel is closed")


def _target(cloud: EcsTasks, arn: str) -> str:
    """Systems Manager's name for the tunnel's container, once its agent answers."""

    def answers(task: dict[str, Any]) -> bool:
        agents = task["containers"][0].get("managedAgents", [])
        return any(agent["lastStatus"] == "RUNNING" for agent in agents)

    task = wait_until(
        lambda task: answers(task) or stopped(task),
        lambda: cloud.describe(arn),
        seconds=180,
        every=3,
        sleep=cloud.clock,
    )
    if stopped(task):
        raise StackError(f"the tunnel stopped: {task.get('stoppedReason')}")
    if not answers(task):
        raise StackError("the tunnel's agent doesn't answer after three minutes")
    cluster = cloud.tasks["cluster"].rsplit("/", 1)[1]
    return f"ecs:{cluster}_{arn.rsplit('/', 1)[1]}_{task['containers'][0]['runtimeId']}"
