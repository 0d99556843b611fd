"""The anatomy of tickets, on the page: charts and tables for a few linear layers, and for many layers of any kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10

import numpy as np

from lottery.analysis.anatomy import Anatomy, Kernels, Layer, anatomies
from lottery.analysis.answer import share
from lottery.analysis.frames import densities
from lottery.views.measures import COLOURS, marks, measure
from lottery.views.mosaic import MOST, Mosaic
from lottery.views.report.charts import (
    Chart,
    Shown,
    Trace,
    axis,
    layer_chart,
    log_axis,
    overlap_chart,
    pixel_chart,
    plain,
    rounded,
    sliding,
    unit_chart,
    weight_chart,
)

FEW = 6
"""Layers that lines of one chart can tell apart."""


@dataclass(frozen=True)
class Tickets:
    """The anatomy of a run's tickets."""

    shown: Shown
    charts: list[Chart]
    weights: list[Chart]
    """Of each layer, where there are few."""
    headings: list[str]
    """Of the layers' table, after that of the layer."""
    tables: list[list[tuple[str, list[str]]]]
    """For each position of the slider, name and cells of each layer."""
    notes: list[str]
    """Sentences that explain the table."""


def tickets(s: Shown, levels: Sequence[int]) -> Tickets | None:
    """The anatomy of the trunk; at a position of the slider that the run lacks, of the level before. None where --keep
    has dropped all tickets."""
    found = {a.level: a for a in anatomies(s.run)}
    if not found:
        return None
    at = [found[max(known for known in found if known <= max(level, min(found)))] for level in levels]
    one = at[0]
    few = len(one.layers) <= FEW
    charts = [pixel_chart(at)] if one.pixels is not None else []
    if one.kernels:
        charts += _kernel_charts(at)
    if not one.linear:
        charts.append(_left_chart(at))
    charts.append(unit_chart(at) if few else _unit_map(at))
    if len(found) > 1:
        charts.append(layer_chart(found, at) if few else _density_map(found, at))
    if any(a.overlap for a in found.values()):
        charts.append(overlap_chart(found, at, densities(s.levels)))
    if not few:
        charts.append(_spread_chart(at))
    weights = [weight_chart(at, i) for i in range(len(one.layers))] if few else []
    for chart in (*charts, *weights):
        chart.name = f"{s.letter or 'run'}_{chart.name}"
    columns = _columns(one)
    tables = [[(layer.name, [text(layer) for text in columns.values()]) for layer in a.layers] for a in at]
    return Tickets(s, charts, weights, list(columns), tables, _notes(one))


def _columns(a: Anatomy) -> dict[str, Callable[[Layer], str]]:
    """Heading -> text of a layer. A stack of linear layers leaves out what its layers show by themselves."""
    dead = all(layer.dead is not None for layer in a.layers)
    ways = "connections into a unit" if a.linear else "weights into a unit"
    return {
        "weights left": lambda layer: f"{layer.kept:,.0f}",
        "of": lambda layer: f"{layer.total:,}",
        "left": lambda layer: share(layer.density).replace(" %", "\u00a0%"),
        "units": lambda layer: str(layer.units),
        **({} if a.linear else {"fed": lambda layer: _one(layer.fed)}),
        **({"dead": lambda layer: _one(layer.dead or 0)} if dead else {}),
        **({} if a.linear else {"inputs": lambda layer: str(layer.inputs), "read": lambda layer: _one(layer.read)}),
        f"{ways}: median": lambda layer: _one(np.median(layer.into)),
        "range": lambda layer: f"{_one(layer.into.min())}–{_one(layer.into.max())}",
    }


def _notes(a: Anatomy) -> list[str]:
    notes = []
    if any(len(layer.shape) > 2 for layer in a.layers):
        notes.append("The units of a convolution are its filters, its inputs channels.")
    if not a.linear:
        notes.append("A unit is fed if any weight leads to it; an input is read if any comes from it.")
    if any(layer.dead is not None for layer in a.layers):
        notes.append("A hidden unit is dead if nothing leads to it or nothing leads on from it.")
    return notes


def _one(value: float) -> str:
    """With one digit after the point, where there is anything after it."""
    return f"{value:,.1f}".removesuffix(".0")


# --- by layer: layers from top to bottom in the network's order -----------------------------------------------------


def _names(a: Anatomy) -> list[str]:
    return [plain(layer.name.removesuffix(".weight")) for layer in a.layers]


def _layer_axis() -> dict[str, object]:
    return {"type": "category", "autorange": "reversed", "showgrid": False, "tickfont": {"size": 11}}


def _left_chart(at: Sequence[Anatomy]) -> Chart:
    """Units that are not dead, or where those are unknown, that are fed."""
    known = all(layer.dead is not None for layer in at[0].layers)

    def draw(a: Anatomy) -> tuple[list[Trace], str]:
        text = [f"{_one(layer.left)} of {layer.units}" for layer in a.layers]
        bar: Trace = {"type": "bar", "orientation": "h", "y": _names(a), "text": text, "textposition": "none"}
        bar |= {
            "x": rounded([100 * layer.left / layer.units for layer in a.layers], 1),
            "marker": {"color": COLOURS[0]},
        }
        bar |= {"hovertemplate": "%{text}<extra>%{y}</extra>"}
        return [bar], "; ".join(f"{layer.name} has {words}" for layer, words in zip(a.layers, text, strict=True))

    layout = {"xaxis": axis("units left (%)", range=[0, 100]), "yaxis": axis("") | _layer_axis()}
    kinds = "Filters of convolutions and units of linear layers"
    caption = f"{kinds} {'that are not dead' if known else 'that any weight leads to'}, mean over replicates."
    chart = sliding("left", "Filters and units left", caption, layout, at, draw)
    chart.rows = len(at[0].layers)
    return chart


POSITIONS = 25
"""Places, from the most connected unit to the least, at which many layers are shown."""


def _unit_map(at: Sequence[Anatomy]) -> Chart:
    def shares(layer: Layer) -> np.ndarray:
        middles = (np.arange(POSITIONS) + 0.5) / POSITIONS
        found: np.ndarray = layer.into[(middles * layer.units).astype(int)] * layer.units / layer.total
        return found

    least = min((float(x[x > 0].min()) for a in at for x in map(shares, a.layers) if x.any()), default=1.0)

    def draw(a: Anatomy) -> tuple[list[Trace], str]:
        x = [round(100 * (i + 0.5) / POSITIONS) for i in range(POSITIONS)]
        says = (f"{layer.name} has a median of {np.median(layer.into):.3g} weights into a unit" for layer in a.layers)
        return [_heat(a, x, [shares(layer) for layer in a.layers], least)], "; ".join(says)

    layout = {"xaxis": axis("units, most connected first (%)", range=[0, 100]), "yaxis": axis("") | _layer_axis()}
    caption = "Share of the weights into each unit that are left, mean over replicates. Blank: none."
    chart = sliding("units", "How connected its units are", caption, layout, at, draw)
    chart.rows = len(at[0].layers)
    return chart


def _density_map(found: dict[int, Anatomy], at: Sequence[Anatomy]) -> Chart:
    first = found[min(found)]
    rows = [np.array([a.layers[i].density for a in found.values()]) for i in range(len(first.layers))]
    least = min((float(row[row > 0].min()) for row in rows if row.any()), default=1.0)
    label = measure("density").label.capitalize()
    said = (
        f"{layer.name} from {100 * row[0]:.3g} % to {100 * row[-1]:.3g} %"
        for layer, row in zip(first.layers, rows, strict=True)
    )
    x = axis("level (times pruned)", tickformat="d", dtick=-(-len(found) // 12))
    here: Trace = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "line": {"dash": "dot", "width": 1}}
    ends = [_names(first)[0], _names(first)[-1]]
    return Chart(
        "layers",
        f"{label} in each layer",
        "Mean over replicates. Blank: none; dotted: the slider’s level.",
        f"{label} of each layer by level: {'; '.join(said)}.",
        {"xaxis": x, "yaxis": axis("") | _layer_axis()},
        [_heat(first, [*found], rows, least)],
        [[here | {"x": [a.level] * 2, "y": ends}] for a in at],
        rows=len(rows),
    )


def _heat(a: Anatomy, x: Sequence[int], shares: Sequence[np.ndarray], least: float) -> Trace:
    """Fractions of each layer, `least` the smallest of any position of the slider, on a logarithmic scale of colours;
    0 is blank."""
    z = [rounded([log10(100 * v) if v else np.nan for v in row], 3) for row in shares]
    bottom = log10(100 * least) - 0.05
    marked = marks(10**bottom)
    bar = {"thickness": 10, "outlinewidth": 0, "tickvals": [round(log10(v), 4) for v in marked]}
    return {
        "type": "heatmap",
        "x": [*x],
        "y": _names(a),
        "z": z,
        "zmin": round(bottom, 4),
        "zmax": 2,
        "colorscale": "ink",
        "xgap": 1,
        "ygap": 1,
        "colorbar": bar | {"ticktext": [f"{v:g} %" for v in marked]},
        "text": [[f"{100 * v:.3g} %" for v in row] for row in shares],
        "hovertemplate": "%{text}<extra>%{y}</extra>",
        "hoverongaps": False,
    }


def _spread_chart(at: Sequence[Anatomy]) -> Chart:
    """How large surviving weights are: where there are too many layers for a histogram of each."""
    ends = [end.rms for a in at for layer in a.layers for end in (layer.start, layer.trained) if end.rms > 0] or [1.0]

    def draw(a: Anatomy) -> tuple[list[Trace], str]:
        traces: list[Trace] = []
        for name, marker in (("initial", {"color": "dense", "line": {"width": 2}}), ("trained", {"color": COLOURS[0]})):
            rms = [(layer.start if name == "initial" else layer.trained).rms or np.nan for layer in a.layers]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": rounded(rms, 6),
                    "y": _names(a),
                    "marker": marker | {"size": 9},
                    "hovertemplate": f"{name}: %{{x:.3g}}<extra>%{{y}}</extra>",
                }
            )
        words = (f"{layer.name} from {layer.start.rms:.2g} to {layer.trained.rms:.2g}" for layer in a.layers)
        return traces, "; ".join(words)

    low, high = 0.8 * min(ends), 1.25 * max(ends)
    marked = [m * 10.0**e for e in range(-6, 4) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    layout = {
        "xaxis": log_axis("root mean square", low, high, marked[:: -(-len(marked) // 6) or 1]) | {"showgrid": True},
        "yaxis": axis("") | _layer_axis() | {"showgrid": True},
        "showlegend": True,
    }
    caption = "Root mean square of each layer’s survivors, all replicates together: what they start from, and become."
    chart = sliding("spread", "Surviving weights, initial and trained", caption, layout, at, draw)
    chart.rows = len(at[0].layers)
    return chart


# --- kernels --------------------------------------------------------------------------------------------------------

SIGNS = [[0, "#0072B2"], [0.5, "#9aa1ab"], [1, "#D55E00"]]
"""From the most negative weight to the most positive."""


def _kernel_charts(at: Sequence[Anatomy]) -> list[Chart]:
    """What the convolution that reads images starts from, and what it becomes."""
    kernels = [a.kernels for a in at if a.kernels]
    most = max(float(np.nanmax(np.abs(x), initial=0)) for k in kernels for x in (k.start, k.trained)) or 1.0
    count, channels, h, w = kernels[0].start.shape
    mosaic = Mosaic((count, channels, h, w), aspect=1.3)
    x, y = mosaic.outlines()
    outline: Trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip"}
    outline |= {"line": {"width": 1.2}, "showlegend": False}
    bare = {"showgrid": False, "showticklabels": False, "ticks": "", "zeroline": False, "showline": False}
    layout = {"xaxis": bare | {"constrain": "domain"}, "yaxis": bare | {"scaleanchor": "x", "autorange": "reversed"}}
    shown = f"the first {MOST} of {count} filters" if count > MOST else f"all {count} filters"
    below = f", each with its {channels} channels one below the other" if channels > 1 else ""
    caption = f"Replicate {kernels[0].replicate}, {shown}{below}. Blank: pruned."

    def chart(name: str, when: str, weights: Callable[[Kernels], np.ndarray]) -> Chart:
        def draw(a: Anatomy) -> tuple[list[Trace], str]:
            assert a.kernels is not None
            cells = mosaic.picture(weights(a.kernels))
            trace: Trace = {"type": "heatmap", "z": [rounded(row) for row in cells], "zmin": -most, "zmax": most}
            trace |= {"colorscale": SIGNS, "colorbar": {"thickness": 10, "outlinewidth": 0}, "hoverongaps": False}
            kept = int((~np.isnan(weights(a.kernels))).sum())
            return [trace | {"hovertemplate": "%{z}<extra></extra>"}], (
                f"{kept:,} of {a.kernels.start.size:,} {when} weights of {a.kernels.name} are left in replicate "
                f"{a.kernels.replicate}"
            )

        title = f"Kernels of {kernels[0].name.removesuffix('.weight')}, {when}"
        one = sliding(name, title, caption, layout, at, draw)
        one.traces = [outline]
        return one

    return [
        chart("kernels_initial", "initial", lambda k: k.start),
        chart("kernels_trained", "trained", lambda k: k.trained),
    ]
