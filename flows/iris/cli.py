"""Both options from a shell: `python -m flows.iris.cli repro`, `... train`, and `... dvc push`."""

import argparse
import os
import sys
from collections.abc import Sequence

from flows.iris import dvc
from flows.platform.settings import SettingsError, load_settings


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.iris.cli", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    repro = commands.add_parser("repro", help="DVC owns the stages, Prefect operates it")
    repro.add_argument("--fail-once", action="store_true", help="to see how it is tried again")
    repro.add_argument("--show-metrics", action=argparse.BooleanOptionalAction, default=True)
    train = commands.add_parser("train", help="Prefect owns the stages")
    for name in ("test-size", "seed", "regularization", "max-iter"):
        train.add_argument(f"--{name}", default=argparse.SUPPRESS, help="not params.yaml's")
    typed = commands.add_parser("dvc", help="a command of DVC, with the artifact store as remote")
    typed.add_argument("arguments", nargs=argparse.REMAINDER)
    # argparse would take an option that comes first for one of its own
    own = arguments[:1] if arguments[:1] == ["dvc"] else arguments
    given = vars(parser.parse_args(own))
    match given.pop("command"):
        case "repro":
            from flows.iris.repro import dvc_repro

            state = dvc_repro(**given, return_state=True)
        case "train":
            from flows.iris.train import iris_train

            state = iris_train(**given, return_state=True)
        case _:
            with dvc.project() as folder:
                dvc.run(folder, load_settings().artifact_store, *arguments[1:])
            return os.EX_OK
    return os.EX_OK if state.is_completed() else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (dvc.DvcError, dvc.DvcUnusableError, SettingsError) as error:
        sys.exit(str(error))
