"""The panels of a study: what is drawn where, from frames whose values are known."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from lottery.views import plots
from lottery.views.measures import BRANCH_COLOURS


@pytest.fixture
def levels() -> pd.DataFrame:
    """Two replicates of levels 0 to 3; the second is 2 points better and stops 200 iterations later."""
    rows = [
        (branch, r, 0, level, 0.5**level, 1000.0 + 200 * r, 0.90 + 0.02 * r, 2000)
        for branch in ("rewind", "reinit")
        for r in (0, 1)
        for level in range(0 if branch == "rewind" else 1, 4)
    ]
    names = "branch replicate draw level density early_stop_iteration test_accuracy iterations"
    return pd.DataFrame(rows, columns=names.split())


def drawn(ax: Axes) -> dict[str, tuple[str, str]]:
    """Label -> colour and line style."""
    labelled = zip(*ax.get_legend_handles_labels(), strict=True)
    return {label: (to_hex(h[0].get_color()), h[0].get_linestyle()) for h, label in labelled}  # type: ignore[index]  # error bars' containers


def test_density_is_logarithmic_and_decreasing_and_branches_have_their_colours(levels: pd.DataFrame) -> None:
    lines = plots.branch_lines(levels, ("rewind", "reinit", "one_shot"))
    ax = plots.against_density(lines, "test_accuracy")
    assert ax.get_xscale() == "log"
    left, right = ax.get_xlim()
    assert left > 100 > 12.5 > right
    assert drawn(ax) == {
        "ticket": (BRANCH_COLOURS["rewind"].lower(), "-"),
        "random reinitialisation": (BRANCH_COLOURS["reinit"].lower(), "--"),
    }


def test_means_and_bars_are_percent_and_iterations(levels: pd.DataFrame) -> None:
    lines = plots.branch_lines(levels, ("rewind",))
    for column, mean, least, most in (("test_accuracy", 91, 90, 92), ("early_stop_iteration", 1100, 1000, 1200)):
        ax = plots.against_density(lines, column)
        (line, _, (bars,)) = ax.containers[0]
        assert np.array(line.get_data(), float).tolist() == [[100, 50, 25, 12.5], pytest.approx(4 * [mean])]
        assert np.array([segment[:, 1] for segment in bars.get_segments()]) == pytest.approx(
            np.array(4 * [[least, most]])
        )
    assert ax.get_ylim()[0] == 0


def test_what_falls_far_below_the_dense_network_is_cut_off(levels: pd.DataFrame) -> None:
    levels.loc[levels["level"] == 3, "test_accuracy"] = 0.2
    low, high = plots.against_density(plots.branch_lines(levels, ("rewind",)), "test_accuracy").get_ylim()
    assert 91 - plots.REACH - 1 < low < 91 - plots.REACH
    assert high > 92


def test_curves_while_training() -> None:
    rows = [
        ("rewind", r, 0, level, 0.5**level, i, 0.9 + 0.01 * level + 0.001 * r, 1.0)
        for r in (0, 1)
        for level in (0, 1)
        for i in (10, 20, 30, 40)
    ]
    names = "branch replicate draw level density iteration test_accuracy validation_loss"
    history = pd.DataFrame(rows, columns=names.split())
    ax = plots.while_training(history, "test_accuracy", [("rewind", 0), ("rewind", 1), ("reinit", 1)], until=0.75)
    assert ax.get_xlim() == (0, 30)
    assert np.array(ax.lines[1].get_data(), float).tolist() == [[10, 20, 30], pytest.approx(3 * [91.05])]
    assert ax.get_legend_handles_labels()[1] == ["100.0 %", "50.0 %"]


def ticket() -> pd.DataFrame:
    """One layer of 2 units with 3 inputs: the first unit keeps all its connections, the second one."""
    kept = [True, True, True, True, False, False]
    frame = pd.DataFrame({"tensor": "fc1.weight", "unit": [0, 0, 0, 1, 1, 1], "input": 2 * [0, 1, 2], "kept": kept})
    return frame.assign(start=np.where(kept, 1.0, 0.0), trained=np.where(kept, 3.0, 0.0), replicate=0)


def test_connections_are_counted_at_either_end() -> None:
    into = plots.connections({"x": ticket()}, "fc1.weight", "unit")
    assert np.array(into.lines[0].get_ydata(), float) == pytest.approx([100, 100 / 3])
    out = plots.connections({"x": ticket()}, "fc1.weight", "input")
    assert np.array(out.lines[0].get_ydata(), float) == pytest.approx([100, 50, 50])


def test_distributions_have_area_one() -> None:
    x = np.linspace(-1, 1, 1001)
    ax = plots.distributions({"some": x, "none": x[:0]}, "x")
    (line,) = ax.lines
    at, height = np.asarray(line.get_data(), float)
    assert height.sum() * (at[1] - at[0]) == pytest.approx(1)
