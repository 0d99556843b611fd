"""Figures of a run: matplotlib, `ax=` like everyone else's, returning the axes."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lottery import anatomy, history
from lottery.analysis import OpenRun
from lottery.answer import answer
from lottery.errors import LotteryError, known
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


def early_stop(run: Run, ax: Axes | None = None) -> Axes:
    """Early-stopping iteration against the weights remaining: means over replicates and draws, minimum to maximum
    shaded. Empty where nothing was held out for validation."""
    return _bands(run, "early_stop_iteration", "iteration of lowest validation loss", ax)


def seconds(run: Run, ax: Axes | None = None) -> Axes:
    """Seconds to train a level against the weights remaining, as `early_stop`."""
    return _bands(run, "seconds", "seconds to train one level", ax)


def training(run: Run, level: int | None = None, column: str = "validation_loss", ax: Axes | None = None) -> Axes:
    """A column of the histories at one level against the iteration, logarithmic: a line per replicate and draw, early
    stop marked, the dense network in grey.

    level: the one that the report is about, if None. Accuracies are in percent. Raises LotteryError for a level or a
    column that is not there.
    """
    ax, level = ax or _new_axes(), _level(run, level)
    factor = 100 if "accuracy" in column else 1
    stop = {"validation_loss": "validation_loss_min", "test_accuracy": "test_accuracy_early_stop"}.get(column)
    if column not in history.COLUMNS:
        raise LotteryError(known("column", column, history.COLUMNS))
    rows = run.rows()
    for row in [r for r in rows if r["level"] == 0] + [r for r in rows if r["level"] == level]:
        values = run.load(row["branch"], row["replicate"], row["level"], row["draw"]).history
        chosen = row["level"] == level
        colour = BRANCH_COLOURS.get(row["branch"], "0.5") if chosen else "0.7"
        first = chosen and (row["replicate"], row["draw"]) == (0, 0)
        label = row["branch"] if first else None
        ax.plot(values["iteration"], factor * values[column], color=colour, linewidth=1, label=label)
        if chosen and stop and row[stop] is not None:
            ax.plot(row["early_stop_iteration"], factor * row[stop], "o", color=colour, markerfacecolor="white")
    ax.set_xscale("log")
    ax.set_xlabel("training iteration")
    ax.set_ylabel(column.replace("_", " ") + (" (%)" if factor == 100 else " (nats)"))
    ax.set_title(f"{_title(run)}: level {level}")
    ax.legend(frameon=False)
    return ax


def pixels(run: Run, level: int | None = None, ax: Axes | None = None) -> Axes:
    """Connections that each input pixel has left at a level of the trunk, the mean over replicates; blank where none.

    level: as in `training`. Raises LotteryError where inputs are no images.
    """
    ax, level = ax or _new_axes(), _level(run, level)
    found = anatomy.anatomy(run, level).pixels
    if found is None:
        raise LotteryError(f"{run.path.name}: its inputs are no images, so there are no pixels to show")
    picture = ax.imshow(np.ma.masked_equal(found, 0), cmap="Blues", vmin=0)
    ax.figure.colorbar(picture, ax=ax, label="connections")
    ax.set_axis_off()
    ax.set_title(f"{_title(run)}: level {level}")
    return ax


def units(run: Run, level: int | None = None, ax: Axes | None = None) -> Axes:
    """Share of the connections into each unit that a level of the trunk has left (percent), most connected first, a
    line per layer; the mean over replicates. level: as in `training`."""
    ax, level = ax or _new_axes(), _level(run, level)
    for i, layer in enumerate(anatomy.anatomy(run, level).layers):
        x = 100 * (np.arange(layer.units) + 0.5) / layer.units
        ax.plot(x, 100 * layer.into * layer.units / layer.total, color=COLOURS[i % len(COLOURS)], label=layer.name)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("units, most connected first (%)")
    ax.set_ylabel("connections left (%)")
    ax.set_title(f"{_title(run)}: level {level}")
    ax.legend(frameon=False)
    return ax


def weights(run: Run, level: int | None = None, tensor: str | None = None, ax: Axes | None = None) -> Axes:
    """Distribution of the surviving weights of a layer, initial and trained, of all replicates of a level of the trunk;
    each relative to its fullest bin, without the outermost 0.1 % at each end.

    level: as in `training`; tensor: the first layer if None. Raises LotteryError for a layer that is not there.
    """
    ax, level = ax or _new_axes(), _level(run, level)
    layers = {layer.name: layer for layer in anatomy.anatomy(run, level).layers}
    if tensor is not None and tensor not in layers:
        raise LotteryError(known("layer", tensor, layers))
    layer = layers[tensor or next(iter(layers))]
    for label, found, colour in (("initial", layer.start, "0.6"), ("trained", layer.trained, COLOURS[0])):
        ax.stairs(100 * found.counts / max(1, found.counts.max(initial=0)), found.edges, color=colour, label=label)
    ax.set_xlabel(f"{layer.name}")
    ax.set_ylabel("survivors (% of the fullest bin)")
    ax.set_title(f"{_title(run)}: level {level}")
    ax.legend(frameon=False)
    return ax


def overlap(run: Run, ax: Axes | None = None) -> Axes:
    """Weights that two replicates' tickets share, as a multiple of what chance gives, against the weights remaining:
    mean over pairs, minimum to maximum shaded. Only the line of chance with one replicate."""
    ax = ax or _new_axes()
    density = {row["level"]: row["density"] for row in run.rows() if row["branch"] == run.spec.start}
    found = [(100 * density[a.level], o) for a in anatomy.anatomies(run) if (o := a.overlap) and o.chance > 0]
    x = [d for d, _ in found]
    low, high = ([getattr(o, end) / o.chance for _, o in found] for end in ("min", "max"))
    ax.fill_between(x, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
    ax.plot(x, [o.mean / o.chance for _, o in found], "o-", color=COLOURS[0], markersize=3.5)
    ax.axhline(1, color="0.6", linestyle="dashed")
    density_axis(ax, list(density.values()))
    ax.set_ylim(bottom=0)
    ax.set_ylabel("shared weights (multiples of chance)")
    ax.set_title(_title(run))
    return ax


FIGURES: dict[str, Callable[[Run], Axes]] = {
    "accuracy": accuracy,
    "early_stop": early_stop,
    "training": training,
    "layers": layers,
    "pixels": pixels,
    "units": units,
    "weights": weights,
    "overlap": overlap,
    "seconds": seconds,
}
"""Name of the file -> what draws it."""


def save(run: Run, names: Iterable[str] = tuple(FIGURES), kind: str = "png") -> list[Path]:
    """Writes figures to the run's `figures` folder; returns the paths. Those with nothing to show are left out.

    kind: png, pdf or svg. Raises LotteryError if no level is finished.
    """
    if not run.rows():
        raise LotteryError(f"{run.path.name}: no level is finished, so there is nothing to draw yet")
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    paths = []
    for name in names:
        try:
            ax = FIGURES[name](run)
        except LotteryError:
            continue
        if not ax.has_data():
            continue
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        paths.append(folder / f"{name}.{kind}")
        picture = io.BytesIO()
        figure.savefig(picture, format=kind, dpi=150)
        write(paths[-1], picture.getvalue())
    return paths


def notebook_html(run: Run) -> str:
    """What a notebook shows of a run, as HTML: name, answer, a row per level of the trunk, and the accuracies."""
    levels = OpenRun(run.path).levels()
    head = f"<p><b>{html.escape(run.path.name)}</b><br>{html.escape(answer(levels, run.spec.start).headline)}</p>"
    if levels.empty:
        return head
    columns = {
        "early_stop_iteration": (1, ",.0f"),
        "test_accuracy_early_stop": (100, ".2f"),
        "test_accuracy": (100, ".2f"),
    }
    means = levels[levels["branch"] == run.spec.start].groupby("level")[["density", *columns]].mean()
    rows = "".join(
        f"<tr><td>{level}</td><td>{100 * row['density']:.2f}</td>"
        + "".join(
            f"<td>{'–' if np.isnan(row[column]) else format(factor * row[column], form)}</td>"
            for column, (factor, form) in columns.items()
        )
        + "</tr>"
        for level, row in means.iterrows()
    )
    titles = ("level", "weights left (%)", "early stop (iteration)", "test accuracy (%) at early stop", "at the end")
    header = "".join(f"<th>{title}</th>" for title in titles)
    picture = io.BytesIO()
    accuracy(run).get_figure().savefig(picture, format="png", dpi=90)  # type: ignore[union-attr]
    source = base64.b64encode(picture.getvalue()).decode()
    return (
        f"{head}<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"
        f'<img alt="Test accuracy against weights remaining" src="data:image/png;base64,{source}">'
    )


def _level(run: Run, level: int | None) -> int:
    """That level of the trunk, or the one that the answer is about. Raises LotteryError where there is none."""
    there = sorted({row["level"] for row in run.rows() if row["branch"] == run.spec.start})
    if level is None:
        return answer(OpenRun(run.path).levels(), run.spec.start).level
    if level not in there:
        raise LotteryError(known("level", str(level), map(str, there)))
    return level


def _bands(run: Run, column: str, label: str, ax: Axes | None) -> Axes:
    """Every branch: means over replicates and draws, minimum to maximum shaded."""
    ax = ax or _new_axes()
    seen = []
    for branch, rows in run.curves().items():
        points = [(100 * d, v) for d, v in _by_level(rows, column) if v and d > 0]
        if not points:
            continue
        x = [d for d, _ in points]
        seen += x
        colour = BRANCH_COLOURS.get(branch, "0.5")
        ax.fill_between(
            x, [min(v) for _, v in points], [max(v) for _, v in points], color=colour, alpha=0.15, linewidth=0
        )
        ax.plot(x, [sum(v) / len(v) for _, v in points], "o-", color=colour, markersize=3.5, label=branch)
    if seen:
        density_axis(ax, [x / 100 for x in seen])
        ax.legend(frameon=False)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(label)
    ax.set_title(_title(run))
    return ax


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
