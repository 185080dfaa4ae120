"""Spark DDL read without Spark, so that a mistake in a schema is told before a JVM starts."""

from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

_INTEGRAL = {"TINYINT", "SMALLINT", "INT", "BIGINT"}


@dataclass(frozen=True)
class Column:
    """One top-level column: its name as written, its type in capitals (`STRUCT<A INT>`), whether it may be null."""

    name: str
    type: str
    nullable: bool

    @property
    def is_timestamp(self) -> bool:
        return self.type == "TIMESTAMP"

    @property
    def is_number(self) -> bool:
        names = ("TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE")
        return self.type in names or self.type.startswith("DECIMAL")

    @property
    def is_orderable(self) -> bool:
        """Whether Spark can compare two values: anything without a map, a variant or an interval inside."""
        return not any(word in self.type for word in ("MAP", "VARIANT", "INTERVAL", "OBJECT"))

    def comparable_with(self, other: "Column") -> bool:
        """Whether `=` between the two means what it says: the same type, or two integers."""
        return self.type == other.type or {self.type, other.type} <= _INTEGRAL


def parse_ddl(ddl: str) -> tuple[Column, ...]:
    """The columns of a Spark DDL string such as `id STRING NOT NULL, at TIMESTAMP`. Raises ValueError."""
    try:
        statement = sqlglot.parse_one(f"CREATE TABLE t ({ddl})", dialect="spark")
    except SqlglotError as error:
        first: dict[str, str] = next(iter(getattr(error, "errors", ())), {})
        near = f" near {first['highlight']!r}" if first.get("highlight") else ""
        raise ValueError(f"not a Spark DDL column list{near}; write e.g. 'id STRING NOT NULL, at TIMESTAMP'") from None
    definitions = list(statement.this.expressions) if isinstance(statement.this, exp.Schema) else []
    if not definitions or not all(isinstance(d, exp.ColumnDef) and d.args.get("kind") for d in definitions):
        raise ValueError("every column needs a name and a type, e.g. 'id STRING NOT NULL, at TIMESTAMP'")
    columns = tuple(Column(d.name, _type_name(d.kind), not _not_null(d)) for d in definitions)
    seen: set[str] = set()
    for column in columns:
        if column.name.lower() in seen:
            raise ValueError(f"column {column.name} stands twice (names are compared without case)")
        seen.add(column.name.lower())
    return columns


def _type_name(kind: exp.DataType) -> str:
    name = kind.sql(dialect="spark").upper()
    return {"LONG": "BIGINT", "INTEGER": "INT", "SHORT": "SMALLINT", "BYTE": "TINYINT"}.get(name, name)


def _not_null(definition: exp.ColumnDef) -> bool:
    return any(
        isinstance(c.kind, exp.NotNullColumnConstraint) and not c.kind.args.get("allow_null") for c in definition.constraints
    )
