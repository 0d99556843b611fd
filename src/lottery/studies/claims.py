"""The machinery of claims: statements of a paper, measured on the levels of a run. Needs no torch.

Each claim is a measure and the values of it for which the claim is true. The measure comes with a 95 % interval over
replicates, paired wherever two networks are compared, and one rule decides:

    holds            the whole interval lies among the values for which the claim is true;
    does not hold    none of it does;
    undecided        anything else: too few replicates for what the runs show, or nothing to measure;
    no verdict       the claim is ill-posed, and the note says why.

So a claim that is true is called false in 2.5 % of cases at most, and one that is false is called true as rarely.
Claims about one level are judged by the interval of that level, which the paper chose; claims about several ("at every
level", "fall below at") by bounds that hold for all of them together (`analysis.simultaneous`).

The verdict says whether the claim is true; whether the effect has the paper's size is a question of its own, and `size`
answers it: "compatible" where the paper's number is within our interval, else "smaller" or "larger", which is ours.

Levels are found by density, so that runs with other pruning rates are judged too. Percent and percentage points here,
as in papers; fractions in the frames that come in, those of `Run.levels`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, inf, isfinite, isnan, log, nan
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from lottery.analysis.frames import branches_of, curve, densities, levels_of, trunk_of
from lottery.analysis.simultaneous import complete_replicates, deviation, lower_bounds, replicates_needed
from lottery.analysis.statistics import Interval, interval
from lottery.analysis.verdicts import EARLY, STOP, Condition, falls_behind, no_later, rounding, unstopped
from lottery.errors import LotteryError

NEAR = 0.8**0.5
"""A level counts as the paper's if their densities differ by less than half a step of pruning 20 %."""

Branch = str | None
"""Name of a branch; None is the trunk."""

Other = str | None
"""Name of the branch that another is compared with; None is the dense network."""

MORE, LESS = (0.0, inf), (-inf, 0.0)
"""More than nothing and less than nothing: exactly 0 is neither."""


class Measured(Protocol):
    """A number of ours, and what else there is to say of it."""

    @property
    def ours(self) -> Interval:
        """The number on the scale on which it was measured."""

    def needed(self, limit: float) -> int | None:
        """How many replicates in all would probably decide on which side of a limit the number is; None: too many."""

    def remark(self, limit: float) -> str:
        """What is known beside the number, in words."""


class Scale(NamedTuple):
    """How a number is measured, and how it is shown. Both functions increase."""

    shown: Callable[[float], float]
    """From the number as it is measured to the number as it is shown."""
    measured: Callable[[float], float]
    """And back."""

    def interval(self, measured: Interval) -> Interval:
        """As it is shown."""
        mean, low, high = (self.shown(x) for x in measured[:3])
        return Interval(mean, low, high, measured.n)


LINEAR = Scale(float, float)
EARLIER = Scale(lambda x: 100 * (1 - exp(-x)), lambda percent: -log(1 - percent / 100))
"""Measured as the logarithm of a ratio, shown as percent sooner."""
TIMES = Scale(exp, log)
"""Measured as the logarithm of a ratio, shown as the ratio."""


@dataclass(frozen=True)
class Claim:
    """One measurable statement of a paper."""

    says: str
    paper: str
    """The paper's number; with > or < where it is a bound, with ≈ where the verdict asks if ours is like it."""
    measure: Callable[[pd.DataFrame], Measured]
    """From the levels to our number; raises LotteryError where it can't be had, saying why."""
    true: tuple[float, float] = MORE
    """The claim is true of values above the first and below the second."""
    margin: bool = False
    """Whether up to the margin less is as good: the claim is true from that much lower on."""
    unit: str = "points"
    """Of our number and the paper's: percentage points, unless it says otherwise."""
    scale: Scale = LINEAR
    """From what is measured to that unit."""
    run: str = ""
    """Name of the study's run that it is measured on; the main one if empty."""
    ill_posed: str = ""
    """Why there is no verdict, whatever the number."""

    def true_of(self, margin: float) -> tuple[float, float]:
        """The values between which the claim is true, for a margin in percentage points."""
        low, high = self.true
        return (low - margin, high) if self.margin else (low, high)


def judge(levels: pd.DataFrame, claims: Mapping[str, Claim], margin: float) -> pd.DataFrame:
    """Measures claims on the levels of one run, whatever is missing.

    Args:
        levels: the frame of the run.
        claims: name -> claim, in the order of the rows.
        margin: by how many percentage points a network may be less accurate and still as good, as in
            `lottery.analysis.verdicts.judge`.

    Returns:
        One row per claim: claim, paper (text), ours, low, high (NaN where unknown), replicates, verdict (holds, does
        not hold, undecided, no verdict); size (compatible, smaller, larger, or nothing where either number is missing),
        unit, true_if (the values for which it is true), note (of an undecided claim, why, and what it would take).
    """
    rows = []
    for name, claim in claims.items():
        true = low, high = claim.true_of(margin)
        ours, remark = Interval(nan, nan, nan, 0), ""
        try:
            if levels.empty:
                raise LotteryError("no level is finished")
            measured = claim.measure(levels)
            ours = claim.scale.interval(measured.ours)
            remark = _remark(measured, claim, true)
        except LotteryError as error:
            remark = str(error)
        rows.append(
            {
                "claim": f"{name} {claim.says}",
                "paper": claim.paper,
                "ours": ours.mean,
                "low": ours.low,
                "high": ours.high,
                "replicates": ours.n,
                "verdict": "no verdict" if claim.ill_posed else verdict(ours, true),
                "size": _size(ours, claim.paper),
                "unit": claim.unit,
                "true_if": f"> {low:.3g}"
                if high == inf
                else f"< {high:.3g}"
                if low == -inf
                else f"{low:.3g} to {high:.3g}",
                "note": claim.ill_posed or remark,
            }
        )
    return pd.DataFrame(rows)


def verdict(ours: Interval, true: tuple[float, float]) -> str:
    """Whether a claim holds that is true of the values between two numbers; an interval of NaN leaves it undecided."""
    if true[0] < ours.low and ours.high < true[1]:
        return "holds"
    return "does not hold" if ours.high <= true[0] or ours.low >= true[1] else "undecided"


def _remark(measured: Measured, claim: Claim, true: tuple[float, float]) -> str:
    """What is to be said beside the number, and of an undecided claim, why it is and how many replicates it takes."""
    replicates = measured.ours.n
    if replicates < 2:
        few = "one replicate has no interval" if replicates else "no replicate has all that is compared"
        return f"{few}: five to ten usually decide"
    shown = next(end for end in true if isfinite(end))
    limit = claim.scale.measured(shown)
    remark = measured.remark(limit)
    if verdict(claim.scale.interval(measured.ours), true) != "undecided":
        return remark
    why = remark or f"{shown:.3g} lies within the interval"
    needed = measured.needed(limit)
    if needed is None:
        return f"{why}; no affordable number of replicates (more than 50) would probably decide"
    if needed <= replicates:
        return f"{why}; a few more replicates would probably decide"
    return f"{why}; about {needed} replicates in all would probably decide (a third to five times that)"


def _size(ours: Interval, paper: str) -> str:
    try:
        number = float(paper)
    except ValueError:  # the verdict is about it already
        return ""
    if ours.low <= number <= ours.high:
        return "compatible"
    return "smaller" if ours.high < number else "larger" if ours.low > number else ""


def markdown(judged: pd.DataFrame, title: str) -> str:
    """What `judge` returns, as a Markdown table under a heading."""
    lines = [f"## {title}", "", "| claim | paper | ours (95 % interval) | n | verdict |", "|---|---|---|---|---|"]
    for row in judged.to_dict("records"):
        words = f"**{row['verdict']}**"
        words += f", {row['size']} than the paper's" if row["size"] in ("smaller", "larger") else ""
        words += f": {row['note']}" if row["note"] else ""
        lines.append(f"| {row['claim']} | {row['paper']} | {number(row)} | {row['replicates']} | {words} |")
    return "\n".join(lines) + "\n"


def number(row: Mapping[Any, Any]) -> str:
    """Our number, its interval and the unit, from a row of `judge`."""
    if pd.isna(row["ours"]):
        return "–"
    between = "" if pd.isna(row["low"]) else f" ({row['low']:.3g} to {row['high']:.3g})"
    return f"{row['ours']:.3g}{between} {row['unit']}"


# --- which levels ----------------------------------------------------------------------------------------------------


def near(levels: pd.DataFrame, density: float) -> int:
    """The level whose density (a fraction) is nearest, by ratio. Raises LotteryError if that is not near."""
    kept = {level: d for level, d in densities(levels).items() if d > 0}
    level = min(kept, key=lambda level: abs(log(kept[level] / density)))
    if not NEAR < kept[level] / density < 1 / NEAR:
        remedy = "ask for more levels" if kept[level] == min(kept.values()) else "prune in smaller steps"
        raise LotteryError(
            f"no level has about {100 * density:g} % of the weights: the nearest has {100 * kept[level]:.3g} %; "
            f"{remedy}"
        )
    return int(level)


def down_to(levels: pd.DataFrame, density: float) -> list[int]:
    """The pruned levels down to that density. Raises LotteryError where the run does not go so far."""
    return list(range(1, near(levels, density) + 1))


def within(levels: pd.DataFrame, high: float, low: float) -> list[int]:
    """The levels from density `high` down to `low`. Raises LotteryError where the run does not go so far."""
    for end in (high, low):
        near(levels, end)
    return [level for level, density in densities(levels).items() if low <= density <= high]


def pruned(levels: pd.DataFrame, branch: Branch = None) -> list[int]:
    """The pruned levels that a branch has."""
    return [level for level in levels_of(levels, branch or trunk_of(levels)) if level]


# --- from levels to values [replicate x level] -----------------------------------------------------------------------


def values(levels: pd.DataFrame, column: str, branch: Branch, at: list[int]) -> pd.DataFrame:
    """A branch's column at levels, each of which one replicate at least must have [replicate x level]."""
    if branch and branch not in branches_of(levels):
        raise LotteryError(f"there is no branch {branch!r}: train it with --branches {branch}")
    table = curve(levels, column, branch)
    if missing := [level for level in at if level not in table or table[level].isna().all()]:
        raise LotteryError(f"{branch or trunk_of(levels)} has no {column} at level {', '.join(map(str, missing))}")
    return table[at]


def gain(levels: pd.DataFrame, column: str, at: list[int], branch: Branch = None, other: Other = None) -> Condition:
    """Accuracy of `branch` minus that of `other`, percentage points: at these levels, and at others that there are."""
    _check(levels, column, at, branch, other)
    ours, theirs = curve(levels, column, branch), curve(levels, column, other)
    difference = ours - theirs if other else ours.sub(theirs[0], axis=0)
    return Condition(100 * difference.drop(columns=0), 0.0)


def sooner(levels: pd.DataFrame, at: list[int], branch: Branch = None, other: Other = None) -> Condition:
    """log(early-stop iteration of `other` / that of `branch`): at these levels, and at others that there are.

    0.1 is about 10 % sooner. Compared with the dense network it is what `no_later` of the verdict judges.

    Raises:
        LotteryError: where, in one of the replicates, both have their lowest validation loss at the last evaluation:
            either may stop earlier.
    """
    _check(levels, STOP, at, branch, other)
    pairs = _sooner_than(levels, at, branch, other) if other else no_later(levels, branch)
    if pairs.unseen & set(at):
        raise LotteryError("two networks that are compared both stop at the last evaluation: train for longer")
    return pairs


def _sooner_than(levels: pd.DataFrame, at: list[int], branch: Branch, other: str) -> Condition:
    """`sooner` than another branch."""
    ours, theirs = curve(levels, STOP, branch), curve(levels, STOP, other)
    neither = (unstopped(levels, branch) * unstopped(levels, other)).gt(0).any()
    error = rounding(levels) * float(np.hypot(1 / np.nanmean(ours[at]), 1 / np.nanmean(theirs[at])))
    logarithms = (theirs / ours).map(np.log).drop(columns=0)
    return Condition(logarithms, 0.0, error, frozenset(neither.index[neither]) - {0})


def _check(levels: pd.DataFrame, column: str, at: list[int], branch: Branch, other: Other) -> None:
    """Raises LotteryError where no replicate has what is compared."""
    values(levels, column, branch, at)
    values(levels, column, other, at if other else [0])


# --- measures: from values to a number -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Single:
    """The mean over replicates of one number."""

    ours: Interval
    deviation: float
    """Standard deviation between replicates."""

    def needed(self, limit: float) -> int | None:
        """How many replicates in all would probably decide."""
        return replicates_needed(self.ours.mean - limit, self.deviation)

    def remark(self, limit: float) -> str:
        """Nothing: the interval says it all."""
        return ""


def single(numbers: "np.typing.ArrayLike", error: float = 0.0, deviation: float = nan) -> Single:
    """The mean of one number per replicate.

    Args:
        numbers: NaN among them are left out.
        error: standard deviation of what rounding does to each.
        deviation: between replicates, where more is known of it than these numbers tell.
    """
    x = np.asarray(numbers, float)
    own = float(np.nanstd(x, ddof=1)) if np.isfinite(x).sum() > 1 else nan
    return Single(interval(x, error=error), max(own if isnan(deviation) else deviation, error))


def at_level(pairs: Condition, level: int) -> Single:
    """The value at a level, whose neighbours help to tell how much it varies."""
    return single(pairs.values[level], pairs.error, deviation(pairs.values, level))


def average(pairs: Condition, at: list[int]) -> Single:
    """The mean over these levels, in replicates that have them all."""
    return single(pairs.values[at].mean(axis=1, skipna=False), pairs.error)


def best(pairs: Condition, at: list[int]) -> Single:
    """The gain at the best level, where each replicate's best level is chosen by the others.

    The highest of many noisy means is higher than the mean it belongs to; a level that other replicates chose is not.
    """
    whole = pairs.values[at].dropna()
    if len(whole) < 2:
        raise LotteryError("the best level is chosen by the other replicates: there is one with all levels, or none")
    return single([whole.loc[r, whole.drop(index=r).mean().idxmax()] for r in whole.index])


@dataclass(frozen=True)
class Every:
    """Something that is claimed of every level: the smallest of the levels' means says whether it is true.

    Its interval is made of bounds for all levels together: the lowest lower and the lowest upper bound.
    """

    values: pd.DataFrame
    """[replicate x level], without gaps."""
    each: pd.DataFrame
    """One row per level: mean, low, high; the last two hold for all levels together."""

    @property
    def ours(self) -> Interval:
        """At the weakest level."""
        mean, low, high = (float(self.each[name].min()) for name in ("mean", "low", "high"))
        return Interval(mean, low, high, len(self.values))

    def needed(self, limit: float) -> int | None:
        """How many replicates in all would probably show it at every level, or refute it at one."""
        return _replicates(self.values, self.each["mean"] - limit)

    def remark(self, limit: float) -> str:
        """At how many levels it is shown, and at how many the contrary is."""
        refuted = int((self.each["high"] < limit).sum())
        shown = f"shown at {int((self.each['low'] > limit).sum())} of {len(self.each)} levels"
        return f"{shown}, the contrary at {refuted}" if refuted else shown


def every(pairs: Condition, at: list[int]) -> Every:
    """The levels at which something is claimed, together. Raises LotteryError where no replicate has one of them."""
    whole = complete_replicates(pairs.values[at])
    if len(whole.columns) < len(at):
        raise LotteryError("at one of the levels no replicate has both that are compared")
    low, high = lower_bounds(whole, pairs.error), -lower_bounds(-whole, pairs.error)
    return Every(whole, pd.DataFrame({"mean": whole.mean(), "low": low, "high": high}))


@dataclass(frozen=True)
class Bracket:
    """The densest level from which on a branch is less accurate than the dense network, at every sparser one too.

    As percent of the weights. Its interval reaches from the level from which on that is shown to the one that follows
    the sparsest level shown to be at least as accurate; all by bounds that hold for all levels together. So the paper's
    level is right where the next denser one is shown not to be below and the next sparser one, with all that follow,
    is shown to be. (A mean over replicates of the level at which each of them falls below is biased: noise makes it
    come early.)
    """

    ours: Interval
    above: str
    """Down to which share of the weights tickets are shown not to be below."""
    below: str
    """From which on they are shown to be below."""
    replicates: int | None
    """How many would probably decide about the paper's level."""

    def needed(self, limit: float) -> int | None:
        """How many replicates in all would probably decide about the paper's level."""
        return self.replicates

    def remark(self, limit: float) -> str:
        """Between which levels it is."""
        return f"{self.above}, {self.below}"


def falls_below(levels: pd.DataFrame, density: float, branch: Branch = None) -> Bracket:
    """Where test accuracy at early stop falls below the dense network's, for good.

    Args:
        levels: the frame of the run.
        density: where the paper has it.
        branch: the trunk if None.
    """
    at, paper = pruned(levels, branch), near(levels, density)
    gains = gain(levels, EARLY, at, branch).values[at]
    whole = complete_replicates(gains)
    means, lower, behind = whole.mean(), lower_bounds(gains), falls_behind(levels, branch)
    percent = {level: 100 * densities(levels)[level] for level in at}
    not_below = [level for level in at if lower[level] >= 0]
    first = at[min(at.index(not_below[-1]) + 1, len(at) - 1)] if not_below else at[0]
    below = [level for level in at if (means[means.index >= level] < 0).all()]
    sparser = min(paper + 1, at[-1])
    distances = means.where(means.index < paper, -means)[(means.index == paper - 1) | (means.index >= sparser)]
    enough = len(whole) > 1
    return Bracket(
        Interval(
            percent[below[0]] if below else nan,
            (percent[behind.level] if behind else 0.0) if enough else nan,
            percent[first] if enough else nan,
            len(whole),
        ),
        f"not below down to {percent[not_below[-1]]:.3g} %" if not_below else "at no level shown not to be below",
        f"below from {percent[behind.level]:.3g} % on" if behind else "not shown to be below at the sparsest level",
        _replicates(whole, distances) if enough else None,
    )


def _replicates(values: pd.DataFrame, distances: "pd.Series[float]") -> int | None:
    """How many replicates would probably decide something that is claimed of several levels.

    Args:
        values: [replicate x level], without gaps.
        distances: level -> how far its mean is from the limit, on the side where the claim is true.

    Returns:
        As many as the level that needs most of them; of those that are on the wrong side, the one that needs fewest
        refutes the claim. None: more than are affordable.
    """
    wrong = distances[distances <= 0]
    deciding = distances if wrong.empty else wrong
    numbers = [replicates_needed(deciding[level], deviation(values, level)) for level in deciding.index]
    affordable = [number for number in numbers if number is not None]
    if wrong.empty:
        return max(affordable, default=None) if len(affordable) == len(numbers) else None
    return min(affordable, default=None)


def gain_at(levels: pd.DataFrame, column: str, density: float, branch: Branch = None, other: Other = None) -> Single:
    """The `gain` at the level of that density."""
    level = near(levels, density)
    return at_level(gain(levels, column, [level], branch, other), level)


def sooner_at(levels: pd.DataFrame, density: float, branch: Branch = None, other: Other = None) -> Single:
    """The logarithm of `sooner` at the level of that density."""
    level = near(levels, density)
    return at_level(sooner(levels, [level], branch, other), level)
