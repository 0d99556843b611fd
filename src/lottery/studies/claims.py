"""The machinery of claims: statements of a paper, measured on the levels of a run. Needs no torch.

Each claim is a measure and the values of it for which the claim is true. The measure comes with a 95 % interval over
replicates, paired wherever two networks are compared, and one rule decides:

    holds            the whole interval lies among the values for which the claim is true;
    does not hold    none of it does;
    undecided        anything else: too few replicates for what the runs show, or nothing to measure.

That says whether the claim is true; whether the effect has the paper's size is a question of its own, and `size`
answers it: "compatible" where the paper's number is within our interval, else "smaller" or "larger", which is ours.

Levels are found by density, so that runs with other pruning rates are judged too. Percent and percentage points here,
as in papers; fractions in the frames that come in, those of `Run.levels`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, inf, log, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd

from lottery.analysis.frames import curve, densities, levels_of, trunk_of
from lottery.analysis.statistics import Interval, interval
from lottery.analysis.verdicts import EARLY, STOP, rounding, unstopped
from lottery.errors import LotteryError

NEAR = 0.8**0.5
"""A level counts as the paper's if their densities differ by less than half a step of pruning 20 %."""

Branch = str | None
"""Name of a branch; None is the trunk."""

Other = str | None
"""Name of the branch that another is compared with; None is the dense network."""

MORE, LESS = (0.0, inf), (-inf, 0.0)
"""More than nothing and less than nothing: exactly 0 is neither."""


@dataclass(frozen=True)
class Claim:
    """One measurable statement of a paper."""

    says: str
    paper: str
    """The paper's number; with > or < where it is a bound, with ≈ where the verdict asks if ours is like it."""
    measure: Callable[[pd.DataFrame], Interval]
    """From the levels to our number; raises LotteryError where it can't be had, saying why."""
    true: tuple[float, float] = MORE
    """The claim is true of values above the first and below the second."""
    unit: str = "points"
    """Of our number and the paper's: percentage points, unless it says otherwise."""
    run: str = ""
    """Name of the study's run that it is measured on; the main one if empty."""


def judge(levels: pd.DataFrame, claims: Mapping[str, Claim]) -> pd.DataFrame:
    """Measures claims on the levels of one run, whatever is missing.

    Args:
        levels: the frame of the run.
        claims: name -> claim, in the order of the rows.

    Returns:
        One row per claim: claim, paper (text), ours, low, high (NaN where unknown), replicates, verdict (holds, does
        not hold, undecided); size (compatible, smaller, larger, or nothing where either number is missing), unit,
        true_if (the values for which it is true), note (why there is no answer).
    """
    rows = []
    for name, claim in claims.items():
        ours, note = Interval(nan, nan, nan, 0), ""
        try:
            if levels.empty:
                raise LotteryError("no level is finished")
            ours = claim.measure(levels)
            if ours.n < 2:
                note = "one replicate has no interval" if ours.n else "no replicate has all that is compared"
        except LotteryError as error:
            note = str(error)
        low, high = claim.true
        rows.append(
            {
                "claim": f"{name} {claim.says}",
                "paper": claim.paper,
                "ours": ours.mean,
                "low": ours.low,
                "high": ours.high,
                "replicates": ours.n,
                "verdict": verdict(ours, claim.true),
                "size": _size(ours, claim.paper),
                "unit": claim.unit,
                "true_if": f"> {low:g}" if high == inf else f"< {high:g}" if low == -inf else f"{low:g} to {high:g}",
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def verdict(ours: Interval, true: tuple[float, float]) -> str:
    """Whether a claim holds that is true of the values between two numbers; an interval of NaN leaves it undecided."""
    if true[0] < ours.low and ours.high < true[1]:
        return "holds"
    return "does not hold" if ours.high <= true[0] or ours.low >= true[1] else "undecided"


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
        raise LotteryError(
            f"no level has about {100 * density:g} % of the weights: the nearest has {100 * kept[level]:.3g} %"
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


# --- measures: from levels to pairs [replicate x level] --------------------------------------------------------------


def values(levels: pd.DataFrame, column: str, branch: Branch, at: list[int]) -> pd.DataFrame:
    """A branch's column at levels, each of which one replicate at least must have [replicate x level]."""
    table = curve(levels, column, branch)
    if missing := [level for level in at if level not in table or table[level].isna().all()]:
        raise LotteryError(f"{branch or trunk_of(levels)} has no {column} at level {', '.join(map(str, missing))}")
    return table[at]


def gain(levels: pd.DataFrame, column: str, at: list[int], branch: Branch = None, other: Other = None) -> pd.DataFrame:
    """Accuracy of `branch` minus that of `other`, percentage points [replicate x level]."""
    return 100 * (values(levels, column, branch, at) - _other(levels, column, at, other))


def sooner(levels: pd.DataFrame, at: list[int], branch: Branch = None, other: Other = None) -> pd.DataFrame:
    """log(early-stop iteration of `other` / that of `branch`) [replicate x level]; 0.1 is about 10 % sooner.

    Raises:
        LotteryError: where, in one of the replicates, both have their lowest validation loss at the last evaluation:
            either may stop earlier.
    """
    theirs, ours = _other(levels, STOP, at, other), values(levels, STOP, branch, at)
    neither = unstopped(levels, branch)[at] * _spread(unstopped(levels, other), at, other) > 0
    if neither.any(axis=None):
        raise LotteryError("two networks that are compared both stop at the last evaluation: train for longer")
    return (theirs / ours).map(np.log)


def rounded(levels: pd.DataFrame, at: list[int], branch: Branch = None, other: Other = None) -> float:
    """What rounding to the next evaluation does to the logarithms of `sooner`: its standard deviation, typically."""
    stops = [_other(levels, STOP, at, other).to_numpy(), values(levels, STOP, branch, at).to_numpy()]
    return rounding(levels) * float(np.hypot(*(1 / np.nanmean(stop) for stop in stops)))


def _other(levels: pd.DataFrame, column: str, at: list[int], other: Other) -> pd.DataFrame:
    return _spread(values(levels, column, other, at if other else [0]), at, other)


def _spread(table: pd.DataFrame, at: list[int], other: Other) -> pd.DataFrame:
    """Its columns `at`; of the dense network, that of level 0 for each of them."""
    return table[at] if other else pd.DataFrame({level: table[0] for level in at})


# --- measures: from pairs, or from levels, to an interval ------------------------------------------------------------


Over = Callable[[pd.DataFrame, float], Interval]
"""From pairs and the `error` of `interval` to an interval for all levels together: `weakest` or `average`."""


def weakest(pairs: pd.DataFrame, error: float = 0.0) -> Interval:
    """A 95 % interval for the smallest of the levels' means, so that a claim about every level can be put to it.

    The lowest of the lower ends is a bound at 97.5 %, as one of them belongs to the smallest mean. For an upper bound
    the intervals are widened to hold at all levels at once (Bonferroni), so that one unlucky level among many does not
    refute what is true of all. error is as in `interval`.
    """
    each = [interval(pairs[level], error=error) for level in pairs]
    upper = [interval(pairs[level], 1 - 0.05 / len(each), error).high for level in pairs]
    means, lows, _, counts = zip(*each, strict=True)
    return Interval(float(np.min(means)), float(np.min(lows)), float(np.min(upper)), min(counts))


def average(pairs: pd.DataFrame, error: float = 0.0) -> Interval:
    """Of the mean over the levels, in replicates that have them all; error is as in `interval`."""
    return interval(pairs.mean(axis=1, skipna=False), error=error)


def best(pairs: pd.DataFrame) -> Interval:
    """Of the gain at the best level, where each replicate's best level is chosen by the others.

    The highest of many noisy means is higher than the mean it belongs to; a level that other replicates chose is not.
    """
    whole = pairs.dropna()
    if len(whole) < 2:
        raise LotteryError("the best level is chosen by the other replicates: there is one with all levels, or none")
    return interval([whole.loc[r, whole.drop(index=r).mean().idxmax()] for r in whole.index])


def percent(logarithm: Interval) -> Interval:
    """Percent sooner, from logarithms of ratios."""
    mean, low, high = (100 * (1 - exp(-x)) for x in logarithm[:3])
    return Interval(mean, low, high, logarithm.n)


def times(logarithm: Interval) -> Interval:
    """Times as soon, from logarithms of ratios."""
    return Interval(exp(logarithm.mean), exp(logarithm.low), exp(logarithm.high), logarithm.n)


def gain_at(levels: pd.DataFrame, column: str, density: float, branch: Branch = None, other: Other = None) -> Interval:
    """The `gain` at the level of that density."""
    return average(gain(levels, column, [near(levels, density)], branch, other))


def sooner_over(
    levels: pd.DataFrame, at: list[int], branch: Branch = None, other: Other = None, over: Over = average
) -> Interval:
    """What `average` or `weakest` makes of `sooner` at these levels, rounding considered."""
    return over(sooner(levels, at, branch, other), rounded(levels, at, branch, other))


def sooner_at(levels: pd.DataFrame, density: float, branch: Branch = None, other: Other = None) -> Interval:
    """The logarithm of `sooner` at the level of that density."""
    return sooner_over(levels, [near(levels, density)], branch, other)


def falls_below(levels: pd.DataFrame, branch: Branch = None) -> Interval:
    """Percent of the weights from which on test accuracy at early stop is below the dense network's, for good.

    Per replicate the highest density from which it is lower at every level that there is; mean over replicates of its
    logarithm. Raises LotteryError where a replicate's last level is not below: it may come later.
    """
    branch = branch or trunk_of(levels)
    at = [level for level in levels_of(levels, branch) if level]
    pairs = gain(levels, EARLY, at, branch).dropna()
    below = np.logical_and.accumulate((pairs < 0).to_numpy()[:, ::-1], axis=1)[:, ::-1]  # here and at all that follow
    if not below.size or not below[:, -1].all():
        raise LotteryError(f"{branch} is not below the dense network at the last level of every replicate")
    kept = np.array([densities(levels)[level] for level in at])
    step = float(np.abs(np.diff(np.log(kept))).mean()) if len(at) > 1 else 0.0
    mean, low, high, n = times(interval(np.log(100 * kept[below.argmax(axis=1)]), error=step / sqrt(12)))
    return Interval(mean, low, min(high, 100.0), n)
