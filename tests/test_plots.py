"""Figures as files and from Python: axes that show the numbers of a real run."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pruned import timed

import lottery
from lottery import cli
from lottery.errors import LotteryError
from lottery.runs.store import Run
from lottery.spec import Spec
from lottery.views import measures, plots
from lottery.words import BRANCHES, METHODS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    spec = Spec(
        data=lottery.Data(name="mnist-5k", validation=500),
        model=lottery.Model(name="mlp", hidden=(20, 10)),
        recipe=lottery.Recipe(iterations=30, evaluate_every=10),
        pruning=lottery.Pruning(rate=0.5),
        levels=2,
        replicates=2,
        branches=("reinit",),
    )
    return timed(lottery.run(spec, runs_dir=tmp_path_factory.mktemp("runs")))


CONVOLUTIONS = ("channels", "kernels")
"""Figures that a stack of linear layers has nothing for."""


@pytest.mark.parametrize("name", [name for name in plots.FIGURES if name not in CONVOLUTIONS])
def test_every_figure_draws_where_it_is_told_to(run: Run, name: str) -> None:
    ax = Figure().add_subplot()
    assert plots.FIGURES[name](run, ax=ax) is ax  # type: ignore[call-arg]
    assert ax.has_data()
    assert ax.get_title()
    other = plots.FIGURES[name](run)
    assert isinstance(other, Axes)
    assert other is not ax


@pytest.mark.parametrize(("kind", "head"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_command_writes_them(run: Run, capsys: pytest.CaptureFixture[str], kind: str, head: bytes) -> None:
    assert cli.main(["figures", str(run.path), "--format", kind]) == 0
    paths = [Path(line.split("  ")[1]) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in plots.FIGURES if name not in CONVOLUTIONS]
    assert all(path.read_bytes().startswith(head) for path in paths)


def test_the_numbers_are_the_runs(run: Run) -> None:
    rows = [row for row in run.rows() if (row.place.branch, row.place.level) == ("reinit", 2)]
    (bars,) = (bars for bars in plots.early_stop(run).containers if bars.get_label() == "random reinitialisation")
    assert bars[0].get_ydata()[2] == np.mean([row.early_stop_iteration for row in rows])
    assert bars[0].get_color() == measures.BRANCH_COLOURS["reinit"]
    curves = plots.training(run, 2, "test_accuracy").lines
    drawn = [np.asarray(c.get_ydata()).tolist() for c in curves]
    for replicate in (0, 1):
        assert (100 * run.load("rewind", replicate, 2).history["test_accuracy"]).tolist() in drawn
    assert len(curves) == 2 + 4 + 4  # two dense networks, two replicates of two branches, and where each stops
    picture = plots.pixels(run, 2).images[0].get_array()
    assert picture is not None
    assert picture.sum() == np.mean([run.load("rewind", r, 2).masks["fc1.weight"].sum() for r in (0, 1)])


@pytest.mark.parametrize("width", [None, 3.3])
@pytest.mark.parametrize("name", [name for name in plots.FIGURES if name not in ("channels", "kernels")])
def test_a_figure_says_what_it_shows_and_its_ticks_can_be_read(run: Run, name: str, width: float | None) -> None:
    """What is drawn, of what, and what lines and bars are; names for people; no label twice, none over another."""
    ax = plots.FIGURES[name](run)
    if width:
        plots._fit(ax, width)
    figure = plots._figure(ax)
    figure.draw_without_rendering()
    what, of, note = ax.get_title().split("\n")
    assert what
    assert "mlp on mnist-5k" in of
    assert "replicate" in note
    legends = [legend for legend in (ax.get_legend(), *figure.legends) if legend]
    assert not {text.get_text() for legend in legends for text in legend.get_texts()} & {*BRANCHES, *METHODS}
    for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
        low, high = sorted(axis.get_view_interval())
        ticks = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        labels = [label.get_text() for label in ticks if label.get_text()]
        assert len(labels) == len(set(labels)) > 1, labels
        assert not [label for label in labels if "$" in label]
        boxes = sorted((b.x0, b.x1) for b in (label.get_window_extent() for label in ticks))
        if axis is ax.xaxis:
            assert all(one[1] < other[0] for one, other in pairwise(boxes)), labels
        if axis.get_label_text().endswith("accuracy (%)"):
            assert high <= 100
    box, whole = figure.get_tightbbox(), figure.get_size_inches()  # nothing is cut off
    assert box.x0 >= -0.01
    assert box.x1 <= whole[0] + 0.01


def test_some_figures_of_a_width(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", str(run.path), "--only", "units, layers", "--format", "png", "--width", "3.3"]) == 0
    paths = [Path(line.split("  ")[1]) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["units.png", "layers.png"]
    assert int.from_bytes(paths[0].read_bytes()[16:20]) == round(3.3 * 150)
    for words, message in ((("--only", "unit"), "unknown figure 'unit'"), (("--width", "0.5"), "2 to 20 inches")):
        assert cli.main(["figures", str(run.path), *words]) == 2
        assert message in capsys.readouterr().err


def test_a_notebook_shows_a_run_as_a_table_with_a_figure(run: Run, tmp_path: Path) -> None:
    shown = run._repr_html_()
    assert lottery.open_run(run.path)._repr_html_() == shown
    assert shown.count("<tr>") == 1 + 3  # the trunk's levels
    assert '<img alt="Test accuracy against weights left" src="data:image/png;base64,iVBOR' in shown
    rows = [row for row in run.rows() if (row.place.branch, row.place.level) == ("rewind", 2)]
    accuracy = np.mean([row.test_accuracy for row in rows if row.test_accuracy is not None])
    assert f"<td>{100 * accuracy:.2f}</td>" in shown
    hostile = Run(Path(shutil.copytree(run.path, tmp_path / "<script>")))
    assert "<b>&lt;script&gt;</b>" in plots.notebook_html(hostile)


def test_what_is_not_there_is_an_error(run: Run) -> None:
    with pytest.raises(LotteryError, match=r"level '9'.*0, 1, 2"):
        plots.pixels(run, 9)
    with pytest.raises(LotteryError, match="layer 'fc9'"):
        plots.weights(run, 1, "fc9")
    with pytest.raises(LotteryError, match="column 'loss'"):
        plots.training(run, 1, "loss")


def test_a_run_without_validation_leaves_a_figure_out(tiny: Spec, tmp_path: Path) -> None:
    run = lottery.run(replace(tiny, data=replace(tiny.data, validation=0)), runs_dir=tmp_path)
    names = {path.stem for path in plots.save(run)}
    assert "early_stop" not in names
    assert {"accuracy", "pixels", "layers", "seconds"} <= names
