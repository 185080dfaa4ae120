"""A reconciliation as text, JSON and HTML, and as rows of the lake's history."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

from pipelines.instants import iso
from pipelines.lake import Lake
from pipelines.readable import size
from pipelines.reconcile.comparison import NOTHING_FINAL
from pipelines.reconcile.door import StreamDoor
from pipelines.reconcile.expectations import Check
from pipelines.reconcile.history import record_sample
from pipelines.reconcile.run import Reconciliation
from pipelines.reconcile.sampling import Sampled
from pipelines.schemas import RECONCILIATIONS_SCHEMA

JSON_SCHEMA_VERSION = 1
_SHOWN_SAMPLES = 50
_LACKS = "bronze has lost rows that their source no longer has; bring those back first (the door says how many)"
_UNPROVEN = (
    "somebody has changed bronze, and landing files that would prove it right are not there; bring these back, or set "
    "reconcile.expectations.unchecked_changes=warn where it is right"
)


def to_dict(run: Reconciliation) -> dict[str, Any]:
    """The report as JSON-ready data; times are ISO-8601 UTC. `schema_version` changes when a key changes its meaning."""
    return {
        "schema_version": JSON_SCHEMA_VERSION,
        "run_id": run.run_id,
        "verdict": run.verdict,
        "agrees": run.agrees,
        "started_at": iso(run.started_us),
        "finished_at": iso(run.finished_us),
        "dates": {"from": _text(run.range.first), "to": _text(run.range.last)},
        "streams": {"exposure": run.streams[0], "outcome": run.streams[1]},
        "pins": {**asdict(run.pins), "bound": _bound(run)},
        "counts": run.counts,
        "differences": run.differences,
        "repaired": run.repaired,
        "repair_refused": run.refused,
        "unchecked_changes": run.unchecked_changes,
        "table_files_gone": run.table_files_gone,
        "copies_removed": run.mended.copies,
        "unsourced_removed": run.mended.unsourced,
        "placed": run.mended.placed,
        "relanded": run.mended.relanded,
        "data_files_let_go": run.mended.data_files,
        "sampled": asdict(run.sampled) if run.sampled else None,
        "by_hour": run.hourly,
        "before_repair": run.before_repair,
        "causes": run.causes,
        "account": {**run.account.as_dict(), "unattributed": run.unattributed},
        "hours": [{**asdict(hour), "differences": hour.differences} for hour in run.hours],
        "door": [{**asdict(door), "quarantine_rate": door.quarantine_rate} for door in run.doors],
        "volumes": [{**asdict(hour), "volume": hour.volume} for hour in run.volumes],
        "expectations": [asdict(check) for check in run.checks],
        "lateness": run.lateness.as_dict(),
        "configuration": run.configuration,
        "versions": run.versions,
        "earlier_runs": [asdict(earlier) for earlier in run.earlier],
        "sample": [{**row, "event_time": iso(int(row["event_time"]))} for row in run.sample],
    }


def to_json(run: Reconciliation, *, dry_run: bool = False) -> str:
    """`to_dict` as text; of a dry run with what a repair would do, as `planned`."""
    plan = {"planned": planned(run)} if dry_run else {}
    return json.dumps({**to_dict(run), **plan}, indent=2, sort_keys=True, default=str)


def to_text(run: Reconciliation) -> str:
    """The report for a terminal: verdict first."""
    books = run.account
    lines = [
        f"{run.verdict.upper()}: {_verdict_sentence(run)}",
        "",
        f"  dates      {run.range}, up to {_bound(run) or 'the last event'}",
        *([f"  sample     {_sample_sentence(run.sampled)}"] if run.sampled else []),
        f"  outcomes   {books.landed:,} landed = {books.attributed:,} in the table + {books.pending:,} pending"
        f"{'' if not books.unbalanced else '   DOES NOT BALANCE'}",
        f"  answers    {sum(h.table_rows for h in run.hours) - run.unattributed:,} attributed, {run.unattributed:,} unattributed",
        f"  conflicts  {books.conflicting:,} outcome ids with several different events",
    ]
    if run.table_files_gone:
        lines.append(
            f"  LOST       {run.table_files_gone:,} data files of the table are not there; --repair writes their dates anew"
        )
    for door in run.doors:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in door.quarantined.items()) or "none"
        rows = f"{door.accepted:,} accepted, {door.late:,} late; quarantined: {reasons}"
        lines.append(f"  {door.stream:<10} {rows}{_given_up(door)}{_untold(door)}{_wrong(door)}")
    lines += ["", "  class                        rows"]
    lines += [f"  {name:<24} {count:>8,}" for name, count in run.counts.items()]
    if run.causes:
        lines += ["", f"  because of: {', '.join(f'{name} {count:,}' for name, count in run.causes.items())}"]
    if run.repaired:
        before = ", ".join(f"{name} {count:,}" for name, count in run.before_repair.items() if count)
        lines += ["", f"  repaired {run.repaired:,} outcomes ({before})"]
    lines += [line for number, told in _mended(run) if number for line in ("", f"  {told}")]
    if run.refused:
        lines += ["", f"  NOT REPAIRED: {_refused(run)}"]
    lines += ["", *(f"  {_outcome(c):<4}  {c.name} (is {c.observed:g})" for c in run.checks)]
    return "\n".join(lines)


def _refused(run: Reconciliation) -> str:
    lacking = any(door.rows_lost or door.data_files_gone or door.offsets.missing for door in run.doors)
    return _LACKS if lacking else _UNPROVEN


def _mended(run: Reconciliation) -> list[tuple[int, str]]:
    done = run.mended
    return [
        (done.relanded, f"put {done.relanded:,} lost rows back into bronze"),
        (done.data_files, f"wrote the dates of {done.data_files:,} lost data files anew"),
        (done.copies, f"took {done.copies:,} copied rows out of bronze"),
        (done.unsourced, f"took {done.unsourced:,} rows out of bronze that their source does not have"),
        (done.placed, f"brought {done.placed:,} rows of bronze back to their partition"),
    ]


def planned(run: Reconciliation) -> str:
    """What a repair of what was found would do, in one line."""
    if run.unproven:
        return f"--repair would repair nothing: {_UNPROVEN}"
    outcomes = ", ".join(f"{name} {count:,}" for name, count in run.counts.items() if count and name != "matched")
    lost = _by_stream(run, lambda door: door.rows_lost or door.offsets.missing)
    steps = {
        "put lost rows back into bronze ({}), as far as their source has them,": lost,
        "take copied rows out of bronze ({})": _by_stream(run, lambda door: door.rows_copied + door.offsets.twice),
        "take rows out of bronze that their source does not have ({})": _by_stream(run, lambda door: door.rows_unsourced),
        "bring rows of bronze back to their partition ({})": _by_stream(run, lambda door: door.rows_misplaced),
        "write the dates of the table's lost data files ({}) anew": f"{run.table_files_gone:,}" if run.table_files_gone else "",
    }
    parts = [step.format(rows) for step, rows in steps.items() if rows]
    copies_only = len(parts) == 1 and not lost and "copied" in parts[0]
    if parts and not copies_only:
        return f"--repair would {' and '.join(parts)} and compare again"
    # Copies change no answer.
    parts = [f"write the batch answer of what differs ({outcomes})", *parts] if outcomes else parts
    return f"--repair would {' and '.join(parts)}" if parts else "--repair would change nothing"


def _by_stream(run: Reconciliation, figure: Callable[[StreamDoor], int]) -> str:
    return ", ".join(f"{door.stream} {figure(door):,}" for door in run.doors if figure(door))


def to_html(run: Reconciliation) -> str:
    """One self-contained page: no script, no network."""
    from pipelines.reconcile.plots import plots  # here, because only the page needs the plotting library

    environment = Environment(
        loader=PackageLoader("pipelines.reconcile", "templates"),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    data = to_dict(run)
    data["sample"] = data["sample"][:_SHOWN_SAMPLES]
    environment.filters["size"] = size
    most = max((hour["table_rows"] for hour in data["hours"]), default=0) or 1
    return environment.get_template("report.html.j2").render(
        run=data,
        sentence=_verdict_sentence(run),
        sample_sentence=_sample_sentence(run.sampled) if run.sampled else "",
        refused=_refused(run) if run.refused else "",
        dates=str(run.range),
        most=most,
        plots=plots(run.hours, run.lateness, run.earlier),
    )


def write_files(run: Reconciliation, reports: Path) -> Path:
    """Write report.html, report.json and report.txt under `reports/<run id>`; the path of the page."""
    folder = reports / run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(to_json(run) + "\n")
    (folder / "report.txt").write_text(to_text(run) + "\n")
    page = folder / "report.html"
    page.write_text(to_html(run))
    return page


def write_history(lake: Lake, run: Reconciliation, page: Path) -> None:
    """Append the run to `reconciliations` and its sample of differences to `reconciliation_diffs`."""
    lake.ensure("reconciliations", "reconciliation_diffs")
    summary = {k: v for k, v in to_dict(run).items() if k not in ("sample", "earlier_runs", "volumes")}
    row = (
        run.run_id,
        run.started_us,
        run.finished_us,
        run.range.first,
        run.range.last,
        run.verdict,
        run.repaired,
        str(page),
        json.dumps(summary, sort_keys=True, default=str),
    )
    schema = "run_id string, started_at long, finished_at long, from_date date, to_date date, verdict string, repaired long"
    frame = lake.spark.createDataFrame([row], f"{schema}, report string, summary string")
    for name in ("started_at", "finished_at"):
        frame = frame.withColumn(name, F.timestamp_micros(name))
    frame = frame.withColumn("run_date", F.to_date("finished_at"))
    lake.append("reconciliations", frame.select(*RECONCILIATIONS_SCHEMA.names))
    if run.sample and not run.repaired:  # what was repaired has been written down before
        names = ("class", "outcome_id", "event_time", "columns", "stream_row", "batch_row", "cause", "detail")
        types = [StructField(n, LongType() if n == "event_time" else StringType()) for n in names]
        record_sample(
            lake, run.run_id, lake.spark.createDataFrame([tuple(r[n] for n in names) for r in run.sample], StructType(types))
        )


def _bound(run: Reconciliation) -> str | None:
    """Up to when outcomes were compared; `nothing` where no horizon has been published yet."""
    return "nothing" if run.pins.bound == NOTHING_FINAL else iso(run.pins.bound)


def _sample_sentence(sample: Sampled) -> str:
    whole = f"{100 * sample.share:g} % of the outcomes by a hash of their ids"
    return f"{whole}; with {100 * sample.confidence:g} % confidence at most {100 * sample.at_most:.2g} % of all differ"


def _outcome(check: Check) -> str:
    return "ok" if check.success else "FAIL" if check.failed else "warn"


def _given_up(door: StreamDoor) -> str:
    return f"; {door.offsets.given_up:,} offsets in accepted gaps" if door.offsets.given_up else ""


def _untold(door: StreamDoor) -> str:
    return f"; {door.files_untold:,} landing files are not there to be held against" if door.files_untold else ""


def _wrong(door: StreamDoor) -> str:
    gone = f" ({door.data_files_gone:,} data files are gone)" if door.data_files_gone else ""
    found = f"; LOST: {door.rows_lost:,} rows{gone}" if door.rows_lost or gone else ""
    told = {"TWICE": door.rows_copied, "NOT IN THEIR SOURCE": door.rows_unsourced, "IN ANOTHER PARTITION": door.rows_misplaced}
    return found + "".join(f"; {name}: {rows:,} rows" for name, rows in told.items() if rows)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _verdict_sentence(run: Reconciliation) -> str:
    rows = sum(hour.batch_rows for hour in run.hours)
    if run.differences:
        return f"{run.differences:,} of {rows:,} outcomes differ between the table and an independent batch computation"
    failed = [check.name for check in run.checks if check.failed]
    if failed:
        return f"no row differs, but an expectation failed: {', '.join(failed)}"
    return f"the table equals an independent batch computation in all {rows:,} outcomes, row by row"
