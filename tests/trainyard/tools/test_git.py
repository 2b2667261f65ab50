"""A commit's files, as `make publish`, `make release` and `make preview` take them."""

import subprocess
from pathlib import Path

import pytest

from trainyard.tools.git import GitError, files_of, git


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("trainyard.tools.git.REPO", tmp_path)
    git("init", "-q")
    (tmp_path / "kept").write_text("committed\n")
    (tmp_path / ".gitignore").write_text("ignored\n")
    return tmp_path


def commit(folder: Path) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run(["git", *who, "commit", "-qm", "all"], cwd=folder, check=True)


def test_what_is_edited_or_ignored_is_no_part_of_a_commit(clone: Path) -> None:
    commit(clone)
    (clone / "kept").write_text("edited\n")
    (clone / "ignored").write_text("")
    with files_of("HEAD") as folder:
        assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "kept"]
        assert (folder / "kept").read_text() == "committed\n"
    assert not folder.exists()


def test_a_link_out_of_the_repository_is_named(clone: Path) -> None:
    (clone / "outside").symlink_to("/etc")
    commit(clone)
    with pytest.raises(GitError, match=r"HEAD can't be unpacked: 'outside'"), files_of("HEAD"):
        pass


def test_what_git_says_is_passed_on(clone: Path) -> None:
    with pytest.raises(GitError, match=r"git show nowhere` failed: fatal: .*nowhere"):
        git("show", "nowhere")
