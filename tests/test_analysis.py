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
    (row,) = verdicts.judge(levels, 0.5).to_dict("records")
    assert isnan(row["no_later_mean"])
    assert row["no_later"] == row["winning"] == "undecided"


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


def test_a_level_was_not_seen_to_stop_where_ticket_and_dense_network_of_one_replicate_both_were_not() -> None:
    """One replicate of three in which both end at their last evaluation; not one where it is the dense network here
    and the ticket there."""
    earlier = [(500, 0.90, 450, 0.910), (500, 0.90, 440, 0.911)]
    found = verdicts.judge(trunk(*earlier, (1000, 0.90, 1000, 0.909)), 0.5).iloc[0]
    assert found["no_later_mean"] == pytest.approx((0.9 * 0.88) ** (1 / 3))
    assert isnan(found["no_later_low"])
    assert isnan(found["no_later_high"])
    assert found["no_later"] == "undecided"
    found = verdicts.judge(trunk(*earlier, (1000, 0.90, 450, 0.91), (500, 0.90, 1000, 0.91)), 0.5).iloc[0]
    assert found["no_later_low"] < found["no_later_mean"] < found["no_later_high"]
