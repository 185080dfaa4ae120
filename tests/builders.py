"""Small builders, so that a test reads as a table: `play("p1", at="12:30")`."""

from typing import Any

DAY = "2026-01-10"


def iso(at: str, day: str = DAY) -> str:
    """`12:30`, `12:30:05`, `12:30:05.001`, or a whole ISO time, as ISO-8601 UTC."""
    if "T" in at:
        return at
    return f"{day}T{at if at.count(':') == 2 else at + ':00'}Z"


def hourly_waves(number: int) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Impressions and playbacks of so many hours from 10:00 on, an hour a wave; of two playbacks one is within the hot window."""
    at = [f"{10 + n}" for n in range(number)]
    return [([shown(f"i{h}", f"{h}:00")], [play(f"p{h}", f"{h}:05"), play(f"q{h}", f"{h}:50")]) for h in at]


def play(id: str, at: str, who: str | None = "ann", what: str | None = "matrix", **more: Any) -> dict[str, Any]:
    """A playback of the default configuration; every column present."""
    event = {"playback_id": id, "event_time": iso(at), "profile_id": who, "title_id": what}
    return {**event, "device": "tv", "seconds_watched": 60, **more}


def shown(id: str, at: str, who: str | None = "ann", what: str | None = "matrix", **more: Any) -> dict[str, Any]:
    """An impression of the default configuration; every column present."""
    event = {"impression_id": id, "event_time": iso(at), "profile_id": who, "title_id": what}
    return {**event, "row_id": "top-10", "position": 1, "device": "tv", "model_version": "m1", **more}
