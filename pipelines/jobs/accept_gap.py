"""Accept gap: say that records which Kafka no longer has are given up, so that ingest goes on behind them."""

from pipelines.config import Config, KafkaSource
from pipelines.errors import ConfigError
from pipelines.gaps import Gap, accept, after
from pipelines.ingest.position import position
from pipelines.kafka_client import topic_now
from pipelines.lake import Lake


def kafka_source(config: Config, stream: str) -> KafkaSource:
    """Raises ConfigError where there is no such stream, or it does not come from Kafka."""
    if stream not in config.streams:
        raise ConfigError(f"{stream}: no such stream; configured are {', '.join(config.streams)}")
    source = config.streams[stream].source
    if not isinstance(source, KafkaSource):
        raise ConfigError(f"streams.{stream}.source: comes from files, which have no offsets that could be missing")
    return source


def accept_gap(lake: Lake, config: Config, stream: str, *, really: bool) -> list[Gap]:
    """The gaps that ingest would stop at now; with `really`, they are accepted."""
    source = kafka_source(config, stream)
    lake.ensure("ledger")
    place, topic = position(lake, stream, source), topic_now(source, f"streams.{stream}.source")
    gaps = place.gaps(topic)
    if gaps and really:
        accept(lake, stream, source.topic, topic.id, gaps, after(gaps, place.offsets, topic.held))
    return gaps
