"""One run, seen in every way that there is: whoever averages, averages alike; and every number in its place.

The run is made by hand, so that no two numbers of it are alike: columns swapped, factors forgotten, axes of another
kind, bars turned round and intervals in the place of extremes all show.
"""

import base64
import html
import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from rich.console import Console

import lottery
from lottery import models
from lottery.analysis.answer import Answer, answer_of
from lottery.analysis.frames import branches_of
from lottery.analysis.statistics import summary
from lottery.analysis.verdicts import Margin, judge
from lottery.engines import history
from lottery.runs.experiment import Progress
from lottery.runs.rows import Place, Row
from lottery.runs.store import Run, SavedLevel
from lottery.starts import STARTS
from lottery.views import measures, plots, report, terminal
from lottery.views.report import charts, layers
from lottery.words import branch_name

DRAWS = {(0, 0): (300, 0.80), (0, 1): (500, 0.86), (1, 0): (800, 0.91)}
"""(replicate, draw) -> early-stop iteration and test accuracy: 400 and 83 % in replicate 0, 800 and 91 % in 1. The mean
of the replicates is 600 and 87 %; that of all draws, 533 and 85.67 %, is none of anything."""


def begin(path: Path, spec: lottery.Spec) -> Run:
    path.mkdir()
    network = models.network(spec.model, (1, 5), 2).to_json()
    images = {"train": 60_000, "test": 10_000}
    binding = {"engine": "torch", "device": "cpu", "data": {}, "images": images, "network": network}
    return Run.begin(path, spec, binding, {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two replicates, of which one has drawn level 1 twice, as in a run at work."""
    model = lottery.Model(name="mlp", hidden=(2,))
    made = begin(tmp_path / "run", lottery.Spec(model=model, levels=1, replicates=2, branches=("reinit:2",)))
    for replicate in (0, 1):
        _save(made, Place("rewind", replicate, 0), 200 + 200 * replicate, 0.95)
        _save(made, Place("rewind", replicate, 1), 100, 0.96)
    for (replicate, draw), (stop, accuracy) in DRAWS.items():
        _save(made, Place("reinit", replicate, 1, draw), stop, accuracy)
    return lottery.open_run(made.path)


def _save(run: Run, place: Place, stop: int, accuracy: float) -> None:
    weights = {name: np.ones(tensor.shape, np.float32) for name, tensor in run.network.tensors.items()}
    masks = {
        n: (np.arange(weights[n].size) % 2**place.level == 0).reshape(weights[n].shape) for n in run.network.prunable
    }
    values: dict[str, Any] = dict.fromkeys(("test_accuracy_early_stop", "test_accuracy", "train_accuracy"), accuracy)
    row = Row(
        place,
        density=0.5**place.level,
        iterations=1000,
        early_stop_iteration=stop,
        validation_loss_min=0.4,
        seconds=stop / 10,
        engine="torch",
        densities=dict.fromkeys(masks, 0.5**place.level),
        **values,
    )
    evaluations = history.from_rows([(stop, 0.5, 0.4, 0.41, 0.9, accuracy), (1000, 0.3, 0.6, 0.41, 0.9, accuracy)])
    run.save(SavedLevel(weights, masks, weights, evaluations, row))


STOP, ACCURACY, SECONDS = (600, 400, 800), (87, 83, 91), (60, 40, 80)
"""Mean, minimum and maximum over replicates, each the mean of its draws."""


def test_all_views_average_draws_first(run: Run) -> None:
    seen = {
        "summary": [_summary(run, "early_stop_iteration"), _summary(run, "test_accuracy_early_stop", 100)],
        "terminal": _terminal(run),
        "plots": [_bars(plots.early_stop(run)), _bars(plots.accuracy(run)), _bars(plots.seconds(run))],
        "training": _bars(plots.against_density(plots.branch_lines(run.levels(), ["reinit"]), "test_accuracy")),
        "report": _report(run),
        "charts": [_trace(run, column) for column in ("early_stop_iteration", "test_accuracy", "seconds")],
    }
    assert seen == {
        "summary": _about(STOP, ACCURACY),
        "terminal": _about(STOP, ACCURACY, ACCURACY, SECONDS[:1]),
        "plots": _about(STOP, ACCURACY, SECONDS),
        "training": _about(ACCURACY)[0],
        "report": _about(STOP, ACCURACY, ACCURACY, ACCURACY, SECONDS),
        "charts": _about(STOP, ACCURACY, SECONDS),
    }


def _about(*found: Sequence[float]) -> list[Any]:
    return [pytest.approx(numbers) for numbers in found]


def _summary(run: Run, column: str, factor: float = 1) -> list[float]:
    found = summary(run.levels(), column)
    (row,) = found[(found["branch"] == "reinit") & (found["level"] == 1)].to_dict("records")
    return [factor * row[end] for end in ("mean", "min", "max")]


def text_of(shown: Any, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(shown)
    return out.getvalue()


def _terminal(run: Run) -> list[list[float]]:
    (cells,) = re.findall(r"\nreinit\n.*?1 +50\.00 (.*?)\n", text_of(terminal.level_table(run)), re.DOTALL)
    return [[float(x) for x in re.findall(r"[\d.]+", cell)] for cell in re.split(r"(?<=\))", cells)]


def bars_of(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, (x, y)] and ends of their error bars [n, (low, high)] of a line."""
    (bars,) = (container for container in ax.containers if container.get_label() == branch_name(label))
    assert isinstance(bars, ErrorbarContainer)
    points, _, (spread,) = bars.lines
    assert isinstance(spread, LineCollection)
    ends = np.array([segment[:, 1] for segment in spread.get_segments()])
    return np.asarray(points.get_xydata(), float), ends


def _bars(ax: Axes) -> list[float]:
    points, ends = bars_of(ax, "reinit")
    return [points[1, 1], *ends[1]]


def _report(run: Run) -> list[list[float]]:
    (row,) = re.findall(r'<tr data-key="reinit">.*?</tr>', report.page([run]), re.DOTALL)
    cells = re.findall(r">([\d.]+)<small>([\d.]+)–([\d.]+)</small>", row)
    return [[float(x) for x in cell] for cell in cells]


def _trace(run: Run, column: str) -> list[float]:
    chart = charts.against_density([shown(run)], [0, 1], "name", column)
    (line,) = (t for t in chart.traces if t["meta"] == "reinit" and "fill" not in t)
    return [line["y"][1], *(bound[1] for bound in band_of(chart, "reinit"))]


def shown(run: Run) -> charts.Shown:
    return charts.Shown(run, "", "", 0, run.levels(), Answer(""), Margin(0.5), [])


def band_of(chart: charts.Chart, key: str | None) -> tuple[list[float], list[float]]:
    """The lower and the upper line of an area, both from dense to sparse."""
    (area,) = (t for t in chart.traces if t.get("meta") == key and t.get("fill") == "toself")
    half = len(area["x"]) // 2
    assert area["x"][:half] == area["x"][half:][::-1]
    return area["y"][half:][::-1], area["y"][:half]


# --- a run whose numbers are all different ---------------------------------------------------------------------------

COLUMNS: dict[str, tuple[float, list[list[float]]]] = {
    "early_stop_iteration": (1, [[100, 130, 250], [70, 75, 101], [40, 52, 79]]),
    "test_accuracy_early_stop": (100, [[0.90, 0.91, 0.95], [0.92, 0.935, 0.96], [0.80, 0.81, 0.88]]),
    "test_accuracy": (100, [[0.89, 0.895, 0.94], [0.915, 0.93, 0.955], [0.79, 0.80, 0.85]]),
    "train_accuracy": (100, [[0.97, 0.98, 0.999], [0.975, 0.985, 0.997], [0.94, 0.95, 0.99]]),
    "seconds": (1, [[20.0, 21.0, 29.0], [11.0, 12.0, 16.0], [6.0, 7.0, 11.0]]),
}
"""Column of levels.csv -> factor to what is shown, values [level, replicate]: skewed, so that neither an interval nor
a bar that is turned round has the same ends as minimum and maximum."""

DENSITY = (100.0, 40.0, 10.0)
"""Percent, of levels 0 to 2; none of them is the sparsity of another."""

LOSS = (0.51, 0.47, 0.63)
"""The lowest validation loss of replicate 0 at each level; 0.01 more in the next."""

ITERATIONS = (1, 7, 20, 33, 47, 60, 200)
"""Evaluated at."""


@pytest.fixture(params=["rewind", "continue"])
def trunk(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Three replicates of a trunk alone, under either start rule."""
    model = lottery.Model(name="mlp", hidden=(2,))
    made = begin(tmp_path / "run", lottery.Spec(model=model, levels=2, replicates=3, start=request.param))
    for level, density in enumerate(DENSITY):
        for r in range(3):
            values: dict[str, Any] = {column: each[level][r] for column, (_, each) in COLUMNS.items()}
            loss = LOSS[level] + 0.01 * r
            row = Row(
                Place(request.param, r, level),
                density / 100,
                iterations=200,
                validation_loss_min=loss,
                engine="torch",
                densities={"fc1.weight": density / 100, "fc2.weight": density / 200},
                **values,
            )
            evaluations = [(i, 0.9, loss + abs(i - 33) / 100, 0.5, 0.9, 0.8 + i / 2000) for i in ITERATIONS]
            weights = {name: np.ones(t.shape, np.float32) for name, t in made.network.tensors.items()}
            masks = {name: np.ones(weights[name].shape, bool) for name in made.network.prunable}
            made.save(SavedLevel(weights, masks, weights, history.from_rows(evaluations), row))
    return made


def expected(column: str) -> list[list[float]]:
    """Mean, minimum and maximum, each by level, as they are shown."""
    factor, values = COLUMNS[column]
    x = factor * np.array(values, float)
    return [x.mean(axis=1).tolist(), x.min(axis=1).tolist(), x.max(axis=1).tolist()]


def assert_line(ax: Axes, label: str, column: str) -> None:
    points, ends = bars_of(ax, label)
    mean, low, high = expected(column)
    assert points[:, 0] == pytest.approx(DENSITY, rel=0.01)  # lines are a little aside of each other
    assert points[:, 1] == pytest.approx(mean)
    assert ends[:, 0] == pytest.approx(low)
    assert ends[:, 1] == pytest.approx(high)


def assert_density_axis(ax: Axes) -> None:
    assert ax.get_xscale() == "log"
    left, right = ax.get_xlim()
    assert left > 100 > 10 > right
    assert ax.get_xlabel() == "weights left (%)"
    assert ax.xaxis.get_major_locator()().tolist() == [100, 40, 10]  # type: ignore[attr-defined]
    assert ax.xaxis.get_major_formatter().format_ticks([100, 40, 10]) == ["100", "40.0", "10.0"]


def test_figures_against_density(trunk: Run) -> None:
    ax = plots.accuracy(trunk)
    assert_line(ax, "at early stop", "test_accuracy_early_stop")
    assert_line(ax, "at the end", "test_accuracy")
    assert ax.get_ylabel() == "test accuracy (%)"
    assert_density_axis(ax)
    (note,) = ax.texts
    assert (
        note.get_text()
        == "highest of 3 levels: 93.83 % with 40 % of the weights;\nthe highest of many is partly chance"
    )
    assert note.xy == pytest.approx((40, 93.8333), rel=1e-5)  # type: ignore[attr-defined]
    for draw, column, label in (
        (plots.early_stop, "early_stop_iteration", "early stop (iterations)"),
        (plots.seconds, "seconds", "training time (s)"),
    ):
        ax = draw(trunk)
        assert_line(ax, trunk.spec.start, column)
        assert (ax.get_ylabel(), ax.get_yscale(), ax.get_ylim()[0]) == (label, "linear", 0)
        assert_density_axis(ax)


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("early_stop_iteration", "early stop (iterations)"),
        ("test_accuracy_early_stop", "test accuracy at early stop (%)"),
        ("test_accuracy", "test accuracy at the end (%)"),
        ("train_accuracy", "training accuracy at the end (%)"),
    ],
)
def test_panels_against_density(trunk: Run, column: str, label: str) -> None:
    ax = plots.against_density([plots.Line("ours", trunk.levels())], column)
    assert_line(ax, "ours", column)
    assert ax.get_ylabel() == label
    assert_density_axis(ax)


def test_error_bars_of_two_lines_are_side_by_side_but_for_the_dense_network(run: Run) -> None:
    ax = plots.accuracy(run)
    ours, theirs = (bars_of(ax, branch)[0] for branch in ("rewind", "reinit"))
    assert ours[0].tolist() == theirs[0].tolist()
    assert 50.5 > ours[1, 0] > 50 > theirs[1, 0] > 49.5


def test_sparsity_of_each_layer(trunk: Run) -> None:
    ax = plots.layers(trunk)
    lines = {str(line.get_label()): np.asarray(line.get_xydata(), float) for line in ax.lines}
    assert list(lines) == ["overall", "fc1.weight", "fc2.weight"]
    for name, sparsity in (("overall", [0, 60, 90]), ("fc1.weight", [0, 60, 90]), ("fc2.weight", [50, 80, 95])):
        assert lines[name] == pytest.approx(np.transpose([[0, 1, 2], sparsity]))
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("linear", "level (times pruned)", "sparsity (%)")


@pytest.mark.parametrize(
    ("column", "factor", "label"),
    [("validation_loss", 1, "validation loss (nats)"), ("test_accuracy", 100, "test accuracy (%)")],
)
def test_training_of_a_run(trunk: Run, column: str, factor: float, label: str) -> None:
    ax = plots.training(trunk, 2, column)
    lines = [line for line in ax.lines if line.get_marker() == "None"]
    marks = [np.asarray(line.get_xydata(), float)[0].tolist() for line in ax.lines if line.get_marker() == "o"]
    places = [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)]
    for line, (level, replicate) in zip(lines, places, strict=True):
        values = trunk.load(trunk.spec.start, replicate, level).history
        assert np.asarray(line.get_xdata()).tolist() == list(ITERATIONS)
        assert np.asarray(line.get_ydata()) == pytest.approx(factor * values[column])
        assert line.get_color() == ("0.7" if level == 0 else measures.colour(trunk.spec.start))
    stops = COLUMNS["early_stop_iteration"][1][2]
    heights = [0.63, 0.64, 0.65] if column == "validation_loss" else [80, 81, 88]
    assert marks == [pytest.approx(mark) for mark in zip(stops, heights, strict=True)]
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "training iteration", label)


HISTORY = ("branch", "replicate", "draw", "level", "density", "iteration")


def test_while_training_draws_are_averaged_first() -> None:
    """With a third replicate of 90 %, so that the mean is 88 % and not halfway between 83 and 91."""
    rows = [
        ("reinit", r, draw, 1, 0.5, i, accuracy + i / 1e5)
        for (r, draw), (_, accuracy) in (DRAWS | {(2, 0): (0, 0.90)}).items()
        for i in (10, 20, 30, 40)
    ]
    frame = pd.DataFrame(rows, columns=[*HISTORY, "test_accuracy"])
    ax = plots.while_training(frame, "test_accuracy", [("reinit", 1)])
    assert np.asarray(ax.lines[0].get_xydata(), float) == pytest.approx(
        np.array([[i, 88 + i / 1000] for i in (10, 20, 30, 40)])
    )
    (bars,) = (c for c in ax.collections if isinstance(c, LineCollection))
    ends = [np.asarray(segment)[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([83 + i / 1000, 91 + i / 1000]) for i in (10, 20, 30, 40)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("training iteration", "test accuracy (%)")


def test_while_training_the_first_branch_is_the_plain_one() -> None:
    rows = [(branch, 0, 0, 1, 0.5, i, 0.5) for branch in ("continue", "reinit") for i in (10, 20)]
    frame = pd.DataFrame(rows, columns=[*HISTORY, "validation_loss"])
    ax = plots.while_training(frame, "validation_loss", [("continue", 1), ("reinit", 1)])
    styles = {line.get_label(): line.get_linestyle() for line in ax.lines}
    assert styles == {"50.0 %": "-", "50.0 % (random reinitialisation)": "--"}
    assert ax.get_ylabel() == "validation loss (nats)"


# --- the page's charts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "title", "axis"),
    [
        ("accuracy", "Test accuracy at early stop", "test accuracy at early stop (%)"),
        ("early_stop", "Early stop", "early stop (iterations)"),
        ("end", "Test accuracy at the end", "test accuracy at the end (%)"),
        ("train", "Training accuracy at the end", "training accuracy at the end (%)"),
        ("seconds", "Training time", "training time (s)"),
    ],
)
def test_charts_against_density(trunk: Run, name: str, title: str, axis: str) -> None:
    column = {"accuracy": "test_accuracy_early_stop", "early_stop": "early_stop_iteration", "end": "test_accuracy"}
    column |= {"train": "train_accuracy", "seconds": "seconds"}
    assert column == charts.OVERVIEW | {"seconds": "seconds"}
    chart = charts.against_density([shown(trunk)], [0, 1, 2], name, column[name])
    mean, low, high = expected(column[name])
    (line,) = (t for t in chart.traces if "fill" not in t)
    assert line["x"] == pytest.approx(DENSITY)
    assert line["y"] == pytest.approx(mean, abs=1e-4)
    least, most = band_of(chart, trunk.spec.start)
    assert least == pytest.approx(low)
    assert most == pytest.approx(high)
    factor, values = COLUMNS[column[name]]
    m = measures.measure(column[name])
    for text, level in zip(line["text"], range(3), strict=True):
        shown_mean, *each = [float(x) for x in re.findall(r"\d+\.?\d*", text)]
        assert shown_mean == pytest.approx(mean[level], abs=0.5 if factor == 1 else 0.005)
        assert each == pytest.approx([factor * v for v in values[level]])
        assert text.startswith(f"{m.words(mean[level] / factor)} <i>(")
    assert line["hovertemplate"] == f"%{{text}}<extra>{branch_name(trunk.spec.start)}</extra>"
    assert chart.layout["hovermode"] == "x unified"
    assert chart.layout["xaxis"]["unifiedhovertitle"]["text"] == "%{x:.3g} % weights left"
    assert (chart.title, chart.layout["yaxis"]["title"]["text"]) == (title, axis)
    assert "type" not in chart.layout["yaxis"]
    x = chart.layout["xaxis"]
    assert (x["type"], x["title"]["text"], x["tickvals"]) == ("log", "weights left (%)", [100, 40, 10])
    assert x["ticktext"] == ["100", "40", "10"]
    assert x["range"][0] > 2 > 1 > x["range"][1] > 0.9
    assert chart.marks == [[100], [40], [10]]
    best = (max if name in ("accuracy", "end", "train") else min)(range(3), key=lambda level: mean[level])
    assert f"{m.words(mean[best] / factor)} with {DENSITY[best]:g} % of the weights" in chart.says
    assert chart.says.startswith(f"{title} against weights left. {branch_name(trunk.spec.start)}: ")


@pytest.mark.parametrize("every", [1, 3, 4])
def test_charts_of_training(trunk: Run, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = 2 * 9 * len(ITERATIONS)
    monkeypatch.setattr(charts, "HISTORY_BYTES", numbers * 8 / 3 / every)
    arrays = charts.Arrays()
    loss, accuracy = charts.training([shown(trunk)], [0, 1, 2], arrays)
    kept = {1: list(ITERATIONS), 3: [1, 33, 200], 4: [1, 47, 200]}[every]
    for chart, column, factor in ((loss, "validation_loss", 1), (accuracy, "test_accuracy", 100)):
        for level, traces in enumerate(chart.by_level):
            *lines, stops = traces
            for replicate, line in enumerate(lines):
                values = trunk.load(trunk.spec.start, replicate, level).history
                at = np.isin(values["iteration"], kept)
                assert unpacked(arrays, line["x"]) == pytest.approx(kept)
                assert unpacked(arrays, line["y"]) == pytest.approx(factor * values[column][at], rel=1e-3)
            assert len(lines) == 3
            assert stops["mode"] == "markers"
            assert stops["x"] == COLUMNS["early_stop_iteration"][1][level]
            height = {"validation_loss": [LOSS[level] + 0.01 * r for r in range(3)]}
            height["test_accuracy"] = [100 * v for v in COLUMNS["test_accuracy_early_stop"][1][level]]
            assert stops["y"] == pytest.approx(height[column])
            stop = np.mean(stops["x"])
            assert (
                f"at level {level}. {branch_name(trunk.spec.start)} stops at iteration {stop:,.0f} with "
                in chart.says_by_level[level]
            )
        assert [line["line"]["color"] for line in chart.traces] == 3 * ["dense"]
        x = chart.layout["xaxis"]
        assert (x["type"], x["title"]["text"]) == ("log", "training iteration")
        assert x["range"] == pytest.approx([np.log10(0.9), np.log10(210)])
    assert (loss.title, loss.layout["yaxis"]["title"]["text"]) == ("Validation loss", "validation loss (nats)")
    assert (accuracy.title, accuracy.layout["yaxis"]["title"]["text"]) == ("Test accuracy", "test accuracy (%)")
    assert loss.layout["yaxis"]["type"] == "log"
    assert loss.layout["yaxis"]["range"][0] < np.log10(LOSS[1]) < 0 < loss.layout["yaxis"]["range"][1] < 1
    assert "type" not in accuracy.layout["yaxis"]
    assert accuracy.layout["yaxis"]["range"] == pytest.approx([80.35 - 0.386, 90 + 0.386])


def unpacked(arrays: charts.Arrays, index: int) -> list[float]:
    packed = arrays.packed[index]
    return [packed["step"] * n for n in np.frombuffer(base64.b64decode(packed["values"]), "<u2").tolist()]


def test_charts_of_layers(trunk: Run) -> None:
    tickets = layers.tickets(shown(trunk), [0, 1, 2])
    assert tickets
    found = {chart.name: chart for chart in tickets.charts}
    by_level = found["run_layers"]
    assert [t["name"] for t in by_level.traces] == ["fc1", "fc2"]
    assert all((t["x"], t["y"]) == ([0, 1, 2], [100, 100, 100]) for t in by_level.traces)  # the masks keep everything
    assert by_level.layout["yaxis"]["type"] == "log"
    assert by_level.layout["yaxis"]["title"]["text"] == "weights left (%)"
    overlap = found["run_overlap"]
    assert [t.get("y") for t in overlap.traces[1:]] == [[1, 1], [1, 1, 1]]
    assert band_of(overlap, None) == ([1, 1, 1], [1, 1, 1])


# --- tables ----------------------------------------------------------------------------------------------------------


def test_headings_and_cells_of_the_terminal(trunk: Run) -> None:
    table = terminal.level_table(trunk)
    assert [heading.replace("\n", " ") for heading in table.parts[0].headings] == [
        "level",
        "weights left (%)",
        "early stop (iterations)",
        "test accuracy at early stop (%)",
        "test accuracy at the end (%)",
        "training time (s)",
    ]
    (line,) = (line for line in text_of(table).splitlines() if re.match(" +1 ", line))
    assert re.split(r"  +", line.strip()) == [
        "1",
        "40.00",
        "82 (70 to 101)",
        "93.83 (92.00 to 96.00)",
        "93.33 (91.50 to 95.50)",
        "13.0",
    ]


def test_headings_and_cells_of_the_page(trunk: Run) -> None:
    text = report.page([trunk])
    table = text[text.index('<table class="sortable">') :]
    assert re.findall(r"<button type=\"button\">(.*?)</button>", table) == [
        "branch",
        "level",
        "weights left (%)",
        "early stop (iterations)",
        "test accuracy at early stop (%)",
        "test accuracy at the end (%)",
        "training accuracy at the end (%)",
        "training time (s)",
        "accuracy − dense (points)",
        "stops after (× dense)",
        "verdict",
    ]
    row = re.findall(r"<tr data-key.*?</tr>", table, re.DOTALL)[1]
    cells = [re.sub(r"<.*?>", " ", cell).split() for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)]
    assert cells[1:-1] == [
        ["1"],
        ["40.00"],
        ["82", "70–101"],
        ["93.83", "92.00–96.00"],
        ["93.33", "91.50–95.50"],
        ["98.57", "97.50–99.70"],
        ["13.0", "11.0–16.0"],
        # differences 2, 2.5, 1; ratios 0.7, 75 / 130, 101 / 250
        ["+1.83", "−0.06", "to", "+3.73", "≥", "−1.58"],
        ["0.55", "0.27", "to", "1.09", "≤", "0.93"],
    ]
    found = judge(trunk.levels(), 0.5).iloc[0]
    assert found["matching_bound"] == pytest.approx(-1.575, abs=0.005)
    assert found["no_later_bound"] == pytest.approx(0.925, abs=0.005)


def test_headings_and_cells_of_a_notebook(trunk: Run) -> None:
    text = plots.notebook_html(trunk)
    assert re.findall(r"<th>(.*?)</th>", text) == [
        "level",
        "weights left (%)",
        "early stop (iterations)",
        "test accuracy at early stop (%)",
        "test accuracy at the end (%)",
    ]
    assert re.findall(r"<td>(.*?)</td>", text)[5:10] == ["1", "40.00", "82", "93.83", "93.33"]


# --- the answer, and the verdicts -----------------------------------------------------------------------------------

LONG = ("random_mask_reinit", "reinit_from_ticket")


def judged(
    path: Path,
    replicates: int = 3,
    levels: int = 3,
    branches: Sequence[str] = ("reinit",),
    validation: int = 5000,
    wanted: int = 3,
) -> Run:
    """Tickets are half a point better than the dense network and stop after 0.8 of its iterations; branches fall behind
    by 1 to 9 points, the second by three times as much, and stop later. Replicates differ a little.

    Args:
        path: of the run, which asks for three levels.
        replicates: that are finished.
        levels: of them that are finished.
        branches: of start rules.
        validation: images held out.
        wanted: replicates that the run asks for.
    """
    model, data = lottery.Model(name="mlp", hidden=(2,)), lottery.Data(validation=validation)
    spec = lottery.Spec(data=data, model=model, levels=3, replicates=wanted, branches=tuple(branches))
    run = begin(path, spec)
    for r in range(replicates):
        for level in range(levels + 1):
            _save_one(run, Place("rewind", r, level), 10_000 if level == 0 else 8000, 97 + r / 10 + (level > 0) / 2)
            for i, branch in enumerate(branches if level else ()):
                behind = (1, 3)[i] * level**2 + r * level / 50
                _save_one(run, Place(branch, r, level), 10_500 + 1000 * level, 97 + r / 10 - behind)
    return run


def _save_one(run: Run, place: Place, stop: int, percent: float) -> None:
    """A level whose accuracies and stop are these, the latter a little different in each replicate."""
    stop += 20 * place.replicate * (place.level + 1)
    early = run.spec.data.validation > 0
    accuracy = percent / 100
    row = Row(
        place,
        density=0.2**place.level,
        iterations=50_000,
        early_stop_iteration=stop if early else None,
        test_accuracy_early_stop=accuracy if early else None,
        validation_loss_min=0.4 if early else None,
        test_accuracy=accuracy,
        train_accuracy=accuracy,
        seconds=1234.5 / (place.level + 1),
        engine="torch",
        densities=dict.fromkeys(run.network.prunable, 0.2**place.level),
    )
    loss = 0.4 if early else float("nan")
    evaluations = history.from_rows([(i, loss, loss, 0.4, 0.9, accuracy) for i in (stop, 50_000)])
    weights = {name: np.ones(tensor.shape, np.float32) for name, tensor in run.network.tensors.items()}
    masks = {name: np.ones(weights[name].shape, bool) for name in run.network.prunable}
    run.save(SavedLevel(weights, masks, weights, evaluations, row))


CASES: list[tuple[dict[str, Any], str]] = [
    ({}, "Winning tickets down to 0.8 % of the weights (shown at 3 of 3 levels): accuracy at most 0.1"),
    ({"branches": ()}, "Tickets match the dense network down to 0.8 % of the weights (at most 0.1"),
    ({"branches": LONG}, "Tickets match the dense network down to 0.8 % of the weights (at most 0.1"),
    ({"validation": 0}, "Tickets match the dense network after the last iteration down to 0.8 % of the weights"),
    ({"replicates": 1, "wanted": 1}, "No verdict: one replicate cannot tell a winning ticket from chance."),
    ({"levels": 0}, "The dense network reaches 97.10 % test accuracy (97.00 to 97.20 % in 3 replicates); there is no"),
    (
        {"replicates": 2},
        "No verdict yet: it takes every level and replicate of the tickets and of random reinitialisation, and of "
        "these 7 ",
    ),
    ({"replicates": 0}, "No dense network is finished yet, so there is nothing to compare."),
]


UNFINISHED: list[dict[str, Any]] = [{"levels": 0}, {"replicates": 2}, {"replicates": 0}]
"""Those of them whose page waits for more."""


@pytest.mark.parametrize(("made", "begins"), CASES)
def test_every_view_begins_with_the_same_sentence(made: dict[str, Any], begins: str, tmp_path: Path) -> None:
    run = judged(tmp_path / "run", **made)
    found = answer_of(run)
    assert found.headline.startswith(begins)
    page = report.page([run])
    (headline,) = re.findall(r'<p class="answer">(.*?)</p>', page)
    details = re.findall(r'<p class="detail">(.*?)</p>', page)
    assert [html.unescape(re.sub("<.*?>", "", text)) for text in (headline, *details)] == [
        found.headline,
        *found.details,
    ]
    assert ("This page loads itself again every 30 seconds" in page) == (made in UNFINISHED)
    assert repr(run) == f"<Run {run.path}: {found.headline}>"
    assert f"<br>{html.escape(found.headline)}</p>" in plots.notebook_html(run)
    sentences = [found.headline, *found.details[: measures.SENTENCES]]
    assert text_of(terminal.answer(run), 10_000).splitlines() == [*sentences, ""]
    narrow = text_of(terminal.answer(run), 80).splitlines()
    assert " ".join(line.rstrip() for line in narrow) == " ".join([*sentences, ""])
    assert max(map(len, narrow)) <= 80


def test_no_level_has_a_verdict_before_the_run_has_one(tmp_path: Path) -> None:
    """A branch that is finished has none either while tickets are not; one that is not has none when they are."""

    def verdicts(path: Path, aside: str) -> dict[str, list[str]]:
        run = judged(path, branches=("reinit", "one_shot"))
        shutil.rmtree(run.path / aside)
        run = lottery.open_run(path)
        rows = rows_of(text_of(terminal.ticket_table(run, 2.0)))
        page = re.findall(r'<td data-value="([^"]*)">[^<]*(?:<small>shown</small>)?</td></tr>', report.page([run]))
        assert any(page) == (aside[:8] == "one_shot")
        return {branch: [line.split()[-1] for line in by_level.values()] for branch, by_level in rows.items()}

    nothing = dict.fromkeys(("rewind", "reinit", "one_shot"), 3 * ["–"])
    assert verdicts(tmp_path / "a", "rewind/replicate-2/level-03") == nothing
    assert verdicts(tmp_path / "b", "reinit/replicate-2/level-03") == nothing
    assert verdicts(tmp_path / "c", "one_shot/replicate-2/level-03") == nothing | {
        "rewind": 3 * ["(shown)"],
        "reinit": ["(shown)", "no", "no"],
    }


def test_a_margin_reaches_every_view(tmp_path: Path) -> None:
    run = judged(tmp_path / "run")
    expected = answer_of(run, 0.75).headline
    assert "accuracy at most 0.75 points below" in expected
    assert text_of(terminal.answer(run, 0.75), 10_000).splitlines()[0] == expected
    assert expected in re.sub("<.*?>", "", report.page([run], margin=0.75))
    table = " ".join(text_of(terminal.ticket_table(run, 0.75), 80).split())
    assert "Matching: at most 0.75 points less accurate than the dense network (the margin, set by --margin)." in table
    default = " ".join(text_of(terminal.ticket_table(run), 80).split())
    assert "(the margin, one standard error of an accuracy of 97.1 % on 10,000 test images)." in default


def rows_of(text: str) -> dict[str, dict[int, str]]:
    """Branch, or "" where there is only the trunk, -> level -> its line in a table of the terminal."""
    rows: dict[str, dict[int, str]] = {}
    branch = ""
    for line in text.splitlines():
        if re.fullmatch(r"[a-z_]+ *", line):
            branch = line.strip()
        elif found := re.match(r" +(\d+) +\d+\.\d\d ", line):
            rows.setdefault(branch, {})[int(found[1])] = line
    return rows


def test_branches_have_verdicts_of_their_own(tmp_path: Path) -> None:
    """Judged as winning tickets, as what matches, and as what matches."""
    run = judged(tmp_path / "run", branches=("reinit", "one_shot"))
    rows = rows_of(text_of(terminal.ticket_table(run, 2.0)))
    assert {branch: [line.split()[-1] for line in by_level.values()] for branch, by_level in rows.items()} == {
        "rewind": ["(shown)", "(shown)", "(shown)"],
        "reinit": ["(shown)", "no", "no"],  # 1, 4 and 9 points behind
        "one_shot": ["no", "no", "no"],  # 3, 12 and 27
    }
    text = text_of(terminal.ticket_table(run, 2.0))
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("level")] == [
        *("winning", "matching", "matching")
    ]


def test_what_a_verdict_rests_on_stands_beside_it(tmp_path: Path) -> None:
    run = judged(tmp_path / "run")
    for branch, by_level in rows_of(text_of(terminal.ticket_table(run))).items():
        found = judge(run.levels(), 0.5, branch).set_index("level")
        for level, line in by_level.items():
            row = found.loc[level]
            numbers = [float(x.replace("−", "-")) for x in re.findall(r"[+−]?\d+(?:\.\d+)?", line)]
            conditions = ["matching", "no_later", *(["beats_reinit"] if branch == "rewind" else [])]
            ends = [f"{name}_{end}" for name in conditions for end in ("mean", "bound", "low", "high")]
            assert numbers == pytest.approx([level, 100 * row["density"], row["n"], *row[ends]], abs=0.0101)
            bounds = [float(x.replace("−", "-")) for x in re.findall(r"[≥≤] (\S+)", line)]
            assert bounds[0] <= row["matching_bound"]  # rounded to the safe side
            assert bounds[1] >= row["no_later_bound"]
    page = report.page([run], margin=0.5)
    rows = re.findall(r'<tr data-key="rewind">(.*?)</tr>', page, re.DOTALL)
    assert (
        re.findall(r">([^<>]+)</?small", rows[2])[-9:]
        == [
            *("+0.50", "+0.50 to +0.50", "≥ +0.49"),
            *("0.80", "0.80 to 0.80", "≤ 0.81"),
            *("+4.52", "+4.42 to +4.62", "≥ +4.40"),
        ]
        or rows[2]
    )


def test_without_validation_nothing_is_said_of_stopping(tmp_path: Path) -> None:
    run = judged(tmp_path / "run", validation=0)
    text = text_of(terminal.ticket_table(run), 80)
    assert "stops after" not in text
    assert "Winning" not in text
    assert [line.split()[-1] for line in rows_of(text)["rewind"].values()] == ["yes", "yes", "yes"]
    headings = re.findall(r'<button type="button">(.*?)</button>', report.page([run]))
    assert headings[-3:] == ["accuracy − dense (points)", "accuracy − reinit (points)", "verdict"]


@pytest.mark.parametrize("made", [made for made, _ in CASES])
def test_80_columns_lose_nothing(made: dict[str, Any], tmp_path: Path) -> None:
    """What a wide console says in a line, a narrow one says in two: every number and every name whole."""
    run = judged(tmp_path / "run", **made)
    for shown in (terminal.level_table(run), terminal.ticket_table(run)):
        narrow, wide = text_of(shown, 80), text_of(shown, 500)
        assert max(map(len, narrow.splitlines())) <= 80
        assert "…" not in narrow
        assert words(narrow) == words(wide)
    levels = run.levels()
    several = len(branches_of(levels)) > 1
    for branch in branches_of(levels) if several else ():
        assert f"\n{branch}\n" in "\n".join(
            line.rstrip() for line in text_of(terminal.level_table(run), 80).splitlines()
        )
    cells = words(text_of(terminal.level_table(run), 80))
    for row in measures.table(levels, ("early_stop_iteration", "test_accuracy_early_stop", "test_accuracy")):
        for cell in row.cells:
            assert cell.mean in cells
            assert cell.spread is None or set(cell.spread) <= set(cells)


def words(text: str) -> list[str]:
    return sorted(re.sub("[()─]", " ", text).split())


def test_bars_fit_80_columns() -> None:
    spec = lottery.Spec(levels=24, replicates=10, branches=("random_mask_reinit:12", "reinit_from_ticket"))
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="truecolor", legacy_windows=False)
    places = [Place("rewind", 0, 4), Place("random_mask_reinit", 9, 21, 11), Place("reinit_from_ticket", 9, 21)]
    with terminal.Display(spec, console, Path("none")) as display:
        clock = iter(range(10**6))
        display.bars.get_time = lambda: next(clock)
        display(Progress(places[0], 0, float("nan"), note="compiling the kernels, this once: half a minute"))
        for iteration in (100, 200, 300):
            for place in places:
                display(Progress(place, iteration, 0.93512, done=iteration / 50_000))
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n").splitlines()
    assert "rewind  replicate 0: compiling the kernels, this once: half a minute" in [line.rstrip() for line in lines]
    for name, level in (
        *(("rewind 0", "4/24"), ("random_mask_reinit 9 draw 11", "21/24"), ("reinit_from_ticket 9", "21/24")),
    ):
        (*_, last) = (line for line in lines if line.startswith(f"{name} "))
        assert re.fullmatch(rf"{name} +[━╸╺]{{12,}} *level {level} 93\.5 % +\d+:\d\d:\d\d +left *", last), last
        assert len(last) <= 80


# --- measures --------------------------------------------------------------------------------------------------------


def test_every_start_rule_has_a_colour_and_a_new_one_needs_none() -> None:
    known = {measures.colour(name) for name in STARTS}
    assert len(known) == len(STARTS)
    one, other = measures.colour("mine"), measures.colour("yours")
    assert one == measures.colour("mine") != other
    assert all(re.fullmatch("#[0-9a-f]{6}", name) for name in (one, other))
    assert not known & {one, other}


def test_a_column_of_ones_own_is_shown_as_it_is(trunk: Run) -> None:
    levels = trunk.levels().assign(wall_power=lambda frame: -1.5 * frame["replicate"])
    ax = plots.against_density([plots.Line("ours", levels)], "wall_power")
    points, ends = bars_of(ax, "ours")
    assert points[:, 1].tolist() == [-1.5, -1.5, -1.5]
    assert ends.tolist() == [[-3, 0], [-3, 0], [-3, 0]]
    assert ax.get_ylabel() == "wall power"
    assert measures.measure("wall_power").words(1234.5678) == "1235"
    assert measures.measure("test_accuracy").words(float("nan")) == "– %"


def test_ticks_are_thinned_from_the_dense_end() -> None:
    assert measures.ticks([0.0, 0.25, 1.0, 0.5, 0.5], 9) == [100, 50, 25]
    assert measures.ticks([0.8**i for i in range(6)], 3) == pytest.approx([100, 64, 40.96])
