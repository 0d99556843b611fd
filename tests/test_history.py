"""Histories survive their file to the bit; early stopping reads validation alone."""

import numpy as np
import pytest

from lottery.engines import history
from lottery.errors import LotteryError
from lottery.seeds import stream


def made(losses: list[float]) -> history.History:
    rng = stream(0)
    rows = [(10 * (i + 1), rng.random(), loss, *rng.random(3)) for i, loss in enumerate(losses)]
    return history.from_rows(rows)


def test_csv_and_back_to_the_bit() -> None:
    before = made([0.1, 1 / 3, 1e-300, float("nan")])
    after = history.from_csv(history.to_csv(before))
    for column in history.COLUMNS:
        assert before[column].tobytes() == after[column].tobytes()
        assert before[column].dtype == after[column].dtype


def test_early_stop_is_the_first_minimum_of_the_validation_loss() -> None:
    found = made([0.5, 0.2, 0.4, 0.2])
    found["test_accuracy"][:] = [0.9, 0.1, 1.0, 1.0]  # must not matter
    found["test_loss"][:] = [0.0, 9.0, 0.0, 0.0]
    assert history.early_stop(found) == 1
    assert history.early_stop(made([np.nan, np.nan])) is None


def test_a_steady_stop_is_the_middle_of_the_lowest_eleven_evaluations() -> None:
    losses = [1.0] * 60
    losses[20:31] = [0.5] * 11
    losses[50] = 0.0  # one lucky evaluation
    assert history.early_stop(made(losses)) == 50
    assert history.steady_stop(made(losses)) == 25
    assert history.steady_stop(made([0.3] * 50)) == 5  # the first of equals
    assert history.steady_stop(made([0.3] * 49)) is None
    assert history.steady_stop(made([np.nan] * 60)) is None


def test_other_columns_are_refused() -> None:
    with pytest.raises(LotteryError, match="columns"):
        history.from_csv("iteration,loss\n1,2\n")
