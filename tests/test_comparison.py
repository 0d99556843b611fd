"""Runs against runs, and tickets against controls: worlds whose truth is known, and the sentences about them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lottery
from lottery.analysis import statistics
from lottery.analysis.comparison import (
    Comparison,
    Contrast,
    compare,
    contrast,
    controls,
    finding,
    headline,
    matches,
    together,
)
from lottery.analysis.simultaneous import joint_intervals, lower_bounds
from lottery.analysis.verdicts import judge
from lottery.engines import history
from lottery.errors import LotteryError
from lottery.models import network
from lottery.runs.rows import Place, Row
from lottery.runs.store import Run, SavedLevel
from lottery.spec import Data, Model, Pruning, Recipe, Spec, flatten
from lottery.views import measures, plots, report
from lottery.views.report import charts
from lottery.views.report import compare as section

T = {1: 12.7062, 2: 4.30265}
"""Student's t, 97.5 %, by degrees of freedom (any table)."""


def frame(accuracy: Sequence[Sequence[float]], stops: Sequence[Sequence[float]] | None = None, keep: float = 0.5) -> Any:
    """Levels of a run: accuracy in percent, and early stop, [replicate][level] of the trunk, level 0 dense."""
    rows = [
        ("rewind", replicate, level, keep**level, value / 100, stops[replicate][level] if stops else 100.0)
        for replicate, levels in enumerate(accuracy)
        for level, value in enumerate(levels)
    ]
    names = ["branch", "replicate", "level", "density", "test_accuracy_early_stop", "early_stop_iteration"]
    found = pd.DataFrame(rows, columns=names)
    return found.assign(draw=0, iterations=1000, test_accuracy=found["test_accuracy_early_stop"], train_accuracy=1.0)


def between(ours: Any, theirs: Any, paired: bool) -> Contrast:
    return contrast((ours, theirs), ("rewind", "rewind"), matches(ours, theirs), paired)


# Numbers


def test_pairs_by_hand() -> None:
    """Replicates 10 points apart, whose differences are 1, 2 and 6: mean 3, standard deviation √7."""
    ours, theirs = frame([[71, 70], [82, 80], [96, 90]]), frame([[70, 70], [80, 80], [90, 90]])
    row = between(ours, theirs, paired=True).accuracy.iloc[0]
    half = T[2] * sqrt(7 / 3)
    assert [row[name] for name in ("level", "density", "n")] == [0, 1, 3]
    assert [row[name] for name in ("mean", "low", "high")] == pytest.approx([3, 3 - half, 3 + half], rel=1e-5)


def test_independent_samples_by_welch() -> None:
    """Of different sizes and spreads, against SciPy's. The same numbers as above differ by far less than they spread."""
    ours, theirs = [71.0, 82, 96], [70.0, 80, 91, 77, 79]
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert statistics.welch([*ours, np.nan], theirs)[:3] == pytest.approx((np.mean(ours) - np.mean(theirs), low, high))
    row = between(frame([[x] for x in ours]), frame([[x] for x in theirs]), paired=False).accuracy.iloc[0]
    assert (row["low"], row["high"], row["n"]) == (pytest.approx(low), pytest.approx(high), 3)
    assert (row["joint_low"], row["joint_high"]) == (pytest.approx(low), pytest.approx(high))  # of a single level
    paired = between(frame([[71], [82], [96]]), frame([[70], [80], [90]]), paired=True).accuracy.iloc[0]
    apart = between(frame([[71], [82], [96]]), frame([[70], [80], [90]]), paired=False).accuracy.iloc[0]
    assert apart["mean"] == pytest.approx(paired["mean"])
    assert apart["high"] - apart["mean"] > 3 * (paired["high"] - paired["mean"])


def test_rounding_is_the_least_spread_of_each_sample() -> None:
    """Two and two equal values, errors 3 and 4: variances 9/2 + 16/2, degrees of freedom 12.5² / (4.5² + 8²)."""
    found = statistics.welch([5, 5], [1, 1], (3.0, 4.0))
    freedom = 12.5**2 / (4.5**2 + 8**2)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, freedom) * sqrt(12.5))
    one = pd.DataFrame({0: [5.0, 5.0]}), pd.DataFrame({0: [-1.0, -1.0]})
    joint = joint_intervals(one, (3.0, 4.0)).loc[0]
    assert joint["high"] - joint["low"] == pytest.approx(2 * stats.t.ppf(0.975, freedom) * sqrt(12.5))


def test_one_sample_has_the_bounds_of_verdicts() -> None:
    """From either side: what all views call "for all levels together" is one number."""
    values = pd.DataFrame(np.random.default_rng(0).standard_normal((5, 9)))
    joint = joint_intervals([values])
    assert joint["low"].tolist() == lower_bounds(values).tolist()
    assert joint["high"].to_numpy() == pytest.approx(-lower_bounds(-values).to_numpy())


def test_two_samples_of_which_one_does_not_vary_are_one() -> None:
    values = pd.DataFrame(np.random.default_rng(0).standard_normal((5, 9)))
    constant = pd.DataFrame(np.full((3, 9), 2.0))
    expected = joint_intervals([values]) + 2
    assert joint_intervals([values, constant]).to_numpy() == pytest.approx(expected.to_numpy())
    assert joint_intervals([values, constant.iloc[:1]]).isna().all(axis=None)


def worlds(paired: bool, runs: int = 60, replicates: int = 4, levels: int = 10) -> tuple[float, float]:
    """Of pairs of runs that do not differ, whose levels correlate: the share in which some level's interval leaves out
    0, alone, and for all levels together."""
    rng = np.random.default_rng(3)
    alone = joint = 0

    def side() -> np.ndarray:
        return 90 + 0.6 * rng.standard_normal((replicates, 1)) + 0.5 * rng.standard_normal((replicates, levels))

    for _ in range(runs):
        table = between(frame(side().tolist()), frame(side().tolist()), paired).accuracy
        alone += ((table["low"] > 0) | (table["high"] < 0)).any()
        joint += ((table["joint_low"] > 0) | (table["joint_high"] < 0)).any()
    return alone / runs, joint / runs


@pytest.mark.parametrize("paired", [True, False])
def test_runs_that_do_not_differ_are_seldom_told_apart(paired: bool) -> None:
    """Nominally in 5 % of cases, and of 60 in 8 at most (one test in 300 fails where the truth is 5 %). By intervals of
    levels alone, in a quarter or more."""
    alone, joint = worlds(paired)
    assert joint <= 8 / 60
    assert alone > 12 / 60


def test_early_stops_are_compared_as_ratios() -> None:
    """Ratios ½, ½, ¼ of a level; evaluated every 8 iterations, so that each is off by 8 / √12."""
    stops = [[256.0, 256], [256, 256], [256, 128]], [[512.0, 512], [512, 512], [512, 512]]
    steady = [[90.0, 90], [90, 90], [90, 90]]
    found = between(frame(steady, stops[0]), frame(steady, stops[1]), paired=True).stops.set_index("level")
    half = T[2] * log(2) / 3
    assert found.loc[1, "mean"] == pytest.approx(2 ** (-4 / 3))
    assert found.loc[1, ["low", "high"]].tolist() == pytest.approx(
        [2 ** (-4 / 3) * exp(-half), 2 ** (-4 / 3) * exp(half)], rel=1e-4
    )
    assert found.loc[0, "mean"] == pytest.approx(0.5)
    assert found.loc[0, "low"] < 0.5 < found.loc[0, "high"]  # what rounding leaves open: steps of 128 iterations


def test_a_network_that_was_not_seen_to_stop_is_no_evidence_of_when() -> None:
    """One of three, of either run."""
    steady, late = [[90.0, 90, 90]] * 3, [[500.0, 500, 500], [500, 1000, 500], [500, 500, 500]]
    other = [[400.0, 400, 400], [400, 400, 400], [400, 400, 1000]]
    stops = between(frame(steady, late), frame(steady, other), paired=True).stops.set_index("level")
    assert stops["low"].isna().tolist() == stops["joint_high"].isna().tolist() == [False, True, True]
    assert stops["mean"].notna().all()


def test_without_validation_runs_are_compared_at_the_end() -> None:
    ours, theirs = frame([[90.0], [91]]), frame([[90.0], [91]])
    theirs = theirs.assign(test_accuracy_early_stop=np.nan, early_stop_iteration=np.nan, test_accuracy=0.5)
    found = between(ours, theirs, paired=True)
    assert (found.column, len(found.stops)) == ("test_accuracy", 0)
    assert found.accuracy["mean"].tolist() == pytest.approx([40.5])


def test_replicates_that_lack_levels_count_where_they_can() -> None:
    """The third has no level 1: alone it counts for level 0, for all levels together it doesn't."""
    ours, theirs = frame([[91, 90], [93, 91], [99]]), frame([[90, 90], [90, 90], [90]])
    found = between(ours, theirs, paired=True)
    assert found.accuracy["n"].tolist() == [3, 2]
    assert found.accuracy["mean"].tolist() == pytest.approx([13 / 3, 0.5])
    two = between(ours[ours["replicate"] < 2], theirs, paired=True)
    assert found.accuracy["joint_low"].tolist() == two.accuracy["joint_low"].tolist()
    assert found.replicates == (2, 2)
    assert between(ours, theirs, paired=False).replicates == (2, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (0.5, 0.5, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        (0.25, 0.5, [(0, 0), (1, 2)]),  # 100, 25 %
        (0.5, 0.25, [(0, 0), (2, 1)]),
        (0.5, 0.7, [(0, 0), (1, 2)]),  # 50 and 49 %, 2 % apart; 25 and 24.01 % would be 4 %
        (0.5, 0.8, [(0, 0), (1, 3)]),  # 50 and 51.2 %
        (0.5, 0.9, [(0, 0)]),  # 50 and 72.9 %
        (1.0, 1.0, [(0, 0), (1, 1), (2, 2), (3, 3)]),  # nothing is pruned
        (0.0, 0.0, [(0, 0), (1, 1), (2, 2), (3, 3)]),  # everything
        (0.99, 0.98, [(0, 0), (2, 1)]),  # 0.9801 is nearer to 0.98 than 0.99 is
    ],
)
def test_levels_are_matched_by_density(ours: float, theirs: float, expected: list[tuple[int, int]]) -> None:
    steady = [[90.0] * 4]
    assert matches(frame(steady, keep=ours), frame(steady, keep=theirs)) == expected


def test_differences_at_matched_levels() -> None:
    """Level 1 of ours is compared with level 2 of theirs, which have a quarter of the weights."""
    ours, theirs = frame([[90.0, 80], [91, 81]], keep=0.25), frame([[89.0, 1, 70], [90, 1, 71]])
    table = between(ours, theirs, paired=True).accuracy
    assert table[["level", "other_level"]].to_numpy().tolist() == [[0, 0], [2, 1]]
    assert table["density"].tolist() == [1, 0.25]
    assert table["mean"].tolist() == pytest.approx([1, 10])


def test_controls_have_the_numbers_of_the_verdicts() -> None:
    """What the page's table calls accuracy − reinit, on a real run."""
    levels = pd.read_csv(Path(__file__).parent / "data" / "digits-1000it.csv")
    (found,) = controls(levels).values()
    judged = judge(levels, 0.746)
    for ours, theirs in (("mean", "mean"), ("low", "low"), ("high", "high"), ("joint_low", "bound")):
        assert found.accuracy[ours].to_numpy() == pytest.approx(judged[f"beats_reinit_{theirs}"].to_numpy())
    assert found.accuracy["level"].tolist() == judged["level"].tolist()
    said = headline(found, "rewind", "reinit")
    assert said.word == "more"
    assert said.headline == (
        "Compared with reinit, rewind is more accurate at 10 of 16 levels (between 26.3 % and 2.87 % of the weights), "
        "most clearly with 4.47 %, by 1.91 points (1.25 to 2.57). Ten pairs of replicates; 95 % for all levels together."
    )
    assert controls(levels[levels["branch"] == "rewind"]) == controls(pd.DataFrame()) == {}


# Sentences


def constant(*differences: float, replicates: int = 3) -> Contrast:
    """Every replicate differs by the same, but for hundredths of a point."""
    theirs = [[90.0 + r] * len(differences) for r in range(replicates)]
    ours = [[90.0 + r + d + r / 100 for d in differences] for r in range(replicates)]
    return between(frame(ours), frame(theirs), paired=True)


@pytest.mark.parametrize(
    ("differences", "word", "beginning"),
    [
        ((1.0, 2.0), "more", "Compared with A, B is more accurate at all 2 levels, most clearly with 50 %, by 2.01 points ("),
        ((2.0,), "more", "Compared with A, B is more accurate at the one level that both have, most clearly with 100 %, "),
        (
            (-1.0, -2.0, 0.0),
            "less",
            "Compared with A, B is less accurate at 2 of 3 levels (between 100 % and 50 % of the weights), most clearly "
            "with 50 %, by 1.99 points (",
        ),
        (
            (-0.01, -1.0, 2.0),
            "both",
            "Compared with A, B is more accurate at 1 of 3 levels (with 25 % of the weights), most clearly with 25 %, by "
            "2.01 points (",
        ),
        ((-0.01, -0.01), "open", "No difference in accuracy is shown between B and A: at all 2 levels the interval inc"),
    ],
)
def test_the_headline_says_which_is_better_and_by_how_much(
    differences: tuple[float, ...], word: str, beginning: str
) -> None:
    found = constant(*differences)
    said = headline(found, "B", "A")
    assert (said.word, said.headline[: len(beginning)]) == (word, beginning)
    assert said.headline.endswith(" Three pairs of replicates; 95 % for all levels together.")
    if word in ("more", "less"):
        far = found.accuracy.iloc[found.accuracy["mean"].abs().argmax()]
        ends = sorted(abs(far[name]) for name in ("joint_low", "joint_high"))
        numbers = [float(x) for x in re.findall(r"\(([\d.]+) to ([\d.]+)\)", said.headline)[0]]
        assert numbers == pytest.approx(ends, abs=0.01)
        assert numbers[0] <= ends[0] <= ends[1] <= numbers[1]  # outwards
    if word == "open":
        most = float(re.findall(r"more than ([\d.]+) points either way is ruled out", said.headline)[0])
        assert 0 <= most - found.accuracy[["joint_low", "joint_high"]].abs().to_numpy().max() < 0.01
    if word == "both":
        assert "and less accurate at 1 of 3 levels (with 50 % of the weights)" in said.headline


def test_what_cannot_be_told() -> None:
    said = headline(constant(1.0, 2.0, replicates=1), "B", "A")
    assert said.headline == (
        "No verdict between B and A: one replicate cannot tell a difference from chance. With 50 % of the weights it is "
        "+2.00 points."
    )
    steady = frame([[90.0, 91], [92, 93]])
    assert headline(between(steady, steady, True), "B", "A").word == "same"
    assert headline(between(steady, steady, False), "B", "A").word == "open"
    assert headline(between(steady, steady.assign(replicate=steady["replicate"] + 2), True), "B", "A").word == "none"


def test_a_level_alone_makes_no_headline() -> None:
    """By its own interval level 2 is better; for all levels together it is not."""
    rng = np.random.default_rng(1)
    noise = 2 * rng.standard_normal((3, 6))
    noise[:, 2] = [0.10, 0.12, 0.15]
    found = between(frame((90 + noise).tolist()), frame([[90.0] * 6] * 3), paired=True)
    assert found.accuracy.loc[2, "low"] > 0
    assert headline(found, "B", "A").word == "open"


def test_several_runs_in_one_headline() -> None:
    names = ["B (seed 1)", "C (seed 2)", "D (seed 3)"]
    found = [
        finding(Comparison(constant(*d), pairing="Paired."), name, "A")
        for d, name in zip([(1.0, 1.0), (-1.0, -1.0), (-0.01, -0.01)], names, strict=True)
    ]
    said = together(found, names, "A (seed 0)")
    assert said.startswith("Against A (seed 0): more accurate: B (seed 1) (at all 2 levels, most clearly with ")
    assert "; less accurate: C (seed 2) (at all 2 levels" in said
    assert "; not shown to differ: D (seed 3) (at most " in said
    assert said.endswith("Each comparison at 95 % for all of its levels together, not for all comparisons.")
    assert together(found[:1], names[:1], "A") == found[0].headline
    other = finding(Comparison(None, "they are different"), "E", "A")
    assert other.headline == "E and A are shown side by side only: they are different."
    assert "not compared: E" in together([*found, other], [*names, "E"], "A")


def test_details() -> None:
    stops = [[250.0, 255, 260], [500.0, 505, 510]]
    ours, theirs = (frame([[90.0 + r, 91.0] for r in range(3)], [[s, s] for s in stop]) for stop in stops)
    found = finding(Comparison(between(ours, theirs, True), pairing="Paired.", unmatched=(1, 2)), "B", "A")
    assert found.details[0].startswith("Dense, B is 0.00 points (0.00 to 0.00, of this level alone) from A, in test acc")
    assert found.details[1] == "Of 2 levels, each judged alone: 0 more accurate, 0 less, 2 undecided."
    assert found.details[2].startswith("B stops earlier than A at all 2 levels, most clearly with 100 %: after 0.50 of its ")
    assert found.details[3:] == [
        "Paired.",
        "1 level of B left out: the other run has none of that density.",
        "2 levels of A left out: the other run has none of that density.",
    ]
    unfinished = finding(Comparison(between(ours, theirs, True), complete=False), "B", "A")
    assert unfinished.headline.startswith("So far: ")
    assert together([unfinished, found], ["B", "C"], "A").startswith("So far, against A: ")
