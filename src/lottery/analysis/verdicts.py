"""What a run says about its tickets, in a sentence or two: every number from the frames of `lottery.analysis`.

Never more than the evidence carries: a ticket "wins" only where `analysis.winning` says yes, a branch "falls behind"
only where the interval of the difference lies below 0, and one replicate decides nothing.
"""

from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
import pandas as pd

from lottery.analysis.frames import branches_of, curve, densities, trunk_of
from lottery.analysis.statistics import differences

EARLY, LAST, STOP = "test_accuracy_early_stop", "test_accuracy", "early_stop_iteration"


def unstopped(levels: pd.DataFrame, branch: str | None = None) -> pd.DataFrame:
    """As `curve`, above 0 where a network's validation loss was lowest at its last evaluation: it would have stopped
    at that iteration or any later one."""
    marked = levels.assign(unstopped=(levels["early_stop_iteration"] >= levels["iterations"]).astype(float))
    return curve(marked, "unstopped", branch)


def rounding(levels: pd.DataFrame) -> float:
    """Standard deviation of what it does to an early-stop iteration that only every so many iterations are evaluated:
    their step / √12. The step is the greatest that all of them are multiples of."""
    stops = levels.loc[levels["early_stop_iteration"] < levels["iterations"], "early_stop_iteration"]
    return float(np.gcd.reduce(stops.dropna().astype(np.int64))) / sqrt(12) if len(stops) else 0.0


def winning(levels: pd.DataFrame, branch: str | None = None) -> pd.DataFrame:
    """Which levels are winning tickets: no less accurate than the dense network, and stopping no later.

    The definition of Frankle & Carbin 2019, Section 1, at the early-stopping iteration. One row per level but 0:
    level, density, n; `accuracy`, `accuracy_low`, `accuracy_high`: test accuracy minus the dense network's, percentage
    points; `earlier`, `earlier_low`, `earlier_high`: iterations by which it stops earlier. Margins are means over
    replicates, paired, with their 95 % intervals; both are positive for a winning ticket. `winning` is

    "yes"        if neither interval goes below 0: each condition is met with 97.5 % confidence (one-sided), so at most
                 2.5 % of levels that are no winning tickets are called so;
    "no"         if one of them is below 0 as a whole: at most 5 % of winning tickets are called so;
    "undecided"  otherwise: with one replicate, always. It is no verdict on the ticket but on the evidence.

    Where a replicate's ticket and dense network both stop at the last evaluation, neither has been seen to stop: the
    interval of `earlier` is then NaN.
    """
    branch = branch or trunk_of(levels)
    accuracy = differences(levels, "test_accuracy_early_stop", branch).set_index("level")
    error = sqrt(2) * rounding(levels)
    later = differences(levels, "early_stop_iteration", branch, error=error).set_index("level")
    last = unstopped(levels, branch)
    rows = []
    for level in accuracy.index[accuracy.index > 0]:
        a, s = accuracy.loc[level], later.loc[level]
        points = [100 * a[name] for name in ("mean", "low", "high")]
        earlier = [-s[name] for name in ("mean", "high", "low")]
        if (last[level] * last[0] > 0).any():
            earlier[1:] = [np.nan, np.nan]
        if points[1] >= 0 and earlier[1] >= 0:
            verdict = "yes"
        else:
            verdict = "no" if points[2] < 0 or earlier[2] < 0 else "undecided"
        rows.append((level, a["density"], int(a["n"]), *points, *earlier, verdict))
    margins = [f"{name}{end}" for name in ("accuracy", "earlier") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["level", "density", "n", *margins, "winning"])


@dataclass(frozen=True)
class Answer:
    """What a report begins with."""

    headline: str
    details: list[str] = field(default_factory=list)
    """Sentences that qualify it."""
    level: int = 0
    """The level that it is about."""


def answer(levels: pd.DataFrame) -> Answer:
    """From the frame of a run, finished or not. An empty frame is answered too."""
    if levels.empty or not (levels["level"] == 0).any():
        return Answer("No dense network is finished yet, so there is nothing to compare.")
    there = curve(levels, LAST)
    if list(there) == [0]:
        dense = 100 * there[0]
        spread = f" ({dense.min():.2f} to {dense.max():.2f} % in {len(dense)} replicates)" if len(dense) > 1 else ""
        return Answer(
            f"The dense network reaches {dense.mean():.2f} % test accuracy{spread}; there is no ticket to compare "
            "it with yet."
        )
    if levels[EARLY].isna().all():
        return _without_validation(levels)
    found = winning(levels).set_index("level")
    found = found[found["n"] > 0]
    counts = found["winning"].value_counts()
    if len(there) == 1:
        return _one_replicate(levels, found)
    if counts.get("yes", 0):
        level = int(found.index[found["winning"] == "yes"].max())
        opening = "A winning ticket with"
    elif counts.get("no", 0) == len(found):
        level = _highest(found["accuracy"])
        opening = (
            "No winning ticket: at every level tickets are less accurate than the dense network or stop later. "
            "The most accurate has"
        )
    else:
        level = _promising(found)
        opening = f"No ticket is shown to win with {_count(int(found['n'][level]), 'replicate')}. With"
    return Answer(
        f"{opening} {_facts(levels, found, level)}.",
        [_margins(found, level), _verdicts(found), *_branches(levels), *_unstopped(levels)],
        level,
    )


def share(density: float) -> str:
    """A density as percent, with three digits."""
    return f"{100 * density:.3g} %"


def _facts(levels: pd.DataFrame, found: pd.DataFrame, level: int) -> str:
    """Ticket against dense network at early stop: means over the replicates that have both."""
    accuracy, stop = (curve(levels, column)[[0, level]].dropna().mean() for column in (EARLY, STOP))
    sooner = round(100 * (1 - stop[level] / stop[0]))
    when = f"{abs(sooner)} % {'sooner' if sooner > 0 else 'later'}" if sooner else "as soon"
    return (
        f"{share(densities(levels)[level])} of the weights: {100 * accuracy[level]:.2f} % test accuracy against the "
        f"dense network’s {100 * accuracy[0]:.2f} %, reached {when}"
    )


def _margins(found: pd.DataFrame, level: int) -> str:
    """What the headline's numbers are worth."""
    row: Any = found.loc[level]
    words = f"That is {_signed(row['accuracy'], '.2f')} points of accuracy{_interval(row, 'accuracy', '.2f')} and "
    words += f"{_signed(-row['earlier'], ',.0f')} iterations to early stop"
    late = row[["earlier_high", "earlier_low"]]
    if not late.isna().any():
        words += f" (95 % interval {_signed(-late.iloc[0], ',.0f')} to {_signed(-late.iloc[1], ',.0f')})"
    return f"{words}; means of {int(row['n'])} replicates."


def _interval(row: Any, name: str, form: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if np.isnan(low) else f" (95 % interval {_signed(low, form)} to {_signed(high, form)})"


def _signed(value: float, form: str) -> str:
    text = f"{value:+{form}}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text[1:]


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _verdicts(found: pd.DataFrame) -> str:
    """How many levels each verdict has: who picks one winner out of many should know of how many."""
    counts = found["winning"].value_counts()
    words = {"yes": "winning tickets", "no": "not", "undecided": "undecided"}
    said = ", ".join(f"{counts[v]} {word}" for v, word in words.items() if v in counts)
    return f"Of {_count(len(found), 'pruned level')}: {said}, each judged alone at 95 % confidence."


def _promising(found: pd.DataFrame) -> int:
    """The sparsest level that is as accurate and as early as the dense network on average, else the most accurate."""
    good = found.index[(found["accuracy"] >= 0) & (found["earlier"] >= 0)]
    return int(good.max()) if len(good) else _highest(found["accuracy"])


def _highest(by_level: "pd.Series[float]") -> int:
    """The level where it is highest."""
    return int(by_level.index[int(by_level.argmax())])


def _one_replicate(levels: pd.DataFrame, found: pd.DataFrame) -> Answer:
    level = _promising(found)
    return Answer(
        f"One replicate cannot tell a winning ticket from chance. With {_facts(levels, found, level)}.",
        ["Ask for more with --replicates: three or more give intervals and verdicts.", *_unstopped(levels)],
        level,
    )


def _without_validation(levels: pd.DataFrame) -> Answer:
    last = 100 * curve(levels, LAST)
    level = _highest(last.drop(columns=0).mean())
    difference: Any = differences(levels, LAST, trunk_of(levels)).set_index("level").loc[level]
    known = (
        ""
        if np.isnan(difference["low"])
        else (
            f"; 95 % interval {_signed(100 * difference['low'], '.2f')} to {_signed(100 * difference['high'], '.2f')}"
        )
    )
    return Answer(
        f"After the last iteration the best tickets, with {share(densities(levels)[level])} of the weights, reach "
        f"{last[level].mean():.2f} % test accuracy, the dense network {last[0].mean():.2f} % "
        f"({_signed(100 * difference['mean'], '.2f')} points{known}).",
        ["Nothing was held out for validation, so nothing stops early and there is no verdict."],
        level,
    )


def _branches(levels: pd.DataFrame) -> list[str]:
    """From where each branch is behind the dense network for good, and the trunk itself."""
    said = []
    trunk = trunk_of(levels)
    for branch in branches_of(levels):
        found = differences(levels, EARLY, branch).set_index("level")
        found = found[found.index > 0]
        behind = found["mean"] < 0
        lasting = behind[::-1].cummin()[::-1]  # here and at all sparser levels
        sure = found.index[lasting & (found["high"] < 0)]
        name = "Tickets are" if branch == trunk else f"Branch {branch} is"
        if len(sure):
            row: Any = found.loc[sure.min()]
            said.append(
                f"{name} less accurate than the dense network from {share(row['density'])} of the weights down "
                f"({_signed(100 * row['mean'], '.2f')} points there; 95 % interval "
                f"{_signed(100 * row['low'], '.2f')} to {_signed(100 * row['high'], '.2f')})."
            )
        elif len(found) and branch != trunk:
            said.append(f"{name} not shown to be less accurate than the dense network at its sparsest level.")
    return said


def _unstopped(levels: pd.DataFrame) -> list[str]:
    late = unstopped(levels)
    count = int((late[0] > 0).sum())
    if not count:
        return []
    return [
        f"In {count} of {_count(len(late), 'replicate')} the dense network’s validation loss was lowest at the last "
        "evaluation: it has not been seen to stop, so train for more iterations before believing “sooner”."
    ]
