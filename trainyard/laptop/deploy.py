"""`make deploy` on a laptop: register the stack, then deploy its flows."""

import re
import subprocess
import sys

from trainyard.contract.outputs import StackOutputs
from trainyard.laptop.stack import Stack
from trainyard.prefect.deploy import PROBLEMS
from trainyard.tools.console import console, done
from trainyard.tools.errors import StackError

_DEPLOYED = re.compile(r"Deployment '([^']+)' successfully created")
_REMOVED = re.compile(r"Deployment '([^']+)' removed")


def register_and_deploy(stack: Stack) -> None:
    """What `make deploy` does to a stack that is up.

    Raises:
        StackError: it isn't up, Prefect refuses, or prefect.yaml has problems.
    """
    outputs = stack.outputs()
    with console.status("telling Prefect about the stack"):
        changed = stack.register(outputs)
    done(f"{'register':<9} {changed}")
    deploy(stack, outputs)


def deploy(stack: Stack, outputs: StackOutputs) -> None:
    """Write prefect.yaml's deployments to the stack's Prefect.

    Raises:
        StackError: prefect.yaml has problems, or Prefect refuses it.
    """
    environment = stack.environment() | stack.deploy_variables(outputs)
    environment["PREFECT_API_URL"] = outputs.prefect_api_url
    environment["COLUMNS"] = "500"  # Prefect would break its lines where ours can't be found
    with console.status("deploying"):
        result = subprocess.run(
            [sys.executable, "-m", "trainyard.prefect.deploy"],
            env=environment,
            cwd=stack.code,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    output = (result.stdout + result.stderr).strip()
    if result.returncode == PROBLEMS:
        raise StackError(f"nothing was deployed:\n{output}")
    deployed = list(dict.fromkeys(_DEPLOYED.findall(output)))
    if result.returncode or not deployed:
        raise StackError(f"`prefect deploy --all` failed:\n{output}")
    done(f"{'deployed':<9} {', '.join(deployed)}")
    for name in _REMOVED.findall(output):
        done(f"{'removed':<9} {name}: prefect.yaml has it no longer")
