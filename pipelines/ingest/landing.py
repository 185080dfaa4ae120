"""Landing files are known by their path below the landing directory, so one that is moved lands nothing twice."""

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.config.model import Config, FilesSource, KafkaSource
from pipelines.config.secrets import resolve
from pipelines.control.facts import Facts
from pipelines.ingest.state import WriterState, newest_ingested
from pipelines.lake.tables import Lake
from pipelines.model.events import EventStream
from pipelines.model.paths import absolute, location, location_of


def landing_of(source: FilesSource | KafkaSource, stream: str, state: WriterState | None) -> tuple[str, ...]:
    """The landing directories of a stream, the configured one last; none for a topic."""
    if isinstance(source, KafkaSource):
        return ()
    return _ending_with(location_of(resolve(source.path, f"streams.{stream}.source.path")), state)


def landings_of(lake: Lake, config: Config, stream: EventStream, facts: Facts) -> tuple[str, ...]:
    """The same, of one that may be ingesting."""
    source, known = config.streams[stream.name].source, facts.last("ingest", stream.name)
    _, newest = newest_ingested(lake.newest_commits(stream.name))
    if isinstance(source, KafkaSource):
        return ()
    here = location_of(resolve(source.path, f"streams.{stream.name}.source.path"))
    return _ending_with(here, newest, WriterState.from_dict(known.detail) if known else None)


def _ending_with(here: str, *states: WriterState | None) -> tuple[str, ...]:
    known = dict.fromkeys(each for state in states if state is not None for each in state.landing)
    return (*(each for each in known if each != here), here)


def below(uri: Column, landing: Sequence[str]) -> Column:
    """The path of a file below whichever of the landing directories it lies in; that of any other file whole, and decoded."""
    decoded = F.coalesce(F.try_url_decode(F.replace(uri, F.lit("+"), F.lit("%2B"))), uri)
    path = F.regexp_replace(F.regexp_replace(decoded, "/{2,}", "/"), "^dbfs:/", "file:/")
    inside = (F.when(path.startswith(f"{each}/"), F.substring(path, len(each) + 2, 2**31 - 1)) for each in _inmost(landing))
    return F.coalesce(*inside, path)


def below_of(uri: str, landing: Sequence[str]) -> str:
    """The same of a URI."""
    path = location(uri)
    inside = (path[len(each) + 1 :] for each in _inmost(landing) if path.startswith(f"{each}/"))
    return next(inside, path)


def _inmost(landing: Sequence[str]) -> list[str]:
    """A directory may have been moved into, or out of, itself."""
    return sorted(landing, key=len, reverse=True)


def path_now(source: FilesSource, where: str, name: str) -> str:
    """Where a file, known by its path below the landing directory, is to be read today."""
    return f"{absolute(resolve(source.path, f'{where}.path'))}/{name}" if ":/" not in name else name
