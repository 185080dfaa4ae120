"""What may depend on what, and what no module may use."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "pipelines").rglob("*.py"))


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def below(package: str) -> list[Path]:
    return [path for path in MODULES if path.is_relative_to(ROOT / "pipelines" / package)]


@pytest.mark.parametrize("path", below("reconcile"), ids=lambda p: p.name)
def test_reconcile_is_independent_of_join_settle_and_sink(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith(("pipelines.join", "pipelines.settle", "pipelines.sink"))]


def test_reconcile_is_independent_through_what_it_imports_too() -> None:
    here = ROOT / "pipelines"
    seen, ahead = set(), {".".join(("pipelines", *p.relative_to(here).with_suffix("").parts)) for p in below("reconcile")}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        path = ROOT / (name.replace(".", "/") + ".py")
        if path.is_file():
            ahead |= {n for n in imports(path) if n.startswith("pipelines.")} - seen
    assert not [name for name in seen if name.startswith(("pipelines.join", "pipelines.settle", "pipelines.sink"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_from_jobs_but_the_edges(path: Path) -> None:
    edges = ("cli.py", "notebooks.py")
    if path.name in edges or path.parent.name == "jobs":
        return
    assert not [name for name in imports(path) if name.startswith("pipelines.jobs")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_spark_connect_could_run_it(path: Path) -> None:
    """No attribute of the classic API only: what Databricks serverless does not have."""
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not names & {"sparkContext", "_jvm", "_jdf", "_jsparkSession", "rdd", "_sc"}


def test_no_module_shadows_a_standard_one() -> None:
    """`spark-submit pipelines/__main__.py` puts pipelines/ itself on the path."""
    import sys

    assert not {path.stem for path in MODULES if path.parent.name == "pipelines"} & (set(sys.stdlib_module_names) - {"__main__"})
