"""Table versions that belong together: the output table now, and bronze as settle had seen it (DESIGN section 2)."""

from dataclasses import dataclass

from pyspark.sql import DataFrame

from pipelines.control.facts import Settled
from pipelines.control.position import settled_position
from pipelines.control.store import read_facts
from pipelines.lake.history import RELAND, files_taken
from pipelines.lake.retry import is_gone
from pipelines.lake.tables import Lake
from pipelines.model.errors import LakeError

# The bound before the join has published any horizon: earlier than every event.
NOTHING_FINAL = -(2**53)


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What is read: table versions, the bound of event time (microseconds, inclusive; None: every outcome), and whether settle
    has ever run."""

    exposure_version: int
    outcome_version: int
    attributed_version: int
    bound: int | None
    settled: bool


def pin(lake: Lake) -> Pins:
    """Pin bronze at what settle's last run had seen, and outcomes up to its horizon: all where it settled all and nothing has
    landed since. Raises LakeError where that version can no longer be read, or lacks rows that have been put back since."""
    # The facts first: a run of settle that ends meanwhile is found in the table's commits, up to the version that is pinned.
    position = settled_position(lake, read_facts(lake))
    attributed, settled = position.version, position.settled
    if not position.certain or position.backfilled:
        why = "dates were backfilled" if position.backfilled else "its log was cleaned"
        raise LakeError(f"{lake.attributed}: {why} after settle's last run; run `rejoin settle --once`, then reconcile again")
    names = (lake.streams.exposure.name, lake.streams.outcome.name)
    newest = {name: lake.version(name) for name in names}
    if settled == Settled():
        # Nothing has been settled: compare with all that has landed, which the table does not claim to answer for yet.
        return _pins(newest, names, attributed, bound=None, settled=False)
    seen = dict(zip(names, (settled.exposure_version, settled.outcome_version), strict=True))
    since = {name: [c for c in lake.commits(name, seen[name]) if c.version <= newest[name]] for name in names}
    # OPTIMIZE gives bronze a version and nothing to settle; a commit that the log no longer has may have appended rows.
    grown = any(len([c for c in since[name] if c.changes_no_data]) < newest[name] - seen[name] for name in names)
    pinned = seen if grown else newest
    for name in names:
        later = [commit for commit in since[name] if commit.version > pinned[name]]
        if any(commit.operation == "RESTORE" or commit.is_marked(RELAND) for commit in later):
            raise LakeError(
                f"{name}: rows were put back after settle's last run, which has not seen them; run `rejoin settle --once`, then "
                "reconcile again"
            )
        if files_taken(later):
            raise _unreadable(name, pinned[name])
    bound = NOTHING_FINAL if settled.horizon is None else settled.horizon
    return _pins(pinned, names, attributed, bound=None if settled.all and not grown else bound, settled=True)


def read_pinned(lake: Lake, table: str, version: int) -> DataFrame:
    """Read bronze as of a version. Raises LakeError where that is no longer possible."""
    try:
        return lake.read(table, version)
    except Exception as error:  # the class differs between classic Spark and Connect
        if is_gone(error):
            raise _unreadable(table, version) from error
        raise


def _pins(versions: dict[str, int], names: tuple[str, str], attributed: int, *, bound: int | None, settled: bool) -> Pins:
    exposure, outcome = (versions[name] for name in names)
    return Pins(exposure_version=exposure, outcome_version=outcome, attributed_version=attributed, bound=bound, settled=settled)


def _unreadable(table: str, version: int) -> LakeError:
    return LakeError(
        f"{table}: settle has last seen version {version}, and that can be read no longer (its log was cleaned, or its files "
        "vacuumed); run `rejoin settle --once`, then reconcile again (tables.log_retention and tables.vacuum_retention must be "
        "longer than settle pauses)"
    )
