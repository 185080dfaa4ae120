"""What a sample says of the whole."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.reconcile.diff import HourSummary

_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Of a share of the outcomes, taken by a hash of their ids, `outcomes` were compared and `differing` differ. With
    `confidence` at most `at_most` of all differ, as a share (the exact one-sided bound of Clopper and Pearson)."""

    share: float
    outcomes: int
    differing: int
    confidence: float
    at_most: float

    @classmethod
    def of(cls, share: float, hours: Sequence[HourSummary]) -> "Sampled":
        from scipy.stats import beta

        outcomes = sum(max(hour.batch_rows, hour.table_rows) for hour in hours)
        differing = min(outcomes, sum(hour.differences for hour in hours))
        bound = 1.0 if differing == outcomes else float(beta.ppf(_CONFIDENCE, differing + 1, outcomes - differing))
        return cls(share=share, outcomes=outcomes, differing=differing, confidence=_CONFIDENCE, at_most=bound)
