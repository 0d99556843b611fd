"""What a run says about its tickets, in a few sentences: every number from `verdicts`, and no more than it carries.

Statements about more than one level ("down to 3 %") rest on bounds for all levels together, numbers of a single level
come with that level's interval, and one replicate decides nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, floor, isnan
from typing import Any

import pandas as pd

from lottery.analysis.frames import branches_of, curve, densities, trunk_of
from lottery.analysis.simultaneous import complete_replicates, deviation, replicates_needed
from lottery.analysis.verdicts import (
    EARLY,
    LAST,
    REINIT,
    Margin,
    accuracy_column,
    default_margin,
    falls_behind,
    judge,
    matching,
    unstopped,
)
from lottery.runs.rows import Place, wanted
from lottery.runs.store import Run
from lottery.spec import OwnLoop
from lottery.words import branch_name, number_of


@dataclass(frozen=True)
class Answer:
    """What a report begins with."""

    headline: str
    details: list[str] = field(default_factory=list)
    """Sentences that qualify it."""
    level: int = 0
    """The level that it is about."""
    word: str = "no verdict"
    """The verdict: "winning", "matching", "undecided", "none" or "no verdict"."""


def answer(levels: pd.DataFrame, margin: Margin, awaited: Sequence[Place] = ()) -> Answer:
    """Which tickets of a run are shown to win or to match, what is not shown, and the numbers behind it.

    Args:
        levels: the frame of a run, finished or not; it may be empty.
        margin: by how much a matching ticket may be less accurate than the dense network.
        awaited: what the run asks for and has not finished. While a verdict would rest on any of it, there is none.
    """
    if levels.empty or not (levels["level"] == 0).any():
        return Answer("No dense network is finished yet, so there is nothing to compare.")
    if levels[[EARLY, LAST]].isna().all(axis=None):
        return Answer("No test accuracy was recorded, so tickets cannot be judged: level.record(test_accuracy=...).")
    case = _Case(levels, margin)
    if case.judged.empty:
        return Answer(_dense_alone(levels))
    if too_early(awaited, trunk_of(levels)):
        return _no_verdict_yet(case, awaited)
    found = _verdict(case)
    if not awaited:
        return found
    others = (
        f"Still to come: {number_of(len(awaited), 'network')} of other branches, on which no verdict on tickets rests."
    )
    return replace(found, details=[others, *found.details])


def too_early(awaited: Sequence[Place], trunk: str, branch: str = "") -> list[Place]:
    """Of what a run has not finished, what a verdict on a branch waits for: the tickets, the same masks reinitialised,
    and the branch itself. While there is any of it, there is no verdict.

    Args:
        awaited: as `awaited_of` has it.
        trunk: the run's.
        branch: that is judged; the trunk if empty.
    """
    return [place for place in awaited if place.branch in (trunk, REINIT, branch)]


def margin_of(run: Run, levels: pd.DataFrame, points: float | None = None) -> Margin:
    """The margin that a run's tickets are judged by: so many percentage points, or the default of its test images.

    Args:
        run: whose test images count.
        levels: its frame.
        points: 0 or more; None for the default.
    """
    return default_margin(levels, run.info["images"].get("test")) if points is None else Margin(points)


def awaited_of(run: Run) -> list[Place]:
    """What the run asks for and its rows lack: rows, not what is on disk by now, so that all is of one moment."""
    finished = {row.place for row in run.rows()}
    return [place for place in wanted(run.spec) if place not in finished]


LEARNED = 0.1
"""Epochs below which a network has hardly begun to learn."""


def answer_of(run: Run, margin: float | None = None) -> Answer:
    """The answer of a run as it is on disk: the one sentence that every view of it begins with.

    Args:
        run: finished or not.
        margin: percentage points; one standard error of the dense network's accuracy if None, see `default_margin`.
    """
    levels, recipe = run.levels(), run.spec.recipe
    found = answer(levels, margin_of(run, levels, margin), awaited_of(run))
    if isinstance(run.spec, OwnLoop):
        return found
    epochs = recipe.iterations * recipe.batch_size / (run.info["images"]["train"] - run.spec.data.validation)
    if epochs >= LEARNED or levels.empty:
        return found
    return Answer(
        f"Nothing has learned yet: {recipe.iterations} iterations of {recipe.batch_size} images are "
        f"{100 * epochs:.2g} % of one pass over the training images, so no ticket can show what it is worth. "
        "Try --iterations 1000 --data.validation 5000 --replicates 10 --branches reinit.",
        [found.headline, *found.details],
        found.level,
    )


def share(density: float) -> str:
    """A density as percent, with three digits."""
    return f"{100 * density:.3g} %"


@dataclass(frozen=True)
class _Case:
    """A run's frame with pruned levels, and what follows from it."""

    levels: pd.DataFrame
    margin: Margin

    @cached_property
    def judged(self) -> pd.DataFrame:
        """`judge` by level, where a replicate has a ticket and a dense network to compare."""
        found = judge(self.levels, self.margin.points).set_index("level")
        return found[found["n"] > 0]

    @cached_property
    def replicates(self) -> int:
        """How many have all levels."""
        return len(complete_replicates(matching(self.levels, self.margin.points).values))

    @property
    def points(self) -> str:
        """The margin as it is printed."""
        return f"{round_up(self.margin.points, 3):g}"

    @property
    def stops(self) -> bool:
        """Whether there are validation images, by which early stopping is decided."""
        return accuracy_column(self.levels) == EARLY

    def at(self, level: int) -> str:
        """The share of weights that a level has, in words."""
        return f"{share(self.judged['density'][level])} of the weights"

    def shown(self, name: str) -> "list[int]":
        """The levels at which a condition is shown, for all levels together."""
        return [int(level) for level in self.judged.index[self.judged[f"{name}_shown"]]]

    def counted(self, name: str) -> str:
        """At how many of the levels down to the sparsest one a condition is shown."""
        shown = self.shown(name)
        return f"shown at {len(shown)} of {number_of(int((self.judged.index <= shown[-1]).sum()), 'level')}"


def _dense_alone(levels: pd.DataFrame) -> str:
    dense = 100 * curve(levels, LAST)[0]
    spread = f" ({dense.min():.2f} to {dense.max():.2f} % in {len(dense)} replicates)" if len(dense) > 1 else ""
    return (
        f"The dense network reaches {dense.mean():.2f} % test accuracy{spread}; there is no ticket to compare it with "
        "yet."
    )


def _verdict(case: _Case) -> Answer:
    if case.replicates < 2:
        return _no_verdict(case)
    if case.shown("winning"):
        word, level, headline = "winning", case.shown("winning")[-1], _winning(case)
    elif case.shown("matching"):
        word, level, headline = "matching", case.shown("matching")[-1], _matching(case)
    elif (case.judged["matching"] == "no").all():
        word, level = "none", _highest(case.judged["matching_mean"])
        headline = _none(case, level)
    else:
        word, level = "undecided", _nearest(case)
        headline = _undecided(case, level)
    return Answer(headline, list(_details(case, level)), level, word)


def _winning(case: _Case) -> str:
    return (
        f"Winning tickets down to {case.at(case.shown('winning')[-1])} ({case.counted('winning')}): accuracy at most "
        f"{case.points} points below the dense network’s, stopping no more than 10 % later, and more accurate than "
        f"reinitialised. {in_words(case.replicates)} replicates; each condition at 97.5 % for all levels together."
    )


def _matching(case: _Case) -> str:
    level = case.shown("matching")[-1]
    when = "" if case.stops else " after the last iteration"
    return (
        f"Tickets match the dense network{when} down to {case.at(level)} (at most {case.points} points lower; "
        f"{case.counted('matching')}). Not shown: {' and '.join(_missing(case, level))}. "
        f"{in_words(case.replicates)} replicates; 97.5 % for all levels together."
    )


def _missing(case: _Case, level: int) -> Iterator[str]:
    """What a matching ticket is not shown to do, so that it is not shown to win."""
    row = case.judged.loc[level]
    if not row["no_later_shown"]:
        reason = "no more than 10 % later" if case.stops else "nothing was held out for validation"
        yield f"that they stop as early ({reason})"
    if not row["beats_reinit_shown"]:
        untrained = " (reinit was not trained: --branches reinit)"
        yield "that they beat reinitialisation" + ("" if REINIT in branches_of(case.levels) else untrained)


def _none(case: _Case, level: int) -> str:
    row = case.judged.loc[level]
    return (
        f"No matching ticket: at every level more than {case.points} points less accurate than the dense network. The "
        f"nearest, with {case.at(level)}, is {-row['matching_mean']:.2f} points lower "
        f"({-row['matching_high']:.2f} to {-row['matching_low']:.2f})."
    )


def _undecided(case: _Case, level: int) -> str:
    """What is open at the level that comes nearest to being shown."""
    row: Any = case.judged.loc[level]
    mean, low, high = (row[f"matching_{end}"] for end in ("mean", "low", "high"))
    where = f"at {case.at(level)}"
    if row["matching"] == "yes":
        said = (
            f"{where} tickets are {signed(mean)} points ({signed(low)} to {signed(high)}) from the dense "
            f"network, within the margin of {case.points} if this level is judged alone; for all levels together they "
            f"are {_bound(row['matching_bound'])}."
        )
    elif high < 0:
        said = (
            f"{where} tickets are less accurate than the dense network, by {-high:.2f} to {-low:.2f} points; "
            f"whether by more than {case.points} is open."
        )
    else:
        said = (
            f"{where} tickets are {signed(mean)} points ({signed(low)} to {signed(high)}) from the dense "
            f"network, and the margin −{case.points} lies within."
        )
    return f"Undecided with {number_of(case.replicates, 'replicate')}: {said} {_needed(case, level)}"


def _nearest(case: _Case) -> int:
    """Of the levels that may match, the one whose bound is the highest."""
    return _highest(case.judged.loc[case.judged["matching"] != "no", "matching_bound"])


def _needed(case: _Case, level: int) -> str:
    """How many replicates would decide whether a level matches."""
    condition = matching(case.levels, case.margin.points)
    distance = case.judged["matching_mean"][level] - condition.limit
    needed = replicates_needed(distance, deviation(condition.values, level))
    if needed is None:
        return "No affordable number of replicates (more than 50) would probably decide."
    if needed <= case.replicates:
        return "A few more replicates would probably decide."
    return f"About {needed} replicates in all would probably decide (a third to five times that)."


def _no_verdict(case: _Case) -> Answer:
    level = _promising(case)
    if len(curve(case.levels, LAST)) == 1:
        headline = "No verdict: one replicate cannot tell a winning ticket from chance."
        advice = "Ask for more with --replicates: five to ten usually decide."
    else:
        headline = "No verdict: fewer than two replicates have all levels."
        advice = "Intervals and bounds need two or more that are complete."
    return Answer(headline, [_accuracies(case, level), advice, *_unstopped(case)], level)


def _no_verdict_yet(case: _Case, awaited: Sequence[Place]) -> Answer:
    trunk, level = trunk_of(case.levels), _promising(case)
    missing = too_early(awaited, trunk)
    reinit = REINIT in branches_of(case.levels) or any(place.branch == REINIT for place in missing)
    both = f" and of {branch_name(REINIT)}" if reinit else ""
    headline = (
        f"No verdict yet: it takes every level and replicate of the tickets{both}, and "
        f"of these {number_of(len(missing), 'network')} {'is' if len(missing) == 1 else 'are'} still to come."
    )
    return Answer(headline, [_accuracies(case, level), *_unstopped(case)], level)


def _promising(case: _Case) -> int:
    """The sparsest level that is within the margin on average, else the most accurate."""
    means = case.judged["matching_mean"]
    within = means.index[means > -case.margin.points]
    return int(within.max()) if len(within) else _highest(means)


def _highest(by_level: "pd.Series[float]") -> int:
    """The level where it is highest."""
    return int(by_level.index[int(by_level.argmax())])


def _details(case: _Case, level: int) -> Iterator[str]:
    row: Any = case.judged.loc[level]
    yield _accuracies(case, level)
    if case.stops:
        yield _stopping(row)
    if not isnan(row["beats_reinit_low"]):
        yield f"Against the same masks reinitialised: {_points(row, 'beats_reinit')}."
    yield _together(case)
    yield from _better(case)
    yield _alone(case)
    yield f"The margin is {case.points} points: {case.margin.source}."
    for branch in branches_of(case.levels):
        yield from _behind(case.levels, branch)
    yield from _unstopped(case)


def _accuracies(case: _Case, level: int) -> str:
    """Ticket against dense network, over the replicates that have both."""
    accuracy = 100 * curve(case.levels, accuracy_column(case.levels))[[0, level]].dropna().mean()
    when = "at early stop" if case.stops else "after the last iteration"
    return (
        f"With {case.at(level)} tickets reach {accuracy[level]:.2f} % test accuracy {when}, the dense network "
        f"{accuracy[0]:.2f} %: {_points(case.judged.loc[level], 'matching')}."
    )


def _points(row: Any, name: str) -> str:
    """A difference in accuracy, its interval and its bound."""
    mean, low, high, bound = (row[f"{name}_{end}"] for end in ("mean", "low", "high", "bound"))
    said = f"{signed(mean)} points"
    if isnan(low):
        return said
    together = "" if isnan(bound) else f"; for all levels together {_bound(bound)}"
    return f"{said} (95 % interval of this level alone {signed(low)} to {signed(high)}{together})"


def _stopping(row: Any) -> str:
    if isnan(row["no_later_low"]):
        return "When they stop is not known: in some replicate neither ticket nor dense network was seen to stop."
    ratio, low, high = (f"{row[f'no_later_{end}']:.2f}" for end in ("mean", "low", "high"))
    most = f"{round_up(row['no_later_bound'], 2):.2f}"
    return (
        f"They stop after {ratio} ({low} to {high}) of the dense network’s iterations; for all levels together after "
        f"at most {most} of them."
    )


def _together(case: _Case) -> str:
    """How far down each condition is shown, for all levels together."""
    words = {
        "matching": "matching the dense network",
        "no_later": "stopping no more than 10 % later",
        "beats_reinit": "beating reinitialisation",
    }
    shown = {word: case.shown(name) for name, word in words.items()}
    down = [f"{word} down to {share(case.judged['density'][found[-1]])}" for word, found in shown.items() if found]
    return f"Shown for all levels together: {', '.join(down) or 'nothing'}."


def _better(case: _Case) -> Iterator[str]:
    """The longest stretch of levels that are all shown to be more accurate than the dense network."""
    better = case.judged["better_shown"]
    if better.any():
        stretches = case.judged[better].groupby((~better).cumsum()[better])
        best = max((stretch for _, stretch in stretches), key=len)
        first, last = share(best["density"].iloc[0]), share(best["density"].iloc[-1])
        where = f"From {first} to {last}" if len(best) > 1 else f"With {first} of the weights"
        least = round_down(best["matching_bound"].min(), 3)
        yield f"{where} they are more accurate than the dense network, by at least {least:g} points."


def _alone(case: _Case) -> str:
    """How many levels each verdict has: who picks one out of many should know of how many."""
    name = "winning" if case.stops and REINIT in branches_of(case.levels) else "matching"
    counts = case.judged[name].value_counts()
    words = {"yes": name, "no": f"not {name}", "undecided": "undecided"}
    said = ", ".join(f"{counts[verdict]} {word}" for verdict, word in words.items() if verdict in counts)
    return f"Of {number_of(len(case.judged), 'pruned level')}, each judged alone: {said}."


def _behind(levels: pd.DataFrame, branch: str) -> Iterator[str]:
    """From where a branch is less accurate than the dense network at every level."""
    trunk = branch == trunk_of(levels)
    called = branch_name(branch)
    name = "Tickets are" if trunk else f"{called[:1].upper()}{called[1:]} is"
    behind = falls_behind(levels, branch)
    if behind:
        yield (
            f"{name} less accurate than the dense network from {share(densities(levels)[behind.level])} of the "
            f"weights down, by at least {round_down(behind.points, 2):.2f} points at every level."
        )
    elif not trunk:
        yield f"{name} not shown to be less accurate than the dense network at its sparsest level."


def _unstopped(case: _Case) -> Iterator[str]:
    late = unstopped(case.levels)
    count = int((late[0] > 0).sum())
    if count:
        yield (
            f"In {count} of {number_of(len(late), 'replicate')} the dense network’s validation loss was lowest at the "
            "last evaluation: it has not been seen to stop, so train for more iterations before believing “earlier”."
        )


def round_up(value: float, digits: int) -> float:
    """To so many decimals, never below the value but for what binary fractions leave."""
    scale = 10.0**digits
    return ceil(round(value * scale, 6)) / scale


def round_down(value: float, digits: int) -> float:
    """To so many decimals, never above the value but for what binary fractions leave."""
    scale = 10.0**digits
    return floor(round(value * scale, 6)) / scale


def _bound(points: float) -> str:
    """A lower bound of a difference in accuracy, rounded to the safe side."""
    if points >= 0:
        return f"at least {round_down(points, 2):.2f} points above"
    return f"at most {round_up(-points, 2):.2f} points below"


def signed(value: float) -> str:
    """Points, with two decimals and a sign."""
    text = f"{value:+.2f}"
    return text.replace("-", "−") if float(text) else text[1:]


def in_words(count: int) -> str:
    """A number at the beginning of a sentence."""
    words = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[count - 2] if 2 <= count <= 10 else str(count)
