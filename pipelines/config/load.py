"""Reading a configuration: YAML and overrides into `pipelines.config.model`'s models, every mistake told in one line.

A mistake is a `ConfigError`: the file (or `--set`), the key path, what is wrong, what is allowed.
"""

import difflib
import re
import sys
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipelines.config.model import Config, StreamConfig
from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.model.errors import ConfigError

_SOURCES = {"files": FilesSource, "kafka": KafkaSource}


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML would silently take the last."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or a group", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def default_configuration() -> Path:
    """conf/playback.yml here, else beside the package (a checkout), else as installed."""
    here = Path("conf/playback.yml")
    places = (here, Path(__file__).resolve().parents[2] / here, Path(sys.prefix) / "share/rejoin" / here)
    return next((place for place in places if place.is_file()), here)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and validate `path`, with overrides applied in order: `key.path=value` (the value is YAML), or `@file` for all keys of
    a YAML file. Raises ConfigError."""
    raw = _read_yaml(path)
    sets = [each for text in overrides for each in _parse_overrides(text)]
    for keys, value in sets:
        _apply(raw, keys, value)
    try:
        config = Config.model_validate(raw)
        config._file = path
        return config
    except ValidationError as error:
        raise ConfigError(_one_line(error, path, {".".join(keys) for keys, _ in sets})) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a configuration with --conf FILE") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigError(f"{path}:{line} not valid YAML ({_problem(error)})") from None
    except ValueError as error:  # of a value that looks like a date
        raise ConfigError(f"{path}: not valid YAML ({error}; put what is no date in quotes)") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of keys (lake, streams, join, ...)")
    return raw


def _problem(error: yaml.YAMLError) -> str:
    """What YAML has against a file; without the value where one begins with * or !, for it may be a secret."""
    problem = str(getattr(error, "problem", None) or "unreadable")
    if "undefined alias" in problem or "the tag" in problem:
        return "a value that begins with * or ! needs quotes"
    return problem


def _parse_overrides(text: str) -> list[tuple[list[str], Any]]:
    return list(_leaves(_read_yaml(Path(text[1:])), [])) if text.startswith("@") else [_parse_override(text)]


def _leaves(group: dict[str, Any], path: list[str]) -> Iterator[tuple[list[str], Any]]:
    for key, value in group.items():
        keys = [*path, str(key)]
        if isinstance(value, dict):
            yield from _leaves(value, keys)
        else:
            yield keys, value


def _parse_override(text: str) -> tuple[list[str], Any]:
    path, equals, value = text.partition("=")
    keys = _keys(path.strip())
    if not equals or not all(keys):
        # What stands there may be a secret, so it is not shown.
        raise ConfigError("--set: must read key.path=value, e.g. --set join.hot_window=30m")
    try:
        return keys, yaml.load(value, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, ValueError):
        return keys, value
    except RecursionError:
        raise ConfigError(f"--set {path.strip()}: nested too deeply") from None


def _keys(path: str) -> list[str]:
    """The keys of a path; below `source.options` and `spark.conf` there is only one, which has dots of its own."""
    dotted = re.fullmatch(r"(.+\.source\.options|spark\.conf)\.(.+)", path)
    return [*dotted[1].split("."), dotted[2]] if dotted else path.split(".")


def _apply(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    node = raw
    for depth, key in enumerate(keys[:-1], start=1):
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: {'.'.join(keys[:depth])} is not a group of keys")
    node[keys[-1]] = value


def _one_line(error: ValidationError, path: Path, overridden: set[str]) -> str:
    lines = [_explain(item) for item in error.errors()]
    key = lines[0].partition(":")[0]
    typed = any(f"{key}.".startswith(f"{o}.") or o.startswith(f"{key}.") for o in overridden)
    place = "--set" if typed else str(path)
    more = f" (and {len(lines) - 1} more: {', '.join(line.partition(':')[0] for line in lines[1:])})" if lines[1:] else ""
    return f"{place}: {lines[0]}{more}"


def _explain(item: ErrorDetails) -> str:
    place = _without_tags(item["loc"])
    where = ".".join(str(part) for part in place)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        allowed = _keys_at(item["loc"][:-1])
        close = difflib.get_close_matches(str(place[-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{where}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if item["type"] == "missing":
        return f"{where}: missing; this key is required"
    if item["type"] == "union_tag_invalid":
        context = item.get("ctx", {})
        return f"{where}.format: Input should be one of {context.get('expected_tags')}, not {context.get('tag')}"
    if item["type"] == "value_error" and place and re.match(r"[a-z_]+[:.]", message):
        return f"{where}.{message}"
    return f"{where}: {message}" if where else message


def _without_tags(location: Sequence[int | str]) -> list[int | str]:
    """The key path, without the names that pydantic puts in for the alternatives of a source."""
    return [part for i, part in enumerate(location) if not (i and location[i - 1] == "source" and part in _SOURCES)]


def _keys_at(location: Sequence[int | str]) -> list[str]:
    """The keys allowed in the group at `location` of the configuration."""
    model: Any = Config
    for part in location:
        if part in _SOURCES:
            model = _SOURCES[str(part)]
            continue
        if model is dict:
            model = StreamConfig
            continue
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None) if model else None
        annotation = field.annotation if field else None
        model = dict if str(annotation).startswith("dict") else annotation
    fields = getattr(model, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]
