"""From the columns that a table has to those that a configuration needs: what can be changed in place, and what is refused.

In place, without rewriting a row (Delta's column addition, type widening, and dropping of NOT NULL):

- a new column that may be null: rows landed before have null there;
- a wider type: integers to wider integers or DOUBLE, FLOAT to DOUBLE, DECIMAL to one with room for all its values;
- a column that may now be null, or that the configuration names no more: it stays, and what comes has null there.

Everything else is refused, with the reason: also another spelling of a name, and other fields of a STRUCT. Pure functions of
schemas.
"""

from collections.abc import Iterator

from pyspark.sql.types import DataType, DecimalType, StructField, StructType

from pipelines.model.errors import LakeError
from pipelines.model.names import PARTITION_COLUMNS

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
    return list(_clauses(table, needed, found))


def can_widen(have: DataType, need: DataType) -> bool:
    """Whether every value of the one is a value of the other, and Delta can change the type without rewriting files."""
    if isinstance(have, DecimalType) and isinstance(need, DecimalType):
        return need.scale >= have.scale and need.precision - need.scale >= have.precision - have.scale
    return need.simpleString() in _WIDER.get(have.simpleString(), ())


def _clauses(table: str, needed: StructType, found: StructType) -> Iterator[str]:
    have = {field.name.lower(): field for field in found}
    before = ""
    for field in needed:
        known = have.get(field.name.lower())
        if known is None:
            yield _addition(table, field, before)
        else:
            yield from _change(table, field, known)
        before = field.name
    wanted = {field.name.lower() for field in needed}
    for field in found:
        if field.name.lower() in wanted or field.nullable:
            continue
        if field.name in PARTITION_COLUMNS:
            raise LakeError(_partitions(table, f"is partitioned by {field.name}, which", "leaves out"))
        yield f"ALTER COLUMN `{field.name}` DROP NOT NULL"


def _addition(table: str, field: StructField, before: str) -> str:
    if field.name in PARTITION_COLUMNS:
        raise LakeError(_partitions(table, f"is not partitioned by {field.name}, which", "asks for"))
    if not field.nullable:
        raise LakeError(
            f"table {table}: has no column {field.name}, so what has landed has no value for it: it cannot be NOT NULL; "
            "leave out NOT NULL, or use another lake"
        )
    return f"ADD COLUMNS (`{field.name}` {field.dataType.simpleString()} {f'AFTER `{before}`' if before else 'FIRST'})"


def _change(table: str, needed: StructField, found: StructField) -> Iterator[str]:
    need, have = needed.dataType, found.dataType
    if needed.name != found.name:
        raise LakeError(
            f"table {table}: column {found.name} is spelt {needed.name} in the configuration; spell it as the table does, or use "
            "another lake"
        )
    if need.simpleString() != have.simpleString():
        if not can_widen(have, need):
            how = "a narrower type" if can_widen(need, have) else "another type"
            raise LakeError(
                f"table {table}: column {found.name} is {have.simpleString().upper()}, but the configuration says "
                f"{need.simpleString().upper()}: {how}, which its values may not fit; change the schema back, or use another lake"
            )
        yield f"ALTER COLUMN `{found.name}` TYPE {need.simpleString()}"
    if needed.nullable and not found.nullable:
        yield f"ALTER COLUMN `{found.name}` DROP NOT NULL"


def _partitions(table: str, state: str, verb: str) -> str:
    return f"table {table}: {state} this configuration's partition_by {verb}; set it back, or use another lake"
