"""A reconciliation as JSON, text and HTML, and as rows of the lake's history."""

from pipelines.reconcile.report.document import to_dict, to_json
from pipelines.reconcile.report.html import to_html, write_files
from pipelines.reconcile.report.text import to_text

__all__ = ["to_dict", "to_html", "to_json", "to_text", "write_files"]
