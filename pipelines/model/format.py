"""Figures as people read them; where a program reads them, they stay numbers."""

from collections.abc import Mapping

LINE_WIDTH = 98
"""The longest line of running text in a report for a terminal."""


def size(count: float) -> str:
    """Bytes for people.

    >>> size(3 * 2**40)
    '3.0 TiB'
    """
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, _ = value / 1024, units.pop(0)
    return f"{value:,.0f} B" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def about(seconds: float) -> str:
    """A duration for people: `0.4 s`, `95 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.

    >>> about(11_100)
    '3 h 5 min'
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 2 * 1440:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def judged(accepted: int, quarantined: int, reasons: Mapping[str, int], note: str = "") -> str:
    """How the lines of a stream were judged; `note` is of the accepted ones.

    >>> judged(1_959, 41, {"wrong_type": 40, "not_json": 1}, "3 late")
    '2,000 read = 1,959 accepted (3 late) + 41 quarantined (wrong_type 40, not_json 1)'
    """
    listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
    of_accepted, of_quarantined = (f" ({text})" if text else "" for text in (note, listed))
    read = accepted + quarantined
    return f"{read:,} read = {accepted:,} accepted{of_accepted} + {quarantined:,} quarantined{of_quarantined}"


def share(part: int, whole: int) -> str:
    """A share in per cent, which is 0 % and 100 % only where it is.

    >>> share(9_999, 10_000), share(1, 1_000_000), share(3, 3)
    ('99.9 %', '0.1 %', '100 %')
    """
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.3g} %"


def figure(value: float) -> str:
    """A number with as many digits as it takes, four behind the point at most; 0 and 1 only where it is.

    >>> figure(0.98), figure(0.99999), figure(12_000.0)
    ('0.98', '0.9999', '12,000')
    """
    if 0 < value < 1:
        value = min(0.9999, max(0.0001, round(value, 4)))
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def visible(text: str) -> str:
    """Text of events for a terminal: what would steer that is written as an escape.

    >>> print(visible("a\\x1b[31mb"))
    a\\x1b[31mb
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
