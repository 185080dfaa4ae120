"""How a local session's JVM is started."""

import pytest

from pipelines.session import _collector


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
