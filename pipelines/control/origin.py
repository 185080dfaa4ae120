"""Whose lake it is: its streams, and the configuration that a lane was last started with, as table `control` has them."""

from pathlib import Path

from pipelines.config.model import Config
from pipelines.control.facts import Fact, Facts
from pipelines.model.errors import LakeError


def origin(facts: Facts, config: Config) -> Fact | None:
    """What a lane records of its configuration; None where that is known, or was read from no file."""
    known = facts.last("configuration")
    file = str(config.file.absolute()) if config.file else None
    return None if file in (None, known and known.detail["file"]) else Fact(kind="configuration", detail={"file": file})


def check_origin(facts: Facts, config: Config, location: str) -> None:
    """Raise LakeError where the lake has other streams than the configuration: it is another pipeline's."""
    streams, known = facts.last("streams"), facts.last("configuration")
    names = sorted({key.split(".")[1] for key in streams.detail}) if streams else []
    if not names or set(names) == set(config.streams):
        return
    written, own = (_near(Path(known.detail["file"])) if known else None), config.file or "this configuration"
    remedy = f"did you mean --conf {written}?" if written else "name its own by --conf FILE"
    raise LakeError(
        f"{location}: this lake was written with {written or 'another configuration'} (streams {', '.join(names)}), and {own} "
        f"has {', '.join(sorted(config.streams))}: {remedy}"
    )


def _near(file: Path) -> Path:
    """As one would type it here."""
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
