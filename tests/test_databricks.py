"""databricks.yml against Databricks' own models of it, which refuse unknown and missing fields; its commands against ours."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from databricks.bundles.jobs import ClusterSpec, Job
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume
from typer.main import get_command

from pipelines.cli.app import app
from pipelines.config.load import load_config

ROOT = Path(__file__).parent.parent
BUNDLE: dict[str, Any] = yaml.safe_load((ROOT / "databricks.yml").read_text())
RESOURCES = BUNDLE["resources"]
TASKS = [(name, task) for name, job in RESOURCES["jobs"].items() for task in job["tasks"]]
VARIABLES = BUNDLE["variables"]


@pytest.mark.parametrize("name", RESOURCES["jobs"])
def test_jobs_are_of_the_published_schema(name: str) -> None:
    job = Job.from_dict(RESOURCES["jobs"][name])
    assert {task.job_cluster_key for task in job.tasks} == {cluster.job_cluster_key for cluster in job.job_clusters}  # type: ignore[union-attr]


def test_schemas_volumes_and_the_cluster_are_of_the_published_schema() -> None:
    for each in RESOURCES["schemas"].values():
        Schema.from_dict(each)
    for each in RESOURCES["volumes"].values():
        Volume.from_dict(each)
    ClusterSpec.from_dict(VARIABLES["cluster"]["default"])


def test_the_rest_is_what_a_bundle_has_and_every_reference_resolves() -> None:
    assert set(BUNDLE) == {"bundle", "variables", "artifacts", "resources", "targets"}
    text = re.sub(r"#.*", "", (ROOT / "databricks.yml").read_text())
    known = {"workspace.file_path", "workspace.current_user.userName", "bundle.target", *(f"var.{name}" for name in VARIABLES)}
    for reference in re.findall(r"\$\{([^}]+)\}", text):
        path = reference.split(".")
        found = path[0] == "resources" and path[3] in RESOURCES[path[1]][path[2]]
        assert reference in known or found, reference


@pytest.mark.parametrize(("job", "task"), TASKS, ids=[f"{job}-{task['task_key']}" for job, task in TASKS])
@pytest.mark.parametrize("target", BUNDLE["targets"])
def test_a_task_runs_a_command_on_a_configuration_that_loads(job: str, task: dict[str, Any], target: str) -> None:
    words = task["python_wheel_task"]["parameters"]
    values = {"${workspace.file_path}": str(ROOT), "${bundle.target}": target, "${var.conf}": f"{ROOT}/conf/playback.yml"}
    for name, value in values.items():
        words = [word.replace(name, value) for word in words]
    given = get_command(app).commands[words[0]].make_context(words[0], words[1:]).params  # type: ignore[attr-defined]
    config = load_config(Path(given["conf"]), given["sets"])
    catalog = BUNDLE["targets"][target].get("variables", {}).get("catalog", VARIABLES["catalog"]["default"])
    assert config.lake == f"{catalog}.rejoin", "the bundle makes the schema that the configuration names"
    places = [config.checkpoints, config.reconcile.reports, *(s.source.path for s in config.streams.values())]  # type: ignore[union-attr]
    assert all(str(place).startswith(f"/Volumes/{catalog}/rejoin/files/") for place in places)


def test_the_wheel_brings_neither_spark_nor_delta() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    required = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M)
    assert required
    assert not re.search(r'"(pyspark|delta-spark)\b', required[1])
    assert "whl" in BUNDLE["artifacts"]["wheel"]["type"]
    assert shlex.split(BUNDLE["artifacts"]["wheel"]["build"])[:3] == ["python3", "-m", "pip"]
