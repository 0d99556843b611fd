"""The charts of the report: numbers of runs in, Plotly's own dicts out. Nothing here draws.

Accuracies and densities are percent in charts, fractions in the frames. Text that Plotly would read as markup goes
through `_plain`.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lottery.analysis import OpenRun, densities, summary
from lottery.anatomy import Anatomy, anatomies
from lottery.answer import Answer, share
from lottery.plots import BRANCH_COLOURS, COLOURS

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Lines of the first run, the second, ...: colours are the branches'."""

HISTORY_BYTES = 2_400_000
"""Of the page that training curves may take: with Plotly's 4.8 MB it stays below 8 MB."""

Trace = dict[str, Any]


@dataclass
class Chart:
    """A figure: what is always drawn, and what is drawn at one position of the level slider."""

    name: str
    title: str
    caption: str
    says: str
    """What it shows, in words and numbers, for those who do not see it."""
    layout: dict[str, Any]
    traces: list[Trace] = field(default_factory=list)
    by_level: list[list[Trace]] = field(default_factory=list)
    says_by_level: list[str] = field(default_factory=list)
    marks: list[list[float]] = field(default_factory=list)
    """Where on the horizontal axis the slider's position is."""


@dataclass(frozen=True)
class Shown:
    """A run on the page."""

    run: OpenRun
    letter: str
    """A, B, ... where there are several, else nothing."""
    dash: str
    levels: pd.DataFrame
    answer: Answer
    missing: int
    """Levels that are not finished."""

    @property
    def trunk(self) -> str:
        return self.run.spec.start

    @property
    def branches(self) -> list[str]:
        return [] if self.levels.empty else self.levels["branch"].unique().tolist()

    def key(self, branch: object) -> str:
        return f"{self.letter} {branch}".strip()

    def trace(self, branch: object, **more: Any) -> Trace:
        """A line of that branch: its colour, this run's dashes; the legend finds it by `meta`."""
        line = {"color": colour(branch), "dash": self.dash, "width": 2}
        return {"type": "scatter", "meta": self.key(branch), "name": _plain(self.key(branch)), "line": line, **more}


def colour(branch: object) -> str:
    return BRANCH_COLOURS.get(str(branch), "#777777")


def _plain(text: str) -> str:
    """For Plotly, which reads <b> and the like in what it writes."""
    return html.escape(text)


def _round(values: Iterable[float], digits: int) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [None if np.isnan(v) else round(float(v), digits) for v in values]


class Arrays:
    """Long columns of numbers, each once: 16 bits a value, in base64."""

    def __init__(self) -> None:
        self.packed: list[dict[str, Any]] = []
        self.index: dict[bytes, int] = {}

    def add(self, values: np.ndarray, step: float) -> int:
        """Where the page finds them, rounded to multiples of `step`, or of a 65,534th of the largest if that is more.

        Not negative, NaN allowed.
        """
        step = max(step, float(np.nanmax(values, initial=0)) / 65534)
        whole = np.where(np.isnan(values), 65535, np.round(np.nan_to_num(values) / step)).astype("<u2")
        key = whole.tobytes() + repr(step).encode()
        if key not in self.index:
            self.index[key] = len(self.packed)
            self.packed.append({"step": step, "values": base64.b64encode(whole.tobytes()).decode()})
        return self.index[key]


MEASURES = (
    ("accuracy", "test_accuracy_early_stop", "Test accuracy at early stop", "test accuracy (%)"),
    ("early_stop", "early_stop_iteration", "Early-stopping iteration", "iteration"),
    ("end", "test_accuracy", "Test accuracy after the last iteration", "test accuracy (%)"),
    ("train", "train_accuracy", "Training accuracy after the last iteration", "training accuracy (%)"),
)
SECONDS = ("seconds", "seconds", "Seconds to train one level", "seconds")
"""Name of the chart, column of levels.csv, title, vertical axis."""


def against_density(
    shown: Sequence[Shown], levels: Sequence[int], name: str, column: str, title: str, axis: str
) -> Chart:
    """A column against the weights remaining: means, bands from minimum to maximum, replicates on hover."""
    percent = "accuracy" in column
    factor, digits = (100, 2) if percent else (1, 2 if column == "seconds" else 0)
    unit = " %" if percent else " s" if column == "seconds" else ""
    bands, lines, said, seen = [], [], [], []
    for s in shown:
        if s.levels.empty:
            continue
        found = summary(s.levels, column, s.trunk)
        found = found[(found["n"] > 0) & (found["density"] > 0)]
        for branch, part in found.groupby("branch", sort=False):
            branch = str(branch)
            x = _round(100 * part["density"], 4)
            mean, low, high = (_round(factor * part[c], digits) for c in ("mean", "min", "max"))
            text = [
                f"<b>{_plain(s.key(branch))}</b>, level {level}, {share(d)} of the weights<br>"
                + _values(s.levels, column, branch if level else s.trunk, level, factor, digits, unit)
                for level, d in zip(part["level"], part["density"], strict=True)
            ]
            ends = {"x": [*x, *x[::-1]], "y": [*high, *low[::-1]], "fillcolor": colour(branch), "hoverinfo": "skip"}
            if len(x) > 1:
                bands.append(s.trace(branch, **ends, fill="toself", mode="lines", opacity=0.15))
                bands[-1]["line"] = {"width": 0, "color": colour(branch)}
            hover = "%{text}<extra></extra>"
            lines.append(s.trace(branch, x=x, y=mean, text=text, mode="lines+markers", hovertemplate=hover))
            lines[-1]["marker"] = {"size": 6, "color": colour(branch)}
            seen += [d for d in x if d]
            best = int(np.argmax(part["mean"])) if percent else int(np.argmin(part["mean"]))
            ends_said = dict.fromkeys((0, best, len(x) - 1))
            points = (f"{mean[i]:,}{unit} with {share(part['density'].iloc[i])} of the weights" for i in ends_said)
            said.append(f"{s.key(branch)}: {', '.join(points)}.")
    layout: dict[str, Any] = {"xaxis": density_axis(seen), "yaxis": {"title": {"text": axis}}}
    if not percent:
        layout["yaxis"] |= {"rangemode": "tozero", "tickformat": ",~r"}
    says = f"{title} against weights remaining. {' '.join(said)}"
    return Chart(name, title, "", says, layout, bands + lines, marks=_marks(shown, levels))


def _marks(shown: Sequence[Shown], levels: Sequence[int]) -> list[list[float]]:
    """The densities of each level, percent."""
    there = [densities(s.levels) for s in shown if not s.levels.empty]
    return [sorted({round(100 * d[level], 4) for d in there if d.get(level)}) for level in levels]


def _values(levels: pd.DataFrame, column: str, branch: str, level: int, factor: float, digits: int, unit: str) -> str:
    """The mean, and each replicate, in words."""
    rows = levels[(levels["branch"] == branch) & (levels["level"] == level)]
    each = factor * rows.groupby("replicate")[column].mean().dropna()
    words = f"mean {each.mean():,.{digits}f}{unit}"
    return words + "".join(f"<br>replicate {r}: {v:,.{digits}f}{unit}" for r, v in each.items())


def density_axis(percents: Sequence[float]) -> dict[str, Any]:
    """Logarithmic, decreasing, a tick at one in so many of the densities, as in the paper."""
    there = sorted({round(x, 3) for x in percents}, reverse=True) or [100.0]
    ticks = there[:: max(1, -(-len(there) // 7))]
    ends = [float(np.log10(max(there) * 1.12)), float(np.log10(min(there) / 1.12))]
    return {
        "type": "log",
        "title": {"text": "weights remaining (%)"},
        "range": ends,
        "tickvals": ticks,
        "ticktext": [f"{x:.3g}" for x in ticks],
    }


def training(shown: Sequence[Shown], levels: Sequence[int], arrays: Arrays) -> list[Chart]:
    """Validation loss and test accuracy while training: a curve for each replicate and draw, at the slider's level."""
    history = {s.letter: s.run.history() for s in shown if not s.levels.empty}
    numbers = 2 * sum(len(h) for h in history.values())
    every = max(1, -(-numbers * 8 // (3 * HISTORY_BYTES)))
    charts = []
    for name, column, stop, title, axis in (
        ("training_loss", "validation_loss", "validation_loss_min", "Validation loss", "validation loss (nats)"),
        ("training_accuracy", "test_accuracy", "test_accuracy_early_stop", "Test accuracy", "test accuracy (%)"),
    ):
        if all(h[column].isna().all() for h in history.values()):
            continue
        loss = "loss" in column
        factor, step, form = (1, 1e-5, ".4f") if loss else (100, 0.01, ".2f")
        dense: list[Trace] = []
        by_level: list[list[Trace]] = [[] for _ in levels]
        says = [f"{title} against training iteration at level {level}." for level in levels]
        for s in shown:
            if s.letter not in history:
                continue
            for (branch, level), part in history[s.letter].groupby(["branch", "level"], sort=False):
                at = levels.index(level)
                for (replicate, draw), one in part.groupby(["replicate", "draw"], sort=False):
                    keep = (np.arange(len(one)) % every == 0) | (np.arange(len(one)) == len(one) - 1)
                    label = f"{s.key(branch)}, replicate {replicate}" + (f", draw {draw}" if draw else "")
                    curve = s.trace(
                        branch,
                        x=arrays.add(one["iteration"].to_numpy(float)[keep], 1.0),
                        y=arrays.add(factor * one[column].to_numpy()[keep], step),
                        mode="lines",
                        hovertemplate=f"iteration %{{x:,}}: %{{y:{form}}}<extra>{_plain(label)}</extra>",
                    )
                    curve["line"] |= {"width": 1.3}
                    if level == 0:
                        dense.append(curve | {"line": {"color": "dense", "dash": s.dash, "width": 1}})
                    by_level[at].append(curve)
                rows = s.levels[(s.levels["branch"] == branch) & (s.levels["level"] == level)].dropna(subset=[stop])
                if len(rows):
                    x, y = rows["early_stop_iteration"], factor * rows[stop]
                    hover = f"early stop: iteration %{{x:,}}, %{{y:{form}}}<extra>{_plain(s.key(branch))}</extra>"
                    mark = {"size": 10, "symbol": "circle", "color": colour(branch), "line": {"width": 2}}
                    points = {"x": _round(x, 0), "y": _round(y, 5), "marker": mark, "hovertemplate": hover}
                    by_level[at].append(s.trace(branch, mode="markers", **points))
                    says[at] += (
                        f" {s.key(branch)} stops at iteration {x.mean():,.0f} with {y.mean():{form}} on average."
                    )
        whole = pd.concat(history.values())
        last = int(whole["iteration"].max())
        settled = factor * whole.loc[whole["iteration"] >= last / 50, column].dropna()
        low, high = max(settled.min(), 1e-6 if loss else 0.0), max(settled.max(), 1e-6)
        margin = 0.04 * (high - low) or 0.01
        span: list[float] = [low - margin, high + margin]
        if loss:
            span = [float(np.log10(v)) for v in (0.93 * low, 1.07 * high)]
        first = int(whole["iteration"].min())
        caption = (
            "One line per replicate, early stop marked"
            + ("; the dense network (level 0) in grey." if len(levels) > 1 else ".")
            + (f" One evaluation in {every} is drawn, and the last." if every > 1 else "")
        )
        layout = {
            "xaxis": {
                "type": "log",
                "title": {"text": "training iteration"},
                "range": [float(np.log10(0.9 * max(first, last / 300))), float(np.log10(1.05 * last))],
                "tickvals": (ticks := _ticks(first, last)),
                "ticktext": [f"{x:,}" for x in ticks],
            },
            "yaxis": {"title": {"text": axis}, "range": [round(v, 4) for v in span]}
            | ({"type": "log"} if loss else {}),
        }
        if loss:
            layout["yaxis"] |= {"tickvals": (ticks := _ticks(low, high)), "ticktext": [f"{x:g}" for x in ticks]}
        charts.append(Chart(name, title, caption, says[0], layout, dense, by_level, says))
    return charts


def _ticks(low: float, high: float) -> list[Any]:
    """Round numbers for a logarithmic axis: 1, 2 and 5 times powers of ten; where these are fewer than three, all
    digits; then halves as well."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    there: list[float] = []
    for digits in ("1 2 5", "1 2 3 4 5 6 7 8 9", "1 1.5 2 2.5 3 3.5 4 4.5 5 5.5 6 6.5 7 7.5 8 8.5 9 9.5"):
        numbers = [float(f"{digit}e{power}") for power in powers for digit in digits.split()]
        there = [x for x in numbers if 0.8 * low <= x <= 1.05 * high]
        if len(there) >= 3:
            break
    return [int(x) if x >= 1 and x == int(x) else x for x in there]


LAYER_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Tickets:
    """The anatomy of a run's tickets."""

    shown: Shown
    charts: list[Chart]
    weights: list[Chart]
    """Of each layer."""
    tables: list[list[dict[str, Any]]]
    """For each position of the slider, the rows of the layers' table."""


def tickets(s: Shown, levels: Sequence[int]) -> Tickets:
    found = {a.level: a for a in anatomies(s.run)}
    at = [found[max(there for there in found if there <= max(level, min(found)))] for level in levels]
    density = densities(s.levels)
    first = at[0]
    name = f"{s.letter or 'run'}_"
    charts = []
    if first.pixels is not None:
        charts.append(_pixel_chart(name, at))
    charts.append(_unit_chart(name, at))
    if len(found) > 1:
        charts.append(_layer_chart(name, found, at, density))
    if any(a.overlap for a in found.values()):
        charts.append(_overlap_chart(name, found, at, density))
    weights = [_weight_chart(name, at, i) for i in range(len(first.layers))]
    tables = [
        [
            {
                "name": layer.name,
                "kept": f"{layer.kept:,.0f}",
                "total": f"{layer.total:,}",
                "density": share(layer.density),
                "units": layer.units,
                "dead": _one(layer.dead),
                "median": _one(np.median(layer.into)),
                "range": f"{_one(layer.into.min())}–{_one(layer.into.max())}",
            }
            for layer in a.layers
        ]
        for a in at
    ]
    return Tickets(s, charts, weights, tables)


def _one(value: float) -> str:
    """With one digit after the point, where there is anything after it."""
    return f"{value:,.1f}".removesuffix(".0")


def _pixel_chart(name: str, at: Sequence[Anatomy]) -> Chart:
    by_level, says = [], []
    for a in at:
        assert a.pixels is not None
        hover = "row %{y}, column %{x}: %{z} connections<extra></extra>"
        z = [_round(row, 1) for row in a.pixels]
        trace = {"type": "heatmap", "z": z, "zmin": 0, "zmax": float(a.pixels.max()) or 1.0, "colorscale": "ink"}
        by_level.append([trace | {"hovertemplate": hover, "colorbar": {"thickness": 10, "outlinewidth": 0}}])
        none = int((a.pixels == 0).sum())
        says.append(
            f"Level {a.level}: {none} of {a.pixels.size} input pixels have no connection; a pixel has "
            f"{a.pixels.mean():.3g} on average and {a.pixels.max():.3g} at most."
        )
    bare = {"showgrid": False, "showticklabels": False, "ticks": "", "zeroline": False, "showline": False}
    layout = {"xaxis": bare | {"constrain": "domain"}, "yaxis": bare | {"scaleanchor": "x", "autorange": "reversed"}}
    caption = "Connections from each input pixel to the first layer, mean over replicates. Blank: none."
    return Chart(f"{name}pixels", "What the ticket looks at", caption, says[0], layout, [], by_level, says)


def _unit_chart(name: str, at: Sequence[Anatomy]) -> Chart:
    by_level, says = [], []
    for a in at:
        traces: list[Trace] = []
        for i, layer in enumerate(a.layers):
            inputs = layer.total // layer.units
            y = _round(100 * layer.into / inputs, 2)
            x = _round(100 * (np.arange(layer.units) + 0.5) / layer.units, 1)
            traces.append(_layer_trace(i, layer.name, x=x, y=y, mode="lines"))
            traces[-1]["hovertemplate"] = "%{y} % of its connections left<extra>" + _plain(layer.name) + "</extra>"
        by_level.append(traces)
        says.append(
            f"Level {a.level}: "
            + "; ".join(
                f"{layer.name} has {layer.dead:.3g} dead of {layer.units} units, with a median of "
                f"{np.median(layer.into):.3g} connections into a unit"
                for layer in a.layers
            )
            + "."
        )
    layout = {
        "xaxis": {"title": {"text": "units, most connected first (%)"}, "range": [0, 100]},
        "yaxis": {"title": {"text": "connections left (%)"}, "rangemode": "tozero"},
        "showlegend": True,
    }
    caption = "Share of the connections into each unit that are left, unit by unit, mean over replicates."
    return Chart(f"{name}units", "How connected its units are", caption, says[0], layout, [], by_level, says)


def _layer_trace(i: int, name: str, **more: Any) -> Trace:
    line = {"color": COLOURS[i % 6], "dash": LAYER_DASHES[i % 4], "width": 2}
    return {"type": "scatter", "name": _plain(name.removesuffix(".weight")), "line": line, **more}


def _weight_chart(name: str, at: Sequence[Anatomy], i: int) -> Chart:
    layer = at[0].layers[i].name
    by_level, says = [], []
    for a in at:
        traces: list[Trace] = []
        for what, colour, h in (("initial", "dense", a.layers[i].start), ("trained", COLOURS[0], a.layers[i].trained)):
            y = _round(100 * h.counts / max(1, h.counts.max(initial=0)), 1)
            hover = f"{what} weight %{{x}}: %{{y}} % of its fullest bin<extra></extra>"
            line = {"color": colour, "width": 2, "shape": "hvh"}
            points = {"x": _round(h.middles, 4), "y": y, "line": line, "hovertemplate": hover}
            traces.append({"type": "scatter", "mode": "lines", "name": what} | points)
        by_level.append(traces)
        start, trained = (f"{h.rms:.2g}" for h in (a.layers[i].start, a.layers[i].trained))
        words = f"begin with a root mean square of {start} and end with {trained}" if a.layers[i].kept else "are none"
        says.append(f"Level {a.level}: the survivors of {layer} {words}.")
    layout = {
        "xaxis": {"title": {"text": "weight"}},
        "yaxis": {"title": {"text": "% of the fullest bin"}, "range": [0, 105]},
        "showlegend": True,
    }
    return Chart(f"{name}weights_{i}", layer, "", says[0], layout, [], by_level, says)


def _layer_chart(name: str, found: dict[int, Anatomy], at: Sequence[Anatomy], density: dict[Any, float]) -> Chart:
    traces, said = [], []
    for i, layer in enumerate(found[min(found)].layers):
        shares = [100 * a.layers[i].density for a in found.values()]
        hover = "level %{x}: %{y:.3g} %<extra>" + _plain(layer.name) + "</extra>"
        x = [*found]
        trace = _layer_trace(i, layer.name, x=x, y=_round(shares, 4), mode="lines+markers", hovertemplate=hover)
        traces.append(trace | {"marker": {"size": 5}})
        said.append(f"{layer.name} from {shares[0]:.3g} % to {shares[-1]:.3g} %")
    ticks = [x for x in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if x >= 50 * min(density.values())]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "level (times pruned)"}, "tickformat": "d"},
        "yaxis": {"type": "log", "title": {"text": "weights remaining (%)"}, "tickvals": ticks},
        "showlegend": True,
    }
    layout["yaxis"]["ticktext"] = [f"{x:g}" for x in ticks]
    low = min((d for a in found.values() for layer in a.layers if (d := layer.density) > 0), default=1.0)
    layout["yaxis"]["range"] = [float(np.log10(80 * low)), 2.06]
    says = f"Weights remaining of each layer by level: {'; '.join(said)}."
    return Chart(
        f"{name}layers",
        "Weights left in each layer",
        "Layers pruned at one rate coincide.",
        says,
        layout,
        traces,
        marks=[[a.level] for a in at],
    )


def _overlap_chart(name: str, found: dict[int, Anatomy], at: Sequence[Anatomy], density: dict[Any, float]) -> Chart:
    """Shared weights as a multiple of chance: the shares themselves mostly follow density."""
    there = [(100 * density[level], o) for level, a in found.items() if (o := a.overlap) and o.chance > 0]
    x = [round(d, 4) for d, _ in there]
    mean, low, high = (_round([getattr(o, c) / o.chance for _, o in there], 3) for c in ("mean", "min", "max"))
    line: Trace = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    traces: list[Trace] = [
        line
        | {"x": [*x, *x[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "fillcolor": COLOURS[0], "opacity": 0.15},
        line
        | {"x": [x[0], x[-1]], "y": [1, 1], "name": "chance", "line": {"color": "dense", "dash": "dash", "width": 1.5}},
        line
        | {"x": x, "y": mean, "name": "tickets", "mode": "lines+markers", "line": {"color": COLOURS[0], "width": 2}},
    ]
    traces[0] |= {"line": {"width": 0, "color": COLOURS[0]}, "showlegend": False}
    traces[2] |= {
        "marker": {"size": 6},
        "text": [
            f"{d:.3g} % of the weights:<br>two tickets share {100 * o.mean:.3g} %, by chance {100 * o.chance:.3g} %"
            for d, o in there
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "hoverinfo": "all",
    }
    layout = {
        "xaxis": density_axis(x),
        "yaxis": {"title": {"text": "shared weights (× chance)"}, "rangemode": "tozero"},
        "showlegend": True,
    }
    last = there[-1][1]
    says = (
        f"With {x[-1]:.3g} % of the weights two replicates’ tickets share {100 * last.mean:.3g} % of theirs; random "
        f"masks with as many weights in each layer would share {100 * last.chance:.3g} %."
    )
    marks = [[round(100 * density[a.level], 4)] for a in at if density[a.level] > 0]
    return Chart(f"{name}overlap", "Do replicates find the same ticket?", says, says, layout, traces, marks=marks)
