"""Figures of a run: matplotlib, `ax=` like everyone else's, returning the axes."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lottery.store import Row, Run, write

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by the colour-blind too."""

BRANCH_COLOURS = {
    "rewind": "#0072B2",
    "reinit": "#D55E00",
    "random_mask": "#009E73",
    "random_mask_reinit": "#7FD1B9",
    "one_shot": "#CC79A7",
    "one_shot_reinit": "#7A3B5E",
    "continue": "#000000",
    "prune_at_init": "#E69F00",
    "reinit_from_ticket": "#F4A582",
    "same_sign": "#56B4E9",
    "shuffle": "#8C6D31",
    "noise_0.5": "#CBC9E2",
    "noise_1": "#9E9AC8",
    "noise_2": "#756BB1",
    "noise_3": "#54278F",
}
"""Start rule -> its colour in every figure: relatives have related ones."""

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}


def accuracy(run: Run, ax: Axes | None = None) -> Axes:
    """Test accuracy (percent) against the weights remaining (percent, logarithmic, decreasing, as in the paper).

    The mean over replicates and draws with minimum and maximum. A trunk alone is drawn at the early-stopping iteration
    and at the last one, its best mean annotated; several branches at the former only, where there is one.
    """
    ax = ax or _new_axes()
    curves = run.curves()
    rows = [row for rows in curves.values() for row in rows]
    early, last = ("test_accuracy_early_stop", "at early stop"), ("test_accuracy", "after the last iteration")
    several = len(curves) > 1
    if several:
        column, when = early if any(row[early[0]] is not None for row in rows) else last
        lines = [(curve, BRANCH_COLOURS[branch], 1.0, column, branch) for branch, curve in curves.items()]
    else:
        when = ""
        lines = [
            (rows, COLOURS[0], 1.0, early[0], f"{early[1]} (lowest validation loss)"),
            (rows, COLOURS[1], 0.98, *last),
        ]
    best: tuple[float, float] | None = None
    for curve, colour, dodge, column, label in lines:
        points = [(d, v) for d, v in _by_level(curve, column) if v]
        if not points:
            continue
        x = [100 * d for d, _ in points]
        shifted = [d * dodge for d in x]  # a little aside, so that the two error bars can be told apart
        mean = [100 * sum(v) / len(v) for _, v in points]
        spread = [[m - 100 * min(v) for m, (_, v) in zip(mean, points, strict=True)]]
        spread += [[100 * max(v) - m for m, (_, v) in zip(mean, points, strict=True)]]
        ax.errorbar(shifted, mean, yerr=spread, color=colour, fmt="o-", markersize=3.5, elinewidth=1, label=label)
        best = best or max(zip(mean, x, strict=True))
    if several:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    elif best:
        ax.annotate(
            f"best: {best[0]:.2f} % with {best[1]:.1f} % of the weights",
            (best[1], best[0]),
            xytext=(0.98, 0.04),
            textcoords="axes fraction",
            ha="right",
            arrowprops={"arrowstyle": "->", "color": "0.3"},
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "0.7"},
        )
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.12 * (high - low), high)  # room for the annotation below the curves
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2, frameon=False)
    density_axis(ax, [row["density"] for row in rows])
    ax.set_ylabel(f"test accuracy (%) {when}".rstrip())
    ax.set_title(_title(run), pad=6 if several else 26)  # a trunk's legend is between title and axes
    return ax


def layers(run: Run, ax: Axes | None = None) -> Axes:
    """Sparsity (percent pruned) of each layer, and overall, by level. Counts are the same in every replicate in layer
    scope; in global scope the mean over replicates is drawn."""
    ax = ax or _new_axes()
    rows = [row for row in run.rows() if row["branch"] == run.spec.start]
    columns = [name for name in (rows[0] if rows else ()) if name.startswith("density:")]
    for i, column in enumerate(["density", *columns]):
        name = "overall" if column == "density" else column.removeprefix("density:")
        means = [sum(v) / len(v) for _, v in _by_level(rows, column)]
        ax.plot(
            range(len(means)),
            [100 * (1 - m) for m in means],
            label=name,
            color="0.75" if i == 0 else COLOURS[(i - 1) % len(COLOURS)],
            linewidth=6 if i == 0 else 2,  # layers pruned at one rate coincide: each stays visible under the next
            linestyle=("solid", "solid", "dashed", "dotted")[i % 4],
        )
    if columns:
        ax.legend(frameon=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("level (times pruned)")
    ax.set_ylabel("sparsity (% of the layer's weights pruned)")
    ax.set_title(_title(run))
    return ax


FIGURES = {"accuracy": accuracy, "layers": layers}


def save(run: Run) -> list[Path]:
    """Writes every figure to the run's `figures` folder as PNG; returns the paths."""
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, draw in FIGURES.items():
        ax = draw(run)
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        paths.append(folder / f"{name}.png")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        write(paths[-1], picture.getvalue())
    return paths


def _new_axes() -> Axes:
    """Axes of a figure outside pyplot, so that drawing needs no display and leaks no figure."""
    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(7, 4.5), layout="constrained").add_subplot()


def _by_level(rows: list[Row], column: str) -> Iterator[tuple[float, list[float]]]:
    """(density, values over replicates and draws) by level; density is the first replicate's."""
    for level in sorted({row["level"] for row in rows}):
        at = [row for row in rows if row["level"] == level]
        yield at[0]["density"], [row[column] for row in at if row[column] is not None]


def density_axis(ax: Axes, densities: list[float], ticks: int = 8) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("weights remaining (%)")
    shown = sorted({round(100 * d, 6) for d in densities if d > 0}, reverse=True)
    chosen = [x for i, x in enumerate(shown) if i % max(1, len(shown) // ticks) == 0]
    ax.xaxis.set_major_locator(FixedLocator(chosen))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.1f}" if x < 99.95 else "100"))
    ax.set_xlim(max(shown, default=100) * 1.15, min(shown, default=100) / 1.15)


def _title(run: Run) -> str:
    spec = run.spec
    return f"{spec.model.name} on {spec.data.name}, {spec.recipe.iterations:,} iterations a level"
