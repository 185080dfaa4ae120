"""Spark DDL read without Spark, so that a mistake in a schema is told before a JVM starts or a table exists.

The types are those that JSON can carry exactly (docs/types.md); names are letters, digits and underscores of any script. Any
other field of the events is read under an alias.
"""

import re
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

_KINDS = exp.DataType.Type
# Spark's names of the types without others inside: in SQL, and in a schema's JSON.
_PLAIN = {
    _KINDS.TEXT: ("STRING", "string"),
    _KINDS.BOOLEAN: ("BOOLEAN", "boolean"),
    _KINDS.TINYINT: ("TINYINT", "byte"),
    _KINDS.SMALLINT: ("SMALLINT", "short"),
    _KINDS.INT: ("INT", "integer"),
    _KINDS.BIGINT: ("BIGINT", "long"),
    _KINDS.FLOAT: ("FLOAT", "float"),
    _KINDS.DOUBLE: ("DOUBLE", "double"),
    _KINDS.DATE: ("DATE", "date"),
    _KINDS.TIMESTAMPTZ: ("TIMESTAMP", "timestamp"),
    _KINDS.TIMESTAMPLTZ: ("TIMESTAMP", "timestamp"),
}
_ALLOWED = f"{', '.join(dict.fromkeys(name for name, _ in _PLAIN.values()))}, DECIMAL, STRUCT, ARRAY, MAP<STRING, ...>"
_INSTEAD = {
    _KINDS.CHAR: "STRING: Spark pads and cuts CHAR",
    _KINDS.VARCHAR: "STRING: Spark cuts or refuses what is longer",
    _KINDS.TIMESTAMPNTZ: "TIMESTAMP: an event's time has an offset",
    _KINDS.BINARY: "STRING, which keeps base64 as it was sent",
    _KINDS.VARIANT: "STRUCT or MAP, or leave the column out: what is in no column is kept in `rescued`",
    _KINDS.DATETIME: "TIMESTAMP",
}
_MAX_NESTING = 20
_INTEGRAL = {"TINYINT", "SMALLINT", "INT", "BIGINT"}


@dataclass(frozen=True)
class Column:
    """One top-level column: its name, its type as Spark writes it (`STRUCT<a: INT>`) and in a Spark schema's JSON, whether it may
    be null."""

    name: str
    type: str
    json: Any
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
        """Whether Spark can compare two values: anything without a map inside."""
        return "MAP<" not in self.type

    def comparable_with(self, other: "Column") -> bool:
        """Whether `=` between the two means what it says: the same type, or two integers."""
        return self.type == other.type or {self.type, other.type} <= _INTEGRAL


def parse_ddl(ddl: str) -> tuple[Column, ...]:
    """The columns of a Spark DDL string such as `id STRING NOT NULL, at TIMESTAMP`. Raises ValueError."""
    try:
        statement = sqlglot.parse_one(f"CREATE TABLE t ({ddl})", dialect="spark")
    except (SqlglotError, RecursionError) as error:
        first: dict[str, str] = next(iter(getattr(error, "errors", ())), {})
        near = f" near {first['highlight']!r}" if first.get("highlight") else ""
        raise ValueError(
            f"not a Spark DDL column list{near}; write e.g. 'id STRING NOT NULL, at TIMESTAMP', reserved words in backticks"
        ) from None
    whole = isinstance(statement.this, exp.Schema) and not statement.args.get("properties")
    definitions = list(statement.this.expressions) if whole else []
    if not definitions or not all(isinstance(d, exp.ColumnDef) and d.args.get("kind") for d in definitions):
        raise ValueError("every column needs a name and a type, e.g. 'id STRING NOT NULL, at TIMESTAMP'")
    try:
        return tuple(_column(each, f"column {each.name}") for each in _named_once(definitions, "column"))
    except RecursionError:
        raise ValueError("types are nested too deeply") from None


def schema_json(columns: tuple[Column, ...]) -> dict[str, Any]:
    """The columns as the JSON of a Spark schema."""
    fields = [{"name": c.name, "type": c.json, "nullable": c.nullable, "metadata": {}} for c in columns]
    return {"type": "struct", "fields": fields}


def _column(definition: exp.ColumnDef, where: str) -> Column:
    nullable = True
    for each in definition.constraints:
        if isinstance(each.kind, exp.NotNullColumnConstraint):
            nullable = bool(each.kind.args.get("allow_null"))
        elif not isinstance(each.kind, exp.CommentColumnConstraint):
            raise ValueError(f"{where}: only NOT NULL and COMMENT may follow its type, not {each.sql(dialect='spark')}")
    return Column(definition.name, *_type(definition.kind, where), nullable)


def _named_once(definitions: list[exp.ColumnDef], what: str) -> list[exp.ColumnDef]:
    seen: set[str] = set()
    for definition in definitions:
        name = definition.name if isinstance(definition.this, exp.Identifier) else definition.this.sql(dialect="spark")
        if not re.fullmatch(r"[^\W\d]\w*", name) or name.startswith("__"):
            raise ValueError(
                f'{what} "{name}": a name has letters, digits and _, and begins with no digit and no __; choose one, and give '
                "the name that events have under `aliases`" + (" (of columns only)" if what != "column" else "")
            )
        if name.lower() in seen:
            raise ValueError(f"{what} {name} stands twice (names are compared without case)")
        seen.add(name.lower())
    return definitions


def _type(kind: exp.DataType | None, where: str) -> tuple[str, Any]:
    """A type as Spark writes it, and in a schema's JSON. Raises ValueError where events cannot carry it."""
    if kind is None:
        raise ValueError(f"{where}: has no type")
    of, inside = kind.this, list(kind.expressions)
    if kind.sql().count("<") > _MAX_NESTING:
        raise ValueError(f"{where}: more than {_MAX_NESTING} ARRAY, MAP and STRUCT in one column; keep it as a STRING of JSON")
    if of in _PLAIN and not inside:
        return _PLAIN[of]
    if of == _KINDS.DECIMAL:
        given = [each.name for each in inside]
        precision, scale = (int(each) if each.isdecimal() else -1 for each in (given + ["10", "0"][len(given) :])[:2])
        if not 0 <= scale <= precision <= 38 or not precision:
            raise ValueError(f"{where}: DECIMAL({', '.join(given)}): 38 digits at most, of which the scale is a part")
        return f"DECIMAL({precision},{scale})", f"decimal({precision},{scale})"
    if of == _KINDS.ARRAY and len(inside) == 1:
        name, json = _type(inside[0], where)
        return f"ARRAY<{name}>", {"type": "array", "elementType": json, "containsNull": True}
    if of == _KINDS.MAP and len(inside) == 2:
        if _type(inside[0], where)[0] != "STRING":
            raise ValueError(f"{where}: the keys of a MAP must be STRING, as those of JSON are")
        name, json = _type(inside[1], where)
        return f"MAP<STRING, {name}>", {"type": "map", "keyType": "string", "valueType": json, "valueContainsNull": True}
    if of == _KINDS.STRUCT and inside and all(isinstance(each, exp.ColumnDef) for each in inside):
        fields = [_column(each, f"{where}: field {each.name}") for each in _named_once(inside, f"{where}: field")]
        if not all(field.nullable for field in fields):
            raise ValueError(f"{where}: NOT NULL is for columns; inside a STRUCT leave it out")
        return f"STRUCT<{', '.join(f'{f.name}: {f.type}' for f in fields)}>", schema_json(tuple(fields))
    written = (kind.sql() or "the type").replace("TIMESTAMPNTZ", "TIMESTAMP_NTZ")
    raise ValueError(f"{where}: {written} is not a type of events; use {_INSTEAD.get(of, 'one of ' + _ALLOWED)}")
