"""Show and export: a look at a table, and a table as one file."""

import shutil
import tempfile
from pathlib import Path

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.errors import RejoinError
from pipelines.lake import Lake, as_text_times

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json"}


def show(lake: Lake, table: str, where: str | None, limit: int) -> None:
    """Print the first rows, times as ISO-8601 UTC with milliseconds."""
    console = Console()
    rows = as_text_times(select(lake, table, where)).limit(limit)
    found = [["" if value is None else str(value) for value in row] for row in rows.collect()]
    widths = [max(map(len, column)) for column in zip(rows.columns, *found, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 <= console.width:
        grid = Table(title=table, title_justify="left")
        for name in rows.columns:
            grid.add_column(name)
        for row in found:
            grid.add_row(*map(escape, row))
        console.print(grid)
        return
    # Too wide for the terminal: a block a row, nothing cut.
    margin = max(map(len, rows.columns))
    for number, row in enumerate(found, start=1):
        console.rule(f"{table} {number}", align="left")
        for name, value in zip(rows.columns, row, strict=True):
            console.print(f"{name:<{margin}}  {value}", markup=False, highlight=False, soft_wrap=True)


def check_export_name(out: Path) -> None:
    if out.suffix not in FORMATS:
        raise RejoinError(f"--out {out}: must end in {', '.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise RejoinError(f"--out {out}: directory {out.parent} does not exist")


def export(lake: Lake, table: str, where: str | None, out: Path) -> int:
    """Write the rows to one file, which appears whole; how many there were."""
    rows = select(lake, table, where)
    kind = FORMATS[out.suffix]
    if kind != "parquet":
        rows = as_text_times(rows)
    if kind == "csv":
        nested = [f.name for f in rows.schema if isinstance(f.dataType, StructType | ArrayType | MapType)]
        rows = rows.withColumns({name: F.to_json(name) for name in nested})
    options = {"csv": {"header": "true", "escape": '"'}, "json": {"ignoreNullFields": "false"}}.get(kind, {})
    counted = rows.persist()
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        number = counted.count()
        counted.coalesce(1).write.mode("overwrite").format(kind).options(**options).save(str(folder / "rows"))
        next((folder / "rows").glob("part-*")).replace(out)
        return number
    finally:
        counted.unpersist()
        shutil.rmtree(folder, ignore_errors=True)


def select(lake: Lake, table: str, where: str | None) -> DataFrame:
    """The table's rows that satisfy a SQL condition. Raises RejoinError that names what is wrong."""
    if table not in lake.tables:
        raise RejoinError(f"{table}: no such table; the lake has {', '.join(lake.tables)}")
    lake.require(table)
    rows = lake.read(table)
    if where is None:
        return rows
    try:
        return rows.where(where)
    except (AnalysisException, ParseException) as error:
        said = str(error).strip().splitlines()[0]
        raise RejoinError(f"--where {where}: {said}") from None
