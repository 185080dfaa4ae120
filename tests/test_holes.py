"""Offsets without a row: which are remembered to have no record, which must be asked about, which are lost."""

import pytest

from pipelines.reconcile.audit.holes import Checked, Landed, count_holes

PLACE = ("t", 0, 0)


def checked(to: int, holes: int, unproven: int = 0, first: int = 0) -> Checked:
    return Checked(topic="t", partition=0, generation=0, first=first, to=to, holes=holes, unproven=unproven)


def landed(first: int, last: int, count: int, below: int = 0, within: int = 0) -> Landed:
    return Landed(first=first, last=last, within=within, outside=count - within, below=below)


# what landed, what was checked, accepted gaps, start, end -> (below, above, given up)
COUNTS = [
    ("nothing read", None, None, [], None, 0, (0, 0, 0)),
    ("nothing landed, where reading began is known", None, None, [], 0, 5, (0, 5, 0)),
    ("in the middle and at the end", landed(2, 8, 5), None, [], None, 10, (0, 3, 0)),
    ("at the start too", landed(2, 8, 5), None, [], 0, 10, (0, 5, 0)),
    ("below what was checked, and above", landed(0, 9, 6, below=3), checked(5, 2), [], 0, 10, (2, 2, 0)),
    ("the start is forgotten", landed(2, 9, 8, below=3), checked(5, 2), [], None, 10, (2, 0, 0)),
    ("within an accepted gap, in part", landed(0, 9, 7, within=1), None, [(3, 6)], 0, 10, (0, 0, 3)),
    ("rows before those that were checked", landed(0, 9, 8, below=3), checked(5, 0, first=2), [], None, 10, (0, 2, 0)),
    ("a topic of before, up to where it was checked", landed(0, 7, 8, below=8), checked(10, 2), [], None, None, (2, 0, 0)),
    ("a checkpoint that was put back", landed(0, 4, 4, below=4), checked(10, 3), [], 0, 6, (2, 0, 0)),
]


@pytest.mark.parametrize(
    ("rows", "before", "gaps", "start", "end", "counts"), [c[1:] for c in COUNTS], ids=[c[0] for c in COUNTS]
)
def test_holes_are_counted_below_and_above_what_was_checked(
    rows: Landed | None,
    before: Checked | None,
    gaps: list[tuple[int, int]],
    start: int | None,
    end: int | None,
    counts: tuple[int, int, int],
) -> None:
    holes = count_holes(PLACE, rows, before, gaps, start, end)
    assert (holes.below, holes.above, holes.given_up) == counts


# what was checked, rows below it, rows up to 20, of the holes above: missing, unproven -> checked then, missing
VERDICTS = [
    ("no record, as remembered", checked(10, 2), 8, 18, 0, 0, checked(20, 2), 0),
    ("one more than remembered", checked(10, 2), 7, 17, 0, 0, checked(20, 2), 1),
    ("one lost above", checked(10, 2), 8, 15, 1, 0, checked(20, 4), 1),
    ("some that Kafka no longer keeps", checked(10, 2), 8, 14, 0, 3, checked(20, 3, unproven=3), 0),
    ("unproven, as remembered", checked(10, 1, unproven=2), 7, 17, 0, 0, checked(20, 1, unproven=2), 0),
    ("unproven, and landed after all", checked(10, 1, unproven=2), 8, 18, 0, 0, checked(20, 1, unproven=1), 0),
]


@pytest.mark.parametrize(
    ("before", "below", "rows", "missing", "unproven", "after", "lost"), [c[1:] for c in VERDICTS], ids=[c[0] for c in VERDICTS]
)
def test_what_is_more_than_remembered_is_missing(
    before: Checked, below: int, rows: int, missing: int, unproven: int, after: Checked, lost: int
) -> None:
    holes = count_holes(PLACE, landed(0, 19, rows, below=below), before, [], 0, 20)
    assert holes.judged(missing, unproven) == (after, lost)
    if not missing + unproven:
        assert holes.unasked.judged(0, 0) == (Checked(**{**vars(after), "to": 10, "holes": before.holes}), lost)


def test_an_earlier_checkpoint_that_was_put_back_forgets_nothing() -> None:
    before = checked(30, 12)
    assert count_holes(PLACE, landed(0, 19, 12, below=12), before, [], 0, 20).judged(0, 0)[0] == before
