"""Register a stack on AWS with Prefect, then deploy all flows.

`python -m trainyard.prefect PARAMETER [--register-only | --smoke | --backfill REQUEST]`; PARAMETER
holds the stack's StackOutputs, and TRAINYARD_IMAGE is what the deployments start from. `--smoke`
changes nothing: it runs the deployment `smoke/smoke` and waits for its end. `--backfill` runs one
for many months; its REQUEST is a Backfill in JSON. With Prefect Cloud all this happens where
`make deploy` is typed; a private Prefect server is told from inside its VPC, by the stack's
Deployer task.
"""

import argparse
import os
import subprocess
import sys

import boto3
import httpx
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from trainyard.contract.outputs import WEBHOOK, StackOutputs, deploy_environment
from trainyard.prefect.backfill import run_backfill
from trainyard.prefect.backfill_plan import BackfillError
from trainyard.prefect.backfill_request import Backfill
from trainyard.prefect.health import check_services, tell
from trainyard.prefect.register import RegisterError, register, summary
from trainyard.prefect.smoke import run_smoke


def read_outputs(parameter: str) -> StackOutputs:
    """The stack's outputs, from Systems Manager.

    After a rollback the reader is older than the writer, and may not know all of its fields.
    """
    found = boto3.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    return StackOutputs.model_validate_json(found, extra="ignore")


@retry(
    retry=retry_if_exception_type(httpx.TransportError),
    wait=wait_fixed(2),
    stop=stop_after_delay(180),
    retry_error_callback=lambda _: None,  # what follows says what is wrong
)
def wait_for_prefect(api_url: str) -> None:
    """Return when something answers there, or after three minutes.

    ECS calls a service steady when its task runs; a server listens some seconds later.
    """
    httpx.get(f"{api_url}/health", timeout=5)


def deploy(outputs: StackOutputs, image: str) -> int:
    """Make every deployment of prefect.yaml as it stands there; gives the exit code."""
    environment = {**deploy_environment(outputs, image), "PREFECT_API_URL": outputs.prefect_api_url}
    command = [sys.executable, "-m", "trainyard.prefect.deploy"]
    return subprocess.run(command, env={**os.environ, **environment}).returncode  # noqa: S603


def backfill(api_url: str, request: Backfill) -> int:
    """Run a deployment for many months; gives the exit code."""
    try:
        return run_backfill(api_url, request)
    except BackfillError as error:
        print(error, file=sys.stderr)
        return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parameter")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--register-only", action="store_true")
    what.add_argument("--smoke", action="store_true")
    what.add_argument("--backfill", type=Backfill.model_validate_json, metavar="REQUEST")
    what.add_argument("--doctor", action="store_true", help="look, and change nothing")
    given = parser.parse_args()
    outputs = read_outputs(given.parameter)
    if given.doctor:
        return tell(check_services(outputs))
    wait_for_prefect(outputs.prefect_api_url)
    if given.smoke:
        return run_smoke(outputs.prefect_api_url)
    if given.backfill:
        return backfill(outputs.prefect_api_url, given.backfill)
    if outputs.notify_webhook_secret and WEBHOOK not in os.environ:
        # The Deployer task has it from ECS; this is for where `make deploy` is typed.
        secrets = boto3.client("secretsmanager")
        found = secrets.get_secret_value(SecretId=outputs.notify_webhook_secret)
        os.environ[WEBHOOK] = found["SecretString"]
    try:
        print("register:", summary(register(outputs)), flush=True)
    except RegisterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if given.register_only else deploy(outputs, os.environ["TRAINYARD_IMAGE"])


if __name__ == "__main__":
    sys.exit(main())
