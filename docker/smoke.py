"""Runs in the flow image: how long each entrypoint takes to load, and what takes the room, as JSON.

`python - ENTRYPOINT... < docker/smoke.py`
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import distributions
from importlib.util import cache_from_source

LOAD = "import sys; from prefect.flows import load_flow_from_entrypoint as load; load(sys.argv[1])"
ATTEMPTS = 3


def seconds_to_load(entrypoint: str) -> tuple[float, float]:
    """What a fresh process needs before the flow could start: of the clock, and of a processor."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", LOAD, entrypoint], check=True)  # noqa: S603
    used = os.times()
    processor = used.children_user + used.children_system
    processor -= before.children_user + before.children_system
    return time.perf_counter() - started, processor


def package_sizes() -> Counter[str]:
    """Bytes by package, with its bytecode."""
    sizes: Counter[str] = Counter()
    for package in distributions():
        for file in package.files or []:
            path = package.locate_file(file)
            paths = [path, cache_from_source(str(path))] if file.suffix == ".py" else [path]
            sizes[package.name] += sum(os.stat(p).st_size for p in paths if os.path.exists(p))
    return sizes


def main() -> None:
    """Print both."""
    loads = {
        # the best of them: the first one reads from the disk, and others use this machine too
        name: [min(each) for each in zip(*(seconds_to_load(name) for _ in range(ATTEMPTS)))]
        for name in sys.argv[1:]
    }
    print(json.dumps({"loads": loads, "packages": package_sizes().most_common()}))


main()
