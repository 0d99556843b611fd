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
nats, accuracies fractions; validation columns are NaN where nothing is held out."""


def from_rows(rows: Sequence[tuple[float, ...]]) -> History:
    """Rows in the order of COLUMNS."""
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(COLUMNS)).T
    history: History = dict(zip(COLUMNS, columns, strict=True))
    return history | {"iteration": history["iteration"].astype(np.int64)}


def early_stop(history: History) -> int | None:
    """Index of the evaluation with the lowest validation loss, the first of equals; None without validation images.

    The early-stopping criterion of Frankle & Carbin 2019, Section 2: decided afterwards, never by test data.
    """
    losses = history["validation_loss"]
    return None if np.isnan(losses).all() else int(np.nanargmin(losses))


def to_csv(history: History) -> str:
    """Text that `from_csv` reads back to the same bits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(*(history[c].tolist() for c in COLUMNS), strict=True))
    return out.getvalue()


def from_csv(text: str) -> History:
    """Raises LotteryError for other columns."""
    header, *rows = csv.reader(io.StringIO(text))
    if tuple(header) != COLUMNS:
        raise LotteryError(f"columns {header} where a history has {list(COLUMNS)}")
    return from_rows([tuple(map(float, row)) for row in rows])
