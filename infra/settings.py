"""The settings of your stacks: Trainyard's, and your own.

`python -m infra.settings FILE` checks a stack's file. After a change here, `make generate` declares
it in Pulumi.yaml and README.md.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainyard.contract import settings as contract
from trainyard.contract import stack_config
from trainyard.contract.stack_config import SettingsError, as_texts, read_config


class Settings(contract.Settings):
    """What a stack is told. Add fields of your own here; Pulumi.<stack>.yaml has them in camelCase
    (`trainyard:lakeBucket`), and parts.py hands them to the components that need them.

    People read the second argument; `pattern=`, `ge=` or a Literal type is what checks a value:
        lake_bucket: str = contract.setting(
            "Where raw data lands.", "a bucket's name", pattern=r"^$|^[a-z0-9][a-z0-9.-]+$"
        )

    What must hold between settings is a validator of pydantic's, which sees the settings above:
        @field_validator("lake_bucket")
        @classmethod
        def _has_sources(cls, value: str, info: ValidationInfo) -> str:
            if value and not info.data.get("source_prefixes"):
                raise contract.ContradictionError("empty, because there are no sourcePrefixes")
            return value
    """


def parse(stack: str, config: Mapping[str, Any]) -> Settings:
    """The settings of a stack, from its configuration as Pulumi hands it over.

    Raises:
        SettingsError: something is wrong with them; it has all of it.
    """
    return stack_config.parse(stack, config, Settings)


def main(arguments: list[str]) -> int:
    """Check one file; gives the exit code."""
    if len(arguments) != 1:
        print("python -m infra.settings infra/Pulumi.<stack>.yaml", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    stack = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
    try:
        config = read_config(path)
        parse(stack, as_texts(config))
    except (OSError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}: {len(config)} settings, no problems")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
