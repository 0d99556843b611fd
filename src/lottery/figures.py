"""The figures of Frankle & Carbin 2019, drawn so that they can be laid beside the paper's. Data in, axes out.

Everything takes the tidy frames of `lottery.analysis` and `ax=`, and returns the axes. Lines are means over replicates,
bars their minimum and maximum; accuracies are in percent; a branch has the same colour wherever it is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lottery.analysis import densities, summary
from lottery.plots import BRANCH_COLOURS, COLOURS, STYLE, density_axis

LABELS = {
    "early_stop_iteration": "early-stop iteration",
    "test_accuracy_early_stop": "test accuracy at early stop (%)",
    "test_accuracy": "test accuracy at the end (%)",
    "train_accuracy": "training accuracy at the end (%)",
    "validation_loss": "validation loss",
}
"""Column -> what its axis is called; accuracies are drawn in percent."""

DASHED = ("reinit", "random_mask_reinit", "one_shot_reinit", "random_mask")
"""Branches that lost their initial weights or their place, dashed as in the paper."""


REACH = 4.0
"""Percentage points."""


@dataclass(frozen=True)
class Line:
    """One curve against density."""

    label: str
    levels: pd.DataFrame
    branch: str = "rewind"
    colour: object = COLOURS[0]
    style: str = "solid"


def branch_lines(levels: pd.DataFrame, branches: Sequence[str]) -> list[Line]:
    """A line for each of these branches that the levels have, by its name and in its colour."""
    there = set(levels["branch"])
    styles = {branch: "dashed" if branch in DASHED else "solid" for branch in branches}
    return [Line(b, levels, b, BRANCH_COLOURS[b], styles[b]) for b in branches if b in there]


def value_lines(levels: dict[str, pd.DataFrame]) -> list[Line]:
    """A line for each run of a sweep, by its label, in colours from dark to light."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(levels)))
    return [Line(label, frame, colour=colour) for (label, frame), colour in zip(levels.items(), colours, strict=True)]


def panels(count: int, title: str, columns: int = 3, width: float = 4.4, height: float = 3.6) -> list[Axes]:
    """Axes of one figure outside pyplot, row by row."""
    columns = min(count, columns)
    rows = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height * rows + 0.3), layout="constrained")
        figure.suptitle(title, fontsize=11)
        return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def shared_legend(axes: Sequence[Axes]) -> None:
    """One legend beside the panels, for lines that are the same in all of them."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure = axes[0].get_figure()
    assert figure is not None
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=9, frameon=False)


def against_density(lines: Sequence[Line], column: str, ax: Axes | None = None) -> Axes:
    """A column of levels.csv against the weights remaining: logarithmic, decreasing. Lines without values are left
    out; so is, as in the paper, what is more than `REACH` points less accurate than the dense network."""
    ax = ax or panels(1, "")[0]
    factor = 100 if "accuracy" in column else 1
    seen: list[float] = []
    first: list[float] = []
    low, high = np.inf, -np.inf
    for i, line in enumerate(lines):
        found = summary(line.levels, column)
        found = found[(found["branch"] == line.branch) & (found["n"] > 0) & (found["density"] > 0)]
        if found.empty:
            continue
        mean, least, most = (factor * found[name].to_numpy() for name in ("mean", "min", "max"))
        x = 100 * found["density"].to_numpy()
        seen += (x / 100).tolist()
        ax.errorbar(
            x * 1.012 ** ((len(lines) - 1) / 2 - i),  # side by side, so that the bars of two lines can be told apart
            mean,
            yerr=[mean - least, most - mean],
            label=line.label,
            color=line.colour,
            linestyle=line.style,
            marker="o",
            markersize=2.5,
            linewidth=1.3,
            elinewidth=0.8,
        )
        first.append(mean[0])
        low, high = min(low, least.min()), max(high, most.max())
    density_axis(ax, sorted(set(seen)), ticks=5)
    ax.set_ylabel(LABELS.get(column, column))
    if column == "early_stop_iteration":
        ax.yaxis.set_major_formatter(THOUSANDS)
        ax.set_ylim(0, 1.05 * high if seen else None)
    elif seen:
        low = max(low, min(first) - REACH)
        ax.set_ylim(low - 0.05 * (high - low) - 1e-3, high + 0.05 * (high - low) + 1e-3)
    return ax


def while_training(
    history: pd.DataFrame,
    column: str,
    curves: Sequence[tuple[str, int]],
    ax: Axes | None = None,
    until: float = 1.0,
) -> Axes:
    """A column of the histories against the iteration, for pairs of branch and level, up to that share of them all.

    The levels are named by their density. What the first tenth shows is left out of the vertical range: it is learning
    that starts from nothing, and would hide the differences that follow.
    """
    ax = ax or panels(1, "")[0]
    factor = 100 if "accuracy" in column else 1
    wanted = sorted({level for _, level in curves})
    last = until * history["iteration"].max()
    shown: list[np.ndarray] = []
    for branch, level in curves:
        part = history[(history["branch"] == branch) & (history["level"] == level) & (history["iteration"] <= last)]
        if part.empty:
            continue
        values = factor * part.pivot_table(column, "iteration", ["replicate", "draw"]).to_numpy()
        x = np.sort(part["iteration"].unique())
        mean = values.mean(axis=1)
        bars = np.unique(np.linspace(0, len(x) - 1, 12).astype(int)[1:])
        colour = matplotlib.colormaps["viridis"](0.85 * wanted.index(level) / max(1, len(wanted) - 1))
        dashed = branch != "rewind"
        label = f"{100 * part['density'].mean():.1f} %" + (f" ({branch})" if dashed else "")
        ax.plot(x, mean, color=colour, linestyle="dashed" if dashed else "solid", linewidth=1.3, label=label)
        spread = [mean[bars] - values[bars].min(axis=1), values[bars].max(axis=1) - mean[bars]]
        ax.errorbar(x[bars], mean[bars], yerr=spread, color=colour, fmt="none", elinewidth=0.8)
        shown.append(values[x > last / 10] if (x > last / 10).any() else values)
    if shown:
        low, high = min(v.min() for v in shown), max(v.max() for v in shown)
        margin = 0.05 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
        ax.legend(fontsize=8, frameon=False, loc="upper right" if "loss" in column else "lower right")
    ax.set_xlim(0, last)
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_xlabel("training iteration")
    ax.set_ylabel(LABELS[column] if "loss" in column else "test accuracy (%)")
    return ax


THOUSANDS = FuncFormatter(lambda x, _: f"{x:,.0f}")


def distributions(values: dict[str, np.ndarray], xlabel: str, ax: Axes | None = None) -> Axes:
    """Histograms as lines, each with area 1, and with fewer bins where there are fewer values. Empty ones are left
    out."""
    ax = ax or panels(1, "")[0]
    there = {label: x for label, x in values.items() if len(x)}
    if there:
        everything = np.concatenate(list(there.values()))
        low, high = np.quantile(everything, [0.001, 0.999])
        for i, (label, x) in enumerate(there.items()):
            bins = np.linspace(low, high, min(80, int(2 * len(x) ** (1 / 3))) + 1)  # Rice's rule, up to a point
            heights, _ = np.histogram(x, bins, density=True)
            ax.plot((bins[1:] + bins[:-1]) / 2, heights, label=label, color=COLOURS[i % len(COLOURS)], linewidth=1.3)
        ax.legend(fontsize=8, frameon=False)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("density of the distribution")
    ax.set_ylim(bottom=0)
    return ax


def initial_weights(ticket: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The initial weights that survive in a ticket, by layer: `OpenRun.ticket`, of one replicate or of several."""
    kept = ticket[ticket["kept"]]
    by_layer = {str(name): part["start"].to_numpy() for name, part in kept.groupby("tensor", sort=False)}
    return distributions(by_layer, "initial weight", ax)


def movement(dense: pd.DataFrame, kept: pd.Series, tensor: str, ax: Axes | None = None) -> Axes:
    """How far a layer's weights moved when the dense network was trained: those that a later ticket keeps, and others.

    dense: the ticket of level 0; kept: the column of that name of the later ticket, in the same order.
    """
    layer = (dense["tensor"] == tensor).to_numpy()
    moved = (dense["trained"] - dense["start"]).abs().to_numpy()
    keep = kept.to_numpy(bool)
    parts = {"in the ticket": moved[layer & keep], "pruned later": moved[layer & ~keep]}
    ax = distributions(parts, "|final − initial weight|", ax)
    ax.set_title(tensor, fontsize=10)
    return ax


def connections(tickets: dict[str, pd.DataFrame], tensor: str, end: str, ax: Axes | None = None) -> Axes:
    """Share of a layer's connections left at each unit (percent), units sorted by it: one line per ticket, by label.

    end: "unit" for the connections that come into the layer's units, "input" for those that leave the units before.
    """
    ax = ax or panels(1, "")[0]
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(tickets)))
    for (label, ticket), colour in zip(tickets.items(), colours, strict=True):
        part = ticket[ticket["tensor"] == tensor]
        share = np.sort(100 * part.groupby(["replicate", end])["kept"].mean().to_numpy())[::-1]
        ax.plot(np.linspace(0, 100, len(share)), share, color=colour, label=label, linewidth=1.3)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("units, most connected first (%)")
    ax.set_ylabel("connections left (%)")
    ax.set_title(f"{tensor}: {'into its units' if end == 'unit' else 'out of the units before'}", fontsize=10)
    return ax


def percent_label(levels: pd.DataFrame, level: int) -> str:
    """A level by its density, as in the paper's legends."""
    return f"{100 * densities(levels)[level]:.1f} %"
