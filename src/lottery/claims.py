"""The claims of Frankle & Carbin 2019, Section 2 and Appendix B, measured on the levels of a run. Needs no torch.

Each claim is a measure and the values of it for which the claim is true. The measure comes with a 95 % interval over
replicates, paired wherever two networks are compared, and one rule decides:

    holds            the whole interval lies among the values for which the claim is true;
    does not hold    none of it does;
    undecided        anything else: too few replicates for what the runs show, or nothing to measure.

That says whether the claim is true; whether the effect has the paper's size is a question of its own, and `size`
answers it: "compatible" where the paper's number is within our interval, else "smaller" or "larger", which is ours.

Levels are found by density, so that runs with other pruning rates are judged too. Percent and percentage points here,
as in the paper; fractions in the frames that come in (see `lottery.analysis`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import exp, inf, log, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd

from lottery.analysis import Interval, curve, densities, interval, rounding, unstopped
from lottery.errors import LotteryError

STOP, EARLY, LAST = "early_stop_iteration", "test_accuracy_early_stop", "test_accuracy"

NEAR = 0.8**0.5
"""A level counts as the paper's if their densities differ by less than half a step of pruning 20 %."""


@dataclass(frozen=True)
class Claim:
    """One measurable statement of the paper."""

    name: str
    says: str
    paper: str
    """The paper's number; with > or < where it is a bound, with ≈ where the verdict asks if ours is like it."""
    unit: str
    measure: Callable[[pd.DataFrame], Interval]
    """From the levels to our number; raises LotteryError where it can't be had, saying why."""
    true: tuple[float, float]
    """The claim is true of values above the first and below the second."""


def judge(levels: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, in the paper's order, whatever is missing.

    claim, paper (text), ours, low, high (NaN where unknown), replicates, verdict (holds, does not hold, undecided);
    size (compatible, smaller, larger, or nothing where either number is missing), unit, true_if (the values for which
    it is true), note (why there is no answer).
    """
    rows = []
    for claim in CLAIMS:
        found, note = Interval(nan, nan, nan, 0), ""
        try:
            if levels.empty:
                raise LotteryError("no level is finished")
            found = claim.measure(levels)
            if found.n < 2:
                note = "one replicate has no interval" if found.n else "no replicate has all that is compared"
        except LotteryError as error:
            note = str(error)
        low, high = claim.true
        rule = f"{low:g} to {high:g}" if -inf < low and high < inf else f"> {low:g}" if high == inf else f"< {high:g}"
        rows.append(
            {
                "claim": f"{claim.name} {claim.says}",
                "paper": claim.paper,
                "ours": found.mean,
                "low": found.low,
                "high": found.high,
                "replicates": found.n,
                "verdict": verdict(found, claim.true),
                "size": _size(found, claim.paper),
                "unit": claim.unit,
                "true_if": rule,
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def verdict(found: Interval, true: tuple[float, float]) -> str:
    """By the rule above; NaN is undecided."""
    if true[0] < found.low and found.high < true[1]:
        return "holds"
    return "does not hold" if found.high <= true[0] or found.low >= true[1] else "undecided"


def _size(found: Interval, paper: str) -> str:
    try:
        number = float(paper)
    except ValueError:  # the verdict is about it already
        return ""
    if found.low <= number <= found.high:
        return "compatible"
    return "smaller" if found.high < number else "larger" if found.low > number else ""


# --- measures: from levels to an interval ----------------------------------------------------------------------------


def near(levels: pd.DataFrame, density: float) -> int:
    """The level whose density (fraction) is nearest, by ratio. Raises LotteryError if that is not near."""
    there = {level: d for level, d in densities(levels).items() if d > 0}
    level = min(there, key=lambda level: abs(log(there[level] / density)))
    if not NEAR < there[level] / density < 1 / NEAR:
        raise LotteryError(
            f"no level has about {100 * density:g} % of the weights: the nearest has {100 * there[level]:.3g} %"
        )
    return int(level)


def within(levels: pd.DataFrame, high: float, low: float) -> list[int]:
    """The levels from density `high` down to `low`. Raises LotteryError where the run does not go so far, as `near`."""
    near(levels, high), near(levels, low)
    return [level for level, density in densities(levels).items() if low <= density <= high]


def values(levels: pd.DataFrame, column: str, branch: str, wanted: Iterable[int]) -> pd.DataFrame:
    """A branch's column at levels [replicate x level], each of them in one replicate at least."""
    table = curve(levels, column, branch)
    wanted = list(wanted)
    if missing := [level for level in wanted if level not in table or table[level].isna().all()]:
        raise LotteryError(f"{branch} has no {column} at level {', '.join(map(str, missing))}")
    return table[wanted]


def gain(levels: pd.DataFrame, column: str, at: list[int], branch: str, other: str | None) -> pd.DataFrame:
    """Accuracy of `branch` minus that of `other` (None: the dense network), percentage points [replicate x level]."""
    return 100 * (values(levels, column, branch, at) - _other(levels, column, at, other))


def sooner(levels: pd.DataFrame, at: list[int], branch: str, other: str | None) -> pd.DataFrame:
    """log(early-stop iteration of `other` / that of `branch`) [replicate x level]; 0.1 is about 10 % sooner.

    Raises LotteryError where, in one of the replicates, both have their lowest validation loss at the last evaluation:
    either may stop earlier.
    """
    theirs, ours = _other(levels, STOP, at, other), values(levels, STOP, branch, at)
    neither = unstopped(levels, branch)[at] * _spread(unstopped(levels, other or "rewind"), at, other) > 0
    if neither.any(axis=None):
        raise LotteryError("two networks that are compared both stop at the last evaluation: train for longer")
    return (theirs / ours).map(np.log)


def _other(levels: pd.DataFrame, column: str, at: list[int], other: str | None) -> pd.DataFrame:
    return _spread(values(levels, column, other or "rewind", at if other else [0]), at, other)


def _spread(table: pd.DataFrame, at: list[int], other: str | None) -> pd.DataFrame:
    """Its columns `at`; of the dense network, that of level 0 for each of them."""
    return table[at] if other else pd.DataFrame({level: table[0] for level in at})


def weakest(pairs: pd.DataFrame, error: float = 0.0) -> Interval:
    """A 95 % interval for the smallest of the levels' means, so that a claim about every level can be put to it.

    The lowest of the lower ends is a bound at 97.5 %, as one of them belongs to the smallest mean. For an upper bound
    the intervals are widened to hold at all levels at once (Bonferroni), so that one unlucky level among many does not
    refute what is true of all. error is as in `interval`.
    """
    each = [interval(pairs[level], error=error) for level in pairs]
    upper = [interval(pairs[level], 1 - 0.05 / len(each), error).high for level in pairs]
    lows = [i.low for i in each]
    means = [i.mean for i in each]
    return Interval(float(np.min(means)), float(np.min(lows)), float(np.min(upper)), min(i.n for i in each))


def average(pairs: pd.DataFrame, error: float = 0.0) -> Interval:
    """Of the mean over the levels, in replicates that have them all."""
    return interval(pairs.mean(axis=1, skipna=False), error=error)


def best(pairs: pd.DataFrame) -> Interval:
    """Of the gain at the best level, where each replicate's best level is chosen by the others.

    The highest of many noisy means is higher than the mean it belongs to; a level that other replicates chose is not.
    """
    whole = pairs.dropna()
    if len(whole) < 2:
        raise LotteryError("the best level is chosen by the other replicates: there is one with all levels, or none")
    return interval([whole.loc[r, whole.drop(index=r).mean().idxmax()] for r in whole.index])


def percent(found: Interval) -> Interval:
    """Percent sooner, from logarithms of ratios."""
    mean, low, high = (100 * (1 - exp(-x)) for x in (found.mean, found.low, found.high))
    return Interval(mean, low, high, found.n)


def times(found: Interval) -> Interval:
    """Times as soon, from logarithms of ratios."""
    return Interval(exp(found.mean), exp(found.low), exp(found.high), found.n)


def gain_at(levels: pd.DataFrame, column: str, density: float, branch: str, other: str | None = None) -> Interval:
    return average(gain(levels, column, [near(levels, density)], branch, other))


def sooner_at(levels: pd.DataFrame, density: float, branch: str, other: str | None = None) -> Interval:
    at = [near(levels, density)]
    return average(sooner(levels, at, branch, other), rounded(levels, at, branch, other))


def rounded(levels: pd.DataFrame, at: list[int], branch: str, other: str | None) -> float:
    """What rounding to the next evaluation does to the logarithms of `sooner`: its standard deviation, typically."""
    stops = [_other(levels, STOP, at, other).to_numpy(), values(levels, STOP, branch, at).to_numpy()]
    return rounding(levels) * float(np.hypot(*(1 / np.nanmean(stop) for stop in stops)))


def sooner_per_level(levels: pd.DataFrame) -> Interval:
    """Percent sooner per level, as the slope of a straight line through the logarithms from dense to 21.1 %."""
    last = near(levels, 0.211)
    if last < 2:
        raise LotteryError("a trend needs two levels above 21.1 % of the weights")
    pairs = sooner(levels, list(range(1, last + 1)), "rewind", None)
    pairs.insert(0, 0, 0.0)  # the dense network is as soon as itself
    x = np.arange(last + 1) - last / 2
    error = rounded(levels, list(range(1, last + 1)), "rewind", None) / sqrt(x @ x)
    return percent(interval((pairs * x).sum(axis=1, skipna=False) / (x @ x), error=error))


def falls_below(levels: pd.DataFrame, branch: str) -> Interval:
    """Percent of the weights from which on test accuracy at early stop is below the dense network's, for good.

    Per replicate the highest density from which it is lower at every level that there is; mean over replicates of its
    logarithm. Raises LotteryError where a replicate's last level is not below: it may come later.
    """
    wanted = sorted(set(levels.loc[levels["branch"] == branch, "level"]) - {0})
    pairs = gain(levels, EARLY, wanted, branch, None).dropna()
    below = np.logical_and.accumulate((pairs < 0).to_numpy()[:, ::-1], axis=1)[:, ::-1]  # here and at all that follow
    if not below.size or not below[:, -1].all():
        raise LotteryError(f"{branch} is not below the dense network at the last level of every replicate")
    first = [100 * densities(levels)[wanted[i]] for i in below.argmax(axis=1)]
    step = np.diff(np.log([densities(levels)[level] for level in wanted])) if len(wanted) > 1 else np.zeros(1)
    mean, low, high, n = times(interval(np.log(first), error=float(np.abs(step).mean()) / sqrt(12)))
    return Interval(mean, low, min(high, 100.0), n)


def best_at_the_end(levels: pd.DataFrame) -> Interval:
    """Points above the dense network after the last iteration."""
    there = sorted(set(levels.loc[levels["branch"] == "rewind", "level"]) - {0})
    return best(gain(levels, LAST, there, "rewind", None))


def training_accuracy(levels: pd.DataFrame) -> Interval:
    """Percent, after the last iteration, at the level down to 2 % where it is lowest."""
    return weakest(100 * values(levels, "train_accuracy", "rewind", range(near(levels, 0.02) + 1)))


def one_shot_sooner(levels: pd.DataFrame, over: Callable[[pd.DataFrame, float], Interval]) -> Interval:
    at = within(levels, 0.675, 0.176)
    return percent(over(sooner(levels, at, "one_shot", None), rounded(levels, at, "one_shot", None)))


def one_shot_gain(levels: pd.DataFrame, over: Callable[[pd.DataFrame], Interval]) -> Interval:
    return over(gain(levels, EARLY, within(levels, 0.95, 0.0517), "one_shot", None))


def reset_sooner(levels: pd.DataFrame) -> Interval:
    at = list(range(1, near(levels, 0.036) + 1))
    return percent(average(sooner(levels, at, "rewind", "continue"), rounded(levels, at, "rewind", "continue")))


def reset_gain(levels: pd.DataFrame) -> Interval:
    return average(gain(levels, EARLY, list(range(1, near(levels, 0.036) + 1)), "rewind", "continue"))


MORE, LESS = (0.0, inf), (-inf, 0.0)
"""More than nothing and less than nothing: exactly 0 is neither."""

AS_ACCURATE, AS_EARLY = (-0.1, 0.1), (-10.0, 10.0)
"""What counts as the same, points and percent: a third of the gain that the paper reports, a quarter of its speed-up.
Our choice: the paper says "returning to" and leaves open how near that is."""


def like(percent: float) -> tuple[float, float]:
    """Densities within one level of 20 % pruning of the paper's."""
    return 0.8 * percent, percent / 0.8


CLAIMS = (
    Claim(
        *("1a", "at 21.1 % tickets stop earlier than the dense network", "38", "% earlier"),
        lambda levels: percent(sooner_at(levels, 0.211, "rewind")),
        MORE,
    ),
    Claim(
        *("1b", "down to 21.1 % tickets stop earlier with every level", "> 0", "% earlier a level"),
        sooner_per_level,
        MORE,
    ),
    Claim(
        *("2a", "at 13.5 % tickets are more accurate at early stop than the dense network", "> 0", "points"),
        lambda levels: gain_at(levels, EARLY, 0.135, "rewind"),
        MORE,
    ),
    Claim(
        *("2b", "at 13.5 % they are so by more than 0.3 points", "> 0.3", "points"),
        lambda levels: gain_at(levels, EARLY, 0.135, "rewind"),
        (0.3, inf),
    ),
    Claim(
        *("3a", "at 3.6 % tickets are as accurate as the dense network", "≈ 0", "points"),
        lambda levels: gain_at(levels, EARLY, 0.036, "rewind"),
        AS_ACCURATE,
    ),
    Claim(
        *("3b", "at 3.6 % tickets stop as early as the dense network", "≈ 0", "% earlier"),
        lambda levels: percent(sooner_at(levels, 0.036, "rewind")),
        AS_EARLY,
    ),
    Claim(
        *("4a", "at 21.1 % reinitialised tickets are less accurate than the dense network", "< 0", "points"),
        lambda levels: gain_at(levels, EARLY, 0.211, "reinit"),
        LESS,
    ),
    Claim(
        *("4b", "at 2.9 % tickets are less accurate than the dense network", "< 0", "points"),
        lambda levels: gain_at(levels, EARLY, 0.029, "rewind"),
        LESS,
    ),
    Claim(
        *("4c", "weights at which reinitialised tickets fall below the dense network", "≈ 21.1", "% of the weights"),
        lambda levels: falls_below(levels, "reinit"),
        like(21.1),
    ),
    Claim(
        *("4d", "weights at which tickets fall below the dense network", "≈ 2.9", "% of the weights"),
        lambda levels: falls_below(levels, "rewind"),
        like(2.9),
    ),
    Claim(
        *("5a", "at 21.1 % tickets stop earlier than reinitialised ones", "2.51", "times"),
        lambda levels: times(sooner_at(levels, 0.211, "rewind", "reinit")),
        (1.0, inf),
    ),
    Claim(
        *("5b", "at 21.1 % tickets are more accurate than reinitialised ones", "0.5", "points"),
        lambda levels: gain_at(levels, EARLY, 0.211, "rewind", "reinit"),
        MORE,
    ),
    Claim(
        *("6a", "one-shot tickets stop earlier than the dense network at every level from 67.5 % to 17.6 %", "> 0"),
        "% earlier",
        lambda levels: one_shot_sooner(levels, weakest),
        MORE,
    ),
    Claim(
        *("6b", "they do so on average over these levels", "> 0", "% earlier"),
        lambda levels: one_shot_sooner(levels, average),
        MORE,
    ),
    Claim(
        *(
            "6c",
            "one-shot tickets are more accurate than the dense network at every level from 95.0 % to 5.17 %",
            "> 0",
        ),
        "points",
        lambda levels: one_shot_gain(levels, weakest),
        MORE,
    ),
    Claim(
        *("6d", "they are so on average over these levels", "> 0", "points"),
        lambda levels: one_shot_gain(levels, average),
        MORE,
    ),
    Claim(
        *("7a", "after the last iteration the best level is more accurate than the dense network", "0.35", "points"),
        best_at_the_end,
        MORE,
    ),
    Claim(
        *("7b", "training accuracy is near 100 % at every level down to 2 %", "≈ 100", "%"),
        training_accuracy,
        (99.0, inf),
    ),
    Claim(
        *(
            "8a",
            "resetting stops earlier than training on, on average over the levels down to 3.6 %",
            "> 0",
            "% earlier",
        ),
        reset_sooner,
        MORE,
    ),
    Claim(
        *(
            "8b",
            "resetting is more accurate than training on, on average over the levels down to 3.6 %",
            "> 0",
            "points",
        ),
        reset_gain,
        MORE,
    ),
)


def markdown(judged: pd.DataFrame, title: str) -> str:
    """What `judge` found, as a Markdown table."""
    lines = [f"## {title}", "", "| claim | paper | ours (95 % interval) | n | verdict |", "|---|---|---|---|---|"]
    for row in judged.to_dict("records"):
        words = f"**{row['verdict']}**"
        words += f", {row['size']} than the paper's" if row["size"] in ("smaller", "larger") else ""
        words += f": {row['note']}" if row["note"] else ""
        lines.append(f"| {row['claim']} | {row['paper']} | {number(row)} | {row['replicates']} | {words} |")
    return "\n".join(lines) + "\n"


def number(row: Mapping[Any, Any]) -> str:
    """Ours, its interval and the unit of a row of `judge`."""
    if pd.isna(row["ours"]):
        return "–"
    interval = "" if pd.isna(row["low"]) else f" ({row['low']:.3g} to {row['high']:.3g})"
    return f"{row['ours']:.3g}{interval} {row['unit']}"
