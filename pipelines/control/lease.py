"""A lease: what only one process of a lake may do at a time. Kept in `control`, so it works wherever the lake is.

Who holds a lease renews it every third of its time; the lease of one that died expires.
"""

import itertools
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from pipelines.control.facts import Fact
from pipelines.control.store import append, read_facts
from pipelines.lake.tables import Lake
from pipelines.model.errors import LeaseError, first_line
from pipelines.model.time import iso, now_us

LEASE_SECONDS = 600
# Of what compares bronze with its source, or lands in it otherwise than ingest.
RELANDING = "reconciliation or reland"

log = structlog.get_logger()


@contextmanager
def leased(lake: Lake, name: str) -> Iterator[None]:
    """Hold the lease of that name. Raises LeaseError, which says until when, where another process has it."""
    holder = uuid.uuid4().hex[:12]
    numbers = itertools.count(_take(lake, name, holder) + 1)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lake, name, holder, numbers, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        _write(lake, name, holder, next(numbers), 0)


def _take(lake: Lake, name: str, holder: str) -> int:
    """The number of the fact that took it; the holder writes the next ones."""
    last = _last(lake, name)
    if last is not None and last.detail["until"] > now_us():
        raise _taken(name, last)
    number = 0 if last is None else int(last.detail["number"]) + 1
    _write(lake, name, holder, number, LEASE_SECONDS)
    now = _last(lake, name)
    if now is None or now.detail["holder"] != holder:
        raise _taken(name, now)
    return number


def _renew(lake: Lake, name: str, holder: str, numbers: Iterator[int], ended: threading.Event) -> None:
    while not ended.wait(LEASE_SECONDS / 3):
        try:
            _write(lake, name, holder, next(numbers), LEASE_SECONDS)
        except Exception as error:  # what the lease is for does not depend on it
            log.warning("a lease could not be renewed", lease=name, error=first_line(error))


def _write(lake: Lake, name: str, holder: str, number: int, seconds: int) -> None:
    """Append until when the lease is held. Of two facts of one number the second is not written: its writer finds the other."""
    detail = {"holder": holder, "number": number, "until": now_us() + seconds * 1_000_000}
    append(lake, [Fact(kind="lease", stream=name, detail=detail)], transaction=(f"rejoin:lease:{name}", number))


def _last(lake: Lake, name: str) -> Fact | None:
    return read_facts(lake).last("lease", name)


def _taken(name: str, last: Fact | None) -> LeaseError:
    until = iso(last.detail["until"]) if last else "soon"
    return LeaseError(
        f"another {name} of this lake is running, or has died; wait for it: its lease expires at {until} unless it is renewed"
    )
