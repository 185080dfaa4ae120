"""Histograms of durations: buckets named by their upper end, inclusive."""

from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import functions as F

from pipelines.model.histogram import ENDS, NAMES, Histogram, cumulative

MINUTE = 60_000_000


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(-5, "0s"), (0, "0s"), (1, "1s"), (MINUTE, "1m"), (MINUTE + 1, "2m"), (90 * MINUTE, "1h30m"), (31 * 1440 * MINUTE, "more")],
)
def test_a_value_lies_in_the_bucket_that_ends_at_or_after_it(spark: Any, value: int, bucket: str) -> None:
    frame = spark.createDataFrame([(value,), (None,)], "v long")
    assert Histogram.from_cumulative(frame.agg(F.expr(cumulative("v"))).collect()[0][0]).counts == {bucket: 1}


def test_counts_are_in_the_order_of_the_buckets_and_empty_ones_left_out() -> None:
    histogram = Histogram.of({"more": 1, "1m": 5, "2m": 0, "0s": 1})
    assert (list(histogram.counts.items()), histogram.total) == ([("0s", 1), ("1m", 5), ("more", 1)], 7)


def test_what_covers_a_share() -> None:
    delays = Histogram.of({"1m": 90, "30m": 5, "6h": 4, "more": 1})
    assert [delays.covering(share) for share in (0.9, 0.95, 0.99, 1.0)] == [
        timedelta(minutes=1),
        timedelta(minutes=30),
        timedelta(hours=6),
        None,
    ]
    assert (delays.share_within(timedelta(minutes=30)), delays.share_within(timedelta(minutes=29))) == (0.95, 0.9)
    assert (Histogram.of({}).covering(0.9), Histogram.of({}).share_within(timedelta(1))) == (None, 0.0)


def test_an_unknown_bucket_is_refused() -> None:
    with pytest.raises(KeyError, match="7m"):
        Histogram.of({"7m": 1})


def test_the_ends_rise() -> None:
    assert list(ENDS) == sorted(set(ENDS))
    assert len(NAMES) == len(ENDS) + 1
