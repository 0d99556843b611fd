"""What differs between two runs, or between tickets and their controls: differences with intervals, level by level, and
the sentences about them.

Each difference has two intervals: of that level alone, and for all levels together (`simultaneous.joint_intervals`).
Sentences rest on the latter: with twenty levels, one that leaves out 0 by itself is nothing unusual.

Two runs are compared in pairs where their replicates share what is drawn, else as independent samples (Welch).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import hypot, isnan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lottery.analysis.answer import in_words, round_down, round_up, share, signed
from lottery.analysis.frames import branches_of, curve, densities, levels_of, trunk_of
from lottery.analysis.simultaneous import complete_replicates, joint_intervals
from lottery.analysis.statistics import interval, welch
from lottery.analysis.verdicts import EARLY, LAST, STOP, rounding, unstopped
from lottery.runs.rows import wanted
from lottery.runs.store import Run
from lottery.spec import OwnLoop
from lottery.words import number_of

NEAR = 0.025
"""How far apart, relative to the larger, densities of two runs may be to be compared: a ninth of a step of 20 %."""


@dataclass(frozen=True)
class Contrast:
    """Networks of one kind minus those of another, at the levels that both have.

    Both frames have one row per level: `level` (theirs), `other_level` (ours), `density` (theirs, a fraction), `mean`,
    `low`, `high` (95 % interval of that level alone), `joint_low`, `joint_high` (for all levels together, nominally
    95 %; NaN unless two replicates have all levels), `n` (pairs, or replicates of the smaller side).
    """

    column: str
    """Which accuracy: at early stop where both have one, else after the last iteration."""
    accuracy: pd.DataFrame
    """Test accuracy, ours minus theirs, percentage points."""
    stops: pd.DataFrame
    """Early-stop iteration, ours over theirs, geometric means; no rows where either has none. Intervals are NaN where
    it isn't known which is earlier: neither network of a pair was seen to stop, as its validation loss was lowest at
    its last evaluation. If the sides have different numbers of iterations, where any network was not."""
    replicates: tuple[int, int]
    """Ours and theirs that have all levels: as many as there are pairs, if they are paired."""
    paired: bool


@dataclass(frozen=True)
class Comparison:
    """A run against another one."""

    contrast: Contrast | None
    obstacle: str = ""
    """Why there is no contrast, as a sentence goes on after a colon."""
    pairing: str = ""
    """Why replicates are paired, or why not."""
    unmatched: tuple[int, int] = (0, 0)
    """Levels, ours and theirs, without a counterpart of their density."""
    complete: bool = True
    """Whether both are finished."""


@dataclass(frozen=True)
class Finding:
    """What a comparison shows."""

    word: str
    """Accuracy: "more", "less", "both" (at some levels one, at some the other), "same" (to the last digit), "open"
    (nothing is shown) or "none" (nothing can be compared)."""
    headline: str
    details: list[str]
    gist: str = ""
    """By how much and where, for a sentence about several comparisons."""


def compare(ours: Run, theirs: Run) -> Comparison:
    """The trunk of one run against another's, dense network included, at levels of equal density.

    Replicates are paired where both runs have the same seed, data and number of validation images: then replicates of
    one number share the split, and initial weights where networks are alike.

    Raises:
        LotteryError: for a damaged level.
    """
    own = [isinstance(run.spec, OwnLoop) for run in (ours, theirs)]
    if any(own) and not all(own):
        return Comparison(None, "one was trained by a loop of one’s own, of whose images nothing is known")
    names = ["" if isinstance(run.spec, OwnLoop) else run.spec.data.name for run in (ours, theirs)]
    if names[0] != names[1]:
        return Comparison(None, f"accuracies on different images, {names[0]} and {names[1]}, have no common scale")
    if ours.info["data"] != theirs.info["data"]:
        return Comparison(None, f"they were trained and tested on different files of {names[0]}")
    levels = ours.levels(), theirs.levels()
    for run, frame in zip((ours, theirs), levels, strict=True):
        if frame.empty or not (frame["level"] == 0).any():
            return Comparison(None, f"no dense network of {run.path.name} is finished yet")
    pairing, paired = _pairing(ours, theirs)
    trunks = trunk_of(levels[0]), trunk_of(levels[1])
    found = matches(levels[0], levels[1])
    there = [len(levels_of(frame, trunk)) for frame, trunk in zip(levels, trunks, strict=True)]
    return Comparison(
        contrast(
            Side(levels[0], trunks[0], [a for a, _ in found]), Side(levels[1], trunks[1], [b for _, b in found]), paired
        ),
        pairing=pairing,
        unmatched=(there[0] - len(found), there[1] - len(found)),
        complete=all({row.place for row in run.rows()}.issuperset(wanted(run.spec)) for run in (ours, theirs)),
    )


def _pairing(ours: Run, theirs: Run) -> tuple[str, bool]:
    """Why replicates of two runs on the same data are paired or not, and whether they are."""
    if ours.spec.seed != theirs.spec.seed:
        return "Replicates are not paired, because seeds differ: Welch’s intervals.", False
    if isinstance(ours.spec, OwnLoop) or isinstance(theirs.spec, OwnLoop):
        return "Replicates are not paired, because nothing is known of their images: Welch’s intervals.", False
    if ours.spec.data.validation != theirs.spec.data.validation:
        return "Replicates are not paired, because their validation images differ: Welch’s intervals.", False
    return f"Replicates are paired: both runs have seed {ours.spec.seed} and the same split in each.", True


def matches(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[tuple[int, int]]:
    """The levels of two trunks whose densities are each other's nearest and at most `NEAR` apart, from dense to sparse;
    of equal ones, those whose numbers are closer."""
    left = [(d, level) for level, d in densities(ours[ours["branch"] == trunk_of(ours)]).items()]
    right = [(d, level) for level, d in densities(theirs[theirs["branch"] == trunk_of(theirs)]).items()]

    def apart(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
        return abs(a[0] - b[0]) / (max(a[0], b[0]) or 1.0), abs(a[1] - b[1])

    nearest = {a: min(right, key=lambda b, a=a: apart(a, b)) for a in left}  # type: ignore[misc]  # a lambda's default
    back = {b: min(left, key=lambda a, b=b: apart(a, b)) for b in right}  # type: ignore[misc]  # a lambda's default
    return [(int(a[1]), int(b[1])) for a, b in nearest.items() if back[b] == a and apart(a, b)[0] <= NEAR]


def controls(levels: pd.DataFrame) -> dict[str, Contrast]:
    """Branch -> the trunk's tickets minus that branch, paired by replicate, at every pruned level that both have.

    Args:
        levels: the frame of a run; without a dense network there is nothing to say.
    """
    if levels.empty or not (levels["level"] == 0).any():
        return {}
    trunk = trunk_of(levels)
    found = {}
    for branch in branches_of(levels):
        both = sorted(set(levels_of(levels, trunk)) & set(levels_of(levels, branch)) - {0})
        if branch != trunk and both:
            found[branch] = contrast(Side(levels, trunk, both), Side(levels, branch, both), paired=True)
    return found


@dataclass(frozen=True)
class Side:
    """The networks of a branch at some of its levels."""

    levels: pd.DataFrame
    """The frame of their run."""
    branch: str
    at: Sequence[int]
    """Levels, as many as the other side has, in the order in which they are compared."""

    def values(self, column: str) -> pd.DataFrame:
        """One row per replicate, one column per level of `at`."""
        return curve(self.levels, column, self.branch).reindex(columns=[*self.at])

    def late(self) -> pd.DataFrame:
        """As `values`, True where the network was not seen to stop."""
        return unstopped(self.levels, self.branch).reindex(columns=[*self.at]).gt(0)

    def rounding(self) -> float:
        """Of the logarithm of an early stop, see `verdicts.rounding`."""
        return rounding(self.levels) / float(curve(self.levels, STOP)[0].mean())


def contrast(ours: Side, theirs: Side, paired: bool) -> Contrast:
    """Networks of one side minus those of the other.

    Args:
        ours: one side.
        theirs: the other; its levels name those of the result.
        paired: whether replicates of one number belong together.
    """
    sides = ours, theirs
    column = EARLY if all(side.levels[EARLY].notna().any() for side in sides) else LAST

    def named(values: Iterable[pd.DataFrame]) -> list[pd.DataFrame]:
        return [frame.set_axis(axis["level"], axis=1) for frame in values]

    axis = pd.DataFrame({"level": [*theirs.at], "other_level": [*ours.at]})
    axis = axis.assign(density=axis["level"].map(densities(theirs.levels)))
    accuracies = named(100 * side.values(column) for side in sides)
    stops = _differences(
        named(side.values(STOP).apply(np.log) for side in sides), [s.rounding() for s in sides], paired
    )
    ends = ["low", "high", "joint_low", "joint_high"]
    stops.loc[stops["level"].isin(_unseen(sides, named(side.late() for side in sides), paired)), ends] = np.nan
    complete = [complete_replicates(x) for x in ([accuracies[0] - accuracies[1]] * 2 if paired else accuracies)]
    return Contrast(
        column,
        axis.merge(_differences(accuracies, [0.0, 0.0], paired), on="level"),
        axis.merge(stops.assign(**{name: np.exp(stops[name].astype(float)) for name in ["mean", *ends]}), on="level"),
        (len(complete[0]), len(complete[1])),
        paired,
    )


def _unseen(sides: Sequence[Side], late: Sequence[pd.DataFrame], paired: bool) -> list[int]:
    """Levels that are no evidence of which side stops earlier: where neither network of a pair was seen to stop.

    With as many iterations on both sides, one that has not stopped is at least known to be the later one. With more on
    one side, it is not.
    """
    any_of = [side.any() for side in late]
    if len({int(side.levels["iterations"].max()) for side in sides}) > 1:
        unseen = any_of[0] | any_of[1]
    else:
        unseen = (late[0] & late[1]).any() if paired else any_of[0] & any_of[1]
    return [int(level) for level in unseen.index[unseen]]


def _differences(sides: Sequence[pd.DataFrame], errors: Sequence[float], paired: bool) -> pd.DataFrame:
    """Ours minus theirs by level, where both have values."""
    ours, theirs = sides
    both = [level for level in ours if ours[level].notna().any() and theirs[level].notna().any()]
    ours, theirs = ours[both], theirs[both]
    rows = []
    if paired:
        pairs = ours - theirs
        joint = joint_intervals([pairs], [hypot(*errors)])
        rows = [interval(pairs[level], error=hypot(*errors)) for level in both]
    else:
        joint = joint_intervals([ours, -theirs], errors)
        rows = [welch(ours[level], theirs[level], (errors[0], errors[1])) for level in both]
    table = pd.DataFrame(rows, both, ["mean", "low", "high", "n"])
    table = table.join(joint.add_prefix("joint_"))[table["n"] > 0]
    return table.rename_axis("level").reset_index()


def finding(found: Comparison, ours: str, theirs: str) -> Finding:
    """What a comparison shows, in sentences. Runs are called by these names."""
    if found.contrast is None:
        return Finding("none", f"{ours} and {theirs} are shown side by side only: {found.obstacle}.", [])
    word, said, gist = headline(found.contrast, ours, theirs)
    rests_on = filter(None, [basis(found.contrast)])
    details = [*rests_on, *_details(found.contrast, ours, theirs), found.pairing, *_left_out(found, ours, theirs)]
    if not found.complete:
        warning = "Not both runs are finished: what is still to come can change this."
        said, details = f"So far: {said}", [warning, *details]
    return Finding(word, said, details, gist)


def together(findings: Sequence[Finding], others: Sequence[str], first: str) -> str:
    """One headline of several runs, each compared with the first; of more than three, without how much and where.

    Args:
        findings: of each but the first.
        others: their names.
        first: the first one's name.
    """
    if len(findings) == 1:
        return findings[0].headline
    words = {
        "more": "more accurate",
        "less": "less accurate",
        "both": "more accurate at some levels and less at others",
        "same": "the same to the last digit",
        "open": "not shown to differ",
        "none": "not compared",
    }
    parts = []
    for word, said in words.items():
        runs = [
            f"{name} ({found.gist})" if found.gist and len(findings) <= 3 else name
            for name, found in zip(others, findings, strict=True)
            if found.word == word
        ]
        parts += [f"{said}: {', '.join(runs)}"] if runs else []
    so_far = "So far, against" if any(found.headline.startswith("So far") for found in findings) else "Against"
    return (
        f"{so_far} {first}: {'; '.join(parts)}. Each comparison at 95 % for all of its levels together, not for all "
        "comparisons."
    )


class Headline(NamedTuple):
    """What a contrast shows of accuracy; the fields are as in `Finding`."""

    word: str
    headline: str
    gist: str = ""


def headline(found: Contrast, ours: str, theirs: str) -> Headline:
    """What is shown of accuracy for all levels together, in a sentence. Either side is called by these names."""
    table = found.accuracy
    if table.empty:
        return Headline("none", f"No replicate and level that {ours} and {theirs} have in common could be compared.")
    if table["joint_low"].isna().all():
        row: Any = table.iloc[-1]
        few = "one replicate" if table["n"].max() == 1 else "fewer than two complete replicates"
        return Headline(
            "open",
            f"No verdict between {ours} and {theirs}: {few} cannot tell a difference from chance. With "
            f"{share(row['density'])} of the weights it is {signed(row['mean'])} points.",
            "too few replicates",
        )
    table = table[table["joint_low"].notna()]
    ends = table[["joint_low", "joint_high"]]
    if (ends == 0).all(axis=None):
        return Headline("same", f"To the last digit, {ours} and {theirs} are equally accurate at every level.")
    more, less = table[table["joint_low"] > 0], table[table["joint_high"] < 0]
    parts = {
        word: f"at {_where(rows, table)}, most clearly {_clearest(rows)}"
        for word, rows in (("more", more), ("less", less))
        if len(rows)
    }
    if not parts:
        most = f"{round_up(float(ends.abs().to_numpy().max()), 2):.2f} points"
        return Headline(
            "open",
            f"No difference in accuracy is shown between {ours} and {theirs}: at {_all(table)} it is at most {most} "
            "either way (95 %).",
            f"at most {most} apart",
        )
    said = " and ".join(f"{word} accurate {where}" for word, where in parts.items())
    word, gist = ("both", said) if len(parts) == 2 else next(iter(parts.items()))
    return Headline(word, f"Compared with {theirs}, {ours} is {said}.", gist)


def _all(table: pd.DataFrame) -> str:
    return f"all {len(table)} levels" if len(table) > 1 else "the one level that both have"


def _where(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """How many of the levels these are, and which."""
    if len(rows) == len(table):
        return _all(table)
    first, last = (share(rows["density"].iloc[end]) for end in (0, -1))
    which = f"with {first} of the weights" if len(rows) == 1 else f"between {first} and {last} of the weights"
    return f"{len(rows)} of {len(table)} levels ({which})"


def _clearest(rows: pd.DataFrame) -> str:
    """The level whose interval for all levels together is the farthest from 0, and how large the difference is there:
    the near end rounded down, the far one up."""
    sizes = rows[["mean", "joint_low", "joint_high"]].abs()
    near, far = sizes[["joint_low", "joint_high"]].min(axis=1), sizes[["joint_low", "joint_high"]].max(axis=1)
    i = int(near.argmax())
    digits = next((digits for digits in (2, 3, 4) if round_down(near.iloc[i], digits)), 6)
    return (
        f"with {share(rows['density'].iloc[i])}, by {sizes['mean'].iloc[i]:.2f} points "
        f"(95 %: {round_down(near.iloc[i], digits):.{digits}f} to {round_up(far.iloc[i], digits):.{digits}f})"
    )


def basis(found: Contrast) -> str:
    """What a headline rests on, in a sentence; nothing where too few replicates are complete for one."""
    if found.accuracy["joint_low"].isna().all():
        return ""
    ours, theirs = found.replicates
    if found.paired:
        said = f"{in_words(ours)} pairs of replicates"
    else:
        said = f"{in_words(ours)} replicates against {in_words(theirs).lower()}"
    return f"{said}, 95 % for all levels together."


def _details(found: Contrast, ours: str, theirs: str) -> Iterator[str]:
    dense = found.accuracy[found.accuracy["level"] == 0]
    when = "at early stop" if found.column == EARLY else "after the last iteration"
    for row in dense.to_dict("records"):
        ends = f" ({signed(row['low'])} to {signed(row['high'])}, of this level alone)" if not isnan(row["low"]) else ""
        yield f"Dense, {ours} is {signed(row['mean'])} points{ends} from {theirs}, in test accuracy {when}."
    alone = found.accuracy
    counts = [int((alone["low"] > 0).sum()), int((alone["high"] < 0).sum())]
    if alone["low"].notna().any():
        yield (
            f"Of {number_of(len(alone), 'level')}, each judged alone: {counts[0]} more accurate, {counts[1]} less, "
            f"{len(alone) - sum(counts)} undecided."
        )
    yield from _stopping(found.stops, ours, theirs)


def _stopping(stops: pd.DataFrame, ours: str, theirs: str) -> Iterator[str]:
    if stops.empty:
        return
    if stops["joint_low"].isna().all():
        if stops["n"].max() > 1:
            yield "Which stops earlier is not known: some networks were not seen to stop, or too few are complete."
        return
    later, earlier = stops[stops["joint_low"] > 1], stops[stops["joint_high"] < 1]
    if not len(later) and not len(earlier):
        yield "Neither is shown to stop earlier than the other at any level."
    for word, rows in (("earlier", earlier), ("later", later)):
        if len(rows):
            nearest = rows[["joint_low", "joint_high"]].apply(np.log).abs().min(axis=1)
            row: Any = rows.iloc[int(nearest.argmax())]
            yield (
                f"{ours} stops {word} than {theirs} at {_where(rows, stops)}, most clearly with "
                f"{share(row['density'])}: after {row['mean']:.2f} of its iterations ({row['joint_low']:.2f} to "
                f"{row['joint_high']:.2f}, for all levels together)."
            )


def _left_out(found: Comparison, ours: str, theirs: str) -> Iterator[str]:
    for name, count in ((ours, found.unmatched[0]), (theirs, found.unmatched[1])):
        if count:
            yield f"{number_of(count, 'level')} of {name} left out: the other run has none of that density."
