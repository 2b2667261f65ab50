"""`prefect deploy --all` as users type it, after a strict look at prefect.yaml.

`python -m infra.deploy_flows`, in the repository's folder, with the variables of
`infra.outputs.deploy_environment`. Look and deployment both import every flow, which takes most of
their time: so one process does both.
"""

import os
import runpy
import sys
from pathlib import Path

from infra.outputs import DEPLOY_VARIABLES

# The exit code where prefect.yaml has problems, and nothing was deployed.
PROBLEMS = 3


def main() -> None:
    """Look at prefect.yaml, then become `prefect --no-prompt deploy --all`."""
    # Only now: it imports Prefect, which whoever starts this needn't wait for.
    from infra.lint_prefect_yaml import problems

    if found := problems(
        Path("prefect.yaml"), {name: os.environ[name] for name in DEPLOY_VARIABLES}
    ):
        print("\n".join(f"  {problem}" for problem in found))
        sys.exit(PROBLEMS)
    sys.argv = ["prefect", "--no-prompt", "deploy", "--all"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
