"""The frames of runs: columns of branches by replicate and level. One row per trained level, as `Run.levels` returns
them; a levels.csv that pandas read serves as well.

The trunk needs no name here: it is the branch that has a level 0, the dense network, which all branches share.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from lottery.errors import LotteryError, known
from lottery.runs.rows import to_frame


def read_levels(path: Path) -> pd.DataFrame:
    """The frame of a levels.csv, as `Run.levels` gives it. Raises LotteryError for another kind of file."""
    try:
        return to_frame(pd.read_csv(path))
    except (OSError, ValueError, KeyError) as error:
        raise LotteryError(f"cannot read {path} as a levels.csv: {error}") from error


def trunk_of(levels: pd.DataFrame) -> str:
    """The trunk's name. Raises LotteryError where no dense network is finished."""
    dense: list[Any] = [] if levels.empty else levels.loc[levels["level"] == 0, "branch"].unique().tolist()
    if not dense:
        raise LotteryError("no dense network is finished yet")
    return str(dense[0])


def branches_of(levels: pd.DataFrame) -> list[str]:
    """Names of the branches, in the frame's order: the trunk first."""
    return [] if levels.empty else [str(name) for name in levels["branch"].unique()]


def levels_of(levels: pd.DataFrame, branch: str) -> list[int]:
    """The levels that some replicate of a branch has, from dense to sparse; without level 0 but for the trunk."""
    return sorted(int(level) for level in levels.loc[levels["branch"] == branch, "level"].unique())


def curve(levels: pd.DataFrame, column: str, branch: str | None = None) -> pd.DataFrame:
    """A column of one branch: one row per replicate, one column per level, draws averaged, NaN where there is none.

    Level 0 is the trunk's dense network, which all branches share.

    Args:
        levels: the frame.
        column: of levels.csv.
        branch: the trunk if None.

    Raises:
        LotteryError: for a branch or a column that is not there.
    """
    if column not in levels:
        raise LotteryError(known("column", column, levels.columns))
    trunk = trunk_of(levels)
    branch = branch or trunk
    if branch not in (names := branches_of(levels)):
        raise LotteryError(f"there is no branch {branch!r}, only {', '.join(names)}")
    rows = levels[(levels["branch"] == branch) | ((levels["branch"] == trunk) & (levels["level"] == 0))]
    return rows.pivot_table(column, "replicate", "level", aggfunc="mean", dropna=False, observed=False)


def densities(levels: pd.DataFrame) -> dict[Any, float]:
    """Level -> density, a fraction: the mean over everything at that level."""
    return levels.groupby("level")["density"].mean().to_dict()
