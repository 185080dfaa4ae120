"""How a local session's JVM is started, and settings that hold for a while."""

import pytest
from pyspark.sql import SparkSession

from pipelines.model.errors import RejoinError
from pipelines.session import _collector, _set, set_within

WHOLE_STAGE = "spark.sql.codegen.wholeStage"


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "SPARK_SUBMIT_OPTS"):
        monkeypatch.delenv(name, raising=False)


def test_the_parallel_collector_where_nothing_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _collector().split() == ["-XX:+UseParallelGC"]
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xss4m -XX:-UseGCOverheadLimit")
    assert _collector().split() == ["-XX:+UseParallelGC"]


@pytest.mark.parametrize("name", ["JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "SPARK_SUBMIT_OPTS"])
def test_one_that_the_environment_asks_for_stays_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "-Xss4m -XX:+UseZGC -Dx=y")
    assert _collector() == ""


def test_settings_hold_within_and_are_those_of_before_behind(spark: SparkSession) -> None:
    key, unset = "spark.sql.files.ignoreMissingFiles", "rejoin.test.unset"
    before = spark.conf.get(key)
    with set_within(spark, {key: "true", unset: "1"}):
        with set_within(spark, {key: "true"}):
            pass
        assert (spark.conf.get(key), spark.conf.get(unset)) == ("true", "1")
    assert (spark.conf.get(key), spark.conf.get(unset, None)) == (before, None)


def test_settings_are_those_of_before_after_a_failure_too(spark: SparkSession) -> None:
    before = spark.conf.get(WHOLE_STAGE)
    with pytest.raises(ZeroDivisionError), set_within(spark, {WHOLE_STAGE: "true" if before == "false" else "false"}):
        raise ZeroDivisionError
    assert spark.conf.get(WHOLE_STAGE) == before


class Refusing:
    """A session of serverless compute, which cannot exist here: settings cannot be set."""

    def __init__(self, values: dict[str, str]) -> None:
        self.conf, self.values = self, values

    def set(self, key: str, value: str) -> None:
        raise Exception(f"[CONFIG_NOT_AVAILABLE] Configuration {key} is not available. SQLSTATE: 42K0I")

    def get(self, key: str, default: str | None) -> str | None:
        return self.values.get(key, default)


def test_a_session_that_refuses_what_results_depend_on_is_named_with_the_remedy() -> None:
    with pytest.raises(RejoinError, match=r"^x\.y: this Spark refuses the value 'false'.*CONFIG_NOT_AVAILABLE.*use a cluster"):
        _set(Refusing({"x.y": "true"}), "x.y", "false")  # type: ignore[arg-type]


def test_one_that_has_the_value_already_may_refuse() -> None:
    _set(Refusing({"x.y": "min"}), "x.y", "min")  # type: ignore[arg-type]
