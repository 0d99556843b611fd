"""How far a run has come, and how long the rest will take."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version

from lottery.analysis.answer import awaited_of
from lottery.runs import files, timings
from lottery.runs.rows import Place, Row
from lottery.runs.store import Run


def seconds_left(awaited: Sequence[Place], rows: Sequence[Row], trunk: str, jobs: int) -> float | None:
    """About how many seconds the levels that are missing will take; None before anything is finished.

    A level takes what finished ones of its number took on average, whatever their branch; the first of its number what
    the level before took. The jobs share the work evenly, but no branch begins before its replicate's trunk is
    finished, and the levels of a branch are trained one after the other.

    Args:
        awaited: as `analysis.answer.awaited_of` has it.
        rows: of the finished levels.
        trunk: the run's.
        jobs: networks trained at once.
    """
    taken: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.seconds is not None:
            taken[row.place.level].append(row.seconds)
    if not taken:
        return None
    total = 0.0
    trunks: dict[int, float] = defaultdict(float)
    branches: dict[int, dict[tuple[str, int], float]] = defaultdict(lambda: defaultdict(float))
    for place in awaited:
        known = [level for level in taken if level <= place.level] or [min(taken)]
        seconds = sum(taken[max(known)]) / len(taken[max(known)])
        total += seconds
        if place.branch == trunk:
            trunks[place.replicate] += seconds
        else:
            branches[place.replicate][place.branch, place.draw] += seconds
    chains = [trunks[r] + max(branches[r].values(), default=0.0) for r in trunks.keys() | branches.keys()]
    return max(total / jobs, *chains, 0.0)


def time_left(run: Run) -> float | None:
    """`seconds_left` of a run that goes on as its last session does."""
    jobs = run.info["sessions"][-1].get("jobs", 1) if run.info["sessions"] else 1
    return seconds_left(awaited_of(run), run.rows(), run.spec.start, jobs)


def state_of(runs: Sequence[Run], margin: float | None) -> str:
    """A digest of all that the page of these runs shows, but for the sessions in which nothing was trained: while it is
    the same, so is the page.

    Args:
        runs: of one moment.
        margin: as `write_report` has it.
    """
    parts: list[object] = [version("lottery"), margin]
    for run in runs:
        measured = files.read(timings.path_of(run)) if files.there(timings.path_of(run)) else b""
        parts += [run.identity, run.spec.to_table(), run.name, run.note, run.records(), measured]
    return hashlib.sha256(repr(parts).encode()).hexdigest()
