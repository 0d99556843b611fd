"""Everything that matplotlib draws: the figures of one run, by name in `FIGURES`, and the panels of a study, drawn so
that they can be laid beside the paper's.

Each function takes `ax`, or makes a figure of its own outside pyplot, and returns the axes. Lines are means over
replicates, bars and shades their minimum and maximum; densities and accuracies are in percent; a branch has the same
colour wherever it is drawn.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from lottery.analysis import anatomy, comparison
from lottery.analysis.answer import answer_of, share
from lottery.analysis.frames import branches_of, densities, levels_of, trunk_of
from lottery.analysis.statistics import summary
from lottery.engines import history
from lottery.errors import LotteryError, known
from lottery.runs import timings
from lottery.runs.rows import DENSITY
from lottery.runs.store import Dropped, Run, write
from lottery.spec import OwnLoop
from lottery.views.measures import (
    AT_EARLY_STOP,
    COLOURS,
    DASHED,
    EARLY,
    LAST,
    METHOD_COLOURS,
    SENTENCES,
    SHRUNK,
    STOP,
    CostLines,
    batches_of,
    colour,
    cost_lines,
    marks,
    measure,
    run_labels,
    run_settings,
    significant,
    table,
    ticks,
)
from lottery.views.mosaic import Mosaic
from lottery.words import branch_name, method_name, number_of

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}

REACH = 4.0
"""Percentage points below the dense network that a figure of the paper shows."""

FEW = 6
"""Layers that lines of one figure can tell apart."""

SIGNS = LinearSegmentedColormap.from_list("signs", ["#0072B2", "#c9ced6", "#D55E00"])
"""From the most negative weight to the most positive."""

THOUSANDS = FuncFormatter(lambda x, _: f"{x:,.0f}")


# --- panels of a study -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line against density."""

    label: str
    levels: pd.DataFrame
    branch: str | None = None
    """The trunk if None."""
    colour: object = COLOURS[0]
    style: str = "solid"
    column: str | None = None
    """Of levels.csv; the axes' own if None."""


class NothingToShow(LotteryError):
    """A figure that this run has nothing for."""


def branch_lines(levels: pd.DataFrame, branches: Sequence[str]) -> list[Line]:
    """A line for each of these branches that the levels have, by its name and in its colour."""
    present = branches_of(levels)
    return [
        Line(branch_name(b), levels, b, colour(b), "dashed" if b in DASHED else "solid")
        for b in branches
        if b in present
    ]


def value_lines(levels: dict[str, pd.DataFrame]) -> list[Line]:
    """A line for each run of a sweep, by its label, in colours from dark to light."""
    return [
        Line(label, frame, colour=c) for (label, frame), c in zip(levels.items(), _shades(len(levels)), strict=True)
    ]


def _shades(count: int) -> np.ndarray:
    shades: np.ndarray = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, count))
    return shades


def panels(count: int, title: str, columns: int = 3, width: float = 4.4, height: float = 3.6) -> list[Axes]:
    """Axes of one figure outside pyplot, row by row."""
    columns = min(count, columns)
    rows = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height * rows + (0.3 if title else 0)), layout="constrained")
        if title:
            figure.suptitle(title, fontsize=11, x=0.01, ha="left")  # a shared legend is on the right
        return [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def shared_legend(axes: Sequence[Axes]) -> None:
    """One legend beside the panels, for lines that are the same in all of them."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        _figure(axes[0]).legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=9, frameon=False)


def against_density(lines: Sequence[Line], column: str, ax: Axes | None = None, reach: float = REACH) -> Axes:
    """Draws a column of levels.csv against the weights left: logarithmic, decreasing.

    Args:
        lines: those without values are left out.
        column: what the vertical axis is.
        ax: axes to draw on.
        reach: what is more than so many points less accurate than the dense network is cut off, as in the paper.
    """
    ax = ax or _new_axes()
    shown = measure(column)
    density: set[float] = set()
    dense, low, high = inf, inf, -inf
    for i, line in enumerate(lines):
        found = _points(line.levels, line.column or column, line.branch)
        if found.empty:
            continue
        mean, least, most = (shown.factor * found[name].to_numpy() for name in ("mean", "min", "max"))
        aside = 1.012 ** ((len(lines) - 1) / 2 - i)  # the bars of two lines can be told apart; the dense network is one
        ax.errorbar(
            100 * found["density"] * np.where(found["level"] > 0, aside, 1),
            mean,
            yerr=np.maximum(0, [mean - least, most - mean]),  # a mean of equal values may be off by its rounding
            label=line.label,
            color=line.colour,
            linestyle=line.style,
            marker="o",
            markersize=2.5,
            linewidth=1.3,
            elinewidth=0.8,
        )
        density |= set(found["density"])
        dense, low, high = min(dense, mean[0]), min(low, least.min()), max(high, most.max())
    _density_axis(ax, density, 6)
    ax.set_ylabel(shown.axis)
    if shown.form == ",.0f":
        ax.yaxis.set_major_formatter(THOUSANDS)
    if density and shown.higher_is_better:
        low = max(low, dense - reach)
        margin = 0.05 * (high - low) + 1e-3
        ax.set_ylim(low - margin, min(high + margin, max(100.0, high)) if shown.unit == "%" else high + margin)
        ax.yaxis.set_major_locator(MaxNLocator(6))
    elif low >= 0:
        ax.set_ylim(0, 1.05 * high if density else None)
        if shown.form == ",.0f":
            ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    return ax


def _points(levels: pd.DataFrame, column: str, branch: str | None = None) -> pd.DataFrame:
    """The rows of `summary` that a branch, or the trunk, has on a logarithmic axis."""
    found = summary(levels, column)
    return found[(found["branch"] == (branch or trunk_of(levels))) & (found["n"] > 0) & (found["density"] > 0)]


def _density_axis(ax: Axes, density: Iterable[float], labels: int = 9) -> None:
    shown = [100 * d for d in density if d > 0] or [100.0]
    ax.set_xscale("log")
    ax.set_xlabel(measure("density").axis)
    ax.xaxis.set_major_locator(FixedLocator(ticks(density, labels)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.1f}" if x < 99.95 else "100"))
    ax.set_xlim(max(shown) * 1.15, min(shown) / 1.15)


def while_training(
    history: pd.DataFrame,
    column: str,
    curves: Sequence[tuple[str, int]],
    ax: Axes | None = None,
    until: float = 1.0,
) -> Axes:
    """Draws a column of the histories against the iteration.

    Levels are named by their density. The vertical range leaves out the first tenth: it is learning that starts from
    nothing, and would hide the differences that follow.

    Args:
        history: `Run.history` of one level or several.
        column: of the history.
        curves: pairs of branch and level; other branches than the first pair's are dashed and named.
        ax: axes to draw on.
        until: up to that share of the iterations.
    """
    ax = ax or _new_axes()
    shown = measure(column)
    shades = dict(zip(by_level := sorted({level for _, level in curves}), _shades(len(by_level)), strict=True))
    last = until * history["iteration"].max()
    ranges = []
    for branch, level in curves:
        part = history[(history["branch"] == branch) & (history["level"] == level) & (history["iteration"] <= last)]
        if part.empty:
            continue
        first = part["iteration"].min()
        # with the iteration in the level's place, so that draws and replicates are averaged as everywhere
        found = summary(part.assign(level=part["iteration"] - first), column)
        x = first + found["level"].to_numpy()
        mean, least, most = (shown.factor * found[name].to_numpy() for name in ("mean", "min", "max"))
        other = branch != curves[0][0]
        style: Any = {"color": shades[level], "linestyle": "dashed" if other else "solid"}
        label = f"{100 * part['density'].mean():.1f} %" + (f" ({branch_name(branch)})" if other else "")
        ax.plot(x, mean, linewidth=1.3, label=label, **style)
        bars = np.unique(np.linspace(0, len(x) - 1, 12).astype(int)[1:])
        spread = np.maximum(0, [(mean - least)[bars], (most - mean)[bars]])
        ax.errorbar(x[bars], mean[bars], yerr=spread, fmt="none", elinewidth=0.8, color=shades[level])
        late = x > last / 10 if (x > last / 10).any() else x > 0
        ranges.append((least[late].min(), most[late].max()))
    if ranges:
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        margin = 0.05 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
        ax.legend(fontsize=8, frameon=False, loc="best")
    ax.set_xlim(0, last)
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_xlabel("training iteration")
    ax.set_ylabel(shown.axis_while_training)
    return ax


def distributions(values: dict[str, np.ndarray], xlabel: str, ax: Axes | None = None) -> Axes:
    """Histograms as lines, each with area 1, and with fewer bins where there are fewer values. Empty ones are left
    out."""
    ax = ax or _new_axes()
    present = {label: x for label, x in values.items() if len(x)}
    if present:
        low, high = np.quantile(np.concatenate(list(present.values())), [0.001, 0.999])
        for i, (label, x) in enumerate(present.items()):
            bins = np.linspace(low, high, min(80, int(2 * len(x) ** (1 / 3))) + 1)  # Rice's rule, up to a point
            heights, _ = np.histogram(x, bins, density=True)
            ax.plot((bins[1:] + bins[:-1]) / 2, heights, label=label, color=COLOURS[i % len(COLOURS)], linewidth=1.3)
        ax.legend(fontsize=8, frameon=False)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("density of the distribution")
    ax.set_ylim(bottom=0)
    return ax


def initial_weights(ticket: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The initial weights that survive in a ticket, by layer: `Run.weights`, of one replicate or of several."""
    kept = ticket[ticket["kept"]]
    by_layer = {str(name): part["start"].to_numpy() for name, part in kept.groupby("tensor", sort=False)}
    return distributions(by_layer, "initial weight", ax)


def movement(dense: pd.DataFrame, kept: pd.Series, tensor: str, ax: Axes | None = None) -> Axes:
    """How far a layer's weights moved when the dense network was trained: those that a later ticket keeps, and others.

    Args:
        dense: `Run.weights` of level 0.
        kept: the column of that name of the later ticket, in the same order.
        tensor: the layer.
        ax: axes to draw on.
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

    Args:
        tickets: label -> `Run.weights`, with a column `replicate`.
        tensor: the layer.
        end: "unit" for the connections into the layer's units, "input" for those out of the units before.
        ax: axes to draw on.
    """
    ax = ax or _new_axes()
    for (label, ticket), shade in zip(tickets.items(), _shades(len(tickets)), strict=True):
        part = ticket[ticket["tensor"] == tensor]
        share = np.sort(100 * part.groupby(["replicate", end])["kept"].mean().to_numpy())[::-1]
        ax.plot(np.linspace(0, 100, len(share)), share, color=shade, label=label, linewidth=1.3)
    ax.set_title(f"{tensor}: {'into its units' if end == 'unit' else 'out of the units before'}", fontsize=10)
    return _connection_axes(ax)


def _connection_axes(ax: Axes) -> Axes:
    ax.set_ylim(bottom=0)
    ax.set_xlabel("units, most connected first (%)")
    ax.set_ylabel("connections left (%)")
    return ax


def percent_label(levels: pd.DataFrame, level: int) -> str:
    """A level by its density, as in the paper's legends."""
    return f"{100 * densities(levels)[level]:.1f} %"


# --- figures of a run ------------------------------------------------------------------------------------------------


def accuracy(run: Run, ax: Axes | None = None) -> Axes:
    """Test accuracy against the weights left.

    A trunk alone is drawn at early stop and after the last iteration, its best mean annotated; several branches at the
    former only, where there is one.
    """
    levels = run.levels()
    branches = branches_of(levels)
    columns = [column for column in (EARLY, LAST) if not levels.empty and levels[column].notna().any()]
    if len(branches) > 1:
        return _branches(run, columns[0], ax)
    lines = [Line(measure(c).when, levels, colour=COLOURS[i], column=c) for i, c in enumerate(columns)]
    ax = against_density(lines, LAST, ax or _new_axes(), inf)
    if columns:
        best = max(_points(levels, columns[0]).to_dict("records"), key=lambda row: row["mean"])
        ax.annotate(
            f"highest of {number_of(len(levels_of(levels, trunk_of(levels))), 'level')}: "
            f"{measure(LAST).words(best['mean'])} with {share(best['density'])} of the weights;\n"
            "the highest of many is partly chance",
            (100 * best["density"], 100 * best["mean"]),
            xytext=(0.98, 0.04),
            textcoords="axes fraction",
            ha="right",
            arrowprops={"arrowstyle": "->", "color": "0.3"},
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "0.7"},
        )
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.12 * (high - low), high)  # room for the annotation below the lines
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2, frameon=False)
    ax.set_ylabel(measure(LAST).axis_while_training)
    return _titled(ax, run, "Test accuracy of tickets", _bars(levels), pad=26)  # the legend is between title and axes


def early_stop(run: Run, ax: Axes | None = None) -> Axes:
    """Early-stopping iteration against the weights left. Empty where nothing was held out for validation."""
    return _branches(run, STOP, ax)


def seconds(run: Run, ax: Axes | None = None) -> Axes:
    """Seconds to train a level against the weights left."""
    return _branches(run, "seconds", ax)


def _branches(run: Run, column: str, ax: Axes | None) -> Axes:
    """All branches of a run against density."""
    levels = run.levels()
    lines = branch_lines(levels, branches_of(levels))
    ax = against_density(lines, column, ax or _new_axes(), inf)
    if len(lines) > 1 and ax.has_data():
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return _titled(ax, run, f"{measure(column).name.capitalize()} by weights left", _bars(levels))


def layers(run: Run, ax: Axes | None = None) -> Axes:
    """Sparsity (percent pruned) of each layer of the trunk, and overall, by level. Counts are the same in every
    replicate in layer scope; in global scope the mean over replicates is drawn. More than six layers are a map of the
    weights that each has left (percent), layers from top to bottom in the network's order."""
    if len(run.network.prunable) > FEW:
        return _layer_map(run, ax)
    ax = ax or _new_axes()
    levels = run.levels()
    for i, column in enumerate(["density", *(f"{DENSITY}{name}" for name in run.network.prunable)]):
        found = summary(levels, column)
        found = found[found["branch"] == trunk_of(levels)]
        ax.plot(
            found["level"],
            100 * (1 - found["mean"]),
            label=column.removeprefix(DENSITY) if i else "overall",
            color=COLOURS[(i - 1) % len(COLOURS)] if i else "0.75",
            linewidth=2 if i else 6,  # layers pruned at one rate coincide: each stays visible under the next
            linestyle=("solid", "solid", "dashed", "dotted")[i % 4],
        )
    ax.legend(frameon=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("level (times pruned)")
    ax.set_ylabel(measure("sparsity").axis)
    return _titled(ax, run, "Sparsity of each layer", "means over replicates")


def _layer_map(run: Run, ax: Axes | None) -> Axes:
    levels, names = run.levels(), run.network.prunable
    trunk = levels[levels["branch"] == trunk_of(levels)]
    found = {name: summary(trunk, f"{DENSITY}{name}") for name in names}
    there = found[names[0]]["level"].astype(int).tolist()
    ax = _by_layer(names, [found[name]["mean"].to_numpy() for name in names], "weights left (%)", ax)
    shown = range(0, len(there), -(-len(there) // 12))
    ax.set_xticks(shown, [str(there[i]) for i in shown])
    ax.set_xlabel("level (times pruned)")
    return _titled(ax, run, "Weights left in each layer", "means over replicates")


def _by_layer(names: Sequence[str], shares: Sequence[np.ndarray], label: str, ax: Axes | None) -> Axes:
    """A map of fractions, a row for each layer, on a logarithmic scale of colours; 0 is blank."""
    ax = ax or _tall_axes(len(names))
    percent = 100 * np.array(shares)
    least = percent[percent > 0].min(initial=100.0)
    norm = LogNorm(0.8 * least, 100)
    picture = ax.imshow(np.ma.masked_equal(percent, 0), cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
    bar = ax.figure.colorbar(
        picture, ax=ax, label=label, ticks=marks(0.8 * least), format=FuncFormatter(lambda v, _: f"{v:g}")
    )
    bar.ax.minorticks_off()
    _name_layers(ax, names)
    return ax


def _tall_axes(rows: int) -> Axes:
    return panels(1, "", width=7, height=max(2.5, 0.17 * rows + 1))[0]


def _name_layers(ax: Axes, names: Sequence[str]) -> None:
    """Layers from top to bottom."""
    ax.set_yticks(range(len(names)), [name.removesuffix(".weight") for name in names], fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False)


def training(run: Run, level: int | None = None, column: str = "validation_loss", ax: Axes | None = None) -> Axes:
    """Draws a column of the histories at one level against the iteration, logarithmic: a line per replicate and draw,
    early stop marked, the dense network in grey.

    Args:
        run: the run.
        level: the one that the report is about, if None.
        column: of the history.
        ax: axes to draw on.

    Raises:
        LotteryError: for a level or a column that is not there.
    """
    ax, level = ax or _new_axes(), _level(run, level)
    shown, stop = measure(column), AT_EARLY_STOP.get(column)
    if column not in history.COLUMNS:
        raise LotteryError(known("column", column, history.COLUMNS))
    rows = run.rows()
    if all(np.isnan(run.history_of(row.place)[column]).all() for row in rows):
        raise NothingToShow(f"{run.path.name}: no {shown.label} was logged while it trained")
    for row in [r for r in rows if r.place.level == 0] + [r for r in rows if r.place.level == level]:
        place, values = row.place, run.history_of(row.place)
        chosen = place.level == level
        ink = colour(place.branch) if chosen else "0.7"
        label = branch_name(place.branch) if chosen and (place.replicate, place.draw) == (0, 0) else None
        logged = ~np.isnan(values[column])
        ax.plot(values["iteration"][logged], shown.factor * values[column][logged], color=ink, linewidth=1, label=label)
        if chosen and stop and getattr(row, stop) is not None:
            x, y = row.early_stop_iteration or 0, shown.factor * getattr(row, stop)
            ax.plot(x, y, "o", color=ink, markerfacecolor="white")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_xlabel("training iteration")
    ax.set_ylabel(shown.axis_while_training)
    ax.legend(frameon=False)
    note = "one line per replicate and draw; grey: the dense network" + ("; rings: early stop" if stop else "")
    return _titled(ax, run, f"{shown.label.capitalize()} while training, level {level}", note)


def pixels(run: Run, level: int | None = None, ax: Axes | None = None) -> Axes:
    """Draws the connections that each input pixel has left at a level of the trunk, the mean over replicates; blank
    where none.

    Args:
        run: the run.
        level: as in `training`.
        ax: axes to draw on.

    Raises:
        LotteryError: where inputs are no images, or convolutions read them.
    """
    ax, level = ax or _new_axes(), _level(run, level)
    found = anatomy.anatomy(run, level).pixels
    if found is None:
        raise NothingToShow(f"{run.path.name}: no first layer reads images pixel by pixel, so there is nothing to show")
    picture = ax.imshow(np.ma.masked_equal(found, 0), cmap="Blues", vmin=0)
    ax.figure.colorbar(picture, ax=ax, label="connections")
    ax.set_axis_off()
    return _titled(ax, run, f"Connections of each input pixel, level {level}", "means over replicates; blank: none")


def units(run: Run, level: int | None = None, ax: Axes | None = None) -> Axes:
    """Share of the connections into each unit that a level of the trunk has left (percent), most connected first, a
    line per layer, or of more than six layers a map; the mean over replicates. The level is as in `training`."""
    level = _level(run, level)
    layers = anatomy.anatomy(run, level).layers
    if len(layers) > FEW:
        title = f"Connections into each unit, level {level}"
        return _titled(_unit_map(layers, ax), run, title, "means over replicates")
    ax = ax or _new_axes()
    for i, layer in enumerate(layers):
        x = 100 * (np.arange(layer.units) + 0.5) / layer.units
        ax.plot(x, 100 * layer.into * layer.units / layer.total, color=COLOURS[i % len(COLOURS)], label=layer.name)
    ax.legend(frameon=False)
    return _titled(_connection_axes(ax), run, f"Connections into each unit, level {level}", "means over replicates")


def _unit_map(layers: Sequence[anatomy.Layer], ax: Axes | None) -> Axes:
    places = (np.arange(100) + 0.5) / 100
    shares = [layer.into[(places * layer.units).astype(int)] * layer.units / layer.total for layer in layers]
    ax = _by_layer([layer.name for layer in layers], shares, "connections left (%)", ax)
    ax.set_xlabel("units, most connected first (%)")
    return ax


def channels(run: Run, level: int | None = None, ax: Axes | None = None) -> Axes:
    """Draws the filters and units that each layer has left at a level of the trunk (percent), the mean over replicates:
    those that are not dead, or where it is unknown what follows what, those that any weight leads to.

    Args:
        run: the run.
        level: as in `training`.
        ax: axes to draw on.

    Raises:
        LotteryError: for a stack of linear layers, whose units `units` draws.
    """
    level = _level(run, level)
    found = anatomy.anatomy(run, level)
    if found.linear:
        raise NothingToShow(f"{run.path.name}: it is a stack of linear layers, which have no filters; see units")
    ax = ax or _tall_axes(len(found.layers))
    for i, layer in enumerate(found.layers):
        ax.barh(i, 100 * layer.left / layer.units, color=COLOURS[0])
        ax.text(100, i, f" {layer.left:.4g} of {layer.units}", va="center", fontsize=8)
    _name_layers(ax, [layer.name for layer in found.layers])
    ax.set_xlim(0, 100)
    dead = all(layer.dead is not None for layer in found.layers)
    ax.set_xlabel("filters and units left (%)" if dead else "filters and units that any weight leads to (%)")
    return _titled(ax, run, f"Filters and units left, level {level}", "means over replicates")


def kernels(run: Run, level: int | None = None, ax: Axes | None = None) -> Axes:
    """Draws the kernels of the convolution that reads images, at a level of the trunk in its first replicate: what they
    start from, and what they become. Blank where they are pruned; of each filter the channels one below the other.

    Args:
        run: the run.
        level: as in `training`.
        ax: axes to draw on.

    Raises:
        LotteryError: where it is not known that a convolution reads images.
    """
    level = _level(run, level)
    found = anatomy.anatomy(run, level).kernels
    if found is None:
        raise NothingToShow(f"{run.path.name}: no convolution is known to read its images, so there are no kernels")
    ax = ax or _new_axes()
    count, depth, h, w = found.start.shape
    mosaic = Mosaic((count, depth, h, w), aspect=0.75)
    parts = [mosaic.picture(part) for part in (found.start, found.trained)]
    width = parts[0].shape[1] + 3
    most = max(float(np.nanmax(np.abs(part), initial=0)) for part in parts) or 1.0
    gap = np.full((len(parts[0]), 3), np.nan)
    picture = ax.imshow(np.hstack([parts[0], gap, parts[1]]), cmap=SIGNS, vmin=-most, vmax=most)
    x, y = mosaic.outlines()
    for offset, title in zip((0, width), ("initial", "trained"), strict=True):
        ax.plot([np.nan if v is None else v + offset for v in x], np.array(y, float), color="0.6", linewidth=0.5)
        ax.text(offset - 0.5, -1, title)
    ax.figure.colorbar(picture, ax=ax, label="weight")
    ax.set_axis_off()
    shown = f" (the first {mosaic.count} of {count})" if count > mosaic.count else ""
    what = f"Kernels of {found.name.removesuffix('.weight')}{shown}, level {level}"
    return _titled(ax, run, what, f"blank where pruned; replicate {found.replicate}", pad=16)


def weights(run: Run, level: int | None = None, tensor: str | None = None, ax: Axes | None = None) -> Axes:
    """Draws the distribution of a layer's surviving weights, initial and trained, of all replicates of a level of the
    trunk; each relative to its fullest bin, without the outermost 0.1 % at each end.

    Args:
        run: the run.
        level: as in `training`.
        tensor: the layer; the first if None.
        ax: axes to draw on.

    Raises:
        LotteryError: for a layer that is not there.
    """
    ax, level = ax or _new_axes(), _level(run, level)
    by_name = {layer.name: layer for layer in anatomy.anatomy(run, level).layers}
    if tensor is not None and tensor not in by_name:
        raise LotteryError(known("layer", tensor, by_name))
    layer = by_name[tensor or next(iter(by_name))]
    for label, bins, ink in (("initial", layer.start, "0.6"), ("trained", layer.trained, COLOURS[0])):
        ax.stairs(100 * bins.counts / max(1, bins.counts.max(initial=0)), bins.edges, color=ink, label=label)
    ax.set_xlabel("weight")
    ax.set_ylabel("survivors (% of the fullest bin)")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.legend(frameon=False)
    return _titled(ax, run, f"Surviving weights of {layer.name}, level {level}", "of all replicates")


def overlap(run: Run, ax: Axes | None = None) -> Axes:
    """Weights that two replicates' tickets share, as a multiple of what chance gives, against the weights left: mean
    over pairs, minimum to maximum shaded. Only the line of chance with one replicate."""
    ax = ax or _new_axes()
    density = densities(run.levels())
    tickets = list(anatomy.anatomies(run))
    if not tickets:
        raise NothingToShow(f"{run.path.name}: no replicate has its tickets, which --keep has dropped")
    found = [(100 * density[a.level], o) for a in tickets if (o := a.overlap) and o.chance > 0]
    x = [d for d, _ in found]
    mean, low, high = ([getattr(o, name) / o.chance for _, o in found] for name in ("mean", "min", "max"))
    ax.fill_between(x, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
    ax.plot(x, mean, "o-", color=COLOURS[0], markersize=3.5, label="tickets")
    ax.axhline(1, color="0.6", linestyle="dashed", label="chance")
    _density_axis(ax, density.values(), 6)
    ends = [1.0, *low, *high]
    room = 0.08 * (max(ends) - min(ends)) or 0.01
    ax.set_ylim(min(ends) - room, max(ends) + room)
    ax.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    ax.set_ylabel("shared weights (multiples of chance)")
    ax.legend(frameon=False)
    note = "means over pairs of replicates, shaded from the lowest to the highest"
    return _titled(ax, run, "Do replicates find the same ticket?", note)


def controls(run: Run, ax: Axes | None = None) -> Axes:
    """Test accuracy of the tickets minus that of each other branch, paired by replicate, against the weights left: as
    in `compare`."""
    levels = run.levels()
    found = comparison.controls(levels)
    if not found:
        raise NothingToShow(f"{run.path.name}: no other branch was trained, so there is no control to compare with")
    trunk = branch_name(trunk_of(levels))
    lines = [(f"{trunk} − {branch_name(branch)}", contrast, colour(branch)) for branch, contrast in found.items()]
    ax = _differences(lines, ax or _new_axes())
    ax.legend(frameon=False)
    return _titled(ax, run, "Tickets against their controls", DIFFERENCES)


def latency(run: Run, batch: int = 1, ax: Axes | None = None) -> Axes:
    """Draws the time that a batch takes by each way to compute a ticket's logits against the weights left: medians, as
    bars the quartiles over rounds.

    Args:
        run: of which `lottery bench` has measured levels.
        batch: examples in it.
        ax: axes to draw on.

    Raises:
        LotteryError: for a run that was not measured, or not with that batch size.
    """
    levels = _measured(run)
    if batch not in (batches := batches_of(levels)):
        raise LotteryError(known("batch size", str(batch), map(str, batches)))
    ax = _cost_axes(cost_lines(levels, "latency", batch), "latency", ax)
    return _titled(ax, run, f"Latency at batch {batch}", f"{_replicates(levels)}, {QUARTILES}")


def file_size(run: Run, ax: Axes | None = None) -> Axes:
    """Draws the size of each kind of file of a ticket against the weights left. Raises LotteryError for a run of which
    `lottery bench` has measured no level."""
    levels = _measured(run)
    ax = _cost_axes(cost_lines(levels, "file_bytes"), "file_bytes", ax)
    return _titled(ax, run, "File size", f"{_replicates(levels)}, trained weights alone")


def inference(run: Run) -> list[Axes]:
    """Draws what tickets cost to use: `latency` at each batch size that was measured, and `file_size`, with one legend
    beside the panels."""
    levels = _measured(run)
    batches = batches_of(levels)
    title = f"{_title(run)}\n{_replicates(levels)}, {QUARTILES}"
    *axes, last = drawn = panels(len(batches) + 1, title, columns=2)
    for batch, ax in zip(batches, axes, strict=True):
        latency(run, batch, ax)
    file_size(run, last)
    shared_legend(drawn)
    for ax in drawn:
        ax.set_title(ax.get_title().partition("\n")[0], fontsize=10)
        legend = ax.get_legend()
        assert legend is not None
        legend.remove()
    return drawn


QUARTILES = "medians over rounds on one core; bars: quartiles"


def _measured(run: Run) -> list[timings.Measured]:
    levels = timings.read(run)
    if not levels:
        raise NothingToShow(f"{run.path.name}: nothing was measured yet; `lottery bench {run.path.name}` does")
    return levels


def _replicates(levels: Sequence[timings.Measured]) -> str:
    return "replicate " + ", ".join(map(str, sorted({level.place.replicate for level in levels})))


def _cost_axes(lines: CostLines, column: str, ax: Axes | None) -> Axes:
    """A line for each way to compute logits, on logarithmic axes."""
    ax, shown = ax or _new_axes(), measure(column)
    for (method, _, _), points in lines.items():
        y, low, high = shown.factor * np.array([(s.median, s.low, s.high) for _, s in points]).T
        ax.errorbar(
            [100 * density for density, _ in points],
            y,
            yerr=[y - low, high - y],
            label=method_name(method),
            color=METHOD_COLOURS.get(method, "0.5"),
            marker="o",
            markersize=2.5,
            linewidth=4 if method == "dense" else 1.3,  # files may be of one size: each line stays visible
            linestyle="dashed" if method in SHRUNK else "solid",
            elinewidth=0.8,
        )
    _density_axis(ax, {density for points in lines.values() for density, _ in points}, 6)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    spare = max(1.0, 6 * low / high) ** 0.5  # at least two of 1, 2 and 5 times powers of ten are within the range
    ax.set_ylim(low / spare, high * spare)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: significant(y)))
    ax.set_ylabel(shown.axis)
    handles, labels = ax.get_legend_handles_labels()
    one = dict(zip(labels, handles, strict=True))  # of several branches or replicates
    ax.legend(one.values(), one.keys(), loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax


# --- several runs ----------------------------------------------------------------------------------------------------


def compare(runs: Sequence[Run]) -> list[Axes]:
    """Draws the test accuracy of the trunks of runs against the weights left, and below it what each differs from the
    first, in percentage points: means, as bars the 95 % interval of each level alone, shaded the one for all levels
    together. Replicates are paired or not as `analysis.comparison.compare` says.

    Args:
        runs: two to seven. Legends name them by the settings that differ.

    Returns:
        The axes: accuracies, then differences.

    Raises:
        LotteryError: for another number of runs, for one without a dense network, and for runs that cannot be compared,
            such as those on different images.
    """
    if not 2 <= len(runs) <= len(COLOURS):
        raise LotteryError(f"{len(runs)} runs: give 2 to {len(COLOURS)} to compare")
    settings = [run_settings(run) for run in runs]
    names = [label or run.path.name for label, run in zip(run_labels(settings), runs, strict=True)]
    first, *others = [run.now() for run in runs]
    differences = []
    for name, run, ink in zip(names[1:], others, COLOURS[1:], strict=False):
        found = comparison.compare(run, first)
        if found.contrast is None:
            raise LotteryError(f"cannot compare {run.path.name} with {first.path.name}: {found.obstacle}")
        differences.append((name, found.contrast, ink))
    column = EARLY if all(contrast.column == EARLY for _, contrast, _ in differences) else LAST
    lines = [
        Line(name, run.levels(), colour=ink) for name, run, ink in zip(names, [first, *others], COLOURS, strict=False)
    ]
    top, bottom = panels(2, "", columns=1, width=7, height=3.6)
    against_density(lines, column, top, inf)
    above: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "alignment": "left"}  # where it hides no line
    top.legend(**above, frameon=False, fontsize=9, title="means over replicates; bars: lowest to highest")
    _differences(differences, bottom).set_title(f"compared with {names[0]}\n{DIFFERENCES}", fontsize=9, loc="left")
    bottom.sharex(top)
    return [top, bottom]


DIFFERENCES = "means over replicates; bars: 95 % of that level alone; shaded: of all levels together"


def _differences(lines: Sequence[tuple[str, comparison.Contrast, str]], ax: Axes) -> Axes:
    """Contrasts in test accuracy, by label and colour, against the weights left."""
    density: set[float] = set()
    for i, (label, contrast, ink) in enumerate(lines):
        table = contrast.accuracy[contrast.accuracy["density"] > 0]
        x = 100 * table["density"]
        mean, low, high = (table[name] for name in ("mean", "low", "high"))
        ax.fill_between(x, table["joint_low"], table["joint_high"], color=ink, alpha=0.15, linewidth=0)
        aside = 1.012 ** ((len(lines) - 1) / 2 - i)  # the bars of two lines can be told apart
        bars = np.nan_to_num([mean - low, high - mean])  # none with one replicate
        ax.errorbar(x * aside, mean, yerr=bars, label=label, color=ink, marker="o", markersize=2.5, elinewidth=0.8)
        density |= set(table["density"])
    ax.axhline(0, color="0.5", linewidth=1, linestyle="dashed")
    _density_axis(ax, density, 6)
    ax.set_ylabel("difference in test accuracy (points)")
    return ax


FIGURES: dict[str, Callable[[Run], Axes]] = {
    "accuracy": accuracy,
    "early_stop": early_stop,
    "training": training,
    "layers": layers,
    "pixels": pixels,
    "units": units,
    "channels": channels,
    "kernels": kernels,
    "weights": weights,
    "overlap": overlap,
    "seconds": seconds,
    "controls": controls,
    "latency": latency,
    "file_size": file_size,
}
"""Name of the file -> what draws it."""


def save(run: Run, names: Iterable[str] = tuple(FIGURES), kind: str = "png", width: float | None = None) -> list[Path]:
    """Writes figures to the run's `figures` folder, leaving out those with nothing to show, or of dropped weights.

    Args:
        run: the run.
        names: of `FIGURES`.
        kind: png, pdf or svg.
        width: inches, as in a paper's column (3.3), with letters of 8 points or less; 7 if None.

    Returns:
        The paths.

    Raises:
        LotteryError: if no level is finished, for a figure that there is not, and for a width below 2 or above 20.
    """
    names = list(names)
    for name in names:
        if name not in FIGURES:
            raise LotteryError(known("figure", name, FIGURES))
    if width is not None and not 2 <= width <= 20:
        raise LotteryError(f"width = {width:g}: must be 2 to 20 inches")
    if not run.rows():
        raise LotteryError(f"{run.path.name}: no level is finished, so there is nothing to draw yet")
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    paths = []
    for name in names:
        try:
            ax = FIGURES[name](run)
        except (NothingToShow, Dropped):  # and no other: a damaged file must not be a missing picture
            continue
        if ax.has_data():
            if width is not None:
                _fit(ax, width)
            paths.append(folder / f"{name}.{kind}")
            write(paths[-1], _picture(ax, kind, 150))
    return paths


def save_inference(run: Run) -> Path:
    """Writes `inference` to the run's `figures` folder, and returns the path."""
    path = run.path / "figures" / "inference.png"
    path.parent.mkdir(exist_ok=True)
    write(path, _picture(inference(run)[0], "png", 150))
    return path


def notebook_html(run: Run) -> str:
    """What a notebook shows of a run, as HTML: name, answer, a row per level of the trunk, and the accuracies."""
    levels, answer = run.levels(), answer_of(run)
    name, headline, *details = (
        html.escape(s) for s in (run.name or run.path.name, answer.headline, *answer.details[:SENTENCES])
    )
    head = f"<p><b>{name}</b><br>{headline}</p><p><small>{'<br>'.join(details)}</small></p>"
    if levels.empty:
        return head
    columns = (STOP, EARLY, LAST)
    titles = ["level", *(measure(column).axis for column in ("density", *columns))]
    rows = [
        [str(row.level), measure("density").text(row.density), *(cell.mean for cell in row.cells)]
        for row in table(levels[levels["branch"] == trunk_of(levels)], columns)
    ]
    body = "".join(f"<tr><td>{'</td><td>'.join(cells)}</td></tr>" for cells in rows)
    source = base64.b64encode(_picture(accuracy(run), "png", 90)).decode()
    return (
        f"{head}<table><thead><tr><th>{'</th><th>'.join(titles)}</th></tr></thead><tbody>{body}</tbody></table>"
        f'<img alt="Test accuracy against weights left" src="data:image/png;base64,{source}">'
    )


def _picture(ax: Axes, kind: str, dpi: int) -> bytes:
    picture = io.BytesIO()
    _figure(ax).savefig(picture, format=kind, dpi=dpi)
    return picture.getvalue()


def _fit(ax: Axes, width: float) -> None:
    """Makes a figure that wide; where it is narrow, with small letters and the legend below."""
    figure = _figure(ax)
    scale = min(1.0, max(0.7, width / 5))
    figure.set_size_inches(width, width * 4.5 / 7 if width > 4.5 else width * 0.9)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(scale * float(text.get_fontsize()))
    for axes in figure.axes:
        axes.tick_params(labelsize=scale * 10)
    legend = ax.get_legend()
    if width <= 4.5:
        ax.title.set_wrap(True)
        if ax.get_xscale() == "log":  # half as many labels have room
            ax.xaxis.set_major_locator(FixedLocator(_every_other(ax)))
        if legend is not None and len(legend.get_texts()) > 1:
            handles, labels = ax.get_legend_handles_labels()
            legend.remove()
            figure.legend(handles, labels, loc="outside lower center", ncol=2, frameon=False, fontsize=scale * 10)


def _every_other(ax: Axes) -> list[float]:
    """Of the labels of an axis that are within its range, every other where there are more than four."""
    low, high = sorted(ax.get_xlim())
    inside = [x for x in ax.xaxis.get_majorticklocs() if low <= x <= high]
    return inside[::2] if len(inside) > 4 else inside


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    return figure


def _level(run: Run, level: int | None) -> int:
    """That level of the trunk, or the one that the answer is about. Raises LotteryError where there is none."""
    levels = run.levels()
    there = levels_of(levels, trunk_of(levels))
    if level is not None and level not in there:
        raise LotteryError(known("level", str(level), map(str, there)))
    return answer_of(run).level if level is None else level


def _new_axes() -> Axes:
    return panels(1, "", width=7, height=4.5)[0]


def _title(run: Run) -> str:
    spec = run.spec
    if isinstance(spec, OwnLoop):
        return spec.title
    return f"{spec.model.name} on {spec.data.name}, {number_of(spec.recipe.iterations, 'iteration')} a level"


def _bars(levels: pd.DataFrame) -> str:
    """What points and bars are."""
    if levels["replicate"].nunique() < 2:
        return "one replicate"
    return f"means over {number_of(levels['replicate'].nunique(), 'replicate')}; bars: lowest to highest"


def _titled(ax: Axes, run: Run, what: str, note: str, pad: float | None = None) -> Axes:
    """With a title that says what is drawn, of which run, and what lines, bars and shades are."""
    ax.set_title(f"{what}\n{_title(run)}\n{note}", pad=pad, fontsize=9)
    return ax
