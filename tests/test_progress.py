"""How long a run will take yet: from the seconds of finished levels."""

import pytest

from lottery.analysis.progress import seconds_left
from lottery.runs.rows import Place, Row


def row(branch: str, replicate: int, level: int, seconds: float | None) -> Row:
    return Row(Place(branch, replicate, level), density=0.8**level, iterations=10, seconds=seconds)


def test_levels_take_what_levels_of_their_number_took() -> None:
    rows = [row("rewind", 0, 0, 10.0), row("rewind", 1, 0, 20.0), row("rewind", 0, 1, 6.0), row("rewind", 0, 2, None)]
    awaited = [Place("rewind", 1, 1), Place("rewind", 1, 2)]  # level 2 was never timed: as long as level 1
    assert seconds_left(awaited, rows, "rewind", 1) == pytest.approx(12)
    assert seconds_left([Place("rewind", 2, 0)], rows, "rewind", 1) == pytest.approx(15)
    assert seconds_left([], rows, "rewind", 4) == 0
    assert seconds_left(awaited, [], "rewind", 1) is None


def test_jobs_share_the_work_but_branches_wait_for_their_trunk() -> None:
    rows = [row("rewind", 9, level, 10.0) for level in range(3)]
    branches = [Place(branch, 0, level) for branch in ("reinit", "one_shot") for level in (1, 2)]
    assert seconds_left(branches, rows, "rewind", 1) == pytest.approx(40)
    assert seconds_left(branches, rows, "rewind", 2) == pytest.approx(20)
    assert seconds_left(branches, rows, "rewind", 8) == pytest.approx(20)  # a branch's levels come one by one
    assert seconds_left([Place("rewind", 0, 2), *branches], rows, "rewind", 8) == pytest.approx(30)
    assert seconds_left([Place("reinit", r, 1) for r in range(8)], rows, "rewind", 4) == pytest.approx(20)
