"""Which pruned levels are matching and winning tickets: numbers from the frames of runs, one row per level.

Three conditions, each a difference within a replicate, whose networks share initial weights, data and split:

    matching        not less accurate than the dense network, by more than a margin
    no later        stopping no more than 10 % later than the dense network
    beats reinit    more accurate than the same mask with newly drawn initial weights

A winning ticket meets all three. Each condition is judged level by level (95 % intervals) and for all levels together
(`simultaneous.lower_bounds`), which is what a statement such as "down to 3 % of the weights" needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log, sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd

from lottery.analysis.frames import branches_of, curve, densities, levels_of, trunk_of
from lottery.analysis.simultaneous import lower_bounds
from lottery.analysis.statistics import interval

EARLY, LAST, STOP = "test_accuracy_early_stop", "test_accuracy", "early_stop_iteration"
REINIT = "reinit"
"""The branch whose networks have the trunk's masks and new initial weights."""
LATER = 1.1
"""Stopping after more than so many times the dense network's iterations is later."""

CONDITIONS = ("matching", "no_later", "beats_reinit")


class Margin(NamedTuple):
    """By how much a matching ticket may be less accurate than the dense network."""

    points: float
    """Percentage points of test accuracy."""
    source: str = "set by --margin"
    """Where the number comes from, as a sentence ends."""


UNCOUNTED = 0.5
"""Percentage points: the margin where it is not known on how many examples an accuracy was measured."""


def default_margin(levels: pd.DataFrame, test_images: int | None) -> Margin:
    """One standard error of the dense network's accuracy, as far as it is due to which test images there are.

    100 · √(p · (1 − p) / n) points for n test images, p the mean over replicates of the accuracy that is judged (see
    `accuracy_column`). It is lax on small test sets: 0.15 points on MNIST's 10,000 images, 0.75 on 1,000.

    Args:
        levels: the frame; without a dense network the margin is NaN.
        test_images: how many images the accuracies are measured on; None where that is not known.
    """
    if levels.empty or not (levels["level"] == 0).any():
        return Margin(float("nan"), "unknown until a dense network is finished")
    if test_images is None:
        return Margin(
            UNCOUNTED, "for want of the number of test examples, of a loop of one’s own; --margin sets another"
        )
    p = float(curve(levels, accuracy_column(levels))[0].mean())
    source = f"one standard error of an accuracy of {100 * p:.1f} % on {test_images:,} test images"
    return Margin(100 * sqrt(p * (1 - p) / test_images), source)


def accuracy_column(levels: pd.DataFrame) -> str:
    """The column that is judged: test accuracy at early stop, or after the last iteration where nothing was held out
    for validation and so nothing stops early."""
    return LAST if levels[EARLY].isna().all() else EARLY


def unstopped(levels: pd.DataFrame, branch: str | None = None) -> pd.DataFrame:
    """As `curve`, above 0 where a network's validation loss was lowest at its last evaluation: it would have stopped
    at that iteration or any later one."""
    marked = levels.assign(unstopped=(levels[STOP] >= levels["iterations"]).astype(float))
    return curve(marked, "unstopped", branch)


def rounding(levels: pd.DataFrame) -> float:
    """Standard deviation of what it does to an early-stop iteration that only every so many iterations are evaluated:
    their step / √12. The step is the greatest that all of them are multiples of."""
    stops = levels.loc[levels[STOP] < levels["iterations"], STOP]
    return float(np.gcd.reduce(stops.dropna().astype(np.int64))) / sqrt(12) if len(stops) else 0.0


@dataclass(frozen=True)
class Condition:
    """A condition on tickets: the mean over replicates must lie above a limit."""

    values: pd.DataFrame
    """One row per replicate, one column per pruned level: the larger, the better for the ticket. NaN: unknown."""
    limit: float
    error: float = 0.0
    """Standard deviation of what rounding does to a value."""
    unseen: frozenset[int] = frozenset()
    """Levels whose own values are no evidence; they still tell their neighbours how much values spread."""

    def judged(self) -> pd.DataFrame:
        """One row per level: mean, low, high, bound, verdict, shown; as `judge` explains them."""
        bounds = lower_bounds(self.values, self.error)
        rows = []
        for level, bound in bounds.items():
            mean, low, high, _ = interval(self.values[level], error=self.error)
            if level in self.unseen:
                low = high = bound = float("nan")
            rows.append((mean, low, high, bound, _verdict(low, high, self.limit), bound > self.limit))
        names = ["mean", "low", "high", "bound", "verdict", "shown"]
        return pd.DataFrame(rows, self.values.columns, names)


def _verdict(low: float, high: float, limit: float) -> str:
    if low > limit:
        return "yes"
    return "no" if high < limit else "undecided"


def matching(levels: pd.DataFrame, margin: float, branch: str | None = None) -> Condition:
    """Accuracy minus the dense network's, percentage points, above −margin."""
    accuracy = 100 * curve(levels, accuracy_column(levels), branch)
    return Condition(accuracy.sub(accuracy[0], axis=0).drop(columns=0), -margin)


def no_later(levels: pd.DataFrame, branch: str | None = None) -> Condition:
    """Logarithm of the dense network's early-stop iteration over the ticket's, above −ln 1.1.

    No evidence are levels at which in some replicate neither of the two was seen to stop.
    """
    stops, late = curve(levels, STOP, branch), unstopped(levels, branch)
    neither = late.mul(late[0], axis=0).gt(0).any()
    return Condition(
        -stops.div(stops[0], axis=0).drop(columns=0).apply(np.log),
        -log(LATER),
        sqrt(2) * rounding(levels) / float(stops[0].mean()),  # that of a ratio of two rounded iterations
        frozenset(neither.index[neither]),
    )


def beats_reinit(levels: pd.DataFrame) -> Condition:
    """The trunk's accuracy minus that of its masks with new initial weights, percentage points, above 0."""
    accuracy = 100 * curve(levels, accuracy_column(levels)).drop(columns=0)
    if REINIT not in branches_of(levels) or trunk_of(levels) == REINIT:
        return Condition(accuracy * np.nan, 0.0)
    return Condition((accuracy - 100 * curve(levels, accuracy_column(levels), REINIT)).reindex_like(accuracy), 0.0)


def judge(levels: pd.DataFrame, margin: float, branch: str | None = None) -> pd.DataFrame:
    """Which pruned levels of a branch match the dense network, stop no later, beat reinitialisation, and win.

    Returns one row per pruned level: `level`, `density`, `n` (replicates that have it and a dense network), then for
    each condition

    `matching`       test accuracy minus the dense network's, percentage points, above −margin;
    `no_later`       early-stop iteration over the dense network's, a geometric mean, below 1.1;
    `beats_reinit`   test accuracy minus that of the same mask reinitialised, percentage points, above 0

    six columns:

    `matching`              the level alone: "yes" if the 95 % interval of the mean lies on the right side of the limit
                            as a whole, "no" if on the wrong side, "undecided" otherwise, as always with one replicate;
    `matching_mean`         mean over replicates, paired, draws averaged within each;
    `matching_low`, `_high` its 95 % interval, Student's t, of that level alone;
    `matching_bound`        bound for all levels together: lower for accuracies, upper for `no_later`; NaN unless two
                            replicates have all levels;
    `matching_shown`        True if that bound lies on the right side of the limit.

    `winning` is "yes" if all three conditions are, "no" if one is "no", else "undecided"; `winning_shown` if all three
    are shown. `better` and `better_shown` are `matching` against 0 in place of −margin: more accurate than dense.

    Rates of error, as far as replicates are independent and normally distributed:

    - a condition that isn't met, or is just at its limit, is called "yes" in at most 2.5 % of cases; one that is met is
      called "no" in at most 2.5 %. So is a level called winning that fails one condition.
    - a condition is shown at one level or more where it isn't met in nominally 2.5 % of runs at most, however many
      levels there are: up to 3 % with five or ten replicates and 4 % with three, in simulations at the limit.
      `winning_shown` errs as rarely if one condition fails wherever tickets don't win; if different conditions fail at
      different levels, as often for each.

    Rounding of early stops to the evaluated iterations widens the intervals of `no_later`. Where in some replicate
    neither ticket nor dense network was seen to stop, it has neither interval nor bound.

    Args:
        levels: the frame of a run. Without validation images accuracy is that after the last iteration, and `no_later`
            is undecided.
        margin: percentage points of accuracy, 0 or more.
        branch: the trunk if None. Another branch is judged against the dense network alone: its `beats_reinit` and
            `winning` are empty and never shown.
    """
    trunk = trunk_of(levels)
    branch = branch or trunk
    match = matching(levels, margin, branch)
    table = _axis(levels, branch, match.values)
    for name, found in zip(CONDITIONS, _judged(levels, match, branch, trunk), strict=True):
        table = table.join(found.add_prefix(f"{name}_").rename(columns={f"{name}_verdict": name}))
    low, high, bound = (table[f"matching_{end}"] for end in ("low", "high", "bound"))
    return table.assign(
        winning=[_winning(row) if branch == trunk else "" for row in table[list(CONDITIONS)].to_numpy()],
        winning_shown=table[[f"{name}_shown" for name in CONDITIONS]].all(axis=1),
        better=[_verdict(*ends, 0.0) for ends in zip(low, high, strict=True)],
        better_shown=bound > 0,
    ).reset_index()


def _axis(levels: pd.DataFrame, branch: str, values: pd.DataFrame) -> pd.DataFrame:
    pruned = pd.Index([level for level in levels_of(levels, branch) if level], name="level")
    return pd.DataFrame({"density": pruned.map(densities(levels)), "n": values.notna().sum()[pruned]}, pruned)


def _judged(levels: pd.DataFrame, match: Condition, branch: str, trunk: str) -> Iterator[pd.DataFrame]:
    """The three conditions in order."""
    yield match.judged()
    yield _as_ratios(no_later(levels, branch).judged())
    reinit = (beats_reinit(levels) if branch == trunk else Condition(match.values * np.nan, 0.0)).judged()
    yield reinit if branch == trunk else reinit.assign(verdict="")


def _as_ratios(found: pd.DataFrame) -> pd.DataFrame:
    """From logarithms of dense over ticket to ratios of ticket over dense, whose interval is mirrored."""
    ratios = {end: np.exp(-found[other]) for end, other in _MIRRORED.items()}
    return found.assign(**ratios)


_MIRRORED = {"mean": "mean", "low": "high", "high": "low", "bound": "bound"}


def _winning(verdicts: "np.typing.NDArray[np.object_]") -> str:
    if all(verdict == "yes" for verdict in verdicts):
        return "yes"
    return "no" if "no" in verdicts else "undecided"


class Behind(NamedTuple):
    """From which level down a branch is less accurate than the dense network."""

    level: int
    points: float
    """Less accurate by at least so many percentage points, there and at every sparser level."""


def falls_behind(levels: pd.DataFrame, branch: str | None = None) -> Behind | None:
    """The densest level from which on all levels of a branch are shown to be less accurate than the dense network.

    By simultaneous upper bounds: nominally in at most 2.5 % of runs is any of these levels as accurate as the dense
    network. None where the sparsest level isn't shown to be less accurate.
    """
    upper = -lower_bounds(-matching(levels, 0.0, branch).values)
    behind = upper[(upper < 0)[::-1].cummin()[::-1]]
    return Behind(int(behind.index[0]), -float(behind.max())) if len(behind) else None
