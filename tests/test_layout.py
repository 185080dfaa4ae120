"""What may depend on what, and what no module may use."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HERE = ROOT / "pipelines"
PATHS = sorted(HERE.rglob("*.py"))

ORDER = (
    {"__main__"},
    {"cli", "notebooks"},
    {"jobs"},
    {"demo"},
    {"reconcile", "settle", "join"},
    {"sink"},
    {"ingest"},
    {"context"},
    {"monitor"},
    {"control"},
    {"lake"},
    {"kafka"},
    {"session"},
    {"config"},
    {"model"},
    {""},
)
"""Packages, and modules beside them, from top to bottom: each may import from those further down. `""` is `pipelines` itself."""
LEVELS = {package: level for level, packages in enumerate(ORDER) for package in packages}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PATHS}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, also within functions and for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
    return {name for name in found if name.partition(".")[0] == "pipelines"}


def reached(packages: set[str]) -> set[str]:
    """The packages that modules of these import from, directly or through others."""
    ahead = {name for name in MODULES if package_of(name) in packages}
    seen: set[str] = set()
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= imports(MODULES[name]) - seen
    return {package_of(name) for name in seen}


def test_every_package_has_its_place() -> None:
    assert {package_of(name) for name in MODULES} == set(LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    own = package_of(module)
    elsewhere = {name for name in imports(MODULES[module]) if package_of(name) != own}
    assert not [name for name in elsewhere if LEVELS[package_of(name)] <= LEVELS[own]]


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({module: imports(path) for module, path in MODULES.items()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_reconcile_is_independent_of_join_settle_and_sink() -> None:
    assert not reached({"reconcile"}) & {"join", "settle", "sink"}


@pytest.mark.parametrize("package", ["config", "model"])
def test_no_spark_where_a_configuration_is_read(package: str) -> None:
    """`status` and `explain` answer without it: only modules about Spark's types import it when they are imported."""
    of_spark = {"pipelines.model.events", "pipelines.model.schemas"}
    for module in {name for name in MODULES if package_of(name) == package} - of_spark:
        body = ast.parse(MODULES[module].read_text()).body
        names = {node.module or "" for node in body if isinstance(node, ast.ImportFrom)}
        assert not [name for name in names if name.startswith("pyspark") or name in of_spark], module


@pytest.mark.parametrize("module", MODULES)
def test_spark_connect_could_run_it(module: str) -> None:
    """No attribute of the classic API only: what Databricks serverless does not have."""
    names = {node.attr for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Attribute)}
    assert not names & {"sparkContext", "_jvm", "_jdf", "_jsparkSession", "rdd", "_sc"}


def test_no_module_shadows_a_standard_one() -> None:
    """`spark-submit pipelines/__main__.py` puts pipelines/ itself on the path: what lies there can be imported bare."""
    bare = {path.stem if path.is_file() else path.name for path in HERE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not bare & (set(sys.stdlib_module_names) - {"__main__"})
