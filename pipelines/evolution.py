"""From the columns that a table has to those that a configuration needs: what can be changed in place, and what is refused.

In place, without rewriting a row (Delta's column addition, type widening, and dropping of NOT NULL):

- a new column that may be null: rows landed before have null there;
- a wider type: integers to wider integers or DOUBLE, FLOAT to DOUBLE, DECIMAL to one with room for all its values;
- a column that may now be null, or that the configuration names no more: it stays, and what comes has null there;
- the same for the fields of a STRUCT.

Everything else is refused, with the reason. Pure functions of schemas.
"""

from collections.abc import Iterator

from pyspark.sql.types import DataType, DecimalType, StructField, StructType

from pipelines.config import PARTITION_COLUMNS
from pipelines.errors import LakeError

_WIDER = {
    "tinyint": ("smallint", "int", "bigint", "double"),
    "smallint": ("int", "bigint", "double"),
    "int": ("bigint", "double"),
    "float": ("double",),
}


def alterations(table: str, needed: StructType, found: StructType) -> list[str]:
    """The clauses of ALTER TABLE that give `table` the needed columns, in order; none where it has them.

    Raises LakeError for a change that is not possible in place. Names are compared without case, as Delta does.
    """
    return list(_fields(table, "", needed, found))


def can_widen(have: DataType, need: DataType) -> bool:
    """Whether every value of the one is a value of the other, and Delta can change the type without rewriting files."""
    if isinstance(have, DecimalType) and isinstance(need, DecimalType):
        return need.scale >= have.scale and need.precision - need.scale >= have.precision - have.scale
    return need.simpleString() in _WIDER.get(have.simpleString(), ())


def _fields(table: str, path: str, needed: StructType, found: StructType) -> Iterator[str]:
    have = {field.name.lower(): field for field in found}
    before = ""
    for field in needed:
        known = have.get(field.name.lower())
        if known is None:
            yield _addition(table, path, field, before)
        else:
            yield from _field(table, path + known.name, field, known)
        before = field.name if known is None else known.name
    wanted = {field.name.lower() for field in needed}
    for field in found:
        if field.name.lower() in wanted or field.nullable:
            continue
        if field.name in PARTITION_COLUMNS:
            raise LakeError(_partitions(table, f"is partitioned by {field.name}, which", "leaves out"))
        yield f"ALTER COLUMN {_quoted(path + field.name)} DROP NOT NULL"


def _addition(table: str, path: str, field: StructField, before: str) -> str:
    if field.name in PARTITION_COLUMNS:
        raise LakeError(_partitions(table, f"is not partitioned by {field.name}, which", "asks for"))
    if not field.nullable:
        raise LakeError(
            f"table {table}: has no column {path}{field.name}, so what has landed has no value for it: it cannot be NOT NULL; "
            "leave out NOT NULL, or use another lake"
        )
    place = f"AFTER `{before}`" if before else "FIRST"
    return f"ADD COLUMNS ({_quoted(path + field.name)} {field.dataType.simpleString()} {place})"


def _field(table: str, path: str, needed: StructField, found: StructField) -> Iterator[str]:
    need, have = needed.dataType, found.dataType
    if isinstance(need, StructType) and isinstance(have, StructType):
        yield from _fields(table, f"{path}.", need, have)
    elif need.simpleString() != have.simpleString():
        if not can_widen(have, need):
            how = "a narrower type" if can_widen(need, have) else "another type"
            raise LakeError(
                f"table {table}: column {path} is {have.simpleString().upper()}, but the configuration says "
                f"{need.simpleString().upper()}: {how}, which its values may not fit; change the schema back, or use another lake"
            )
        yield f"ALTER COLUMN {_quoted(path)} TYPE {need.simpleString()}"
    if needed.nullable and not found.nullable:
        yield f"ALTER COLUMN {_quoted(path)} DROP NOT NULL"


def _partitions(table: str, state: str, verb: str) -> str:
    return f"table {table}: {state} this configuration's partition_by {verb}; set it back, or use another lake"


def _quoted(path: str) -> str:
    return ".".join(f"`{name}`" for name in path.split("."))
