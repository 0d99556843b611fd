"""The frames of a real run against its files, and the statistics against numbers worked out by hand."""

from dataclasses import replace
from math import isnan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lottery
from lottery.analysis import frames, statistics, verdicts
from lottery.errors import LotteryError
from lottery.runs.store import Run, SavedLevel
from lottery.spec import Spec


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    spec = Spec(
        data=lottery.Data(name="mnist-5k", validation=500),
        model=lottery.Model(name="mlp", hidden=(20, 10)),
        recipe=lottery.Recipe(iterations=30, evaluate_every=10),
        pruning=lottery.Pruning(rate=0.5, layer_rates={"fc3.weight": 0.25}),
        levels=2,
        replicates=2,
        branches=("reinit:2",),
    )
    return lottery.open_run(lottery.run(spec, runs_dir=tmp_path_factory.mktemp("runs")).path)


def test_levels_are_the_rows(finished: Run) -> None:
    levels = finished.levels()
    assert len(levels) == 2 * 3 + 2 * 2 * 2
    for row, ours in zip(finished.rows(), levels.to_dict("records"), strict=True):
        assert {name: ours[name] if pd.notna(ours[name]) else None for name in row.to_json()} == row.to_json()
    assert levels["draw"].tolist() == 6 * [0] + 4 * [0, 1]
    pd.testing.assert_frame_equal(frames.read_levels(finished.path / "levels.csv")[levels.columns], levels)


def test_history_is_every_evaluation(finished: Run) -> None:
    history = finished.history()
    assert history["iteration"].tolist() == 14 * [10, 20, 30]
    saved = finished.load("rewind", 1, 2).history
    part = finished.history("rewind", replicate=1, level=2)
    for name, values in saved.items():
        assert part[name].tolist() == values.tolist()
    assert set(part["replicate"]) == {1}
    assert part["density"].tolist() == 3 * [finished.load("rewind", 1, 2).row.density]
    drawn = finished.history("reinit", replicate=1, level=2)
    for draw in (0, 1):
        losses = finished.load("reinit", 1, 2, draw).history["test_loss"]
        assert drawn.loc[drawn["draw"] == draw, "test_loss"].tolist() == losses.tolist()
    for wanted, message in (
        ({"branch": "noise"}, "no branch 'noise' there, only rewind, reinit"),
        ({"level": 3}, "0, 1"),
    ):
        with pytest.raises(LotteryError, match=message):
            finished.history(**wanted)


def test_weights_are_the_saved_ticket(finished: Run) -> None:
    ticket = finished.weights(level=2, replicate=1)
    saved = finished.load("rewind", 1, 2)
    assert len(ticket) == sum(m.size for m in saved.masks.values()) == 784 * 20 + 20 * 10 + 10 * 10
    assert ticket["tensor"].unique().tolist() == ["fc1.weight", "fc2.weight", "fc3.weight"]  # the layers' order
    for name, mask in saved.masks.items():
        part = ticket[ticket["tensor"] == name]
        for column, array in (("kept", mask), ("start", saved.start[name]), ("trained", saved.trained[name])):
            back = np.zeros(mask.shape, array.dtype)
            back[part["unit"], part["input"]] = part[column]
            assert back.tobytes() == array.tobytes()
    drawn = finished.weights(level=2, replicate=1, branch="reinit", draw=1)["start"]
    assert drawn.abs().sum() == pytest.approx(sum(np.abs(w).sum() for w in _weights(finished.load("reinit", 1, 2, 1))))


def _weights(saved: SavedLevel) -> list[np.ndarray]:
    return [saved.start[name] for name in saved.masks]


def test_open_run_by_the_beginning_of_its_name(finished: Run) -> None:
    assert lottery.open_run("mnist-5k", runs_dir=finished.path.parent).path == finished.path
    with pytest.raises(LotteryError, match="no run 'nothing'"):
        lottery.open_run("nothing", runs_dir=finished.path.parent)


def test_a_run_without_validation_has_no_early_stop(tiny: Spec, tmp_path: Path) -> None:
    spec = replace(tiny, data=replace(tiny.data, validation=0), levels=1)
    levels = lottery.open_run(lottery.run(spec, runs_dir=tmp_path).path).levels()
    assert levels["early_stop_iteration"].isna().all()
    assert statistics.summary(levels, "early_stop_iteration")["n"].tolist() == [0, 0]
    assert verdicts.winning(levels).empty


def test_t_interval() -> None:
    """2, 4, 9: mean 5, standard deviation √13; Student's t for 2 degrees of freedom is 4.30265 (any table)."""
    mean, low, high, n = statistics.interval([2, 4, np.nan, 9])
    assert (mean, n) == (5, 3)
    assert high - mean == pytest.approx(4.30265 * sqrt(13) / sqrt(3), rel=1e-5)
    assert mean - low == pytest.approx(high - mean)
    assert statistics.interval([1, 3], 0.9).high == pytest.approx(2 + 6.31375, rel=1e-5)
    assert statistics.interval([7, 7], error=2).high == pytest.approx(7 + 12.7062 * 2 / sqrt(2), rel=1e-5)
    assert statistics.interval([2, 4, 9], error=2) == statistics.interval([2, 4, 9])
    assert statistics.interval([7]).mean == 7
    assert isnan(statistics.interval([7]).low)
    assert isnan(statistics.interval([]).mean)


def table(*rows: tuple[str, int, int, int, float, float]) -> pd.DataFrame:
    """Rows of branch, replicate, draw, level, early-stop iteration and accuracy there (fractions)."""
    names = ["branch", "replicate", "draw", "level", "early_stop_iteration", "test_accuracy_early_stop"]
    return pd.DataFrame(rows, columns=names).assign(
        density=lambda frame: 0.8 ** frame["level"], iterations=1000, test_accuracy=0.9, train_accuracy=1.0
    )


def trunk(*pairs: tuple[float, float, float, float]) -> pd.DataFrame:
    """Per replicate: dense iteration and accuracy, level 1's iteration and accuracy."""
    rows = []
    for r, (a, b, c, d) in enumerate(pairs):
        rows += [("rewind", r, 0, 0, a, b), ("rewind", r, 0, 1, c, d)]
    return table(*rows)


def test_draws_are_averaged_within_a_replicate_first() -> None:
    levels = table(
        ("rewind", 0, 0, 0, 100, 0.90),
        ("rewind", 1, 0, 0, 200, 0.92),
        ("reinit", 0, 0, 1, 300, 0.80),
        ("reinit", 0, 1, 1, 500, 0.86),  # replicate 0: 400 and 0.83
        ("reinit", 1, 0, 1, 800, 0.91),
    )
    found = statistics.summary(levels, "early_stop_iteration")
    dense, ticket = found[found["branch"] == "reinit"].to_dict("records")
    assert [ticket[name] for name in ("mean", "min", "max", "n")] == [600, 400, 800, 2]
    assert (dense["level"], dense["mean"]) == (0, 150)  # the dense network is the trunk's
    difference = statistics.differences(levels, "early_stop_iteration", "reinit").set_index("level").loc[1]
    assert (difference["mean"], difference["n"]) == (450, 2)
    assert difference["high"] - 450 == pytest.approx(12.7062 * 150, rel=1e-5)  # (300, 600): half their range is 150


def test_differences_are_paired() -> None:
    """Replicates far apart, whose differences are nearly the same: only pairing sees it."""
    levels = trunk((100, 0.90, 90, 0.91), (500, 0.80, 489, 0.82), (900, 0.70, 892, 0.71))
    found = statistics.differences(levels, "early_stop_iteration", "rewind").set_index("level").loc[1]
    assert found["mean"] == pytest.approx(-29 / 3)
    assert found["high"] < 0
    with pytest.raises(LotteryError, match="there is no branch 'reinit', only rewind"):
        statistics.differences(levels, "early_stop_iteration", "rewind", "reinit")


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        # more accurate by 1.0, 1.1, 0.9 points and earlier by 50, 60, 40
        ([(500, 0.90, 450, 0.910), (500, 0.90, 440, 0.911), (500, 0.90, 460, 0.909)], "yes"),
        # exactly as accurate and exactly as early, as far as can be told from an evaluation every 100 iterations
        ([(500, 0.90, 500, 0.90), (400, 0.91, 400, 0.91)], "undecided"),
        # the same evaluation later in both of two replicates: they agree by rounding
        ([(500, 0.90, 600, 0.91), (400, 0.91, 500, 0.92)], "undecided"),
        # ten evaluations later in both
        ([(500, 0.90, 900, 0.91), (410, 0.91, 810, 0.92)], "no"),
        # more accurate, but later beyond doubt
        ([(500, 0.90, 550, 0.910), (500, 0.90, 560, 0.911), (500, 0.90, 540, 0.909)], "no"),
        # earlier, but less accurate beyond doubt
        ([(500, 0.90, 450, 0.890), (500, 0.90, 440, 0.889), (500, 0.90, 460, 0.891)], "no"),
        # better on average, but one replicate of three speaks against it
        ([(500, 0.90, 450, 0.910), (500, 0.90, 440, 0.911), (500, 0.90, 460, 0.899)], "undecided"),
        ([(500, 0.90, 450, 0.91)], "undecided"),
        # both at the last evaluation, where neither has stopped
        ([(1000, 0.90, 1000, 0.910), (1000, 0.90, 1000, 0.911), (1000, 0.90, 1000, 0.909)], "undecided"),
        # the dense network has not stopped, the ticket has
        ([(1000, 0.90, 450, 0.910), (1000, 0.90, 440, 0.911), (1000, 0.90, 460, 0.909)], "yes"),
    ],
)
def test_winning_tickets(pairs: list[tuple[float, float, float, float]], verdict: str) -> None:
    found = verdicts.winning(trunk(*pairs))
    assert found["winning"].tolist() == [verdict]
    assert found["accuracy"].item() == pytest.approx(np.mean([100 * (d - b) for _, b, _, d in pairs]))
    assert found["earlier"].item() == pytest.approx(np.mean([a - c for a, _, c, _ in pairs]))
    assert not found["accuracy_low"].item() > found["accuracy_high"].item()
    assert not found["earlier_low"].item() > found["earlier_high"].item()


def test_one_pair_that_has_not_stopped_leaves_no_interval() -> None:
    """One replicate of three in which both end at their last evaluation; not one where it is the dense network here
    and the ticket there."""
    earlier = [(500, 0.90, 450, 0.910), (500, 0.90, 440, 0.911)]
    found = verdicts.winning(trunk(*earlier, (1000, 0.90, 1000, 0.909))).iloc[0]
    assert found["earlier"] == pytest.approx(110 / 3)
    assert isnan(found["earlier_low"])
    assert isnan(found["earlier_high"])
    assert found["winning"] == "undecided"
    found = verdicts.winning(trunk(*earlier, (1000, 0.90, 450, 0.91), (500, 0.90, 1000, 0.91))).iloc[0]
    assert found["earlier_low"] < found["earlier"] < found["earlier_high"]


def test_a_difference_of_two_rounded_iterations_is_rounded_twice() -> None:
    """Evaluated every 100 iterations, each stop is off by 100 / √12 and a difference by √2 times that. Two replicates
    agree on 100, so that half the interval is 12.7062 (Student's t, 1 degree of freedom) × √2 × 100 / √12 / √2."""
    found = verdicts.winning(trunk((500, 0.90, 400, 0.91), (400, 0.90, 300, 0.91))).iloc[0]
    half = 12.7062 * 100 / sqrt(12)
    assert found[["earlier_low", "earlier", "earlier_high"]].tolist() == pytest.approx([100 - half, 100, 100 + half])


@pytest.mark.parametrize(
    ("pairs", "zero", "verdict"),
    [
        # exactly as accurate: earlier by about 100, or earlier in one replicate and later in the other
        ([(500, 0.90, 401, 0.90), (600, 0.91, 499, 0.91), (700, 0.92, 600, 0.92)], "accuracy", "yes"),
        ([(500, 0.90, 401, 0.90), (600, 0.91, 699, 0.91)], "accuracy", "undecided"),
        # exactly as early: more accurate by about a point, more in one and less in the other, or as accurate too
        ([(0, 0.90, 0, 0.909), (0, 0.90, 0, 0.911), (0, 0.90, 0, 0.910)], "earlier", "yes"),
        ([(0, 0.90, 0, 0.91), (0, 0.90, 0, 0.89)], "earlier", "undecided"),
        ([(0, 0.90, 0, 0.90), (0, 0.91, 0, 0.91)], "earlier", "yes"),
    ],
)
def test_a_bound_of_exactly_0_speaks_for_the_ticket(
    pairs: list[tuple[float, float, float, float]], zero: str, verdict: str
) -> None:
    """A winner has no bound below 0, a loser an interval wholly below it. Stops at 0 suit any step: not rounded."""
    found = verdicts.winning(trunk(*pairs)).iloc[0]
    assert found[[f"{zero}_low", zero, f"{zero}_high"]].tolist() == [0, 0, 0]
    assert found["winning"] == verdict


def test_rounding_is_that_of_the_evaluations() -> None:
    assert verdicts.rounding(trunk((500, 0.9, 250, 0.9), (400, 0.9, 1000, 0.9))) == pytest.approx(50 / sqrt(12))
    assert verdicts.rounding(trunk((1000, 0.9, np.nan, 0.9))) == 0
