"""What came out of several runs: a row for each, beside the settings in which they differ."""

from collections.abc import Sequence
from math import nan

import pandas as pd

from lottery.analysis.answer import answer_of, awaited_of
from lottery.analysis.frames import curve, densities
from lottery.analysis.listing import brief
from lottery.analysis.verdicts import accuracy_column
from lottery.runs.store import Run
from lottery.spec import flatten


def outcomes(runs: Sequence[Run], settings: Sequence[str], margin: float | None = None) -> pd.DataFrame:
    """One row per run, whether or not it is finished.

    Args:
        runs: in order.
        settings: dotted names in a spec, a column each.
        margin: percentage points that a matching ticket may be less accurate than the dense network; one standard error
            of each run's dense accuracy if None.

    Returns:
        A frame with `run` (its folder's name), the settings, `finished` (bool), `dense_accuracy` (fraction: mean over
        replicates, at early stop where there are validation images, else after the last iteration; NaN before a dense
        network is finished), `verdict` ("winning", "matching", "undecided", "none", "no verdict"), `level`, `density`
        and `accuracy` (of the sparsest ticket shown to win, or to match; else NaN), `seconds` (of training, in all)
        and `answer`, in a few words.

    Raises:
        LotteryError: for a damaged level.
    """
    return pd.DataFrame([_outcome(run, settings, margin) for run in runs])


def _outcome(run: Run, settings: Sequence[str], margin: float | None) -> dict[str, object]:
    levels, values = run.levels(), flatten(run.spec)
    known = not levels.empty and bool((levels["level"] == 0).any())
    accuracy = curve(levels, accuracy_column(levels)).mean() if known else pd.Series(dtype=float)
    found = answer_of(run, margin)
    level = found.level if found.word in ("winning", "matching") else nan
    return {
        "run": run.path.name,
        **{name: values.get(name) for name in settings},
        "finished": not awaited_of(run),
        "dense_accuracy": accuracy.get(0, nan),
        "verdict": found.word,
        "level": level,
        "density": densities(levels)[level] if level in accuracy else nan,
        "accuracy": accuracy.get(level, nan),
        "seconds": levels["seconds"].sum() if known else 0.0,
        "answer": brief(found, levels),
    }


def levels_of_all(runs: Sequence[Run], settings: Sequence[str]) -> pd.DataFrame:
    """The rows of levels.csv of several runs, each behind `run` and its settings."""
    parts = []
    for run in runs:
        frame, values = run.levels(), flatten(run.spec)
        own = pd.DataFrame([{"run": run.path.name, **{name: values.get(name) for name in settings}}] * len(frame))
        parts += [] if frame.empty else [pd.concat([own, frame], axis=1)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
