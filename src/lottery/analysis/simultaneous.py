"""Bounds that hold for all levels together. Numbers only: knows nothing of accuracies or tickets.

"Down to 3 %" names one level out of many, each of which is another chance to err: going by bounds of single levels, 11
to 22 % of such statements are wrong where tickets are just at the limit. The bounds here are wider, so that nominally
with 97.5 % confidence none of them errs.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import log, log1p, sqrt
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import gammaincinv, ndtr, stdtrit

CONFIDENCE = 0.975
REACH = 3
"""Levels to either side that lend their spread to a level."""

Array = np.ndarray[Any, np.dtype[np.float64]]


class Spread(NamedTuple):
    """What a window of levels says of the spread between replicates."""

    variance: float
    """Of one value, pooled over the window."""
    freedom: float
    """Degrees of freedom of `variance`, by Satterthwaite's approximation."""
    correlation: float
    """Between two levels of a replicate, from 0 to 0.95."""


def lower_bounds(values: pd.DataFrame, error: float = 0.0) -> "pd.Series[float]":
    """Simultaneous lower confidence bounds of the mean at every level.

    The probability that the true mean lies below its bound at one level or more is nominally 2.5 %. It is approximate,
    because correlation and degrees of freedom are estimated: for ten levels of normally distributed differences, which
    correlate and spread as in real runs, simulations find 2.2 to 3 % with five or ten replicates, and 2.5 to 3.6 % with
    three, the most where levels are strongly correlated. Replicates are taken for independent.

    A level's variance is pooled over a window of seven levels, shifted at the ends so that it stays seven wide, under
    compound symmetry: a replicate shifts all levels of the window together, and each by itself. The factor on the
    standard error is the quantile of the largest of as many equally correlated t variables as there are levels.

    Args:
        values: one row per replicate, one column per level, in the order of levels. Replicates that lack a level that
            another one has are left out.
        error: standard deviation of what rounding does to each value; the variance is taken no smaller than its square.

    Returns:
        Level -> bound; NaN with fewer than two complete replicates.
    """
    return joint_intervals([values], [error])["low"]


def joint_intervals(samples: Sequence[pd.DataFrame], errors: Sequence[float] | None = None) -> pd.DataFrame:
    """Simultaneous confidence intervals, nominally 95 %, at every level, of the sum of what samples are on average.

    Either end is a bound like those of `lower_bounds`, which says what is assumed. Of independent samples (one run, and
    minus another) the variances of the means add up; their degrees of freedom are Welch's, and the correlation between
    levels is weighted like the variances.

    Args:
        samples: one or more, independent of each other: one row per replicate, one column per level, the same levels in
            the same order. Replicates that lack a level that another one of the sample has are left out.
        errors: of each sample, the standard deviation of what rounding does to each value; 0 if None.

    Returns:
        Level -> low, high; NaN where a sample has fewer than two complete replicates.
    """
    found = dict.fromkeys(samples[0].columns, (np.nan, np.nan))
    complete = [complete_replicates(values) for values in samples]
    enough = all(len(x) >= 2 for x in complete)
    levels = [level for level in found if enough and all(level in x for x in complete)]
    arrays = [x[levels].to_numpy() for x in complete]
    for i, level in enumerate(levels):
        mean = sum(float(x[:, i].mean()) for x in arrays)
        spreads = [pooled(x[:, _window(i, len(levels))]) for x in arrays]
        parts = [  # variances of means
            max(spread.variance, error**2) / len(x)
            for spread, error, x in zip(spreads, errors or [0.0] * len(arrays), arrays, strict=True)
        ]
        half = 0.0
        if variance := sum(parts):
            freedom = variance**2 / sum(part**2 / s.freedom for part, s in zip(parts, spreads, strict=True))
            correlation = sum(part * s.correlation for part, s in zip(parts, spreads, strict=True)) / variance
            half = largest_t(len(levels), freedom, correlation) * sqrt(variance)
        found[level] = mean - half, mean + half
    return pd.DataFrame([*found.values()], samples[0].columns, ["low", "high"], dtype=float)


def complete_replicates(values: pd.DataFrame) -> pd.DataFrame:
    """The replicates that have every level that any of them has."""
    return values.dropna(axis=1, how="all").dropna()


def window(values: pd.DataFrame, level: Hashable) -> pd.DataFrame:
    """The columns of a level and of its neighbours: three on either side, more on one where the other has fewer."""
    return values.iloc[:, _window([*values.columns].index(level), len(values.columns))]


def _window(level: int, count: int) -> slice:
    """Of so many levels in order, those around the one at that position."""
    width = min(2 * REACH + 1, count)
    first = min(max(level - REACH, 0), count - width)
    return slice(first, first + width)


def pooled(values: Array) -> Spread:
    """The spread of replicates (rows, two or more) over a window of levels (columns), under compound symmetry.

    An analysis of variance of replicates within levels: the mean square between replicates, and that of what replicates
    and levels leave. Where nothing varies, degrees of freedom are those of a single level and the correlation is 0.
    """
    replicates, width = values.shape
    residuals = values - values.mean(axis=0)
    shifts = residuals.mean(axis=1)
    freedom = replicates - 1
    between = width * float(shifts @ shifts) / freedom
    if width == 1 or not residuals.any():
        return Spread(between, freedom, 0.0)
    within = float(((residuals - shifts[:, None]) ** 2).sum()) / (freedom * (width - 1))
    parts = between / width, (width - 1) * within / width
    variance = sum(parts)
    satterthwaite = variance**2 / (parts[0] ** 2 / freedom + parts[1] ** 2 / (freedom * (width - 1)))
    return Spread(variance, satterthwaite, min(max((between - within) / (width * variance), 0.0), 0.95))


@lru_cache(maxsize=4096)
def largest_t(count: int, freedom: float, correlation: float) -> float:
    """The 97.5 % quantile of the largest of `count` equally correlated t variables with a common denominator.

    Log of the tail's probability against log of the quantile is nearly straight, so the secant method takes about five
    steps from the quantile of a single variable and Bonferroni's, which lie on either side: to 1e-9, as no step that
    follows one of 1e-6 is larger.
    """
    tail = 1 - CONFIDENCE
    low, high = (float(stdtrit(freedom, 1 - tail / n)) for n in (1, count))
    if count == 1:
        return low

    scale = np.sqrt(2 * gammaincinv(freedom / 2, (np.arange(200) + 0.5) / 200) / freedom)[:, None]

    def excess(quantile: float) -> float:
        return log1p(-_all_below(quantile, count, scale, correlation)) - log(tail)

    at_low, at_high = excess(low), excess(high)
    while at_low != at_high:
        following = float(high * (low / high) ** (at_high / (at_high - at_low)))
        if abs(log(following / high)) < 1e-6:
            return following
        low, at_low, high, at_high = high, at_high, following, excess(following)
    return high


def _all_below(quantile: float, count: int, scale: Array, correlation: float) -> float:
    """The probability that all `count` equally correlated t variables lie below a quantile.

    Given the common denominator (`scale`: 200 quantiles of its chi distribution, [200, 1]) and the common part of the
    numerators (60 nodes of Gauss-Hermite quadrature), the variables are independent and normal.
    """
    nodes, weights = _hermite()
    each = ndtr((quantile * scale - sqrt(correlation) * nodes) / sqrt(1 - correlation))
    return float((each**count).mean(axis=0) @ weights)


@lru_cache(maxsize=1)
def _hermite() -> tuple[Array, Array]:
    """Nodes and weights for the mean of a function of a standard normal variable: those of 60 that weigh anything."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights /= weights.sum()
    return nodes[weights > 1e-16], weights[weights > 1e-16]


def replicates_needed(distance: float, deviation: float, most: int = 50) -> int | None:
    """How many replicates would show with 80 % power that a mean lies on its side of a limit.

    Two-sided at 95 %, one level alone, if the mean is where it seems to be: the smallest R with
    (t(0.975, R − 1) + t(0.80, R − 1)) · deviation / √R ≤ distance. As the distance itself is uncertain, the truth may
    be a third of that, or five times as many.

    Args:
        distance: of the mean from the limit.
        deviation: standard deviation between replicates.
        most: how many are affordable.

    Returns:
        A number from 2 to `most`; None where more are needed.
    """
    for replicates in range(2, most + 1):
        quantiles = float(stdtrit(replicates - 1, 0.975) + stdtrit(replicates - 1, 0.80))
        if quantiles * deviation / sqrt(replicates) <= abs(distance):
            return replicates
    return None


def deviation(values: pd.DataFrame, level: int) -> float:
    """Root mean square of the standard deviations between complete replicates at a level and its neighbours."""
    return float(np.sqrt(window(complete_replicates(values), level).var(ddof=1).mean()))
