"""What the table of a bench must hold, computed by DuckDB from the lines as they were sent, and how far a result is from it.

    connection = duckdb.connect()
    truth(connection, ["impressions.jsonl"], ["playbacks.jsonl"], window_hours=6)
    counts = compare(connection, "out/*.parquet")

Shares no code with the pipeline: it reads lines, judges them, and finds the last touch by an as-of join (DESIGN section 2). The
lines are those that `rejoin generate` writes with conf/playback.yml, and no conflicting duplicates are among them (of
those, the playback with the earliest time would count).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import duckdb

IMPRESSION = {
    "impression_id": "VARCHAR",
    "event_time": "TIMESTAMP",
    "profile_id": "VARCHAR",
    "title_id": "VARCHAR",
    "row_id": "VARCHAR",
    "position": "INTEGER",
    "device": "VARCHAR",
    "model_version": "VARCHAR",
}
PLAYBACK = {
    "playback_id": "VARCHAR",
    "event_time": "TIMESTAMP",
    "profile_id": "VARCHAR",
    "title_id": "VARCHAR",
    "device": "VARCHAR",
    "seconds_watched": "INTEGER",
}
CARRIED = ("row_id", "position", "device", "model_version")
MAX_FUTURE_SKEW = timedelta(minutes=5)

# The types of JSON values that a column takes; an absent or null one is null.
_JSON_TYPES = {
    "VARCHAR": "'VARCHAR'",
    "INTEGER": "'UBIGINT', 'BIGINT'",
    "TIMESTAMP": "'VARCHAR', 'UBIGINT', 'BIGINT'",
}
# ISO-8601 with an offset, or epoch milliseconds.
_ISO = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?([Zz]|[+-]\d{2}(:?\d{2})?)$"
_EPOCH_MILLIS = r"^-?\d{1,15}$"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Playbacks by what became of them. `expected` = `right` + `wrong` + `unattributed` + `lost`.

    right: the same time, exposure and carried values. wrong: another exposure (or one where there is none), or another value.
    unattributed: no exposure, where there is one. lost: no row. extra: ids that nobody sent. duplicates: rows beyond the first
    that equal another row in every column that is compared. rows: all that were found, before the reduction to last touch.
    """

    expected: int
    right: int
    wrong: int
    unattributed: int
    lost: int
    extra: int
    duplicates: int
    rows: int

    @property
    def exact(self) -> bool:
        """One right row for each playback that was sent, and nothing else."""
        return self.expected > 0 and self.expected == self.right == self.rows


def truth(
    connection: duckdb.DuckDBPyConnection,
    impressions_files: Sequence[str],
    playbacks_files: Sequence[str],
    window_hours: float,
    *,
    now: datetime | None = None,
) -> None:
    """Make the table `expected`: playback_id, event_time, exposure_id, exposure_time (UTC), and the carried values as exposure_*.

    One row for each playback id that was accepted. A time later than `now` (aware; the wall clock, if not given) by more than
    MAX_FUTURE_SKEW is not accepted.
    """
    latest = (now or datetime.now(timezone.utc)).astimezone(timezone.utc).replace(tzinfo=None) + MAX_FUTURE_SKEW
    _accept(connection, "sent_impressions", impressions_files, IMPRESSION, "impression_id", latest)
    _accept(connection, "sent_playbacks", playbacks_files, PLAYBACK, "playback_id", latest)
    carried = ", ".join(f"{c} AS exposure_{c}" for c in CARRIED)
    inside = f"s.exposure_time >= p.event_time - INTERVAL {round(window_hours * 3600)} SECOND"
    chosen = ", ".join(
        f"CASE WHEN {inside} THEN s.{c} END AS {c}" for c in ("exposure_id", "exposure_time", *_exposure_carried())
    )
    ties = _rank("impression_id", *CARRIED)
    # An as-of join takes any one of the impressions of a time: so there is one for each key and time, the one that ties prefer.
    connection.execute(f"""
        CREATE OR REPLACE TABLE expected AS
        WITH plays AS (
            SELECT playback_id, event_time, profile_id, title_id FROM sent_playbacks
            QUALIFY row_number() OVER (PARTITION BY playback_id ORDER BY event_time) = 1),
        shown AS (
            SELECT profile_id, title_id, event_time AS exposure_time, impression_id AS exposure_id, {carried}
            FROM sent_impressions WHERE profile_id IS NOT NULL AND title_id IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY profile_id, title_id, event_time ORDER BY {ties}) = 1)
        SELECT p.playback_id, p.event_time, {chosen}
        FROM plays p ASOF LEFT JOIN shown s
            ON s.profile_id = p.profile_id AND s.title_id = p.title_id AND s.exposure_time <= p.event_time
    """)
    connection.execute("DROP TABLE sent_impressions")
    connection.execute("DROP TABLE sent_playbacks")


def compare(connection: duckdb.DuckDBPyConnection, parquet_glob: str) -> Counts:
    """Hold Parquet files with the columns of `expected` (others are not looked at) against it; `truth` has run before.

    The files may have every matching pair, or several rows of an id: of each id the last touch counts, by exposure time and id
    (then by carried values, nulls smallest; a row with no exposure comes last).
    """
    columns = ["playback_id", "event_time", "exposure_id", "exposure_time", *_exposure_carried()]
    connection.execute("SET TimeZone = 'UTC'")  # a time with a zone becomes one without, in UTC
    times = ("event_time", "exposure_time")
    read = ", ".join(f"{c}::TIMESTAMP AS {c}" if c in times else c for c in columns)
    same = " AND ".join(f"f.{c} IS NOT DISTINCT FROM e.{c}" for c in columns)
    rank = _rank("exposure_time", "exposure_id", *_exposure_carried())
    found = f"""
        WITH pairs AS (SELECT {read} FROM read_parquet('{parquet_glob}')),
        counted AS (SELECT *, count(*) AS times FROM pairs GROUP BY ALL),
        found AS (
            SELECT *, sum(times) OVER id AS of_id, sum(times - 1) OVER id AS again FROM counted
            WINDOW id AS (PARTITION BY playback_id)
            QUALIFY row_number() OVER (PARTITION BY playback_id ORDER BY {rank}) = 1)
        SELECT
            count(e.playback_id),
            count(*) FILTER ({same} AND e.playback_id IS NOT NULL),
            count(*) FILTER (e.playback_id IS NOT NULL AND f.of_id IS NOT NULL AND NOT ({same})),
            count(*) FILTER (e.exposure_id IS NOT NULL AND f.of_id IS NOT NULL AND f.exposure_id IS NULL),
            count(*) FILTER (f.of_id IS NULL),
            count(*) FILTER (e.playback_id IS NULL),
            coalesce(sum(f.again), 0)::BIGINT,
            coalesce(sum(f.of_id), 0)::BIGINT
        FROM found f FULL JOIN expected e ON e.playback_id = f.playback_id
    """
    expected, right, differ, unattributed, lost, extra, duplicates, rows = connection.execute(found).fetchall()[0]
    return Counts(
        expected=expected,
        right=right,
        wrong=differ - unattributed,
        unattributed=unattributed,
        lost=lost,
        extra=extra,
        duplicates=duplicates,
        rows=rows,
    )


def _exposure_carried() -> list[str]:
    return [f"exposure_{c}" for c in CARRIED]


def _rank(*columns: str) -> str:
    """The greatest first, nulls smallest."""
    return ", ".join(f"{c} DESC NULLS LAST" for c in columns)


def _accept(
    connection: duckdb.DuckDBPyConnection, table: str, files: Sequence[str], columns: dict[str, str], id: str, latest: datetime
) -> None:
    """Make a table of the events that are accepted.

    Accepted is a line that is one JSON object, whose id and time are there, whose values are of their columns' types, and whose
    time is not later than `latest`.
    """
    paths = ", ".join(f"'$.{name}'" for name in columns)
    fits = " AND ".join(_fits(n, kind) for n, kind in enumerate(columns.values(), 1))
    values = ", ".join(f"{_value(f'texts[{n}]', kind)} AS {name}" for n, (name, kind) in enumerate(columns.items(), 1))
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE {table} AS
        WITH lines AS (
            SELECT line FROM read_csv(?, columns = {{'line': 'VARCHAR'}}, header = false, auto_detect = false, delim = '\x01',
                quote = '', escape = '', new_line = '\\n', max_line_size = 16777216, null_padding = false)
            WHERE json_valid(line)),
        parsed AS (
            SELECT json_type(line, [{paths}]) AS types, json_extract_string(line, [{paths}]) AS texts FROM lines
            WHERE json_type(line) = 'OBJECT'),
        typed AS (SELECT {values} FROM parsed WHERE {fits})
        SELECT * FROM typed WHERE {id} IS NOT NULL AND event_time <= ?
        """,
        [list(files), latest],
    )


def _fits(n: int, kind: str) -> str:
    """Whether value `n` is absent, null, or of the column's type and in its range."""
    null = f"types[{n}] IS NULL OR types[{n}] = 'NULL'"
    return f"({null} OR (types[{n}] IN ({_JSON_TYPES[kind]}) AND {_value(f'texts[{n}]', kind)} IS NOT NULL))"


def _value(text: str, kind: str) -> str:
    if kind != "TIMESTAMP":
        return f"TRY_CAST({text} AS {kind})"
    iso = f"make_timestamp(epoch_us(TRY_CAST(replace(upper({text}), ',', '.') AS TIMESTAMPTZ)))"
    epoch = f"make_timestamp(TRY_CAST({text} AS BIGINT) * 1000)"
    return (
        f"CASE WHEN regexp_matches({text}, '{_EPOCH_MILLIS}') THEN {epoch} WHEN regexp_matches({text}, '{_ISO}') THEN {iso} END"
    )
