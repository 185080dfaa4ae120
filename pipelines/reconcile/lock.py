"""One reconciliation of a lake at a time: a lease in the ledger, which works wherever the lake is.

A run that holds the lease says so again every third of its time; one that has died stops saying it, and the lease runs out. On
the same machine a run whose process has gone is not waited for.
"""

import itertools
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
    """Hold the lease. Raises RejoinError, which names the holder, where another run has it."""
    lake.ensure("ledger")
    holder = uuid.uuid4().hex[:12]
    words = itertools.count(_take(lake, holder) + 1)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lake, holder, words, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        _say(lake, holder, next(words), 0)


def _take(lake: Lake, holder: str) -> int:
    """The number of the word that took it; whoever has the lease says the next ones."""
    last = _last(lake)
    if last is not None and _holds(last):
        raise RejoinError(f"another reconciliation of this lake is running ({_told(last)}); wait for it, or stop it")
    number = 0 if last is None else int(last["batch"]) + 1
    _say(lake, holder, number, LEASE_SECONDS)
    now = _last(lake)
    if now is None or now["run_id"] != holder:
        told = _told(now) if now else "no trace of it"
        raise RejoinError(f"another reconciliation of this lake has just been started ({told}); wait for it, or stop it")
    return number


def _renew(lake: Lake, holder: str, words: Iterator[int], ended: threading.Event) -> None:
    while not ended.wait(LEASE_SECONDS / 3):
        try:
            _say(lake, holder, next(words), LEASE_SECONDS)
        except Exception as error:  # the run itself does not depend on it
            log.warning("the lease of this reconciliation could not be renewed", error=str(error).splitlines()[0])


def _say(lake: Lake, holder: str, number: int, seconds: int) -> None:
    """Append until when the lease is held. Of two that say a word of the same number, one is not written, and finds the
    other's."""
    process = os.getpid()
    detail = {
        "until_us": now_us() + seconds * 1_000_000,
        "host": socket.gethostname(),
        "process": process,
        "process_started": _started(process),
    }
    Ledger(lake).write([Entry(query=QUERY, run_id=holder, batch=number, detail=detail)], transaction=(QUERY, number))


def _last(lake: Lake) -> dict[str, Any] | None:
    return max(Ledger(lake).entries(QUERY), key=lambda entry: int(entry["batch"]), default=None)


def _holds(last: dict[str, Any]) -> bool:
    detail = last["detail"]
    if detail["until_us"] <= now_us():
        return False
    return detail["host"] != socket.gethostname() or _lives(detail["process"], detail.get("process_started"))


def _lives(process: int, started: int | None) -> bool:
    """Whether a process of this machine is there, and is the one that was started then: numbers are given anew, in a container
    that is started again the same one each time."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _has_ended(process) and started in (None, _started(process))


def _has_ended(process: int) -> bool:
    """Whether it has ended, and its parent has not asked for its exit code yet."""
    fields = _stat(process)
    return fields is not None and fields[0] == "Z"


def _started(process: int) -> int | None:
    """When a process was started, in clock ticks since the machine's start; None where the system has no /proc."""
    fields = _stat(process)
    return None if fields is None else int(fields[19])


def _stat(process: int) -> list[str] | None:
    """The fields of proc(5)'s stat from the third, the state, on."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _told(last: dict[str, Any]) -> str:
    detail = last["detail"]
    return f"process {detail['process']} on {detail['host']}, its lease runs until {iso(detail['until_us'])}"
