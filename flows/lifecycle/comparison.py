"""Whether a difference between two models is more than noise."""

import numpy as np
from pydantic import BaseModel

from flows.lifecycle.spec import Metric, Values

SAMPLES = 1000
CONFIDENCE = 0.95


class Comparison(BaseModel):
    """Two models on the same rows; a positive gain means that the challenger is better."""

    champion: float
    challenger: float
    gain: float
    low: float
    high: float
    """The interval that the gain lies in, with a confidence of 95 %."""

    @property
    def wins(self) -> bool:
        return self.low > 0


def compare(
    metric: Metric, true: Values, challenger: Values, champion: Values, seed: int = 0
) -> Comparison:
    """Compare predictions for the same n rows by a paired bootstrap over the rows.

    The percentile interval of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch.
    13: both models are scored on the same resampled rows, so what makes rows hard cancels out.
    Expanded as in Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), ch. 5: it
    would be too narrow for few rows.

    Args:
        metric: by which.
        true, challenger, champion: of n rows, at least two.
        seed: of the resampling.

    Raises:
        ValueError: the metric has no value on these rows, such as where all are of one class.
    """
    from scipy.stats import norm, t  # type: ignore[import-untyped]  # slow: only where it is used

    sign = 1 if metric.higher_is_better else -1

    def gain(rows: Values) -> float:
        ours, theirs = (
            metric.score(true[rows], predicted[rows]) for predicted in (challenger, champion)
        )
        return sign * (ours - theirs)

    random, count = np.random.default_rng(seed), len(true)
    if not np.isfinite(gain(np.arange(count))):
        raise ValueError(f"{metric.name} has no value on these {count:,} rows: compare on others")
    gains = [gain(random.integers(0, count, count)) for _ in range(SAMPLES)]
    edge = norm.cdf(-np.sqrt(count / (count - 1)) * t.ppf((1 + CONFIDENCE) / 2, count - 1))
    # a resample may lack a rare class, and says nothing then
    low, high = np.nanquantile(gains, [edge, 1 - edge])
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{metric.name} has no value on too many resamples of {count:,} rows")
    return Comparison(
        champion=metric.score(true, champion),
        challenger=metric.score(true, challenger),
        gain=gain(np.arange(count)),
        low=float(low),
        high=float(high),
    )
