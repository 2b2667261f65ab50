"""Where the repository, its Pulumi program and what commands leave are."""

from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PROGRAM = REPO / "infra"
# What `make publish` writes and `make release` reads.
RELEASE_FILE = REPO / ".trainyard/release.json"
