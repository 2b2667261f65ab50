"""`prefect deploy --all` as users type it, after a strict look at prefect.yaml.

Both import every flow, which takes most of their time: so one process does both.
"""

import re
import runpy
import subprocess
import sys
from pathlib import Path

from infra.laptop.console import console, done
from infra.laptop.stack import Stack, StackError
from infra.outputs import StackOutputs

_PROBLEMS = 3
_DEPLOYED = re.compile(r"Deployment '([^']+)' successfully created")


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
            [sys.executable, "-m", "infra.laptop.deploy"],
            env=environment,
            cwd=stack.code,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    output = (result.stdout + result.stderr).strip()
    if result.returncode == _PROBLEMS:
        raise StackError(f"nothing was deployed:\n{output}")
    deployed = list(dict.fromkeys(_DEPLOYED.findall(output)))
    if result.returncode or not deployed:
        raise StackError(f"`prefect deploy --all` failed:\n{output}")
    done(f"{'deployed':<9} {', '.join(deployed)}")


def main() -> None:
    """Look at prefect.yaml, then become `prefect --no-prompt deploy --all`."""
    from infra.lint_prefect_yaml import problems

    stack = Stack()
    if found := problems(Path("prefect.yaml"), stack.deploy_variables(stack.outputs())):
        print("\n".join(f"  {problem}" for problem in found))
        sys.exit(_PROBLEMS)
    sys.argv = ["prefect", "--no-prompt", "deploy", "--all"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
