"""What a bench of fits measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Seconds per stage, and errors in minutes on the rows that the tutorial validates on."""

    features_seconds: float
    """Reading both months, and everything up to the numbers that a model takes."""
    linear_seconds: float
    xgboost_seconds: float
    linear_rmse: float
    xgboost_rmse: float

    @property
    def seconds(self) -> float:
        """All stages."""
        return self.features_seconds + self.linear_seconds + self.xgboost_seconds
