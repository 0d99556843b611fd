"""Verdicts and their sentences: hand-worked numbers, real runs, and error rates held at the limits themselves."""

import os
from collections.abc import Sequence
from math import exp, isnan, log, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri, stdtrit

from lottery.analysis import simultaneous
from lottery.analysis.answer import Answer, answer, round_down, round_up, too_early
from lottery.analysis.simultaneous import deviation, largest_t, lower_bounds, pooled, replicates_needed, window
from lottery.analysis.verdicts import CONDITIONS, Margin, default_margin, falls_behind, judge, rounding
from lottery.runs.rows import Place

Pair = tuple[float, float]
"""Early-stop iteration, and test accuracy there in percent."""
Paths = Sequence[Sequence[Pair]]
"""[replicate][level]"""

MARGIN = Margin(0.5)


def frame(trunk: Paths, last: int = 1000, **branches: Paths) -> pd.DataFrame:
    """Levels of a run: [replicate][level] of the trunk from level 0, of branches from level 1."""
    rows = [
        (branch, replicate, level, 0.5**level, stop, accuracy / 100)
        for branch, replicates in {"rewind": trunk, **branches}.items()
        for replicate, levels in enumerate(replicates)
        for level, (stop, accuracy) in enumerate(levels, start=branch != "rewind")
    ]
    names = ["branch", "replicate", "level", "density", "early_stop_iteration", "test_accuracy_early_stop"]
    found = pd.DataFrame(rows, columns=names).astype({"early_stop_iteration": float})
    return found.assign(draw=0, iterations=last, test_accuracy=found["test_accuracy_early_stop"], train_accuracy=1.0)


def without_validation(levels: pd.DataFrame) -> pd.DataFrame:
    return levels.assign(early_stop_iteration=np.nan, test_accuracy_early_stop=np.nan)


DENSE = [(500, 97.0), (520, 97.1), (480, 96.9)]
BETTER = [(400, 97.5), (418, 97.6), (382, 97.4)]
"""Half a point better, each after about 0.8 of the iterations."""


# Numbers of one level


def trunk(*pairs: tuple[float, float, float, float], reinit: float = 50.0, last: int = 1000) -> pd.DataFrame:
    """Per replicate: dense iteration and accuracy, level 1's iteration and accuracy. Reinit is far behind."""
    path = [[(a, b), (c, d)] for a, b, c, d in pairs]
    return frame(path, last, reinit=[[(500, reinit + r / 10)] for r in range(len(pairs))])


@pytest.mark.parametrize(
    ("pairs", "verdicts"),
    [
        # 1.0, 1.1, 0.9 points better, after 0.9, 0.88, 0.92 of the iterations
        ([(500, 90, 450, 91.0), (500, 90, 440, 91.1), (500, 90, 460, 90.9)], "yes yes yes"),
        # as accurate and as early to the last digit: matching needs no more
        ([(500, 90, 500, 90), (520, 91, 520, 91), (540, 92, 540, 92)], "yes yes yes"),
        # 0.4 points worse with no spread: within the margin of 0.5; 0.6 worse: beyond it
        ([(500, 90, 450, 89.6), (500, 91, 450, 90.6)], "yes undecided yes"),
        ([(500, 90, 450, 89.4), (500, 91, 440, 90.4), (500, 91, 460, 90.4)], "no yes yes"),
        # 8 % later to the iteration, 12 % later to the iteration
        ([(500, 90, 540, 91.0), (500, 90, 541, 91.1), (500, 90, 539, 90.9)], "yes yes yes"),
        ([(500, 90, 560, 91.0), (500, 90, 561, 91.1), (500, 90, 559, 90.9)], "yes no yes"),
        # better on average, but one replicate of three speaks against it
        ([(500, 90, 450, 91.0), (500, 90, 440, 91.1), (500, 90, 460, 89.0)], "undecided yes yes"),
        # one replicate
        ([(500, 90, 450, 91.0)], "undecided undecided undecided"),
        # both at the last evaluation, where neither has stopped: in all replicates, or in one of three
        ([(1000, 90, 1000, 91.0), (1000, 90, 1000, 91.1), (1000, 90, 1000, 90.9)], "yes undecided yes"),
        ([(500, 90, 450, 91.0), (500, 90, 440, 91.1), (1000, 90, 1000, 90.9)], "yes undecided yes"),
        # the dense network has not stopped, the ticket has
        ([(1000, 90, 450, 91.0), (1000, 90, 440, 91.1), (1000, 90, 460, 90.9)], "yes yes yes"),
    ],
)
def test_verdicts_of_one_level(pairs: list[tuple[float, float, float, float]], verdicts: str) -> None:
    levels = trunk(*pairs)
    row = judge(levels, 0.5).iloc[0]
    assert " ".join(row[list(CONDITIONS)]) == verdicts
    assert row["matching_mean"] == pytest.approx(np.mean([d - b for _, b, _, d in pairs]))
    assert row["no_later_mean"] == pytest.approx(exp(np.mean([log(c / a) for a, _, c, _ in pairs])))
    decided = {True: "yes", "no" in verdicts.split(): "no"}
    assert row["winning"] == ("undecided" if "undecided" in verdicts else decided[True])


def test_intervals_by_hand() -> None:
    """1, 2, 6 points better: mean 3, standard deviation √7; t for 2 degrees of freedom is 4.30265 (any table). Ratios
    ½, ½, ¼: logarithms −1, −1, −2 times ln 2: standard deviation ln 2 / √3."""
    levels = trunk((512, 90, 256, 91), (512, 90, 256, 92), (512, 90, 128, 96), reinit=80)
    row = judge(levels, 0.5).iloc[0]
    assert (row["level"], row["density"], row["n"]) == (1, 0.5, 3)
    assert row["matching_mean"] == pytest.approx(3)
    assert row["matching_low"] == pytest.approx(3 - 4.30265 * sqrt(7 / 3), rel=1e-5)
    assert row["matching_high"] == pytest.approx(3 + 4.30265 * sqrt(7 / 3), rel=1e-5)
    assert row["no_later_mean"] == pytest.approx(2 ** (-4 / 3))
    assert row["no_later_low"] == pytest.approx(2 ** (-4 / 3 - 4.30265 / 3), rel=1e-5)
    assert row["no_later_high"] == pytest.approx(2 ** (-4 / 3 + 4.30265 / 3), rel=1e-5)
    assert row["beats_reinit_mean"] == pytest.approx(np.mean([11, 11.9, 15.8]))
    # a single level: bounds for all levels together are that level's own
    assert row["matching_bound"] == pytest.approx(row["matching_low"])
    assert row["no_later_bound"] == pytest.approx(row["no_later_high"])
    assert (row["matching"], row["matching_shown"], row["better_shown"]) == ("undecided", False, False)


def test_a_condition_at_its_limit_is_not_met() -> None:
    """Exactly as accurate as reinit, exactly the margin worse, no spread."""
    levels = frame([[(512, 75.0), (512, 50.0)]] * 3, reinit=[[(512, 50.0)]] * 3)
    row = judge(levels, 25.0).iloc[0]
    assert (row["matching"], row["matching_shown"]) == ("undecided", False)
    assert (row["beats_reinit"], row["beats_reinit_shown"]) == ("undecided", False)
    assert judge(levels, 25.001).iloc[0]["matching_shown"]
    assert judge(levels, 24.999).iloc[0]["matching"] == "no"


def test_better_is_matching_against_0() -> None:
    levels = frame([[d, b, (500, 96.0 + r / 10)] for r, (d, b) in enumerate(zip(DENSE, BETTER, strict=True))])
    found = judge(levels, 0.5)
    assert found["better"].tolist() == ["yes", "no"]
    assert found["better_shown"].tolist() == [True, False]


def test_rounding_of_early_stops_widens_the_interval_and_the_bound() -> None:
    """Evaluated every 100 iterations: each stop is off by 100 / √12, a logarithm of a ratio by √2 times that over the
    dense network's 450. Two replicates agree on 4 / 5; t for 1 degree of freedom is 12.7062."""
    levels = trunk((500, 90, 400, 91), (500, 90, 400, 91), (400, 90, 320, 91), last=10000)
    levels.loc[levels["early_stop_iteration"] == 320, ["early_stop_iteration"]] = 300.0
    levels = levels[levels["replicate"] < 2]
    error = sqrt(2) * 100 / sqrt(12) / 500
    row = judge(levels, 0.5).iloc[0]
    assert rounding(levels) == pytest.approx(100 / sqrt(12))
    assert log(row["no_later_high"] / 0.8) == pytest.approx(12.7062 * error / sqrt(2), rel=1e-5)
    assert log(row["no_later_bound"] / 0.8) == pytest.approx(12.7062 * error / sqrt(2), rel=1e-5)


def test_rounding_is_that_of_the_evaluations() -> None:
    assert rounding(frame([[(500, 90), (250, 90)], [(400, 90), (1000, 90)]])) == pytest.approx(50 / sqrt(12))
    assert rounding(frame([[(1000, 90), (np.nan, 90)]])) == 0


def test_unseen_levels_lend_their_spread_to_neighbours() -> None:
    """Level 2 of one replicate and its dense network both end at the last evaluation. Level 1 keeps its bound, as wide
    as level 2's values make it."""
    path = [[(1000, 97.0), (700 + 10 * r, 98.0), (1000 - 300 * r, 98.0)] for r in range(3)]
    found = judge(frame(path), 0.5)
    assert found["no_later"].tolist()[1] == "undecided"
    assert found.loc[1, ["no_later_low", "no_later_high", "no_later_bound"]].isna().all()
    assert not found.loc[1, "no_later_shown"]
    values = -np.log(np.array([[0.7, 1.0], [0.71, 0.7], [0.72, 0.4]]))
    assert found.loc[0, "no_later_bound"] == pytest.approx(exp(-lower_bounds(pd.DataFrame(values))[0]))
    assert found["no_later_bound"][0] > 1.1 > found["no_later_high"][0]


def test_the_default_margin_is_one_standard_error() -> None:
    levels = frame([[(500, 97.0), (1, 50.0)], [(500, 99.0), (1, 50.0)]])
    margin = default_margin(levels, 9800)
    assert margin.points == pytest.approx(100 * sqrt(0.98 * 0.02 / 9800))
    assert margin.source == "one standard error of an accuracy of 98.0 % on 9,800 test images"
    levels = levels.assign(test_accuracy=0.9)
    assert default_margin(without_validation(levels).assign(test_accuracy=0.9), 100).points == pytest.approx(3)
    assert isnan(default_margin(pd.DataFrame(), 100).points)


def test_another_branch_is_judged_against_the_dense_network() -> None:
    path = [[d, b] for d, b in zip(DENSE, BETTER, strict=True)]
    worse = [[(400 + r, 90.0 + r)] for r in range(3)]
    found = judge(frame(path, noise=worse, reinit=worse), 0.5, "noise").iloc[0]
    assert (found["matching"], found["no_later"], found["beats_reinit"], found["winning"]) == ("no", "yes", "", "")
    assert found["matching_mean"] == pytest.approx(-6)
    assert not found["winning_shown"]
    assert isnan(found["beats_reinit_mean"])


def test_draws_are_averaged_within_a_replicate() -> None:
    path = [[d, b] for d, b in zip(DENSE, BETTER, strict=True)]
    levels = frame(path, reinit=[[(500, 96.0 + r)] for r in range(3)])
    drawn = levels[levels["branch"] == "reinit"].assign(draw=1, test_accuracy_early_stop=0.9)
    found = judge(pd.concat([levels, drawn]), 0.5).iloc[0]
    assert (found["n"], found["beats_reinit_mean"]) == (3, pytest.approx(97.5 - 93.5))


# All levels together


def test_pooled_variance_by_hand() -> None:
    """Two replicates, two levels: residuals ±1 and ±3, shifts ±2 (mean square between: 2 · 8 / 1 = 16), what is left
    ±1 (within: 4 / 1 = 4); variance (16 + 4) / 2 = 10, as the levels' own 2 and 18 have on average; degrees of freedom
    10² / (8² + 2²) and correlation (16 − 4) / 20."""
    assert pooled(np.array([[1.0, 3.0], [-1.0, -3.0]])) == pytest.approx((10, 100 / 68, 0.6))
    assert pooled(np.array([[1.0], [3.0]])) == (2, 1, 0)
    assert pooled(np.array([[1.0, -3.0], [-1.0, 3.0]])).correlation == 0
    assert pooled(np.array([[1.0, 1.0], [-1.0, -1.0]])).correlation == 0.95
    assert pooled(np.ones((4, 3))) == (0, 3, 0)


def test_the_window_is_shifted_at_the_ends() -> None:
    values = pd.DataFrame(np.zeros((2, 10)), columns=range(1, 11))
    where = {level: [*map(int, window(values, level).columns)] for level in range(1, 11)}
    assert where[1] == where[4] == [1, 2, 3, 4, 5, 6, 7]
    assert where[5] == [2, 3, 4, 5, 6, 7, 8]
    assert where[7] == where[10] == [4, 5, 6, 7, 8, 9, 10]
    assert window(values[[1, 2, 3]], 3).shape == (2, 3)


@pytest.mark.parametrize(("freedom", "correlation"), [(4, 0.0), (9, 0.3), (30, 0.8)])
def test_the_largest_of_several_t_variables(freedom: float, correlation: float) -> None:
    """Exceeded by 2.5 % of 400,000 simulated maxima of eight, within five standard errors."""
    rng = np.random.default_rng(0)
    n = 400_000
    common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, 8))
    t = sqrt(correlation) * common + sqrt(1 - correlation) * own
    t /= np.sqrt(rng.chisquare(freedom, (n, 1)) / freedom)
    found = largest_t(8, freedom, correlation)
    assert (t.max(axis=1) > found).mean() == pytest.approx(0.025, abs=0.00125)


def test_the_quantile_at_its_ends() -> None:
    assert largest_t(1, 4, 0.0) == pytest.approx(2.77645, rel=1e-5)
    assert largest_t(2, 1e6, 0.0) == pytest.approx(ndtri(sqrt(0.975)), abs=2e-3)
    for count in (2, 20, 200):
        for freedom in (1, 2.5, 9, 60):
            quantiles = [largest_t(count, freedom, correlation) for correlation in (0.95, 0.5, 0.1, 0.0)]
            assert stdtrit(freedom, 0.975) < quantiles[0]
            assert quantiles == sorted(quantiles)


def test_bounds_of_constant_differences_are_the_means() -> None:
    """And with fewer than two complete replicates there are none."""
    assert lower_bounds(pd.DataFrame([[1.0, 2.0]] * 3)).tolist() == [1, 2]
    assert lower_bounds(pd.DataFrame([[1.0, 2.0]] * 3), error=1.0).tolist() < [0, 1]
    assert lower_bounds(pd.DataFrame([[1.0, 2.0]])).isna().all()
    assert lower_bounds(pd.DataFrame([[1.0, 2.0], [1.0, np.nan]])).isna().all()


def test_only_complete_replicates_count_for_all_levels_together() -> None:
    values = pd.DataFrame([[1.0, 2.0], [2.0, 4.0], [3.0, 3.0]])
    more = pd.concat([values, pd.DataFrame([[9.0, np.nan]])])
    assert lower_bounds(more).tolist() == lower_bounds(values).tolist()


@pytest.mark.parametrize(("distance", "number"), [(1.0, 10), (-1.0, 10), (100.0, 2), (0.45, 41), (0.1, None)])
def test_how_many_replicates(distance: float, number: int | None) -> None:
    """A standard deviation of 1. Ten: (2.262 + 0.883) / √10 = 0.995; nine: (2.306 + 0.889) / 3 = 1.065. 41: (2.021 +
    0.851) / √41 = 0.4485; 40: (2.023 + 0.851) / √40 = 0.4544."""
    assert replicates_needed(distance, 1.0) == number


def test_the_deviation_is_that_of_the_window() -> None:
    """Variances 1 and 7 around level 1 to 4; levels beyond its reach and incomplete replicates don't count."""
    values = pd.DataFrame({1: [0, 1, 2.0], 2: [1, 2, 6.0], 3: [1, 2, 6.0], 4: [0, 1, 2.0]})
    assert deviation(values, 1) == pytest.approx(2)
    far = values.assign(**{str(level): [0.0, 1.0, 2.0] for level in range(5, 8)}, far=[0.0, 100.0, 0.0])
    assert deviation(far, 1) == pytest.approx(sqrt((5 * 1 + 2 * 7) / 7))
    assert deviation(pd.concat([values, pd.DataFrame({1: [50.0]})]), 1) == pytest.approx(2)


def test_from_where_a_branch_is_less_accurate() -> None:
    """Behind, ahead, behind twice: from the third level on, by the least of the bounds."""
    path = [[(500, p + r / 100) for p in (97.0, 95.0, 99.0, 94.0, 93.0)] for r in range(3)]
    behind = falls_behind(frame(path))
    assert behind is not None
    assert behind.level == 3
    assert behind.points == pytest.approx(3)
    assert falls_behind(frame([levels[:3] for levels in path])) is None


# Two real runs of ten replicates: full MNIST, 10,000 iterations, and 5,000 digits, 1,000 iterations. Their levels.csv,
# of which tests/data has what is judged:
#     lottery run lenet-mnist --iterations 10000 --replicates 10 --levels 20 --branches reinit
#     lottery run quickstart --iterations 1000 --replicates 10 --levels 16 --branches reinit
# columns chosen and written by
#     frame[columns].to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def real(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / "data" / f"{name}.csv")


def sparsest(found: pd.DataFrame, which: "pd.Series[bool]") -> float:
    """Percent of the weights."""
    return round(100 * float(found.loc[which, "density"].min()), 2)


@pytest.mark.parametrize(
    ("name", "images", "margin", "shown"),
    [
        ("mnist-10000it", 10_000, 0.147, {"matching": 1.85, "better": 2.31, "winning": 2.87, "alone": 2.31}),
        ("digits-1000it", 1_000, 0.746, {"matching": 3.58, "winning": 13.52, "alone": 10.83}),
    ],
)
def test_named_levels_of_real_runs(name: str, images: int, margin: float, shown: dict[str, float]) -> None:
    levels = real(name)
    points = default_margin(levels, images).points
    assert points == pytest.approx(margin, abs=5e-4)
    found = judge(levels, points).assign(alone_shown=lambda found: found["winning"] == "yes")
    assert {name: sparsest(found, found[f"{name}_shown"]) for name in shown} == shown
    assert found["better_shown"].any() == ("better" in shown)


def test_numbers_of_a_real_run() -> None:
    levels = real("digits-1000it")
    row = judge(levels, 0.746).set_index("level").loc[9]
    numbers = {
        "matching": [-0.02, -0.40, 0.36, -0.52],
        "no_later": [0.62, 0.47, 0.81, 0.88],
        "beats_reinit": [1.10, 0.65, 1.55, 0.44],
    }
    for name, expected in numbers.items():
        found = [row[f"{name}_{end}"] for end in ("mean", "low", "high", "bound")]
        assert found == pytest.approx(expected, abs=0.0051)


def test_the_answer_of_a_real_run() -> None:
    levels = real("mnist-10000it")
    found = answer(levels, default_margin(levels, 10_000))
    assert found.headline == (
        "Winning tickets down to 2.87 % of the weights (shown at 11 of 16 levels): accuracy at most 0.147 points below "
        "the dense network’s, stopping no more than 10 % later, and more accurate than reinitialised. Ten replicates; "
        "each condition at 97.5 % for all levels together."
    )
    assert (found.word, found.level) == ("winning", 16)
    assert found.details == [
        "With 2.87 % of the weights tickets reach 98.14 % test accuracy at early stop, the dense network 97.80 %: "
        "+0.34 points (95 % interval of this level alone +0.20 to +0.48; for all levels together at least 0.15 points "
        "above).",
        "They stop after 0.81 (0.70 to 0.94) of the dense network’s iterations; for all levels together after at most "
        "1.05 of them.",
        "Against the same masks reinitialised: +1.03 points (95 % interval of this level alone +0.91 to +1.14; for all "
        "levels together at least 0.84 points above).",
        "Shown for all levels together: matching the dense network down to 1.85 %, stopping no more than 10 % later "
        "down to 2.87 %, beating reinitialisation down to 1.19 %.",
        "From 51.3 % to 2.31 % they are more accurate than the dense network, by at least 0.006 points.",
        "Of 20 pruned levels, each judged alone: 13 winning, 7 undecided.",
        "The margin is 0.147 points: one standard error of an accuracy of 97.8 % on 10,000 test images.",
        "Tickets are less accurate than the dense network from 1.19 % of the weights down, by at least 0.09 points at "
        "every level.",
        "Random reinitialisation is less accurate than the dense network from 4.47 % of the weights down, by at least "
        "0.13 points at every level.",
    ]


def test_bounds_of_a_real_run_are_rounded_to_the_safe_side() -> None:
    """−0.5191, 0.4448 and 0.8820."""
    levels = real("digits-1000it")
    found = answer(levels, default_margin(levels, 1000))
    assert (found.word, found.level) == ("winning", 9)
    assert found.headline.startswith("Winning tickets down to 13.5 % of the weights (shown at 3 of 9 levels): ")
    assert found.details[:3] == [
        "With 13.5 % of the weights tickets reach 94.06 % test accuracy at early stop, the dense network 94.08 %: "
        "−0.02 points (95 % interval of this level alone −0.40 to +0.36; for all levels together at most 0.52 points "
        "below).",
        "They stop after 0.62 (0.47 to 0.81) of the dense network’s iterations; for all levels together after at most "
        "0.89 of them.",
        "Against the same masks reinitialised: +1.10 points (95 % interval of this level alone +0.65 to +1.55; for all "
        "levels together at least 0.44 points above).",
    ]


# Sentences


def has(found: Answer, beginning: str) -> bool:
    return any(detail.startswith(beginning) for detail in found.details)


def test_a_winning_ticket() -> None:
    """The sparsest level that wins, though a sparser one does not; where the control falls behind."""
    worse = [(700, 90.0), (728, 90.2), (672, 89.8)]
    levels = frame(
        [[d, b, b, w] for d, b, w in zip(DENSE, BETTER, worse, strict=True)],
        last=10_000,
        reinit=[[(500, 96.0 + r / 10), (600, 96.0 + r / 10), (700, 80.0 + r / 10)] for r in range(3)],
    )
    found = answer(levels, MARGIN)
    assert (found.word, found.level) == ("winning", 2)
    assert found.headline.startswith("Winning tickets down to 25 % of the weights (shown at 2 of 2 levels): accuracy")
    assert found.headline.endswith("Three replicates; each condition at 97.5 % for all levels together.")
    assert has(
        found, "With 25 % of the weights tickets reach 97.50 % test accuracy at early stop, the dense network 97.0"
    )
    assert has(found, "They stop after 0.80 (")
    assert "The margin is 0.5 points: set by --margin." in found.details
    assert "Of 3 pruned levels, each judged alone: 2 winning, 1 not winning." in found.details
    assert has(
        found, "Tickets are less accurate than the dense network from 12.5 % of the weights down, by at least 6."
    )


def test_matching_without_reinit() -> None:
    found = answer(frame([[d, b] for d, b in zip(DENSE, BETTER, strict=True)], last=10_000), MARGIN)
    assert (found.word, found.level) == ("matching", 1)
    assert found.headline == (
        "Tickets match the dense network down to 50 % of the weights (at most 0.5 points lower; shown at 1 of 1 level)"
        ". Not shown: that they beat reinitialisation (reinit was not trained: --branches reinit). Three replicates; "
        "97.5 % for all levels together."
    )
    assert not has(found, "Against")
    assert "Of 1 pruned level, each judged alone: 1 matching." in found.details


@pytest.mark.parametrize(
    ("stop", "reinit", "missing"),
    [
        (1.3, 90.0, "that they stop as early (no more than 10 % later)"),
        (0.8, 97.5, "that they beat reinitialisation"),
        (1.3, 97.5, "that they stop as early (no more than 10 % later) and that they beat reinitialisation"),
    ],
)
def test_matching_says_what_is_not_shown(stop: float, reinit: float, missing: str) -> None:
    trunk = [[d, (stop * d[0], d[1] + 0.5)] for d in DENSE]
    found = answer(frame(trunk, 10_000, reinit=[[(500, reinit + r / 5 - 0.2)] for r in range(3)]), MARGIN)
    assert found.word == "matching"
    assert f"Not shown: {missing}. Three" in found.headline


def test_more_accurate_than_the_dense_network() -> None:
    """The longest stretch, and its least bound rounded down: all differences are the same in all replicates."""
    gains = [0.256, -1.0, 0.408, 0.306, 0.512, -0.1]
    found = answer(frame([[d, *((400, d[1] + gain) for gain in gains)] for d in DENSE]), MARGIN)
    assert has(found, "From 12.5 % to 3.12 % they are more accurate than the dense network, by at least 0.30")
    gains = [0.256, 0.408, -1.0, 0.306]
    found = answer(frame([[d, *((400, d[1] + gain) for gain in gains)] for d in DENSE]), MARGIN)
    assert has(found, "From 50 % to 25 % they are more accurate than the dense network, by at least 0.25")
    found = answer(frame([[d, (400, d[1] + 0.25)] for d in DENSE]), MARGIN)
    assert has(found, "With 50 % of the weights they are more accurate than the dense network, by at least 0.2")
    found = answer(frame([[d, (400, d[1] - 0.25)] for d in DENSE]), MARGIN)
    assert not any("more accurate than the dense" in detail for detail in found.details)


def test_no_matching_ticket() -> None:
    worse = [[d, (700, d[1] - 7.0 - r / 10), (800, d[1] - 17.0 - r / 10)] for r, d in enumerate(DENSE)]
    found = answer(frame(worse), MARGIN)
    assert (found.word, found.level) == ("none", 1)
    assert found.headline == (
        "No matching ticket: at every level more than 0.5 points less accurate than the dense network. The nearest, "
        "with 50 % of the weights, is 7.10 points lower (6.85 to 7.35)."  # 4.30265 · 0.1 / √3 = 0.248
    )


def test_undecided_with_the_margin_inside_the_interval() -> None:
    """+0.3 ± 1.0 points, standard deviation 1: 0.8 from the limit, which (2.145 + 0.868) / √15 = 0.778 reaches."""
    found = answer(frame([[d, (400, d[1] + 0.3 + r - 1)] for r, d in enumerate(DENSE)]), MARGIN)
    assert (found.word, found.level) == ("undecided", 1)
    assert found.headline == (
        "Undecided with 3 replicates: at 50 % of the weights tickets are +0.30 points (−2.18 to +2.78) from the dense "
        "network, and the margin −0.5 lies within. About 15 replicates in all would probably decide (a third to five "
        "times that)."
    )
    found = answer(frame([[d, (400, d[1] - 0.5 + r - 1)] for r, d in enumerate(DENSE)]), MARGIN)
    assert found.headline.endswith("No affordable number of replicates (more than 50) would probably decide.")


def test_less_accurate_by_an_open_amount() -> None:
    found = answer(frame([[d, (400, d[1] - 0.5 + (r - 1) / 10)] for r, d in enumerate(DENSE)]), Margin(0.45))
    assert found.word == "undecided"
    assert found.headline.startswith(
        "Undecided with 3 replicates: at 50 % of the weights tickets are less accurate than the dense network, by 0.25 "
        "to 0.75 points; whether by more than 0.45 is open."
    )


def test_what_is_undecided_is_not_a_level_known_to_be_worse() -> None:
    """Level 1 is surely beyond the margin; level 2, worse on average, may yet match."""
    found = answer(
        frame([[d, (400, d[1] - 0.6), (400, d[1] - 1.0 + 3 * (r - 1))] for r, d in enumerate(DENSE)]), MARGIN
    )
    assert (found.word, found.level) == ("undecided", 2)


def test_shown_alone_but_not_for_all_levels() -> None:
    """Level 1 is within the margin by its own narrow interval; its neighbours spread so much that it isn't shown."""
    rng = np.random.default_rng(5)
    noise = 2 * rng.standard_normal((3, 5))
    path = [[d, (400, d[1] + (r - 1) / 20), *((400, d[1] - 3 + n) for n in noise[r])] for r, d in enumerate(DENSE)]
    found = answer(frame(path), MARGIN)
    assert (found.word, found.level) == ("undecided", 1)
    assert found.headline.startswith(
        "Undecided with 3 replicates: at 50 % of the weights tickets are 0.00 points (−0.12 to +0.12) from the dense "
        "network, within the margin of 0.5 if this level is judged alone; for all levels together they are at most "
    )


def test_one_replicate_decides_nothing() -> None:
    assert answer(frame([[(500, 97.0), (300, 99.0), (300, 96.6), (300, 96.0)]]), MARGIN).level == 2  # may match
    assert answer(frame([[(500, 97.0), (300, 95.0), (300, 96.0), (300, 94.0)]]), MARGIN).level == 2  # the best
    found = answer(frame([[(500, 97.0), (300, 99.0), (600, 50.0)]]), MARGIN)
    assert (found.word, found.level) == ("no verdict", 1)
    assert found.headline == "No verdict: one replicate cannot tell a winning ticket from chance."
    assert found.details[0] == (
        "With 50 % of the weights tickets reach 99.00 % test accuracy at early stop, the dense network 97.00 %: +2.00 "
        "points."
    )
    assert has(found, "Ask for more with --replicates")


def test_the_dense_network_alone_and_nothing_at_all() -> None:
    found = answer(frame([[d] for d in DENSE]), MARGIN)
    assert found.headline == (
        "The dense network reaches 97.00 % test accuracy (96.90 to 97.10 % in 3 replicates); there is no ticket to "
        "compare it with yet."
    )
    assert found.word == "no verdict"
    levels = frame([[d, d] for d in DENSE])
    for nothing in (levels[levels["level"] > 0], pd.DataFrame()):
        margin = default_margin(nothing, 1000)
        assert answer(nothing, margin).headline.startswith("No dense network is finished yet")


def test_without_validation_tickets_are_judged_at_the_last_iteration() -> None:
    levels = without_validation(frame([[d, (1, d[1] + 0.5), (1, 90.0)] for d in DENSE]))
    found = answer(levels, MARGIN)
    assert (found.word, found.level) == ("matching", 1)
    assert found.headline.startswith("Tickets match the dense network after the last iteration down to 50 % of the")
    assert "that they stop as early (nothing was held out for validation) and that they beat" in found.headline
    assert "97.50 % test accuracy after the last iteration" in found.details[0]
    assert not has(found, "They stop")


def test_an_unfinished_run_says_so() -> None:
    """A replicate that has not come so far counts for neither; two complete ones do."""
    path = [
        [(500, 97.0), (400, 97.5), (400, 97.5)],
        [(500, 97.0), (400, 97.7), (400, 97.7)],
        [(500, 97.0), (900, 50.0)],
    ]
    found = answer(frame(path), MARGIN)
    assert found.word != "no verdict"
    waiting = answer(frame(path), MARGIN, [Place("rewind", 2, 2)])
    assert waiting.word == "no verdict"
    assert waiting.headline == (
        "No verdict yet: it takes every level and replicate of the tickets, and of these 1 network is still to come."
    )
    assert waiting.details[0].startswith("With 25 % of the weights tickets reach 97.60 % test accuracy at early stop")
    found = answer(frame([path[0], path[2]]), MARGIN)
    assert found.headline == "No verdict: fewer than two replicates have all levels."


def test_a_verdict_waits_for_tickets_and_reinit_and_for_no_other_branch() -> None:
    path = [[(500, 97.0), (400, 97.5 + r / 10), (400, 97.5 + r / 10)] for r in (0, 1)]
    levels = frame(path, reinit=[[(400, 90.0), (400, 90.0)], [(400, 90.0)]])  # reinit has come less far
    found = answer(levels, MARGIN, [Place("reinit", 1, 2), Place("one_shot", 0, 1), Place("one_shot", 1, 1)])
    assert found.word == "no verdict"
    assert "of the tickets and of random reinitialisation, and of these 1 network is still to come." in found.headline
    levels = frame(path, reinit=2 * [[(400, 90.0), (400, 90.0)]])
    verdict = answer(levels, MARGIN)
    found = answer(levels, MARGIN, [Place("one_shot", 0, 1), Place("one_shot", 1, 1)])
    assert (found.word, found.headline) == (verdict.word, verdict.headline)
    assert verdict.word != "no verdict"
    assert found.details[0].startswith("Still to come: 2 networks of other branches")
    assert [p.branch for p in too_early([Place(b, 0, 1) for b in ("rewind", "one_shot", "shuffle")], "rewind")] == [
        "rewind"
    ]
    assert len(too_early([Place("one_shot", 0, 1)], "rewind", "one_shot")) == 1


@pytest.mark.parametrize(("last", "said"), [(500, True), (1000, False)])
def test_a_network_that_never_stopped_is_said_to(last: int, said: bool) -> None:
    """The dense networks' lowest loss is at their last evaluation."""
    found = answer(frame([[(500, 97.0), (400, 98.0 + r / 10)] for r in range(3)], last=last), MARGIN)
    assert any("has not been seen to stop" in detail for detail in found.details) == said


def test_the_dense_network_is_the_one_that_has_not_stopped() -> None:
    """Not the tickets, nor a branch; and it is counted by replicate."""
    late, early = [(1000, 97.0), (400, 98.0)], [(400, 97.0), (1000, 98.0)]
    found = answer(frame([early] * 3, reinit=[[(1000, 96.0)]] * 3), MARGIN)
    assert not any("seen to stop" in detail for detail in found.details)
    found = answer(frame([late, early, early]), MARGIN)
    assert has(found, "In 1 of 3 replicates the dense network’s validation loss was low")
    assert answer(frame([late]), MARGIN).details[-1].startswith("In 1 of 1 replicate the dense network’s validation")
    neither = [[(1000, 97.0), (1000, 98.0)]] * 3
    assert has(answer(frame(neither), MARGIN), "When they stop is not known")


def test_another_trunk() -> None:
    levels = frame([[d, (400, 98.0 + r / 10)] for r, d in enumerate(DENSE)]).replace({"branch": {"rewind": "continue"}})
    assert answer(levels, MARGIN).word == "matching"


def test_bounds_are_rounded_to_the_safe_side() -> None:
    assert (round_up(0.0412, 2), round_up(0.04, 2), round_up(1.1, 3)) == (0.05, 0.04, 1.1)
    assert (round_down(0.0499, 2), round_down(0.29, 2), round_down(-0.001, 2)) == (0.04, 0.29, -0.01)


# Rates of error, at the limits themselves


WORLDS = int(os.environ.get("LOTTERY_WORLDS", "60"))
"""Simulated runs for each number of replicates; thousands tell small errors apart (17 minutes for 3,000)."""
LEVELS = 10


def plateau(rng: np.random.Generator, replicates: int) -> pd.DataFrame:
    """A run whose tickets are at each limit exactly, at all levels: 0.5 points worse, 10 % later, as reinitialised.

    What a replicate's levels share (its dense network), what neighbours share, and how spread changes from dense to
    sparse are about as in real runs: neighbours correlate by 0.8, 0.6 and 0.15.
    """

    def spread(shared: float, near: float, first: float, last: float) -> np.ndarray:
        steps = rng.standard_normal((replicates, LEVELS))
        for level in range(1, LEVELS):
            steps[:, level] = 0.7 * steps[:, level - 1] + sqrt(1 - 0.7**2) * steps[:, level]
        dense, own = rng.standard_normal((replicates, 1)), rng.standard_normal((replicates, LEVELS))
        mixed = sqrt(shared) * dense + sqrt(near) * steps + sqrt(1 - shared - near) * own
        return mixed * np.linspace(first, last, LEVELS)

    dense = 97 + 0.2 * rng.standard_normal((replicates, 1))
    stops = 200_000 * np.exp(0.1 * rng.standard_normal((replicates, 1)))
    ticket = dense - 0.5 + spread(0.7, 0.1, 0.25, 0.2)
    later = stops * 1.1 * np.exp(spread(0.5, 0.1, 0.4, 0.27))
    reinit = ticket + spread(0.1, 0.1, 0.2, 0.3)
    paths = np.dstack([np.hstack([stops, later]).round(), np.hstack([dense, ticket])])
    return frame(paths.tolist(), 10_000_000, reinit=np.dstack([later, reinit]).tolist())


def error_rates(replicates: int) -> pd.DataFrame:
    """Condition -> rates of wrong verdicts: yes and no of a level alone; a level named wrongly from all levels
    together, and as if each were judged alone."""
    rng = np.random.default_rng(replicates)
    rows = []
    for _ in range(WORLDS):
        found = judge(plateau(rng, replicates), 0.5)
        for name in CONDITIONS:
            yes, no = found[name] == "yes", found[name] == "no"
            rows.append((name, yes.mean(), no.mean(), found[f"{name}_shown"].any(), yes.any()))
    names = ["condition", "yes", "no", "named", "named_alone"]
    return pd.DataFrame(rows, columns=names).groupby("condition").mean()


def most(rate: float, trials: int) -> float:
    """What the share of errors exceeds in one test of a thousand, by the normal distribution."""
    return rate + 3.1 * sqrt(rate * (1 - rate) / trials)


@pytest.fixture(scope="module")
def rates() -> pd.DataFrame:
    found = pd.concat({replicates: error_rates(replicates) for replicates in (3, 5, 10)}, names=["replicates"])
    if "LOTTERY_WORLDS" in os.environ:
        print(found.to_string(float_format="%.4f"))
    return found


def test_error_rates_of_a_level_alone(rates: pd.DataFrame) -> None:
    """Just 2.5 % either way: the interval is exact. Levels of a run are far from independent."""
    for verdict in ("yes", "no"):
        assert (rates[verdict] < most(0.025, 2 * WORLDS)).all()
        assert rates[verdict].mean() < most(0.025, 30 * WORLDS)
        assert rates[verdict].mean() > 0.025 - 3.1 * sqrt(0.025 * 0.975 / (30 * WORLDS))


@pytest.mark.parametrize(("replicates", "promised"), [(3, 0.04), (5, 0.03), (10, 0.03)])
def test_error_rates_for_all_levels_together(rates: pd.DataFrame, replicates: int, promised: float) -> None:
    """Nominally 2.5 %. Ceilings are what the docstring of `judge` states, after 3,000 simulated runs for each."""
    found = rates["named"].loc[replicates]
    assert (found < most(promised, WORLDS)).all()
    assert found.mean() < most(promised, 3 * WORLDS)


def test_naming_what_passes_alone_would_err_far_more_often(rates: pd.DataFrame) -> None:
    """The simulation can tell: the rule of old fails where this one passes."""
    assert rates["named"].mean() < most(0.03, 9 * WORLDS)
    assert rates["named_alone"].mean() > most(0.04, 9 * WORLDS)


def test_the_largest_quantiles_are_kept() -> None:
    simultaneous.largest_t.cache_clear()
    levels = real("digits-1000it")
    judge(levels, 0.746)
    once = simultaneous.largest_t.cache_info()
    judge(levels, 0.746)
    assert simultaneous.largest_t.cache_info().misses == once.misses == 3 * 10  # windows, of 16 levels
