"""Avro values of Kafka records: into the JSON text that the door judges by its own rules, and out of it for generated events.

In the text, keys are the schema's field names. Instants are ISO-8601 with microseconds and offset, dates `2026-01-31`. Decimals
are numbers with all their digits. Bytes are base64. NaN and the infinities, which JSON does not have, are text, so that a numeric
column refuses them.

A framed value begins with what Confluent's serializers put there: a byte 0 and four of the schema's id. `ids` are those that the
schema has; none means that values are not framed.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import fastavro

from pipelines.config.secrets import resolve
from pipelines.config.sources import ValueConfig
from pipelines.model.errors import ConfigError

_MAGIC, _FRAME = b"\0", 5


class NotAvroError(ValueError):
    """Bytes that are no value of the schema; the message says why."""


def read_schema(value: ValueConfig, where: str) -> str:
    """The text of the schema file; `where` is the key path of the source. Raises ConfigError where it is no record's schema."""
    path, key = resolve(value.schema_file or "", f"{where}.value.schema_file"), f"{where}.value.schema_file"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{key}: {path} cannot be read ({problem}); name a file with an Avro schema") from None
    try:
        schema = _parsed(text)
    except Exception as error:  # of many kinds, for a schema may be wrong in many ways
        raise ConfigError(f"{key}: {path} is not an Avro schema ({type(error).__name__}: {error})") from None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ConfigError(f"{key}: {path} must be the schema of a record")
    return text


def to_json(payload: bytes, schema: str, ids: Sequence[int] = ()) -> str:
    """The value as JSON text. Raises NotAvroError."""
    if ids and (len(payload) < _FRAME or payload[:1] != _MAGIC):
        raise NotAvroError("does not begin with the byte 0 and a schema id of four bytes")
    if ids and (id := int.from_bytes(payload[1:_FRAME], "big")) not in ids:
        raise NotAvroError(f"has schema id {id}; the schema's is {' or '.join(map(str, ids))} (value.schema_id)")
    stream = io.BytesIO(payload[_FRAME:] if ids else payload)
    try:
        record = fastavro.schemaless_reader(stream, _parsed(schema), None)
    except Exception as error:  # whatever garbage leads to: ends of input, impossible lengths, times beyond the calendar
        raise NotAvroError(f"not a value of the schema ({type(error).__name__}: {error})"[:200]) from None
    left = len(stream.read())
    if left:
        raise NotAvroError(f"not a value of the schema ({left} bytes too many)")
    return _text(record)


def from_json(line: str, schema: str, ids: Sequence[int] = ()) -> bytes:
    """The event as an Avro value, framed with the first of the ids. Raises NotAvroError where it is no event of the schema."""
    try:
        event = json.loads(line)
        moments = {name: datetime.fromisoformat(event[name].replace("Z", "+00:00")) for name in _times(schema) & event.keys()}
        stream = io.BytesIO(_MAGIC + ids[0].to_bytes(_FRAME - 1, "big") if ids else b"")
        stream.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(stream, _parsed(schema), {**event, **moments})
    except Exception as error:
        raise NotAvroError(f"no event of the schema ({type(error).__name__})") from None
    return stream.getvalue()


@lru_cache(maxsize=16)
def _parsed(schema: str) -> Any:
    return fastavro.parse_schema(json.loads(schema))


@lru_cache(maxsize=16)
def _times(schema: str) -> frozenset[str]:
    """The fields of the record that are instants."""
    fields = json.loads(schema)["fields"]
    return frozenset(f["name"] for f in fields if '"logicalType": "timestamp-' in json.dumps(f["type"]))


def _text(value: Any) -> str:
    """One value as JSON. Not by `json`, which has no exact decimals."""
    return _WRITERS.get(type(value), _as_text)(value)


def _as_text(value: Any) -> str:
    return json.dumps(str(value), ensure_ascii=False)


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: _as_text,
    type(None): json.dumps,
    bool: json.dumps,
    int: repr,
    float: lambda value: repr(value) if math.isfinite(value) else f'"{value}"',
    Decimal: lambda value: format(value, "f"),
    dict: lambda value: "{" + ",".join(f"{_as_text(key)}:{_text(item)}" for key, item in value.items()) + "}",
    list: lambda value: "[" + ",".join(map(_text, value)) + "]",
    datetime: lambda value: f'"{value.isoformat(timespec="microseconds")}"',
    bytes: lambda value: f'"{base64.b64encode(value).decode()}"',
}
