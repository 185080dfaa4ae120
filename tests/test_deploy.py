"""deploy/, docs/deploy.md and the wheel: each command, setting and version in them is real."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyspark
import pytest
import yaml
from typer.main import get_command

from pipelines.cli.app import app
from pipelines.config.load import load_config
from tests import oracle
from tests.builders import play, shown
from tests.processes import QUICK, ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
KUBERNETES: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yml").read_text()))
APPLICATION: dict[str, Any] = yaml.safe_load((DEPLOY / "spark-application.yml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PAGE = (ROOT / "docs" / "deploy.md").read_text()


def containers(manifest: object) -> list[dict[str, Any]]:
    """Every container of a manifest, wherever it is."""
    if isinstance(manifest, list):
        return [found for each in manifest for found in containers(each)]
    if not isinstance(manifest, dict):
        return []
    return [*manifest.get("containers", []), *(found for each in manifest.values() for found in containers(each))]


def commands() -> list[tuple[str, list[str]]]:
    """The words after `rejoin` of each command in deploy/ and docs/deploy.md, with the place."""
    found = []
    for unit in UNITS:
        lines = [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith("Exec")]
        found += [(unit.name, shlex.split(line)[1:]) for line in lines]
    found += [("kubernetes.yml", container["args"][1:]) for container in containers(KUBERNETES)]
    found.append(("spark-application.yml", APPLICATION["spec"]["arguments"]))
    airflow = re.findall(r'task\("\w+", "(.*?)"', (DEPLOY / "airflow.py").read_text())
    found += [("airflow.py", shlex.split(words)) for words in airflow]
    shell = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)).replace("\\\n", " ")
    typed = re.findall(
        r"(?:\brejoin|/__main__\.py) ((?:run|reconcile|settle|maintain|status|doctor|ingest|join)\b[^|&#\n]*)", shell
    )
    return found + [("docs/deploy.md", shlex.split(words)) for words in typed]


@pytest.mark.parametrize(("place", "words"), commands(), ids=lambda each: each if isinstance(each, str) else " ".join(each))
def test_a_command_has_options_that_exist_and_settings_that_load(place: str, words: list[str]) -> None:
    given = get_command(app).commands[words[0]].make_context(words[0], words[1:]).params  # type: ignore[attr-defined]
    load_config(ROOT / "conf" / "playback.yml", given["sets"] or [])


def test_each_file_has_commands() -> None:
    services = {unit.name for unit in UNITS if unit.suffix == ".service"}
    places = {"kubernetes.yml", "spark-application.yml", "airflow.py", "docs/deploy.md"}
    assert {place for place, _ in commands()} == services | places


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        # What it starts is not installed here.
        text = unit.read_text().replace("/srv/rejoin/.venv/bin/rejoin", "/bin/true").replace("/srv/rejoin", str(tmp_path))
        (tmp_path / unit.name).write_text(text)
    names = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "rejoin" in line]
    assert (done.returncode, said) == (0, [])


def test_a_probe_asks_the_port_that_the_command_serves() -> None:
    deployment = next(each for each in KUBERNETES if each["kind"] == "Deployment")
    container = containers(deployment)[0]
    assert f"metrics.port={container['ports'][0]['containerPort']}" in container["args"]
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": container["ports"][0]["name"]}


def test_images_have_the_versions_that_are_locked() -> None:
    spark = pyspark.__version__
    assert f"apache/spark:{spark}-" in DOCKERFILE
    assert APPLICATION["spec"]["sparkVersion"] == spark
    pythons = set(re.findall(r"FROM python:(\d+\.\d+)", DOCKERFILE))
    assert pythons == set(re.findall(r"python(\d+\.\d+)", APPLICATION["spec"]["mainApplicationFile"]))
    assert {path.name for path in Path(pyspark.__file__).parent.glob("python/lib/py4j*")} == set(
        re.findall(r"py4j-[\w.-]+\.zip", DOCKERFILE)
    )


def test_the_image_copies_what_its_context_has() -> None:
    copies = re.findall(r"^COPY (?!--)(.*)", DOCKERFILE, re.M)
    sources = {source for line in copies for source in line.split()[:-1]}
    ignored, *kept = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored == "*"
    assert sources == {line.removeprefix("!") for line in kept}
    made = ("dist/", ".venv/")  # by `make dist`
    assert all((ROOT / source).is_file() for source in sources if not source.startswith(made))


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout_by_the_configuration_that_it_brings(tmp_path: Path) -> None:
    source, home = tmp_path / "source", tmp_path / "home"
    source.mkdir()
    for name in ("pipelines", "conf"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], check=True)
    venv.create(home)
    python = home / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", *tmp_path.glob("*.whl")], check=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(f"{Path(pyspark.__file__).parent.parent}\n")

    def rejoin(*words: str) -> str:
        env = {**os.environ, **QUICK, "REJOIN_JARS": str(Path(sys.prefix) / "rejoin-jars")}
        done = subprocess.run(
            [home / "bin" / "rejoin", *words], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    asked = [python, "-c", "import pipelines; print(pipelines.__file__)"]
    where = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert where.stdout.startswith(str(packages))
    impressions = [shown("i1", "10:00"), shown("i2", "10:20", who="w2")]
    playbacks = [play("p1", "10:01"), play("p2", "19:00"), play("p3", "10:30", who="w2")]
    for name, events in (("impressions", impressions), ("playbacks", playbacks)):
        folder = tmp_path / "landing" / name
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    rejoin("run", "--once", "--all")
    rejoin("export", "attributed_playbacks", "--out", "table.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    expected = oracle.attribute(playbacks, impressions, window=timedelta(hours=6))
    assert {row["playback_id"]: row["exposure_id"] for row in rows} == {id: row["exposure_id"] for id, row in expected.items()}
    for name in ("conf/expectations", "conf/monitoring"):
        assert sorted(path.name for path in (home / "share" / "rejoin" / name).iterdir()) == sorted(
            path.name for path in (ROOT / name).iterdir()
        )
