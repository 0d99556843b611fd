"""A run as tidy pandas frames, and what they say: summaries, paired differences, winning tickets. Needs no torch.

Everything below `open_run` is a function of the frame that `OpenRun.levels` returns, so it works as well on a
levels.csv read with pandas. Values are paired by replicate wherever two networks are compared: they share initial
weights and split, so that the difference varies less than either.
"""

from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from lottery.errors import LotteryError, known
from lottery.store import Run, find

KEYS = ["branch", "replicate", "draw", "level"]


class OpenRun(Run):
    """A run directory with its results as tidy frames."""

    def levels(self) -> pd.DataFrame:
        """One row per branch, replicate, draw and level: the columns of levels.csv.

        branch, replicate, draw (of a branch that is drawn several times per level, else 0), level (0 is dense);
        density, sparsity (fractions of the prunable weights), iterations (trained for);
        early_stop_iteration (lowest validation loss), test_accuracy_early_stop, validation_loss_min (NaN without
        validation images); test_accuracy, train_accuracy (after the last iteration; fractions); seconds, engine;
        and `density:<tensor>` per prunable tensor.
        """
        frame = pd.DataFrame(self.rows())
        return _typed(frame) if len(frame) else frame

    def history(
        self, branch: str | None = None, replicate: int | None = None, level: int | None = None
    ) -> pd.DataFrame:
        """One row per evaluation: branch, replicate, draw, level, density; iteration (1 is the first step),
        train_loss, validation_loss, test_loss (nats), validation_accuracy, test_accuracy (fractions).

        Of everything, or of one branch, replicate or level. Raises LotteryError if there is nothing of the kind.
        """
        rows = self.levels()
        for name, wanted in (("branch", branch), ("replicate", replicate), ("level", level)):
            if wanted is not None:
                there = rows[name].unique().tolist()
                rows = rows[rows[name] == wanted]
                if rows.empty:
                    raise LotteryError(f"{self.path}: no {name} {wanted!r} there, only {', '.join(map(str, there))}")
        parts = []
        for row in rows.to_dict("records"):
            history = self.load(row["branch"], row["replicate"], row["level"], row["draw"]).history
            parts.append(pd.DataFrame({name: row[name] for name in [*KEYS, "density"]} | history))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def ticket(self, level: int, replicate: int = 0, branch: str | None = None, draw: int = 0) -> pd.DataFrame:
        """One row per prunable weight: tensor, unit (that it leads to), input (that it comes from), kept (bool),
        start (what it trains from) and trained (what it became), both 0 where it is pruned.

        Of the trunk, or of another branch and one of its draws. Raises LotteryError for a level that is not there.
        """
        saved = self.load(branch or self.spec.start, replicate, level, draw)
        names = [name.removeprefix("density:") for name in saved.row if name.startswith("density:")]  # in layer order
        parts = []
        for name in names:
            mask = saved.masks[name]
            unit, source = np.indices((len(mask), mask[0].size)).reshape(2, -1)
            values = {"kept": mask.ravel(), "start": saved.start[name].ravel(), "trained": saved.trained[name].ravel()}
            parts.append(pd.DataFrame({"tensor": name, "unit": unit, "input": source} | values))
        return pd.concat(parts, ignore_index=True)


def open_run(run: Path | str, runs_dir: Path | str = "runs") -> OpenRun:
    """The run of that path, of that name in `runs_dir`, or of the only name there that begins so.

    Raises LotteryError where there is none, or several.
    """
    return OpenRun(find(str(run), Path(runs_dir)).path)


def read_levels(path: Path) -> pd.DataFrame:
    """The frame of a levels.csv, as `OpenRun.levels` gives it. Raises LotteryError for another kind of file."""
    try:
        frame = pd.read_csv(path)
        return _typed(frame)
    except (OSError, ValueError, KeyError) as error:
        raise LotteryError(f"cannot read {path} as a levels.csv: {error}") from error


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as numbers where a column may be empty; draw 0 where a run knows none."""
    if "draw" not in frame:
        frame = frame.assign(draw=0)
    empty = ["early_stop_iteration", "test_accuracy_early_stop", "validation_loss_min"]
    return frame.astype(dict.fromkeys(empty, float)).astype({"draw": int})


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


def curve(levels: pd.DataFrame, column: str, branch: str = "rewind", trunk: str = "rewind") -> pd.DataFrame:
    """A column of one branch: one row per replicate, one column per level, draws averaged, NaN where there is none.

    Level 0 is the trunk's dense network, which all branches share. Raises LotteryError for a branch or a column that
    is not there.
    """
    if column not in levels:
        raise LotteryError(known("column", column, levels.columns))
    if branch not in (there := levels["branch"].unique().tolist()):
        raise LotteryError(f"there is no branch {branch!r}, only {', '.join(there)}")
    rows = levels[(levels["branch"] == branch) | ((levels["branch"] == trunk) & (levels["level"] == 0))]
    return rows.pivot_table(column, "replicate", "level", aggfunc="mean", dropna=False, observed=False)


def densities(levels: pd.DataFrame) -> dict[Any, float]:
    """Level -> density, a fraction: the mean over everything at that level."""
    return levels.groupby("level")["density"].mean().to_dict()


MEASURES = ("early_stop_iteration", "test_accuracy_early_stop", "test_accuracy", "train_accuracy")
"""The columns that figures, claims and verdicts are about."""


def summary(levels: pd.DataFrame, column: str, trunk: str = "rewind") -> pd.DataFrame:
    """One row per branch and level: branch, level, density, mean, min, max, low, high, n.

    Over replicates, each with its draws averaged first; low and high are the 95 % interval of the mean. Level 0 of
    every branch is the trunk's dense network.
    """
    rows, density = [], densities(levels)
    for branch in levels["branch"].unique():
        for level, values in curve(levels, column, branch, trunk).items():
            mean, low, high, n = interval(values)
            rows.append((branch, level, density[level], mean, values.min(), values.max(), low, high, n))
    return pd.DataFrame(rows, columns=["branch", "level", "density", "mean", "min", "max", "low", "high", "n"])


def differences(
    levels: pd.DataFrame,
    column: str,
    branch: str,
    other: str | None = None,
    trunk: str = "rewind",
    error: float = 0.0,
) -> pd.DataFrame:
    """Branch minus `other` at the same level, or minus the dense network where other is None, paired by replicate.

    One row per level that both have: level, density, mean, low, high (95 % interval of the mean), n (pairs). error is
    as in `interval`.
    """
    ours = curve(levels, column, branch, trunk)
    if other is None:
        pairs = ours.sub(ours[0], axis=0) if 0 in ours else ours * np.nan
    else:
        pairs = ours.sub(curve(levels, column, other, trunk))
    rows = [
        (level, densities(levels)[level], *interval(pairs[level], error=error))
        for level in pairs
        if pairs[level].notna().any()
    ]
    return pd.DataFrame(rows, columns=["level", "density", "mean", "low", "high", "n"])


def unstopped(levels: pd.DataFrame, branch: str, trunk: str = "rewind") -> pd.DataFrame:
    """As `curve`, above 0 where a network's validation loss was lowest at its last evaluation: it would have stopped
    at that iteration or any later one."""
    marked = levels.assign(unstopped=(levels["early_stop_iteration"] >= levels["iterations"]).astype(float))
    return curve(marked, "unstopped", branch, trunk)


def rounding(levels: pd.DataFrame) -> float:
    """Standard deviation of what it does to an early-stop iteration that only every so many iterations are evaluated:
    their step / √12. The step is the greatest that all of them are multiples of."""
    stops = levels.loc[levels["early_stop_iteration"] < levels["iterations"], "early_stop_iteration"]
    return float(np.gcd.reduce(stops.dropna().astype(np.int64))) / sqrt(12) if len(stops) else 0.0


def winning(levels: pd.DataFrame, branch: str = "rewind", trunk: str = "rewind") -> pd.DataFrame:
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
    accuracy = differences(levels, "test_accuracy_early_stop", branch, trunk=trunk).set_index("level")
    error = sqrt(2) * rounding(levels)
    later = differences(levels, "early_stop_iteration", branch, trunk=trunk, error=error).set_index("level")
    last = unstopped(levels, branch, trunk)
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
