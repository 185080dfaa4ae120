"""Landing files are known by their path below the landing directory, so one that is moved lands nothing twice."""

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.config.model import Config
from pipelines.config.secrets import resolve
from pipelines.config.sources import FilesSource, KafkaSource
from pipelines.control.store import read_facts
from pipelines.ingest.state import WriterState, newest_ingested
from pipelines.lake.tables import Lake
from pipelines.model.events import EventStream
from pipelines.model.paths import absolute, location, location_of


def landing_of(source: FilesSource | KafkaSource, stream: str, *states: WriterState | None) -> tuple[str, ...]:
    """The landing directories of a stream, of which its writer's states know some; the configured one last. None for a topic."""
    if isinstance(source, KafkaSource):
        return ()
    here = location_of(resolve(source.path, f"streams.{stream}.source.path"))
    known = dict.fromkeys(each for state in states if state is not None for each in state.landing)
    return (*(each for each in known if each != here), here)


def landings_of(lake: Lake, config: Config, stream: EventStream) -> tuple[str, ...]:
    """The same, of one that may be ingesting."""
    source = config.streams[stream.name].source
    if isinstance(source, KafkaSource):
        return ()
    fact = read_facts(lake).last("ingest", stream.name)
    _, newest = newest_ingested(lake.newest_commits(stream.name))
    return landing_of(source, stream.name, newest, WriterState.from_dict(fact.detail) if fact else None)


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
