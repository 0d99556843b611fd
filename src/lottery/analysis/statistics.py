"""How values are averaged and compared: the only place that does.

Draws are averaged within a replicate first, then over replicates. Two networks are compared in pairs within a
replicate, which share initial weights and split, so that the difference varies less than either.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from lottery.analysis.frames import branches_of, curve, densities


class Interval(NamedTuple):
    """A mean over replicates, and the confidence interval of the mean; NaN where there are too few to say."""

    mean: float
    low: float
    high: float
    n: int


def interval(values: "np.typing.ArrayLike", confidence: float = 0.95, error: float = 0.0) -> Interval:
    """Student's t interval; NaN among the values are left out. With one value low and high are NaN, with none all are.

    error: standard deviation of what rounding does to each value. Two replicates that happen to agree are no more
    certain than that: the standard deviation between replicates is taken no smaller.

    It takes the replicates for independent draws from a normal distribution, which with three to five of them is an
    assumption and not a finding.
    """
    x = np.asarray(values, float)
    x = x[~np.isnan(x)]
    n = len(x)
    mean = float(x.mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * max(x.std(ddof=1), error) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def welch(
    ours: "np.typing.ArrayLike", theirs: "np.typing.ArrayLike", errors: tuple[float, float] = (0.0, 0.0)
) -> Interval:
    """Ours minus theirs, of two samples that are independent of each other: Welch's (1947) 95 % interval for the
    difference of two means of normal distributions whose variances may differ.

    NaN among the values are left out. With fewer than two values in either, low and high are NaN; n is that of the
    smaller sample. errors: of each sample, as `error` in `interval`.
    """
    samples = [x[~np.isnan(x)] for x in (np.asarray(ours, float), np.asarray(theirs, float))]
    n = min(len(x) for x in samples)
    mean = float(samples[0].mean() - samples[1].mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    parts = [max(float(x.var(ddof=1)), error**2) / len(x) for x, error in zip(samples, errors, strict=True)]
    half = 0.0
    if variance := sum(parts):
        freedom = variance**2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, samples, strict=True))
        half = float(stdtrit(freedom, 0.975) * np.sqrt(variance))
    return Interval(mean, mean - half, mean + half, n)


def summary(levels: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row per branch and level: branch, level, density, mean, min, max, low, high, n.

    Over replicates, each with its draws averaged first; low and high are the 95 % interval of the mean. Level 0 of
    every branch is the trunk's dense network.
    """
    rows, density = [], densities(levels)
    for branch in branches_of(levels):
        for level, values in curve(levels, column, branch).items():
            mean, low, high, n = interval(values)
            rows.append((branch, level, density[level], mean, values.min(), values.max(), low, high, n))
    return pd.DataFrame(rows, columns=["branch", "level", "density", "mean", "min", "max", "low", "high", "n"])


def differences(
    levels: pd.DataFrame,
    column: str,
    branch: str,
    other: str | None = None,
    error: float = 0.0,
) -> pd.DataFrame:
    """Branch minus `other` at the same level, or minus the dense network where other is None, paired by replicate.

    One row per level that both have: level, density, mean, low, high (95 % interval of the mean), n (pairs). error is
    as in `interval`.
    """
    ours = curve(levels, column, branch)
    if other is None:
        pairs = ours.sub(ours[0], axis=0) if 0 in ours else ours * np.nan
    else:
        pairs = ours.sub(curve(levels, column, other))
    rows = [
        (level, densities(levels)[level], *interval(pairs[level], error=error))
        for level in pairs
        if pairs[level].notna().any()
    ]
    return pd.DataFrame(rows, columns=["level", "density", "mean", "low", "high", "n"])
