"""Requests to a served model while it is promoted, taken back, and a task of it is killed."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import httpx

from trainyard.rehearsal.emulator_session import RehearsalError, wait_until
from trainyard.rehearsal.stack import MODEL, Rehearsal, pool_of
from trainyard.tools.docker import docker

SERVICE = f"serve-{MODEL}"
TASKS = 2
RATE = 20  # requests a second
LOOKED_UP = 2.0  # seconds that a client keeps a service's addresses


@dataclass
class Sent:
    """What became of requests; each is tried at one task, then once more at the next."""

    answers: dict[str, int] = field(default_factory=dict)
    """How many, by the version that answered."""
    again: int = 0
    failed: list[str] = field(default_factory=list)


def serve_meanwhile(rehearsal: Rehearsal, act: Callable[[], str]) -> str:
    """Ask two tasks all the while: during `act`, and while one of them is killed and replaced.

    Returns:
        What `act` found, and what became of the requests.
    """
    before = len(rehearsal.tasks(SERVICE))
    scale(rehearsal, TASKS)
    with requests(rehearsal) as sent:
        found = act()
        killed = rehearsal.tasks(SERVICE)[0]["taskArn"]
        docker("kill", "-s", "KILL", rehearsal.container(killed))
        ready(rehearsal, TASKS, other_than=killed)
    scale(rehearsal, before)
    if sent.failed:
        raise RehearsalError(f"{len(sent.failed)} requests failed twice: {sent.failed[0]}")
    if len(sent.answers) < 2:
        raise RehearsalError(f"a promotion was not taken: {sent.answers}")
    prefix = f"flows/served/{MODEL}/"
    wait_until(lambda: rehearsal.keys(prefix), 90, lambda: f"no request is logged under {prefix}")
    total = sum(sent.answers.values())
    return f"{found}; {total} requests, 0 failed, {sent.again} tried again as a task was killed"


def scale(rehearsal: Rehearsal, count: int) -> None:
    """Have so many tasks, as autoscaling does."""
    rehearsal.aws("ecs").update_service(
        cluster=pool_of(rehearsal.outputs).cluster_arn,
        service=rehearsal.made["services"][SERVICE],
        desiredCount=count,
    )
    ready(rehearsal, count)


def ready(rehearsal: Rehearsal, count: int, other_than: str = "") -> None:
    """Wait until exactly so many tasks answer."""

    def all_there() -> bool:
        tasks = rehearsal.tasks(SERVICE)
        return len(tasks) == count == len(healthy(rehearsal)) and all(
            each["taskArn"] != other_than for each in tasks
        )

    wait_until(all_there, 180, lambda: f"not {count} healthy tasks of {SERVICE}")


def healthy(rehearsal: Rehearsal) -> list[dict[str, Any]]:
    """The tasks that Cloud Map names."""
    return [each for each in rehearsal.tasks(SERVICE) if each.get("healthStatus") == "HEALTHY"]


@contextmanager
def requests(rehearsal: Rehearsal) -> Iterator[Sent]:
    """Send requests at a steady rate, as a client that retries once."""
    url = httpx.URL(rehearsal.made["served"][MODEL])
    address = f"http://{rehearsal.address(SERVICE)}:{url.port}"
    headers = {"Host": url.netloc.decode()}  # by its own name, which resolves in containers only
    page = httpx.get(f"{address}/openapi.json", headers=headers, timeout=10).json()
    content = page["paths"]["/predict"]["post"]["requestBody"]["content"]
    body = content["application/json"]["example"]
    sent, stop = Sent(), Event()

    def send() -> None:
        looked_up, addresses = 0.0, list[str]()
        timeout = httpx.Timeout(10, connect=1)
        with httpx.Client(headers=headers, timeout=timeout) as client:
            while not stop.wait(1 / RATE):
                if time.monotonic() - looked_up > LOOKED_UP:
                    addresses = [rehearsal.address_of(each) for each in healthy(rehearsal)]
                    looked_up = time.monotonic()
                addresses.append(addresses.pop(0))
                urls = [f"http://{each}:{url.port}/predict" for each in addresses]
                _send(client, urls, body, sent)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            yield sent
        finally:
            stop.set()
        sending.result()


def _send(client: httpx.Client, tasks: list[str], body: object, sent: Sent) -> None:
    """Ask the first task; where it fails, the next one, or the same where there is no other."""
    for attempt in (0, 1):
        try:
            answer = client.post(tasks[attempt % len(tasks)], json=body)
            version = str(answer.raise_for_status().json()["version"])
        except httpx.HTTPError as error:
            fault = f"{type(error).__name__}: {error}"
        else:
            sent.answers[version] = sent.answers.get(version, 0) + 1
            sent.again += attempt
            return
    sent.failed.append(fault)
