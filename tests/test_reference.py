"""The reference of the configuration: docs/configuration.md and its JSON schema, which are written from the models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.config.load import load_config
from scripts import reference

CONF = reference.ROOT / "conf"
SCHEMA = jsonschema.Draft202012Validator(reference.schema())
PLAYBACK = yaml.safe_load((CONF / "playback.yml").read_text())


def test_page_and_schema_are_those_of_the_models() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `make reference`"
    assert json.loads(reference.SCHEMA.read_text()) == reference.schema(), "run `make reference`"


def test_every_key_has_a_meaning() -> None:
    for at, model, _ in reference.sections(reference.Config):
        keys = {name for name, field in model.model_fields.items() if not reference.models_in(field.annotation)}
        assert keys - set(reference.meanings(model)) <= {"format"}, at


def test_the_example_is_a_configuration_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "example.yml"
    file.write_text(reference.example())
    SCHEMA.validate(yaml.safe_load(file.read_text()))
    assert load_config(file).model_dump() == load_config(CONF / "playback.yml").model_dump()


@pytest.mark.parametrize("name", ["playback.yml", "ads.yml"])
def test_an_editor_finds_nothing_wrong_with_what_is_shipped(name: str) -> None:
    SCHEMA.validate(yaml.safe_load((CONF / name).read_text()))


def changed(path: str, value: Any) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(json.dumps(PLAYBACK))
    part, *keys = whole, *path.split(".")
    for key in keys[:-1]:
        part = part.setdefault(key, {})
    part[keys[-1]] = value
    return whole


RIGHT = [("join.hot_window", 0), ("join.hot_window", "1h30m"), ("trigger.join_max_bytes", "64MiB"), ("trigger.every", "250ms")]
RIGHT += [("trigger.settle_backlog_bytes", None), ("streams.playbacks.source.path", "${env:LANDING}"), ("spark.conf", {"a": "b"})]
KAFKA = {"format": "kafka", "bootstrap_servers": "b:9092", "topic": "t"}
RIGHT += [("streams.playbacks.source", KAFKA)]
FRAMED = {"format": "avro", "schema_file": "x.avsc", "framing": "confluent"}
RIGHT += [("streams.playbacks.source", {**KAFKA, "value": {**FRAMED, "schema_id": ids}}) for ids in (7, [7, 8])]
WRONG = [("join.hot_windw", "3m"), ("join.hot_window", "soon"), ("join.keys", []), ("state_store.provider", "redis")]
WRONG += [("trigger.max_files", 0), ("streams.playbacks.role", "both"), ("lake", 5), ("streams.playbacks.source", {"topic": "t"})]


def cases() -> Iterator[Any]:
    for valid, values in ((True, RIGHT), (False, WRONG)):
        for path, value in values:
            yield pytest.param(path, value, valid, id=f"{path}={value}")


@pytest.mark.parametrize(("path", "value", "valid"), cases())
def test_the_schema_tells_right_from_wrong(path: str, value: Any, valid: bool) -> None:
    assert SCHEMA.is_valid(changed(path, value)) is valid
