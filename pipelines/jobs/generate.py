"""Generate: a day of events into landing files."""

from pathlib import Path

from pipelines.config import Config
from pipelines.generate.files import waves, write_wave
from pipelines.generate.model import DayModel, generate_day
from pipelines.references import resolve


def run_generate(
    config: Config, model: DayModel, count: int, out: Path | None, *, compress: bool = False
) -> dict[str, tuple[int, Path]]:
    """Write the day in `count` waves; lines and directory by stream."""
    directories = landing_directories(config, out)
    lines = dict.fromkeys(directories, 0)
    for wave in waves(generate_day(model, config), count):
        for name, written in write_wave(wave, directories, compress=compress).items():
            lines[name] += written
    return {name: (lines[name], directory) for name, directory in directories.items()}


def landing_directories(config: Config, out: Path | None = None) -> dict[str, Path]:
    if out is not None:
        return {name: out / name for name in config.streams}
    return {name: Path(resolve(stream.source.path, f"streams.{name}.source.path")) for name, stream in config.streams.items()}
