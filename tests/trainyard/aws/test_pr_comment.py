"""`make preview BASE=`: what a pull request's comment says, and never says."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.trainyard.aws.fake_pulumi import fake_pulumi
from trainyard.aws import pr_comment
from trainyard.aws.preview import Change, PreviewResult

PREFECT = """
pull: [{prefect.deployments.steps.set_working_directory: {directory: /app}}]
deployments:
  - name: train
    entrypoint: flows/a.py:train
    parameters: {trials: 20}
    schedules: [{slug: monthly, cron: "0 6 5 * *"}]
  - name: score
    entrypoint: flows/b.py:score
"""


def text(*sections: Iterator[str]) -> str:
    return pr_comment.comment("dev", *sections)


def deployments(before: str, after: str) -> Iterator[str]:
    with TemporaryDirectory() as folder:
        files = Path(folder, "before"), Path(folder, "after")
        for file, written in zip(files, (before, after), strict=True):
            file.write_text(written)
        yield from pr_comment.deployments(*files)


def foreseen(*found: Change, **more: Any) -> PreviewResult:
    return PreviewResult(
        found, more.get("violations", ()), more.get("failed", False), more.get("problems", ())
    )


def test_nothing_changed_is_one_line_under_the_mark() -> None:
    said = text(
        pr_comment.resources("dev", foreseen()),
        pr_comment.cost({"Worker": 7.0}, {"Worker": 7.0}),
        deployments(PREFECT, PREFECT),
    )
    mark, line = said.splitlines()
    assert mark == "<!-- trainyard: preview of dev -->"
    assert "no changes" in line


def test_the_loss_of_data_is_called_out_first() -> None:
    found = foreseen(
        Change("create", "aws:sqs/queue:Queue", "trainyard-dev-queue"),
        Change("replace", "aws:rds/instance:Instance", "trainyard-dev-db", ("username",)),
        Change("update", "aws:iam/role:Role", "trainyard-dev-role", ("description",)),
    )
    lines = [line for line in text(pr_comment.resources("dev", found)).splitlines() if line]
    assert "replace of what holds data**: rds/instance db, because of username" in lines[3]
    assert "1 to replace, 1 to update, 1 to create" in lines[4]
    assert lines[-3:] == [
        "| replace | rds/instance db | username |",
        "| update | iam/role role | description |",
        "| create | sqs/queue queue |  |",
    ]


def test_broken_rules_and_a_failed_preview_are_told_beside_the_rest() -> None:
    broken = foreseen(failed=True, violations=("mandatory: tagged (queue): has no tag",))
    said = text(pr_comment.resources("dev", broken), deployments(PREFECT, PREFECT))
    assert "mandatory: tagged (queue): has no tag" in said
    assert "**Deployments**: no changes" in said
    failed = foreseen(failed=True, problems=("trainyard:profile = huge: should be minimal",))
    assert "profile = huge" in text(pr_comment.resources("dev", failed))


def test_dollars_are_told_where_they_differ() -> None:
    before, after = (
        {"Worker": 7.0, "Database": 14.0},
        {"Worker": 7.0, "Database": 26.5, "NAT": 36.5},
    )
    said = text(pr_comment.cost(before, after))
    assert "21.00 → 70.00 $ a month (+49.00)" in said
    assert "| Database | 14.00 | 26.50 | +12.50 |" in said
    assert "| NAT | 0.00 | 36.50 | +36.50 |" in said
    assert "Worker" not in said


def test_a_base_that_cannot_say_its_price_is_no_obstacle() -> None:
    assert "the base can't say" in text(pr_comment.cost(None, {"Worker": 7.0}))


def test_deployments_that_came_went_and_changed() -> None:
    after = (
        PREFECT.replace("0 6 5", "0 7 5")
        .replace("{trials: 20}", "{trials: 25}")
        .replace("name: score", "name: grade")
    )
    said = text(deployments(PREFECT, after))
    assert "| added | grade | `flows/b.py:score` |" in said
    assert "| removed | score | `flows/b.py:score` |" in said
    assert "parameters.trials: `20` → `25`" in said
    assert "schedules[monthly].cron: `0 6 5 * *` → `0 7 5 * *`" in said


def test_what_all_deployments_share_changes_all_of_them() -> None:
    said = text(deployments(PREFECT, PREFECT.replace("/app", "/srv")))
    assert said.count("directory: `/app` → `/srv`") == 2


def test_a_schedule_that_goes_is_one_change_and_shown_whole() -> None:
    said = text(deployments(PREFECT, PREFECT.replace("    schedules:", "    # schedules:")))
    assert 'schedules[monthly]: `{"cron": "0 6 5 * *"' in said
    assert said.count("→ nothing") == 1


def test_what_a_removed_line_goes_back_to_is_told() -> None:
    before = PREFECT.replace("parameters:", "paused: true\n    parameters:")
    assert "paused: `true` → `false` |" in text(deployments(before, PREFECT))


def test_text_is_told_from_the_number_that_it_looks_like() -> None:
    said = text(deployments(PREFECT, PREFECT.replace("trials: 20", "trials: '20'")))
    assert 'parameters.trials: `20` → `"20"`' in said


@pytest.mark.parametrize(
    "broken",
    [
        "deployments: [",
        "",
        "[]",
        "deployments: [{name: x, tags: 1}]",
        "deployments: [{name: x, schedules: [{}]}]",
        "deployments: [{name: x, triggers: [{threshold: many}]}]",
    ],
)
def test_a_file_that_cannot_be_read_is_told_on_both_sides(broken: str) -> None:
    assert "`make lint` says why" in text(deployments(PREFECT, broken))
    assert "the base's prefect.yaml can't be read" in text(deployments(broken, PREFECT))


def test_a_base_without_the_file_adds_all(tmp_path: Path) -> None:
    (tmp_path / "after").write_text(PREFECT)
    said = text(pr_comment.deployments(tmp_path / "before", tmp_path / "after"))
    assert said.count("| added |") == 2


def test_a_comment_is_cut_where_github_would_refuse_it() -> None:
    found = [Change("create", "aws:sqs/queue:Queue", f"queue-{n}") for n in range(5000)]
    said = text(pr_comment.resources("dev", foreseen(*found)))
    assert len(said) < 65_536
    assert "cut here" in said.splitlines()[-1]


# --- as it is typed -------------------------------------------------------------------------------
def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.server  # it takes the Pulumi program's environment, which `make test` builds
def test_a_branch_is_compared_with_the_commit_that_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ROOT / ".venv-infra").exists():
        pytest.skip("there is no Pulumi environment: make .venv-infra/.infra")
    fake_pulumi(tmp_path, monkeypatch)  # nothing changes of the resources
    clone = tmp_path / "clone"
    for part in ("infra", "trainyard"):
        shutil.copytree(ROOT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", clone)
    (clone / ".venv-infra").symlink_to(ROOT / ".venv-infra")
    (clone / ".gitignore").write_text(".venv-infra\n.trainyard\n__pycache__\n")
    git(clone, "init", "-q", "-b", "main")
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "base")
    git(clone, "checkout", "-qb", "branch")
    settings = clone / "infra/Pulumi.dev.yaml"
    settings.write_text(settings.read_text().replace("minimal", "standard"))
    git(clone, "commit", "-qam", "larger")
    git(clone, "checkout", "-q", "main")
    (clone / "prefect.yaml").write_text("deployments: []\n")  # later on main: not this branch's
    git(clone, "commit", "-qam", "later")
    git(clone, "checkout", "-q", "branch")

    def preview(base: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "trainyard", "preview", "dev", "--base", base],
            cwd=clone,
            env={**os.environ, "PYTHONPATH": str(clone)},
            capture_output=True,
            text=True,
        )

    done = preview("main")
    assert done.returncode == 0, done.stderr
    said = (clone / ".trainyard/preview.md").read_text()
    assert "| Network | 0.00 | 36.50 | +36.50 |" in said
    assert "**Deployments**: no changes" in said
    assert said.strip() == done.stdout.strip()
    listed = subprocess.run(["git", "worktree", "list"], cwd=clone, capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1, "a worktree is left"

    unknown = preview("origin/nowhere")
    assert unknown.returncode == 1
    assert "git fetch origin" in unknown.stderr
    assert "Traceback" not in unknown.stderr
