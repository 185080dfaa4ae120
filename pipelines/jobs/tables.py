"""Show and export: a look at a table, and a table as one file."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.model import Config
from pipelines.config.streams import table_names
from pipelines.lake.reader import TableReader, require
from pipelines.model.errors import RejoinError
from pipelines.model.format import visible

FORMATS = (".parquet", ".csv", ".jsonl")


def check_table(config: Config, table: str) -> str:
    if table not in table_names(config):
        raise RejoinError(f"{table}: no such table; the lake has {', '.join(table_names(config))}")
    return table


def check_export_name(out: Path) -> None:
    if out.suffix not in FORMATS:
        raise RejoinError(f"--out {out}: must end in {', '.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise RejoinError(f"--out {out}: directory {out.parent} does not exist")


def show(reader: TableReader, table: str, where: str | None, limit: int) -> None:
    """Print the first rows, times as ISO-8601 UTC with milliseconds."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    rows = _select(reader, table, where, limit)
    names = rows.schema.names
    found = [list(map(_shown, row.values())) for batch in rows for row in _pylist(batch)][:limit]
    widths = [max(map(len, column)) for column in zip(names, *found, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 <= console.width:
        grid = Table(title=table, title_justify="left")
        for name in names:
            grid.add_column(name)
        for row in found:
            grid.add_row(*map(escape, row))
        console.print(grid)
        return
    # Too wide for the terminal: a block a row, nothing cut.
    margin = max(map(len, names))
    for number, row in enumerate(found, start=1):
        console.rule(f"{table} {number}", align="left")
        for name, value in zip(names, row, strict=True):
            console.print(f"{name:<{margin}}  {value}", markup=False, highlight=False, soft_wrap=True)


def export(reader: TableReader, table: str, where: str | None, out: Path, *, spreadsheet_safe: bool = False) -> int:
    """Write the rows to one file, which appears whole; how many there were. Values are exact; with `spreadsheet_safe`, text in
    CSV that a spreadsheet would take for a formula has a ' before it."""
    rows = _select(reader, table, where)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        writers: dict[str, Callable[[pa.RecordBatchReader, Path], int]] = {
            ".parquet": _write_parquet,
            ".csv": partial(_write_csv, safe=spreadsheet_safe),
            ".jsonl": _write_jsonl,
        }
        write = writers[out.suffix]
        count = write(rows, folder / "rows")
        (folder / "rows").replace(out)
        return count
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _select(reader: TableReader, table: str, where: str | None, limit: int | None = None) -> pa.RecordBatchReader:
    """The rows that satisfy a SQL condition."""
    require(reader, table)
    return reader.scan(table, None, where if where is not None else (), limit)


def _write_parquet(rows: pa.RecordBatchReader, out: Path) -> int:
    from pyarrow import parquet

    schema, count = pa.schema([field.with_type(_plain(field.type)) for field in rows.schema]), 0
    with parquet.ParquetWriter(out, schema) as writer:
        for batch in rows:
            writer.write_batch(batch.cast(schema))
            count += batch.num_rows
    return count


def _write_csv(rows: pa.RecordBatchReader, out: Path, *, safe: bool) -> int:
    from pyarrow import csv

    schema, count = pa.schema([(field.name, _printed(field.type)) for field in rows.schema]), 0
    with csv.CSVWriter(out, schema) as writer:
        for batch in rows:
            columns = [_print(column) for column in batch.columns]
            if safe:
                columns = [_no_formula(c) if _is_text(f.type) else c for c, f in zip(columns, rows.schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            count += batch.num_rows
    return count


def _write_jsonl(rows: pa.RecordBatchReader, out: Path) -> int:
    count = 0
    with out.open("w", encoding="utf-8", newline="\n") as file:
        for batch in rows:
            file.writelines(f"{_json(row)}\n" for row in _pylist(batch))
            count += batch.num_rows
    return count


def _pylist(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows as Python values; top-level times as text."""
    columns = [_iso(column) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
    return iter(pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist(maps_as_pydicts="strict"))


def _print(column: pa.Array) -> pa.Array:
    """A column as CSV has it: times and floating numbers as text, nested values as JSON."""
    if pa.types.is_timestamp(column.type):
        return _iso(column)
    if pa.types.is_nested(column.type):
        values = column.to_pylist(maps_as_pydicts="strict")
        return pa.array([None if value is None else _json(value) for value in values], pa.string())
    if pa.types.is_floating(column.type):
        # 2.0, where Arrow would print 2: a reader takes it for a whole number.
        return pa.array([None if value is None else repr(value) for value in column.to_pylist()], pa.string())
    return column.cast(_printed(column.type))


def _is_text(kind: pa.DataType) -> bool:
    return bool(_plain(kind) == pa.string())


def _no_formula(texts: pa.Array) -> pa.Array:
    """As OWASP has it (CSV injection)."""
    return pc.replace_substring_regex(texts, r"^([=+\-@\t\r\n])", r"'\1")


def _printed(kind: pa.DataType) -> pa.DataType:
    as_text = pa.types.is_timestamp(kind) or pa.types.is_nested(kind) or pa.types.is_floating(kind)
    return pa.string() if as_text else _plain(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without the views of delta-rs, which not every reader of Parquet knows."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), kind.item_field.with_type(_plain(kind.item_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def _iso(times: pa.Array) -> pa.Array:
    millis = pc.floor_temporal(times, unit="millisecond").cast(pa.timestamp("ms", "UTC"))
    return pc.strftime(millis, format="%Y-%m-%dT%H:%M:%SZ")


def _shown(value: Any) -> str:
    return "" if value is None else visible(_text(value))


def _text(value: Any) -> str:
    return _json(value) if isinstance(value, Mapping | list) else str(value)


def _json(value: Any) -> str:
    """JSON text; decimals exact, times ISO-8601 UTC with milliseconds, numbers that JSON lacks as text."""
    return _ENCODERS[type(value)](value)


_ENCODERS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "null",
    bool: lambda value: "true" if value else "false",
    int: str,
    str: encode_basestring,
    float: lambda value: repr(value) if math.isfinite(value) else f'"{value}"',
    Decimal: lambda value: f"{value:f}",
    date: lambda value: f'"{value}"',
    datetime: lambda value: f'"{value.isoformat(timespec="milliseconds").replace("+00:00", "Z")}"',
    list: lambda value: f"[{','.join(map(_json, value))}]",
    dict: lambda value: f"{{{','.join(f'{encode_basestring(str(name))}:{_json(item)}' for name, item in value.items())}}}",
}
