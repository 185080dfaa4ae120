"""What is asked of the pipeline: rates, windows, shares."""

import math
from dataclasses import dataclass
from datetime import timedelta

from pipelines.config import Config, Partitioning
from pipelines.errors import ConfigError
from pipelines.sizing.costs import MEASURED, Provider

_SHARES = ("late_share", "cold_share")
_FROM_ZERO = ("exposures_per_second", "outcomes_per_second")
# Beyond these the arithmetic goes on, but means nothing.
_BOUNDS = {
    "exposures_per_second": 1e9,
    "outcomes_per_second": 1e9,
    "headroom": 100.0,
    "core_speed": 100.0,
    "exposure_bytes": 1e7,
    "outcome_bytes": 1e7,
    "cores_per_executor": 1024,
}
_LEAST = {"core_speed": 0.01}
_OPTIONS = {
    "exposures_per_second": "impressions-per-second",
    "outcomes_per_second": "playbacks-per-second",
    "exposure_bytes": "impression-bytes",
    "outcome_bytes": "playback-bytes",
}


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Rates are means over a day, of accepted events; the peak is `headroom` times as high. `late_share` is of each stream;
    `cold_share` of the outcomes: those without a match within the hot window, with or without one further back. `trigger` and
    `settle_every` are the shortest intervals to plan with, `max_trigger` and `max_settle_every` the longest. Bytes are of an
    event as JSON. Raises ConfigError, with the option's name, for what cannot be."""

    exposures_per_second: float
    outcomes_per_second: float
    attribution_window: timedelta = timedelta(hours=6)
    hot_window: timedelta = timedelta(minutes=30)
    watermark_delay: timedelta = timedelta(minutes=10)
    trigger: timedelta = timedelta(seconds=10)
    max_trigger: timedelta = timedelta(minutes=1)
    settle_every: timedelta = timedelta(minutes=1)
    max_settle_every: timedelta = timedelta(hours=1)
    late_share: float = 0.01
    late_reach: timedelta = timedelta(hours=3)
    cold_share: float = 0.2
    headroom: float = 2.0
    core_speed: float = 1.0
    cores_per_executor: int = 8
    exposure_bytes: float = MEASURED.exposure_json_bytes
    outcome_bytes: float = MEASURED.outcome_json_bytes
    provider: Provider = "rocksdb"
    exposure_partition_by: Partitioning = "date"
    outcome_partition_by: Partitioning = "date"

    def __post_init__(self) -> None:
        for name, most in _BOUNDS.items():
            least, value = (0.0 if name in _FROM_ZERO else _LEAST.get(name, 1.0)), getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                raise _refusal(name, value, f"from {least:g} to {most:,.0f}")
        for name in _SHARES:
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise _refusal(name, value, "from 0 to 1")

    @property
    def settled_share(self) -> float:
        """Of the outcomes, those that settle looks up: late, without a hot match, touched by a late exposure."""
        touched = MEASURED.touched_per_late * self.late_share if self.exposures_per_second else 0.0
        return min(1.0, self.late_share + self.cold_share + touched)


def _refusal(name: str, value: float, allowed: str) -> ConfigError:
    return ConfigError(f"--{_OPTIONS.get(name, name).replace('_', '-')}: {value} cannot be; allowed: {allowed}")


def demand_of(config: Config, exposures: float, outcomes: float | None, **others: object) -> Demand:
    """The demand with a configuration's windows and triggers; a tenth as many outcomes as exposures, unless given. `others` are
    fields of Demand; None leaves the default."""
    given = {name: value for name, value in others.items() if value is not None}
    return Demand(
        exposures_per_second=exposures,
        outcomes_per_second=exposures / 10 if outcomes is None else outcomes,
        attribution_window=config.join.attribution_window,
        hot_window=config.join.hot_window,
        watermark_delay=config.join.watermark_delay,
        trigger=config.trigger.every,
        settle_every=config.settle.every,
        provider=config.state_store.provider,
        exposure_partition_by=config.exposure.partition_by or config.partition_by,
        outcome_partition_by=config.outcome.partition_by or config.partition_by,
        **given,  # type: ignore[arg-type]
    )
