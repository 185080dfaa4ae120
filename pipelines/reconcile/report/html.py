"""A reconciliation as one self-contained page, and all forms of it as files."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from pipelines.model.format import figure, size
from pipelines.reconcile.report.document import notes, to_dict, to_json, verdict_sentence
from pipelines.reconcile.report.text import to_text
from pipelines.reconcile.result import Reconciliation

_SHOWN_SAMPLES = 50


def to_html(run: Reconciliation) -> str:
    """One page: no script, no network."""
    from pipelines.reconcile.report.plots import plots  # here, because only the page needs the plotting library

    environment = Environment(
        loader=PackageLoader("pipelines.reconcile.report", "templates"),
        autoescape=select_autoescape(["html", "j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": lambda value: f"{value:,}", "size": size, "figure": figure}
    data = to_dict(run)
    data["sample"] = [{**row, "changed": _changed(row)} for row in data["sample"][:_SHOWN_SAMPLES]]
    return environment.get_template("report.html.j2").render(
        run=data,
        sentence=verdict_sentence(run),
        notes=notes(run),
        dates=str(run.range),
        figures=_figures(run),
        plots=plots(run.hours, run.lateness, run.earlier),
    )


def _figures(run: Reconciliation) -> list[tuple[str, int]]:
    books = run.books.as_dict()
    return [
        ("distinct outcomes landed", books["landed"]),
        ("in the table", books["attributed"]),
        ("pending", books["pending"]),
        ("with an exposure", sum(hour.table_rows for hour in run.hours) - run.unattributed),
        ("without an exposure", run.unattributed),
        ("duplicates removed", run.duplicates),
        ("conflicting ids", books["conflicting"]),
    ]


def _changed(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(Column, the table's value, batch's value) for each column that differs, values as JSON."""
    if not row["columns"]:
        return []
    table, batch = (json.loads(row[side] or "{}") for side in ("stream_row", "batch_row"))
    return [
        (name, *(json.dumps(side.get(name), ensure_ascii=False) for side in (table, batch))) for name in row["columns"].split(",")
    ]


def write_files(run: Reconciliation, reports: Path) -> Path:
    """Write report.html, report.json and report.txt under `reports/<run id>`; the path of the page."""
    folder = reports / run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(to_json(run) + "\n", encoding="utf-8")
    (folder / "report.txt").write_text(to_text(run) + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(to_html(run), encoding="utf-8")
    return page
