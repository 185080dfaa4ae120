"""What the notebooks are made of. tests/test_connect.py runs each."""

from datetime import date
from pathlib import Path

import pytest

from pipelines.model.errors import ConfigError
from pipelines.notebooks import dates, widgets
from pipelines.reconcile.span import Range
from tests.connect_trace import Widgets

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_in_source_format(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) < 40
    assert lines[:2] == ["# Databricks notebook source", "# MAGIC %pip install --quiet .."]


def test_a_widget_has_its_default_or_what_a_job_passes() -> None:
    given = widgets(Widgets(set=" a=1 ", mode="continuous"), mode=("available now", "continuous"), repair=("no", "yes"))
    assert given == {"conf": "", "set": "a=1", "mode": "continuous", "repair": "no"}


def test_a_value_that_is_no_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="repair: 'maybe' cannot be; allowed: no, yes"):
        widgets(Widgets(repair="maybe"), repair=("no", "yes"))


def test_dates_are_all_or_one() -> None:
    assert dates("all") == Range()
    assert dates("2026-01-31") == Range(first=date(2026, 1, 31), last=date(2026, 1, 31))
    with pytest.raises(ConfigError, match="dates: 'yesterday' cannot be; allowed: all, a date like 2026-01-31"):
        dates("yesterday")
