"""A release: one commit's images, by digest. `make publish` writes it, `make release` reads it."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

Image = Annotated[str, Field(pattern=r"^([\w.:/-]+@)?sha256:[0-9a-f]{64}$")]


class Images(BaseModel, frozen=True, extra="forbid"):
    """Each image as `repository@sha256:...`."""

    flow: Image
    worker: Image
    mlflow: Image


class Release(BaseModel, frozen=True, extra="forbid"):
    """What is deployed together."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    tree: str = Field(pattern=r"^[0-9a-f]{40,64}$")
    """A hash of everything that a stack is made of: equal, and there is nothing to deploy."""
    images: Images
    prefect: str = Field(default="", pattern=r"^(\d[\w.]*)?$")
    """Prefect's version in it; empty in what an earlier tool noted."""

    def same(self, other: "Release") -> bool:
        """Whether they are one release, though a record may not have Prefect's version."""
        return self.model_copy(update={"prefect": other.prefect}) == other

    @classmethod
    def read(cls, path: Path) -> "Release":
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write it so that nobody ever reads half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(self.model_dump_json(indent=2) + "\n")
        part.replace(path)


class ReleaseRecord(BaseModel, frozen=True, extra="forbid"):
    """What a stack was last told to run, as it is noted in the stack."""

    release: Release
    completed: bool
    """Its smoke run completed. Until then somebody has to finish it, or go back."""
