"""One reconciliation or reland of a lake at a time: a lease in the ledger, which works wherever the lake is.

A run that holds the lease renews it every third of its time; the lease of one that died expires.
"""

import itertools
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from pipelines.errors import RejoinError
from pipelines.instants import iso, now_us
from pipelines.lake import Lake
from pipelines.observe.ledger import Entry, Ledger

QUERY = "reconcile:lease"
LEASE_SECONDS = 600

log = structlog.get_logger()


@contextmanager
def only_one(lake: Lake) -> Iterator[None]:
    """Hold the lease. Raises RejoinError, which says until when, where another run has it."""
    lake.ensure("ledger")
    holder = uuid.uuid4().hex[:12]
    numbers = itertools.count(_take(lake, holder) + 1)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lake, holder, numbers, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        _write(lake, holder, next(numbers), 0)


def _take(lake: Lake, holder: str) -> int:
    """The number of the entry that took it; the holder writes the next ones."""
    last = _last(lake)
    if last is not None and last["detail"]["until_us"] > now_us():
        raise _taken(last)
    number = 0 if last is None else int(last["batch"]) + 1
    _write(lake, holder, number, LEASE_SECONDS)
    now = _last(lake)
    if now is None or now["run_id"] != holder:
        raise _taken(now or {"detail": {"until_us": now_us() + LEASE_SECONDS * 1_000_000}})
    return number


def _renew(lake: Lake, holder: str, numbers: Iterator[int], ended: threading.Event) -> None:
    while not ended.wait(LEASE_SECONDS / 3):
        try:
            _write(lake, holder, next(numbers), LEASE_SECONDS)
        except Exception as error:  # the run itself does not depend on it
            log.warning("the lease of this reconciliation could not be renewed", error=str(error).splitlines()[0])


def _write(lake: Lake, holder: str, number: int, seconds: int) -> None:
    """Append until when the lease is held. Of two entries of one number the second is not written, and its writer finds the
    other."""
    detail = {"until_us": now_us() + seconds * 1_000_000}
    Ledger(lake).write([Entry(query=QUERY, run_id=holder, batch=number, detail=detail)], transaction=(QUERY, number))


def _last(lake: Lake) -> dict[str, Any] | None:
    return max(Ledger(lake).entries(QUERY), key=lambda entry: int(entry["batch"]), default=None)


def _taken(last: dict[str, Any]) -> RejoinError:
    until = iso(last["detail"]["until_us"])
    return RejoinError(
        f"another reconciliation or reland of this lake is running, or has died; wait for it: its lease expires at {until} "
        "unless it is renewed"
    )
