"""Write docs/configuration.md and docs/configuration.schema.json from the configuration's models (`make reference`).

A key's meaning is the string below it in the source of its model; type, default and bounds are the model's own.
"""

import ast
import inspect
import json
import types
import typing
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import AwareDatetime, BaseModel, ByteSize
from pydantic.fields import FieldInfo

from pipelines.config.model import Config
from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.model.durations import format_duration

ROOT = Path(__file__).parent.parent
PAGE, SCHEMA, EXAMPLE = (ROOT / path for path in ("docs/configuration.md", "docs/configuration.schema.json", "conf/playback.yml"))
COLUMN = "<column>"

HEAD = """# Configuration

<!-- Written by `make reference` from pipelines/config; a test holds it to them. -->

One YAML file, given by `--conf` (without it: conf/playback.yml, as shipped). It is validated before anything else happens: an
unknown key, a bad duration, windows that contradict each other, a schema without its id: one line that names file, key and what
is allowed, and exit code 2.

- Any key can be overridden for one run: `--set join.hot_window=10m`, as often as needed; `--set @FILE` overrides by a YAML file.
- `${env:NAME}` and `${secret:scope/key}` stand for values that are read when they are needed, and never printed.
- A **duration** is `250ms`, `30s`, `10m`, `6h`, `2d`, `1h30m` or `0`. **Bytes** are a number, or `32MiB`, `1GB`. A **time** is
  ISO-8601 with offset. Paths are relative to the directory that the command runs in.
- An editor completes and checks keys by [configuration.schema.json](configuration.schema.json): for the YAML language
  server, begin the file with `# yaml-language-server: $schema=docs/configuration.schema.json`.

[docs/changes.md](changes.md) says which keys may change under a lake that exists.
"""


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """By key, the string below it."""
    body = ast.parse(inspect.getsource(model).lstrip()).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, [*body.body[1:], None], strict=True):
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Constant):
            found[field.target.id] = " ".join(str(text.value).split())
    return found


def models_in(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in typing.get_args(kind) for model in models_in(part)]


def is_mapping(kind: Any) -> bool:
    return typing.get_origin(kind) is dict


def described(field: FieldInfo) -> str:
    """The type of a key, in words."""
    return _words(field.annotation, tuple(field.metadata))


def _words(kind: Any, more: tuple[Any, ...] = ()) -> str:
    if typing.get_origin(kind) is typing.Annotated:
        return _words(typing.get_args(kind)[0], more)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if part is type(None) else _words(part, more) for part in parts)
    if origin is tuple:
        return "a list of columns" if parts[0] is str else "a number or a list of them"
    if origin is dict:
        return "a mapping of column to names" if typing.get_origin(parts[1]) is tuple else "a mapping of text to text"
    names = {timedelta: "duration", ByteSize: "bytes", str: "text", bool: "true or false", AwareDatetime: "time"}
    bounds = "".join(f" {sign} {value}" for sign, value in _bounds(more))
    return names.get(kind, "number") + (bounds if kind in (int, float) else "")


def _bounds(metadata: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for each in metadata:
        for name, sign in {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}.items():
            if getattr(each, name, None) is not None:
                yield sign, getattr(each, name)


def shown(value: Any) -> Any:
    """A default as YAML has it."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, ByteSize):
        return value.human_readable().replace(".0", "")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, tuple) else value


def default_of(field: FieldInfo, name: str, whole: BaseModel | None) -> Any:
    """The default of a key in a model; `whole`: what the model itself is by default, where its parent says so."""
    return getattr(whole, name) if whole is not None else field.get_default(call_default_factory=True)


Key = tuple[str, FieldInfo, str]
"""Key path, field, and its default in words."""


def sections(
    model: type[BaseModel], at: str = "", whole: BaseModel | None = None
) -> Iterator[tuple[str, type[BaseModel], list[Key]]]:
    """Each model with the key path that it stands at, and its own keys; parts follow what they are part of."""
    own: list[Key] = []
    parts: list[tuple[type[BaseModel], str, Any]] = []
    for name, field in model.model_fields.items():
        key, inner, value = f"{at}{field.alias or name}", models_in(field.annotation), default_of(field, name, whole)
        beyond = f".{'<name>' if key == 'streams' else COLUMN}" if is_mapping(field.annotation) else ""
        parts += [(each, f"{key}{beyond}.", value if isinstance(value, each) else None) for each in inner]
        if field.is_required() and whole is None:
            own.append((key, field, "required"))
        elif not inner:
            told = shown(value)
            own.append((key, field, f"`{told if isinstance(told, str) else json.dumps(told)}`"))
    yield at, model, own
    for each, path, value in parts:
        yield from sections(each, path, value)


def page() -> str:
    lines = [HEAD]
    for at, model, keys in sections(Config):
        told, names = meanings(model), {field.alias or name: name for name, field in model.model_fields.items()}
        title = f"`{at.rstrip('.')}`" if at else "Top level"
        kind = {FilesSource: ", from files", KafkaSource: ", from Kafka"}.get(model, "")
        lines += [f"## {title}{kind}", "", " ".join(inspect.getdoc(model).split()), ""]
        lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for key, field, default in keys:
            name = names[key.rpartition(".")[2]]
            kind = "see below" if models_in(field.annotation) else described(field)
            lines.append(f"| `{key}` | {kind} | {default} | {told.get(name, '')} |".replace("|  |", "| |"))
        lines.append("")
    lines += ["## An example with every key", "", "conf/playback.yml, with all that it leaves to defaults:", "", "```yaml"]
    return "\n".join([*lines, example().rstrip(), "```", ""])


def example() -> str:
    """The shipped configuration with every key that has a default that is not null."""
    given = yaml.safe_load(EXAMPLE.read_text())
    return yaml.safe_dump(_filled(Config, given), sort_keys=False, width=120, default_flow_style=None)


def _filled(model: type[BaseModel], given: dict[str, Any], whole: BaseModel | None = None) -> dict[str, Any]:
    filled = {}
    for name, field in model.model_fields.items():
        key, inner, value = field.alias or name, models_in(field.annotation), default_of(field, name, whole)
        if key in given and is_mapping(field.annotation) and inner:
            filled[key] = {each: _filled(inner[0], part) for each, part in given[key].items()}
        elif inner and not is_mapping(field.annotation):
            filled[key] = _filled(inner[0], given.get(key, {}), value if isinstance(value, inner[0]) else None)
        elif key in given:
            filled[key] = given[key]
        elif shown(value) not in (None, {}, []):
            filled[key] = shown(value)
    return filled


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file: what an editor can see. What keys say of each other is checked on load."""
    found = Config.model_json_schema(by_alias=True)
    for model in {model.__name__: model for _, model, _ in sections(Config)}.values():
        told = meanings(model)
        part = found if model is Config else found["$defs"][model.__name__]
        for name, field in model.model_fields.items():
            of_key = part["properties"][field.alias or name]
            of_key.pop("title", None)
            if name in told:
                of_key["description"] = told[name]
            if not models_in(field.annotation) and "default" in of_key:
                of_key["default"] = shown(field.get_default(call_default_factory=True))
    # Files is what a source is, unless it says otherwise.
    source = found["$defs"]["StreamConfig"]["properties"]["source"]
    source.pop("discriminator", None)
    source["anyOf"] = source.pop("oneOf")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Rejoin", **found}


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
