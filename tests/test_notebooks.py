"""The notebooks run, top to bottom, as Databricks would run their cells."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipelines.model.errors import ConfigError
from pipelines.notebooks import reconcile_options
from pipelines.reconcile.span import Range
from tests.builders import play, shown

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


class Widgets:
    """Stands in for a Databricks workspace's `dbutils`, which cannot exist here."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values, self.widgets = values, self

    def text(self, name: str, default: str) -> None:
        self.values.setdefault(name, default)

    def get(self, name: str) -> str:
        return self.values[name]


def run(name: str, scope: dict[str, Any]) -> dict[str, Any]:
    source = (NOTEBOOKS / f"{name}.py").read_text()
    assert source.startswith("# Databricks notebook source\n")
    for cell in source.split("# COMMAND ----------"):
        exec(compile(cell, name, "exec"), scope)
    return scope


@pytest.mark.slow
def test_the_three_notebooks_in_a_row(replay: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = replay()
    pipeline.land("impressions", [shown("a", "10:00"), shown("b", "12:00")])
    pipeline.land("playbacks", [play("p", "10:05"), play("q", "12:05"), "nonsense"])
    paths = [f"streams.{s}.source.path={pipeline.root}/landing/{s}" for s in ("impressions", "playbacks")]
    overrides = "\n".join([f"lake={pipeline.root}/lake", *paths])
    monkeypatch.setenv("REJOIN_SET", overrides)
    run("run", {})
    assert "settle has never run" in capsys.readouterr().out
    pages: list[str] = []
    run("settle_and_reconcile", {"dbutils": Widgets({"set": overrides}), "displayHTML": pages.append})
    assert "AGREES" in capsys.readouterr().out
    assert pages[0].startswith("<!doctype html>")
    run("explore", {})
    assert "not_json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"span": Range(), "fix": False}),
        ({"dates": "all", "repair": "yes"}, {"span": Range(), "fix": True}),
        (
            {"dates": "2026-01-31", "repair": "no"},
            {"span": Range(first=date(2026, 1, 31), last=date(2026, 1, 31)), "fix": False},
        ),
    ],
)
def test_what_a_job_asks_of_reconcile(given: dict[str, str], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert reconcile_options({"dbutils": Widgets(given)}) == options
    for name, value in given.items():
        monkeypatch.setenv(f"REJOIN_{name.upper()}", value)
    assert reconcile_options({}) == options


@pytest.mark.parametrize("given", [{"dates": "yesterday"}, {"dates": "since-last"}, {"repair": "maybe"}])
def test_what_a_job_cannot_ask(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"cannot be; allowed: "):
        reconcile_options({"dbutils": Widgets(given)})
