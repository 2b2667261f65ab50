"""The settings of your stacks: Trainyard's, and your own.

`python -m infra.settings FILE` checks a stack's file. After a change here,
`python -m infra.estimate.generate` declares it in Pulumi.yaml and README.md.
"""

import sys
from pathlib import Path

import yaml

from trainyard.contract import settings as contract
from trainyard.contract.settings import SettingsError, as_texts, parse


class Settings(contract.Settings):
    """What a stack is told. Fields of your own go here: Pulumi.<stack>.yaml has them in camelCase,
    and components get them from environment.py.

    For example:
        lake_bucket: str = contract.setting("", "Where raw data lands.", "a bucket's name")
    """


def main() -> int:
    """Check one file; gives the exit code."""
    path = Path(sys.argv[1])
    stack = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
    try:
        config = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
        parse(stack, as_texts(config), Settings)
    except (OSError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
