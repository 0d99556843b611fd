"""Runs against runs, and tickets against controls: worlds whose truth is known, and the sentences about them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import exp, hypot, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lottery
from lottery import cli
from lottery.analysis import statistics
from lottery.analysis.answer import Answer
from lottery.analysis.comparison import (
    Comparison,
    Contrast,
    Side,
    basis,
    compare,
    contrast,
    controls,
    finding,
    headline,
    matches,
    together,
)
from lottery.analysis.simultaneous import joint_intervals, lower_bounds
from lottery.analysis.verdicts import Margin, judge
from lottery.engines import history
from lottery.errors import LotteryError
from lottery.models import network
from lottery.runs.rows import Place, Row
from lottery.runs.store import Run, SavedLevel
from lottery.spec import PRESETS, Data, Model, Spec, flatten
from lottery.views import measures, plots, report
from lottery.views.report import charts
from lottery.views.report import compare as section

T = {1: 12.7062, 2: 4.30265}
"""Student's t, 97.5 %, by degrees of freedom (any table)."""


def frame(
    accuracy: Sequence[Sequence[float]], stops: Sequence[Sequence[float]] | None = None, keep: float = 0.5
) -> Any:
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
    at = matches(ours, theirs)
    return contrast(Side(ours, "rewind", [a for a, _ in at]), Side(theirs, "rewind", [b for _, b in at]), paired)


# Numbers


def test_pairs_by_hand() -> None:
    """Replicates 10 points apart, whose differences are 1, 2 and 6: mean 3, standard deviation √7."""
    ours, theirs = frame([[71, 70], [82, 80], [96, 90]]), frame([[70, 70], [80, 80], [90, 90]])
    row = between(ours, theirs, paired=True).accuracy.iloc[0]
    half = T[2] * sqrt(7 / 3)
    assert [row[name] for name in ("level", "density", "n")] == [0, 1, 3]
    assert [row[name] for name in ("mean", "low", "high")] == pytest.approx([3, 3 - half, 3 + half], rel=1e-5)


def test_independent_samples_by_welch() -> None:
    """Of different sizes and spreads, against SciPy's. Numbers that differ by less than they spread."""
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
    alone = joint = 0.0

    def side() -> np.ndarray:
        return 90 + 0.6 * rng.standard_normal((replicates, 1)) + 0.5 * rng.standard_normal((replicates, levels))

    for _ in range(runs):
        table = between(frame(side().tolist()), frame(side().tolist()), paired).accuracy
        alone += float(((table["low"] > 0) | (table["high"] < 0)).any())
        joint += float(((table["joint_low"] > 0) | (table["joint_high"] < 0)).any())
    return alone / runs, joint / runs


@pytest.mark.parametrize("paired", [True, False])
def test_runs_that_do_not_differ_are_seldom_told_apart(paired: bool) -> None:
    """Nominally in 5 % of cases, and of 60 in 8 at most (one test in 300 fails where the truth is 5 %). By intervals of
    levels alone, in a quarter or more."""
    alone, joint = worlds(paired)
    assert joint <= 8 / 60
    assert alone > 12 / 60


def test_early_stops_are_compared_as_ratios() -> None:
    """Ratios ½, ½, ¼ at a level. All of ours are multiples of 128 iterations, all of theirs of 512: that is how far
    rounding leaves the dense networks' open, which are the same in all replicates."""
    stops: list[list[list[float]]] = [[[256, 256], [256, 256], [256, 128]], [[512, 512]] * 3]
    steady = [[90.0, 90]] * 3
    dense, pruned = between(frame(steady, stops[0]), frame(steady, stops[1]), paired=True).stops.to_dict("records")
    half = T[2] * log(2) / 3
    mean = 2 ** (-4 / 3)
    assert [pruned[name] for name in ("mean", "low", "high")] == pytest.approx(
        [mean, mean * exp(-half), mean * exp(half)], rel=1e-4
    )
    error = hypot(128 / 256, 512 / 512) / sqrt(12)  # steps, as multiples of the dense networks' stops
    assert dense["mean"] == pytest.approx(0.5)
    assert dense["high"] == pytest.approx(0.5 * exp(T[2] * error / sqrt(3)), rel=1e-4)


@pytest.mark.parametrize(
    ("paired", "iterations", "known"),
    [
        (True, 1000, [True, True, False]),  # level 1: ours of one pair, theirs of another; level 2: both of one
        (False, 1000, [True, False, False]),
        (True, 2000, [True, False, False]),  # theirs, had they been trained for as long, might have stopped even later
    ],
)
def test_networks_that_were_not_seen_to_stop_are_no_evidence_of_when(
    paired: bool, iterations: int, known: list[bool]
) -> None:
    late: list[list[float]] = [[500, 500, 500], [500, 1000, 1000], [501, 500, 500]]
    other: list[list[float]] = [[400, 400, 400], [402, 400, 1000], [400, 1000, 400]]
    ours = frame([[90.0] * 3] * 3, late).assign(iterations=iterations)
    if iterations > 1000:
        ours.loc[ours["early_stop_iteration"] == 1000, "early_stop_iteration"] = iterations
    stops = between(ours, frame([[90.0] * 3] * 3, other), paired).stops
    assert stops["low"].notna().tolist() == stops["joint_high"].notna().tolist() == known
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
        "most clearly with 4.47 %, by 1.91 points (95 %: 1.25 to 2.57)."
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
        (
            (1.0, 2.0),
            "more",
            "Compared with A, B is more accurate at all 2 levels, most clearly with 50 %, by 2.01 points (",
        ),
        (
            (2.0,),
            "more",
            "Compared with A, B is more accurate at the one level that both have, most clearly with 100 %, ",
        ),
        (
            (-1.0, -2.0, 0.0),
            "less",
            "Compared with A, B is less accurate at 2 of 3 levels (between 100 % and 50 % of the weights), most "
            "clearly with 50 %, by 1.99 points (",
        ),
        (
            (-0.01, -1.0, 2.0),
            "both",
            "Compared with A, B is more accurate at 1 of 3 levels (with 25 % of the weights), most clearly with 25 %, "
            "by 2.01 points (",
        ),
        (
            (-0.01, -0.01),
            "open",
            "No difference in accuracy is shown between B and A: at all 2 levels it is at most ",
        ),
    ],
)
def test_the_headline_says_which_is_better_and_by_how_much(
    differences: tuple[float, ...], word: str, beginning: str
) -> None:
    found = constant(*differences)
    said = headline(found, "B", "A")
    assert (said.word, said.headline[: len(beginning)]) == (word, beginning)
    assert basis(found) == "Three pairs of replicates, 95 % for all levels together."
    if word in ("more", "less"):
        far = found.accuracy.iloc[found.accuracy["mean"].abs().argmax()]
        ends = sorted(abs(far[name]) for name in ("joint_low", "joint_high"))
        numbers = [float(x) for x in re.findall(r"\(95 %: ([\d.]+) to ([\d.]+)\)", said.headline)[0]]
        assert numbers == pytest.approx(ends, abs=0.01)
        assert numbers[0] <= ends[0] <= ends[1] <= numbers[1]  # outwards
    if word == "open":
        most = float(re.findall(r"at most ([\d.]+) points either way \(95 %\)", said.headline)[0])
        assert 0 <= most - found.accuracy[["joint_low", "joint_high"]].abs().to_numpy().max() < 0.01
    if word == "both":
        assert "and less accurate at 1 of 3 levels (with 50 % of the weights)" in said.headline


def test_what_cannot_be_told() -> None:
    single = constant(1.0, 2.0, replicates=1)
    said = headline(single, "B", "A")
    assert basis(single) == ""
    assert said.headline == (
        "No verdict between B and A: one replicate cannot tell a difference from chance. With 50 % of the weights it "
        "is +2.00 points."
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
    assert found.accuracy["low"][2] > 0
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
    how, *details = found.details
    assert how == "Three pairs of replicates, 95 % for all levels together."
    assert details[0].startswith("Dense, B is 0.00 points (0.00 to 0.00, of this level alone) from A, in test acc")
    assert details[1] == "Of 2 levels, each judged alone: 0 more accurate, 0 less, 2 undecided."
    assert details[2].startswith("B stops earlier than A at all 2 levels, most clearly with 100 %: after 0.50 of its ")
    assert details[3:] == [
        "Paired.",
        "1 level of B left out: the other run has none of that density.",
        "2 levels of A left out: the other run has none of that density.",
    ]
    unfinished = finding(Comparison(between(ours, theirs, True), complete=False), "B", "A")
    assert unfinished.headline.startswith("So far: ")
    assert together([unfinished, found], ["B", "C"], "A").startswith("So far, against A: ")


# Runs, the page and the figure


def made(path: Path, spec: Spec, accuracy: Sequence[Sequence[float]], data: dict[str, str] | None = None) -> Run:
    """A run made by hand: accuracy in percent, [replicate][level] of the trunk."""
    layout = network(spec.model, (1, 5), 2)
    binding = {"engine": "torch", "device": "cpu", "data": data or {}, "images": {"train": 60_000, "test": 10_000}}
    path.mkdir()
    run = Run.begin(path, spec, binding | {"network": layout.to_json()}, {})
    for replicate, levels in enumerate(accuracy):
        for level, percent in enumerate(levels):
            weights = {name: np.ones(tensor.shape, np.float32) for name, tensor in layout.tensors.items()}
            masks = {n: (np.arange(weights[n].size) % 2**level == 0).reshape(weights[n].shape) for n in layout.prunable}
            values: dict[str, Any] = dict.fromkeys(
                ("test_accuracy_early_stop", "test_accuracy", "train_accuracy"), percent / 100
            )
            row = Row(
                Place("rewind", replicate, level),
                density=0.5**level,
                iterations=1000,
                early_stop_iteration=100 + 100 * level + replicate,
                validation_loss_min=0.4,
                seconds=1.0,
                engine="torch",
                densities=dict.fromkeys(masks, 0.5**level),
                **values,
            )
            evaluations = history.from_rows([(n, 0.5, 0.4, 0.41, 0.9, percent / 100) for n in (100, 1000)])
            run.save(SavedLevel(weights, masks, weights, evaluations, row))
    return Run(path)


BASE = Spec(model=Model(name="mlp", hidden=(2,)), levels=1, replicates=3)
LOW = [[90.0, 80.0], [92.0, 82.5], [94.0, 84.0]]
HIGH = [[91.0, 82.0], [93.1, 84.5], [95.05, 86.1]]
"""Replicates 2 points apart, whose differences are nearly the same: about 1 dense, 2 pruned."""


def slower(spec: Spec = BASE, **settings: Any) -> Spec:
    return replace(spec, recipe=replace(spec.recipe, learning_rate=6e-4), **settings)


def test_runs_of_one_seed_and_split_are_paired(tmp_path: Path) -> None:
    first = made(tmp_path / "first", BASE, LOW)
    for name, spec, paired, why in (
        ("paired", slower(), True, "paired: both runs have seed 0 and the same split"),
        ("seed", slower(seed=1), False, "not paired, because seeds differ"),
        ("split", slower(data=Data(validation=100)), False, "not paired, because their validation images differ"),
    ):
        found = compare(made(tmp_path / name, spec, HIGH), first)
        assert found.contrast is not None
        assert (found.contrast.paired, found.complete) == (paired, True)
        assert why in found.pairing
        word = headline(found.contrast, "B", "A").word
        assert word == ("more" if paired else "open")
        assert found.contrast.accuracy["mean"].tolist() == pytest.approx([1.05, 6.1 / 3])


def test_the_sign_is_that_of_the_one_against_the_first(tmp_path: Path) -> None:
    low, high = made(tmp_path / "low", BASE, LOW), made(tmp_path / "high", slower(), HIGH)
    for ours, theirs, word in ((high, low, "more"), (low, high, "less")):
        assert finding(compare(ours, theirs), "B", "A").word == word


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    first = made(tmp_path / "first", BASE, LOW, {"images": "one"})
    other = made(tmp_path / "other", slower(data=Data(name="kmnist")), HIGH)
    files = made(tmp_path / "files", slower(), HIGH, {"images": "another"})
    nothing = made(tmp_path / "nothing", slower(), [], {"images": "one"})
    for run, why in (
        (other, "accuracies on different images, kmnist and mnist, have no common scale"),
        (files, "they were trained and tested on different files of mnist"),
        (nothing, "no dense network of nothing is finished yet"),
    ):
        found = compare(run, first)
        assert (found.contrast, found.obstacle) == (None, why)
        text = re.sub("<.*?>", "", report.page([first, run]))
        assert "are shown side by side only: " + why in text
        assert "Difference in test accuracy" not in text
        with pytest.raises(LotteryError, match=f"cannot compare {run.path.name} with first: {why}"):
            plots.compare([first, run])


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    first = made(tmp_path / "first", BASE, LOW)
    found = compare(made(tmp_path / "other", slower(replicates=4), HIGH), first)
    assert finding(found, "B", "A").headline.startswith("So far: Compared with A, B is more accurate at all 2 levels")


def test_labels_say_what_differs() -> None:
    first = flatten(PRESETS["quickstart"]) | {"engine": "sparse", "device": "cpu"}
    assert measures.run_labels([first, first | {"recipe.learning_rate": 6e-4}]) == [
        "learning rate 1.2e-3",
        "learning rate 6e-4",
    ]
    several = first | {"model.hidden": [20, 10], "model.name": "mlp", "seed": 1, "engine": "torch", "levels": 3}
    assert measures.run_labels([first, several])[1] == "network mlp, hidden units 20 and 10, seed 1 and 1 more"
    assert measures.run_labels([first, first | {"branches": []}]) == ["branches reinit", "branches none"]
    assert measures.run_labels([first, dict(first)]) == ["", ""]
    assert measures.run_labels([first, first | {"engine": "torch"}]) == ["engine sparse", "engine torch"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6e-4, "6e-4"),
        (1.2e-3, "1.2e-3"),
        (1e-10, "1e-10"),
        (0.01, "0.01"),
        (0.2, "0.2"),
        (0.0, "0"),
        (50_000, "50,000"),
        (True, "yes"),
        (False, "no"),
        ([300, 100], "300 and 100"),
        (("reinit",), "reinit"),
        ([], "none"),
        ({}, "none"),
        ({"fc3.weight": 0.1, "fc*": 0.3}, "fc3.weight 0.1, fc* 0.3"),
        ("adam", "adam"),
    ],
)
def test_settings_are_written_for_people(value: object, text: str) -> None:
    assert measures.setting_value(value) == text


def test_every_setting_has_a_name_without_dots() -> None:
    names = [measures.setting_label(name) for name in flatten(Spec())]
    assert len({*names}) == len(names)
    assert all(re.fullmatch("[a-z ]+", name) for name in names), names
    assert not set(measures.SETTINGS) - set(flatten(Spec()))


def shown(run: Run, letter: str, label: str, index: int) -> charts.Shown:
    return charts.Shown(run, letter, label, index, run.levels(), Answer(""), Margin(0.5), [])


def test_the_page_draws_the_differences(tmp_path: Path) -> None:
    first, other = made(tmp_path / "first", BASE, LOW), made(tmp_path / "other", slower(), HIGH)
    found = section.between([shown(first, "A", "slow", 0), shown(other, "B", "fast", 1)], [0, 1])
    table = compare(other, first).contrast.accuracy  # type: ignore[union-attr]
    accuracy, stops = found.charts
    (line,) = (t for t in accuracy.traces if t.get("mode") == "lines+markers")
    (band,) = (t for t in accuracy.traces if t.get("fill") == "toself")
    assert (line["x"], line["y"]) == ([100, 50], pytest.approx(table["mean"].tolist(), abs=1e-4))
    assert line["error_y"]["array"] == pytest.approx((table["high"] - table["mean"]).tolist(), abs=1e-4)
    assert line["error_y"]["arrayminus"] == pytest.approx((table["mean"] - table["low"]).tolist(), abs=1e-4)
    assert band["y"] == pytest.approx([*table["joint_high"], *table["joint_low"][::-1]], abs=1e-4)
    assert (line["meta"], line["line"]["color"], band["fillcolor"]) == (
        "B rewind",
        measures.COLOURS[1],
        measures.COLOURS[1],
    )
    assert found.headline.startswith(
        "Compared with A (slow), B (fast) is more accurate at all 2 levels, most clearly with"
    )
    assert found.details[1].startswith("Dense, B is ")  # letters: their names are in the headline
    assert found.headings == ["B − A: test accuracy", "B − A: early stop"]
    assert [row["density"] for row in found.table] == ["100 %", "50 %"]
    cell = found.table[0]["cells"][0]
    row = table.iloc[0]
    assert cell == {
        "mean": "+1.05",
        "alone": f"+{row['low']:.2f} to +{row['high']:.2f}",
        "joint": f"+{row['joint_low']:.2f} to +{row['joint_high']:.2f}",
    }
    assert [t["y"] for t in stops.traces if t.get("mode") == "lines+markers"] == [[1, 1]]
    assert [t["y"] for c in found.charts for t in c.traces if t["line"].get("dash") == "dash"] == [[0, 0], [1, 1]]


def test_the_figure_draws_the_differences(tmp_path: Path) -> None:
    first, other = made(tmp_path / "first", BASE, LOW), made(tmp_path / "other", slower(), HIGH)
    top, bottom = plots.compare([first, other])
    table = compare(other, first).contrast.accuracy  # type: ignore[union-attr]
    labels = ["learning rate 1.2e-3", "learning rate 6e-4"]
    assert top.get_legend_handles_labels()[1] == labels
    (line, _, (bars,)) = bottom.containers[0].lines  # type: ignore[attr-defined]
    assert line.get_ydata().tolist() == pytest.approx(table["mean"].tolist())
    assert line.get_color() == measures.COLOURS[1]
    ends = [sorted(y for _, y in segment) for segment in bars.get_segments()]
    assert ends == [pytest.approx([low, high]) for low, high in zip(table["low"], table["high"], strict=True)]
    shade = bottom.collections[0].get_paths()[0].vertices
    assert {round(float(y), 6) for y in {*table["joint_low"], *table["joint_high"]}} <= {
        round(float(y), 6) for _, y in np.asarray(shade)
    }
    assert bottom.get_legend_handles_labels()[1] == labels[1:]
    assert bottom.get_title("left").startswith(f"compared with {labels[0]}\n")
    figure = plots._figure(top)
    figure.draw_without_rendering()
    legend = top.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 >= top.get_window_extent().y1  # over no line
    with pytest.raises(LotteryError, match="1 runs: give 2 to 7 to compare"):
        plots.compare([first])


def test_two_real_runs(tiny: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five times the iterations, paired: levels 0 to 2 of two replicates, from the command to the page."""
    short = lottery.run(replace(tiny, replicates=2, branches=("reinit",)), runs_dir=tmp_path)
    long = replace(tiny, replicates=2, recipe=replace(tiny.recipe, iterations=150))
    other = lottery.run(long, runs_dir=tmp_path)
    found = compare(other, short)
    assert found.contrast is not None
    assert found.contrast.paired
    gain = 100 * (
        other.levels().set_index(["branch", "replicate", "level"])[found.contrast.column]
        - short.levels().set_index(["branch", "replicate", "level"])[found.contrast.column]
    )
    means = gain["rewind"].groupby("level").mean().tolist()
    assert found.contrast.accuracy["mean"].tolist() == pytest.approx(means)
    assert min(means) > 1
    assert cli.main(["report", short.path.name, other.path.name, "--runs-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    headline = finding(found, "B (iterations 150)", "A (iterations 30)").headline
    assert said == f"{headline}\nreport:  {tmp_path / 'comparison.html'}\n"
    text = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert headline in re.sub("<.*?>", "", text)
    assert "Tickets against their controls: A" in text
    assert "Tickets against their controls: B" not in text  # no other branch
    against = section.within(shown(short, "", "", 0), [0, 1, 2])
    assert against is not None
    assert against.headings[0] == "ticket − random reinitialisation: test accuracy"
    assert [*re.findall("rewind|reinit\\b", " ".join(against.details))] == []  # names for people
    assert against.details[0].endswith("Two pairs of replicates, 95 % for all levels together.")
    (ax,) = plots.controls(short).figure.axes
    assert ax.get_legend_handles_labels()[1] == ["ticket − random reinitialisation"]
    with pytest.raises(plots.NothingToShow, match="no control to compare with"):
        plots.controls(other)
