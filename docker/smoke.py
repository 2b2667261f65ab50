"""Runs in the flow image: how long each entrypoint takes to load, and what takes the room, as JSON.

`python - ATTEMPTS ENTRYPOINT... < docker/smoke.py`
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import distributions
from importlib.util import cache_from_source
from pathlib import Path

# The placeholder is what Prefect makes of a flow that can't be imported.
# A run goes on from here: what Python does at a process's end isn't counted.
LOAD = """
import os, sys
from prefect.flows import load_flow_from_entrypoint
load_flow_from_entrypoint(sys.argv[1], use_placeholder_flow=False)
os._exit(0)
"""


def seconds_to_load(entrypoint: str) -> tuple[float, float]:
    """What a fresh process needs before the flow could start: of a processor, and of the clock."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", LOAD, entrypoint], check=True)  # noqa: S603
    used = os.times()
    processor = used.children_user + used.children_system
    processor -= before.children_user + before.children_system
    return processor, time.perf_counter() - started


def package_sizes() -> Counter[str]:
    """Bytes by package, with its bytecode."""
    sizes: Counter[str] = Counter()
    for package in distributions():
        for file in package.files or []:
            path = Path(str(package.locate_file(file)))
            bytecode = Path(cache_from_source(str(path)))
            paths = (path, bytecode) if path.suffix == ".py" else (path,)
            sizes[package.name] += sum(each.stat().st_size for each in paths if each.exists())
    return sizes


def main() -> None:
    """Print both."""
    attempts, *entrypoints = sys.argv[1:]
    loads = {name: min(seconds_to_load(name) for _ in range(int(attempts))) for name in entrypoints}
    print(json.dumps({"loads": loads, "packages": package_sizes().most_common()}))


main()
