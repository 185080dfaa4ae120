"""A reconciliation as one self-contained page, and all forms of it as files."""

from pathlib import Path

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
    data["sample"] = data["sample"][:_SHOWN_SAMPLES]
    return environment.get_template("report.html.j2").render(
        run=data,
        sentence=verdict_sentence(run),
        notes=notes(run),
        dates=str(run.range),
        most=max((hour["table_rows"] for hour in data["hours"]), default=0) or 1,
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
