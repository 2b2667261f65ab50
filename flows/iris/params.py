"""The parameters of the stages, as params.yaml has them: DVC reads the same file."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROJECT = Path(__file__).parent
"""DVC's: with dvc.yaml, params.yaml and the data."""

Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Regularization = Annotated[float, Field(gt=0, le=1e6)]
Iterations = Annotated[int, Field(ge=1, le=100_000)]


class ParamsError(ValueError):
    """params.yaml can't be used: the message says what is wrong in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Split(_Strict):
    """Of the stage prepare."""

    test_size: Share
    seed: Seed


class Train(_Strict):
    """Of the stage train: a logistic regression's."""

    regularization: Regularization
    max_iter: Iterations


class Params(_Strict):
    """Of all stages."""

    split: Split
    train: Train

    @property
    def flat(self) -> dict[str, float]:
        """All of them by their names, for MLflow and for the flow."""
        return self.split.model_dump() | self.train.model_dump()

    def updated(self, **given: float | None) -> "Params":
        """These parameters, but for those that are given."""
        parts = self.model_dump()
        for part in parts.values():
            part |= {name: given[name] for name in part if given.get(name) is not None}
        return Params.model_validate(parts)


def load_params(file: Path = PROJECT / "params.yaml") -> Params:
    """Read params.yaml.

    Raises:
        ParamsError: it is missing, no YAML, or has a value that isn't allowed.
    """
    try:
        return Params.model_validate(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        )
        raise ParamsError(f"{file}: {wrong}; correct it") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fault = " ".join(str(error).split())
        raise ParamsError(f"{file} can't be read: {fault}; correct it") from error
