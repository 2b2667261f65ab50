"""What the Deployer's task runs, inside the VPC: register the stack, then deploy all flows.

`python -m infra.deployer PARAMETER [--register-only]`; PARAMETER holds the stack's StackOutputs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3

from infra.outputs import StackOutputs, deploy_environment


def read_outputs(parameter: str) -> StackOutputs:
    """The stack's outputs, from Systems Manager."""
    found = boto3.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
    return StackOutputs.model_validate_json(found)


def register(outputs: StackOutputs) -> None:
    """Tell Prefect of the stack's work pool, variables, blocks and limits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outputs.json"
        path.write_text(outputs.model_dump_json())
        _run(sys.executable, "-m", "infra.register", "--outputs", str(path))


def deploy(outputs: StackOutputs, image: str) -> None:
    """Make every deployment of prefect.yaml as it stands there."""
    environment = deploy_environment(outputs, image)
    _run(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", environment=environment)


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})})  # noqa: S603


def main() -> None:
    """Register, then deploy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parameter")
    parser.add_argument("--register-only", action="store_true")
    given = parser.parse_args()
    outputs = read_outputs(given.parameter)
    register(outputs)
    if not given.register_only:
        deploy(outputs, os.environ["TRAINYARD_IMAGE"])


if __name__ == "__main__":
    main()
