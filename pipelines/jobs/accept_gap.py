"""Accept gap: give up records that Kafka no longer has, so that ingest goes on behind them; and offsets without a row of which
Kafka can no longer tell whether they had a record, so that reconcile no longer misses them."""

from pipelines.config.model import Config
from pipelines.config.sources import KafkaSource
from pipelines.context import open_context
from pipelines.control.gaps import Gap, Unproven, acceptance, accepted_unproven, after, unproven_acceptance
from pipelines.ingest.position import position
from pipelines.ingest.state import read_progress
from pipelines.kafka.client import topic_now
from pipelines.lake.tables import Lake
from pipelines.model.errors import ConfigError
from pipelines.reconcile.audit.holes import Checked, checked_in, unaccepted
from pipelines.reconcile.report.history import past_reports


def kafka_source(config: Config, stream: str) -> KafkaSource:
    """Raises ConfigError where there is no such stream, or it does not come from Kafka."""
    if stream not in config.streams:
        raise ConfigError(f"{stream}: no such stream; configured are {', '.join(config.streams)}")
    source = config.streams[stream].source
    if not isinstance(source, KafkaSource):
        raise ConfigError(f"streams.{stream}.source: comes from files, which have no offsets that could be missing")
    return source


def accept_gap(lake: Lake, config: Config, stream: str, *, really: bool) -> list[Gap | Unproven]:
    """The gaps that ingest would stop at now, and what the last reconciliation left unproven; with `really`, accepted."""
    source = kafka_source(config, stream)
    events = lake.streams.named(stream)
    with open_context(lake, config) as context:
        context.need(stream, "quarantine")
        state = read_progress(lake, events, context.facts, config.join.watermark_delay).state
        place, topic = position(lake, events, source, context.facts, state), topic_now(source, f"streams.{stream}.source")
        gaps = place.gaps(topic)
        if gaps and really:
            offsets = after(gaps, place.offsets, topic.held)
            context.control.write(acceptance(stream, source.topic, topic.id, gaps, offsets))
        unproven = unaccepted(_checked(lake, stream), accepted_unproven(context.facts, stream))
        if unproven and really:
            context.control.write(unproven_acceptance(stream, unproven))
    return [*gaps, *unproven]


def _checked(lake: Lake, stream: str) -> list[Checked]:
    audits = [each for report in past_reports(lake)[-1:] for each in report.get("bronze", ()) if each["stream"] == stream]
    return [checked for audit in audits for checked in checked_in(audit)]
