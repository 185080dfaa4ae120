"""The suites that ship are found and whole; one's own that cannot be used are told by file and expectation."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pipelines.config.model import Config
from pipelines.model.errors import ConfigError
from pipelines.reconcile.expectations import SUITES, load_suites, suites_directory, validate
from pipelines.reconcile.summary import parameters

SUMMARY = {
    "landed": 3,
    "table_rows": 3,
    "differences": 0,
    "unbalanced": 0,
    "quarantine_rate": 0.2,
    "files_ingested_twice": 0,
    "files_without_rows": 0,
    "files_unreadable": 0,
    "files_changed": 0,
    "rows_misplaced": 0,
    "data_files_gone": 0,
    "foreign_commits": 1,
    "dates_empty": 2,
    "offsets_missing": 0,
    "offsets_unproven": 0,
    "offsets_ingested_twice": 2,
}


def frames(late: int = 0, fullness: float = 1.0) -> dict[str, pd.DataFrame]:
    hour = {"event_date": "2026-01-10", "hour": 3}
    return {
        "summary": pd.DataFrame([SUMMARY]),
        "bronze": pd.DataFrame([{"stream": "s", "accepted": 5, "late": late}]),
        "attributed": pd.DataFrame([{**hour, "batch_rows": 9, "table_rows": 9, "unattributed": 1, "fullness": fullness}]),
    }


def test_the_shipped_suites(config: Config, tmp_path: Path) -> None:
    given = parameters(config)
    suites = load_suites(suites_directory(None), given)
    checks = validate(frames(late=6, fullness=0.4), suites, given, tmp_path)
    assert {check.name: check.observed for check in checks if not check.success} == {
        "commits on bronze by others at most 0": 1,
        "dates between others without any outcome at most 0": 2,
        "offsets ingested twice at most 0": 2,
        "quarantine rate at most 0.05": 0.2,
        "streams with more late rows than rows": 1,
        "hours with a side that is half empty": 1,
    }
    assert [check.name for check in checks if check.failed] == [
        "commits on bronze by others at most 0",
        "offsets ingested twice at most 0",
        "streams with more late rows than rows",
        "hours with a side that is half empty",
    ]
    assert len(list((tmp_path / "gx").rglob("index.html"))) == 1
    # Again, over what the first run has left.
    again = validate(frames(), suites, given, tmp_path)
    assert [check.name for check in again if check.name.startswith(("hours", "streams")) and not check.success] == []


def own(folder: Path, **suites: Any) -> Path:
    for name in SUITES:
        (folder / f"{name}.yml").write_text(yaml.safe_dump(suites.get(name, {"expectations": []})))
    return folder


def test_own_suites(config: Config, tmp_path: Path) -> None:
    rows = {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 2}, "meta": {"says": "two hours"}}
    missing = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "no_such"}}
    (tmp_path / "own").mkdir()
    suites = load_suites(own(tmp_path / "own", attributed={"expectations": [rows, missing]}), parameters(config))
    first, second = validate(frames(), suites, parameters(config), tmp_path / "site")
    assert (first.name, first.failed) == ("two hours", True)
    assert second.failed
    assert second.name.startswith("expect_column_values_to_not_be_null (not evaluated: ")


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (
            {"expectations": [{"type": "expect_miracles"}]},
            r"summary\.yml: expectation 1: 'expect_miracles' is no expectation's type",
        ),
        (
            {"expectations": [{"type": "expect_none_of", "kwargs": {"column": "x", "max_value": {"$PARAMETER": "no"}}}]},
            r"summary\.yml: expectation 1: there is no parameter no; there are max_differences, ",
        ),
        *(
            (
                {"expectations": [{"type": "expect_column_values_to_be_between", "kwargs": kwargs}]},
                rf"expectation 1: .*: {message}",
            )
            for kwargs, message in [
                ({"column": "x", "min_value": 1, "mostly": 2}, "mostly: ensure this value is less than or equal to 1.0"),
                ({"column": "x", "min_value": "much"}, "min_value: value is not a valid float"),
                ({"column": "x", "min_vlue": 1}, "min_vlue: extra fields not permitted"),
                ({"min_value": 1}, "column: field required"),
                ({"column": "x"}, "min_value and max_value cannot both be None"),
                ([1], "kwargs must be a group of arguments"),
            ]
        ),
        (
            {"expectations": [{"type": "expect_column_values_to_match_regex", "kwargs": {"column": "x", "regex": "("}}]},
            "regex: not a pattern",
        ),
        ([], r"summary\.yml: needs a list under `expectations`"),
        ({"expectations": ["x"]}, r"summary\.yml: expectation 1: 'x' is no expectation's type"),
    ],
)
def test_what_is_no_suite(suite: Any, message: str, config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_suites(own(tmp_path, summary=suite), parameters(config))


def test_where_suites_are_not(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"suites: .*nowhere is no directory; it should have summary, bronze, attributed"):
        suites_directory(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"summary\.yml: .*No such file"):
        load_suites(tmp_path, parameters(config))
