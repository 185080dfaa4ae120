"""The join itself: a pure function of two DataFrames, streaming or not."""

from datetime import timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.model.durations import micros
from pipelines.model.errors import UnboundedStateError
from pipelines.model.events import Streams

WATERMARK_METADATA = "spark.watermarkDelayMs"


def hot_candidates(outcomes: DataFrame, exposures: DataFrame, streams: Streams, hot_window: timedelta) -> DataFrame:
    """Each outcome with each exposure of the hot window before it; or, where there is none, once with nulls.

    Matching: all keys equal and not null, `outcome_time - hot_window <= exposure_time <= outcome_time`, both ends inclusive.
    On streams both sides must carry a watermark on their event time (UnboundedStateError otherwise), so that Spark evicts
    an exposure once no outcome on time can match it any more, and emits and evicts an outcome once no exposure can.

    Returns the columns of `candidate_schema`.
    """
    for side, stream in ((outcomes, streams.outcome), (exposures, streams.exposure)):
        _require_bounded(side, stream.event_time, stream.name)
    left = outcomes.select(*(F.col(f.name) for f in streams.outcome.schema))
    right = exposures.where(streams.exposure.has_keys()).select(*streams.as_exposure(), *streams.exposure.aliased_keys())
    event_time = F.col(streams.outcome.event_time)
    recent = (F.col("exposure_time") <= event_time) & (F.col("exposure_time") >= event_time - interval(hot_window))
    return left.join(right, recent & streams.outcome.same_keys(), how="left_outer").select(*streams.candidate_schema.names)


def interval(duration: timedelta) -> Column:
    """A day-time interval literal. Spark derives the state's bounds from literals, not from arithmetic on epochs."""
    seconds, fraction = divmod(micros(duration), 1_000_000)
    return F.expr(f"INTERVAL '{seconds}.{fraction:06d}' SECOND")


def _require_bounded(side: DataFrame, event_time: str, name: str) -> None:
    if side.isStreaming and WATERMARK_METADATA not in side.schema[event_time].metadata:
        raise UnboundedStateError(
            f"join: stream {name} has no watermark on {event_time}, so its state would never be evicted; "
            "open it with pipelines.join.watermarks.on_time_rows"
        )
