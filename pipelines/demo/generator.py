"""What happens in a day: who sees what, who plays what, when each event arrives, and what goes wrong on the way.

A pure function of the parameters and the streams' schemas (numpy only, no Spark). Times are microseconds since the epoch,
UTC. Titles and profiles follow Zipf; the time from impression to outcome is log-normal with the median and the share within
30 minutes that FACTS of the design gives; most events arrive within seconds, a small share minutes to hours later.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np

from pipelines.config.model import Config, StreamConfig
from pipelines.model.time import iso, to_micros

SECOND = 1_000_000
DAY = 86_400 * SECOND


@dataclass(frozen=True, kw_only=True)
class DayModel:
    """What to generate: events of the first `hours` of a day, into which its course is then pressed.

    Shares are of all events of a stream; times are as the field names say. `profiles` (None: one for thirty impressions) and
    `titles` are how many there are; `zipf` is the exponent of the titles' popularity, and twice that of how busy profiles are:
    nobody sees as much as the most popular title is seen. A twin is the same title in another row of the page, shown in the same
    instant; an instant outcome comes in the very millisecond of its impression (it starts by itself).
    """

    day: date
    hours: float = 24.0
    seed: int = 7
    impressions: int = 60_000
    playbacks: int = 12_000
    profiles: int | None = None
    titles: int = 500
    zipf: float = 1.1
    median_delay: timedelta = timedelta(minutes=3)
    delay_sigma: float = 1.96  # ln(30 min / 3 min) / 1.175: some 88 % within 30 minutes
    search_share: float = 0.1
    twin_share: float = 0.04
    instant_share: float = 0.01
    late_share: float = 0.01
    duplicate_share: float = 0.005
    malformed_share: float = 0.001
    future_share: float = 0.0005


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One line as it reaches a stream: when (microseconds), and its bytes without the newline."""

    at: int
    line: str


@dataclass(frozen=True, kw_only=True)
class Day:
    """All arrivals of a day by stream name, each list in order of arrival."""

    arrivals: dict[str, list[Arrival]]


def generate_day(model: DayModel, config: Config) -> Day:
    """The arrivals of both streams of `config`. The same model and schemas give the same lines in the same order."""
    rng = np.random.Generator(np.random.PCG64(model.seed))
    start = to_micros(datetime.combine(model.day, datetime.min.time(), timezone.utc))
    # A title is shown to a profile more than once: further impressions repeat an earlier one some minutes later.
    first = max(1, model.impressions // 2) if model.impressions else 0
    again = rng.integers(0, max(1, first), model.impressions - first)
    once = start + _daytime(rng, first, model.hours)
    minutes_later = (rng.exponential(20 * 60, len(again)) * 1000).astype(np.int64) * 1000
    # Draws of their own, so that everything else of a seed stays what it is without them.
    edges = np.random.Generator(np.random.PCG64([model.seed, 1]))
    minutes_later[edges.random(len(again)) < 2 * model.twin_share] = 0
    shown = np.concatenate([once, once[again] + minutes_later]) if first else once
    profiles = model.profiles or max(2_000, model.impressions // 30)
    profile, title = _zipf(rng, first, profiles, model.zipf / 2), _zipf(rng, first, model.titles, model.zipf)
    profile, title = np.concatenate([profile, profile[again]]), np.concatenate([title, title[again]])

    # An outcome follows an impression by a log-normal delay, or comes out of nowhere (search).
    cause = rng.integers(0, max(1, model.impressions), model.playbacks)
    delay = np.exp(rng.normal(np.log(model.median_delay.total_seconds()), model.delay_sigma, model.playbacks)) * SECOND
    delay = np.minimum(delay, 6 * 3600 * SECOND).astype(np.int64) // 1000 * 1000
    delay[edges.random(model.playbacks) < model.instant_share] = 0
    searched = rng.random(model.playbacks) < model.search_share
    if model.impressions == 0:
        searched[:] = True
    at_search = start + _daytime(rng, model.playbacks, model.hours)
    title_search = _zipf(rng, model.playbacks, model.titles, model.zipf) + model.titles
    seen = shown[cause] if model.impressions else at_search
    played = np.where(searched, at_search, seen + delay)
    player = np.where(searched, _zipf(rng, model.playbacks, profiles, model.zipf / 2), profile[cause] if len(profile) else 0)
    played_title = np.where(searched, title_search, title[cause] if len(title) else 0)

    exposure, outcome = config.stream_name("exposure"), config.stream_name("outcome")
    return Day(
        arrivals={
            exposure: _arrivals(rng, model, config, exposure, shown, (profile, title)),
            outcome: _arrivals(rng, model, config, outcome, played, (player, played_title)),
        }
    )


def _daytime(rng: np.random.Generator, count: int, hours: float) -> np.ndarray:
    """Times of day with an evening peak: half uniform, half around 20:00; of a day that lasts `hours`."""
    flat = rng.random(count) * DAY
    evening = rng.normal(20 * 3600, 2 * 3600, count) * SECOND % DAY
    times = np.where(rng.random(count) < 0.5, flat, evening) * (hours / 24)
    return times.astype(np.int64) // 1000 * 1000


def _zipf(rng: np.random.Generator, count: int, values: int, exponent: float) -> np.ndarray:
    """`count` numbers below `values`, number k with weight 1 / (k + 1) ** exponent."""
    weights = 1.0 / np.arange(1, values + 1) ** exponent
    return np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count)).astype(np.int64)


def _arrivals(
    rng: np.random.Generator, model: DayModel, config: Config, name: str, times: np.ndarray, keys: Sequence[np.ndarray]
) -> list[Arrival]:
    stream, count = config.streams[name], len(times)
    late = rng.random(count) < model.late_share
    seconds = rng.exponential(4.0, count) * SECOND
    offline = np.exp(rng.normal(np.log(45 * 60), 1.2, count)) * SECOND
    arrive = times + np.where(late, np.minimum(offline, 10 * 3600 * SECOND), seconds).astype(np.int64)
    salt = rng.integers(0, 2**62, count)
    future = rng.random(count) < model.future_share
    times = np.where(future, times + 3650 * DAY, times)
    lines = list(_lines(stream, config.join.keys, name, times, keys, salt))
    arrivals = [Arrival(at=int(at), line=line) for at, line in zip(arrive, lines, strict=True)]

    again = np.flatnonzero(rng.random(count) < model.duplicate_share)
    gaps = np.minimum(np.exp(rng.normal(np.log(60), 2.0, len(again))), 10 * 3600) * SECOND
    arrivals += [Arrival(at=arrivals[i].at + int(gap), line=lines[i]) for i, gap in zip(again, gaps, strict=True)]

    broken = np.flatnonzero(rng.random(count) < model.malformed_share)
    kinds = rng.integers(0, len(_BREAKAGES), len(broken))
    for i, kind in zip(broken, kinds, strict=True):
        arrivals.append(Arrival(at=int(arrive[i]), line=_BREAKAGES[kind](lines[i], stream)))
    return sorted(arrivals, key=lambda arrival: (arrival.at, arrival.line))


def _lines(
    stream: StreamConfig,
    join_keys: Sequence[str],
    name: str,
    times: np.ndarray,
    keys: Sequence[np.ndarray],
    salt: np.ndarray,
) -> Iterator[str]:
    """Events as JSON: id and time, the two dimensions spread over the join keys, plausible values for the rest."""
    columns = {c.name: c.type for c in stream.columns}
    for row, (time, number) in enumerate(zip(times.tolist(), salt.tolist(), strict=True)):
        event: dict[str, Any] = {}
        for position, (column, kind) in enumerate(columns.items()):
            if column == stream.id:
                event[column] = number if kind in ("BIGINT", "INT") else f"{name[:1]}-{row:07d}-{number % 0xFFFF:04x}"
            elif column == stream.event_time:
                event[column] = iso(time)
            elif column in join_keys:
                index = min(join_keys.index(column), len(keys) - 1)
                event[column] = _key(column, kind, int(keys[index][row]))
            else:
                event[column] = _value(column, kind, (number >> (5 * (position % 11))) & 0x3FF)
        yield json.dumps(event, separators=(",", ":"))


def _key(column: str, kind: str, number: int) -> Any:
    return number if kind in ("BIGINT", "INT", "SMALLINT", "TINYINT") else f"{column.removesuffix('_id')}-{number}"


_WORDS: dict[str, Sequence[str]] = {
    "device": ("tv", "phone", "tablet", "web"),
    "row_id": ("trending", "continue", "because-you-watched", "new", "top-10"),
    "model_version": ("rank-41", "rank-42", "rank-42b"),
}


def _value(column: str, kind: str, number: int) -> Any:
    if kind in ("INT", "BIGINT", "SMALLINT", "TINYINT"):
        return number % 100
    if kind in ("DOUBLE", "FLOAT") or kind.startswith("DECIMAL"):
        return number % 100 + 0.25
    if kind == "BOOLEAN":
        return number % 2 == 0
    if kind == "STRING":
        words = _WORDS.get(column, [f"{column}-{k}" for k in range(8)])
        return words[number % len(words)]
    return None


def _without(line: str, column: str) -> str:
    return json.dumps({k: v for k, v in json.loads(line).items() if k != column}, separators=(",", ":"))


def _with(line: str, column: str, value: Any) -> str:
    return json.dumps({**json.loads(line), column: value}, separators=(",", ":"))


_BREAKAGES = (
    lambda line, stream: line[: len(line) // 2],
    lambda line, stream: _without(line, stream.id),
    lambda line, stream: _with(line, stream.id, None),
    lambda line, stream: _with(line, stream.event_time, "yesterday evening"),
    lambda line, stream: _with(line, stream.columns[-1].name, {"unexpected": [1, 2]}),
)
