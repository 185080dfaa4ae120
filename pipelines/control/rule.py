"""The rule that the output table's rows are attributed by: a property of that table.

A lane reads it once, at its start. A change of it is a commit of the table's metadata, so a MERGE that another process is just
making fails on it, is tried again, and finds the other rule (`pipelines.sink`); a lane between two MERGEs looks once a minute.
"""

from pipelines.config.model import Config
from pipelines.config.streams import rule_of
from pipelines.control.takeover import rule_of_0_1
from pipelines.lake.retry import conflict_retries
from pipelines.lake.tables import Lake
from pipelines.model.errors import LakeError
from pipelines.model.rule import PROPERTY, RegisteredRule, Rule


def registered_rule(lake: Lake) -> RegisteredRule | None:
    """The rule of the output table; None where the table does not exist, or no lane has registered one."""
    if not lake.exists(lake.attributed):
        return None
    text = lake.table_properties(lake.attributed).get(PROPERTY)
    return rule_of_0_1(lake) if text is None else RegisteredRule.from_json(text)


def register_rule(lake: Lake, rule: RegisteredRule) -> None:
    """Set the property. MERGEs that other processes are just making fail on it."""
    for attempt in conflict_retries():
        with attempt:
            lake.set_table_properties(lake.attributed, {PROPERTY: rule.as_json()})


def require_rule(lake: Lake, config: Config) -> RegisteredRule:
    """The registered rule, which the output table (it must exist) gets where it has none.

    Raises LakeError where the configuration has another one, or a backfill to it has not ended.
    """
    text = lake.table_properties(lake.attributed).get(PROPERTY)
    own = rule_of(config)
    known = RegisteredRule.from_json(text) if text else rule_of_0_1(lake) or RegisteredRule(rule=own)
    _require_same(lake, known, own)
    if not text:
        register_rule(lake, known)
    return known


def require_same_rule(lake: Lake, config: Config) -> RegisteredRule | None:
    """The registered rule, or None. Raises LakeError as `require_rule`."""
    known = registered_rule(lake)
    if known is not None:
        _require_same(lake, known, rule_of(config))
    return known


def _require_same(lake: Lake, known: RegisteredRule, own: Rule) -> None:
    changed = known.rule.differences(own)
    if changed:
        raise LakeError(
            f"{'; '.join(changed)}: {lake.attributed} is attributed by the first; stop all lanes and run `rejoin backfill "
            "--from D` (D: the first event date, YYYY-MM-DD, to attribute by the second), or set it back"
        )
    if known.backfilling:
        start = f" --from {known.since}" if known.since else ""
        raise LakeError(f"{lake.attributed}: a backfill has not ended; run `rejoin backfill{start}` again")
