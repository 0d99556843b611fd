"""The charts of the report: numbers of runs in, Plotly's own dicts out. Nothing here draws.

Text that Plotly would read as markup goes through `plain`.
"""

import base64
import html
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lottery.analysis.anatomy import Anatomy
from lottery.analysis.answer import Answer, share
from lottery.analysis.frames import branches_of, curve, densities
from lottery.analysis.statistics import summary
from lottery.analysis.verdicts import Margin
from lottery.engines.history import History
from lottery.runs.rows import Place
from lottery.runs.store import Run
from lottery.runs.timings import Measured
from lottery.views.measures import (
    AT_EARLY_STOP,
    COLOURS,
    EARLY,
    LAST,
    METHOD_COLOURS,
    SHRUNK,
    STOP,
    CostLines,
    Measure,
    batches_of,
    colour,
    cost_lines,
    measure,
    run_colour,
    run_name,
    significant,
    ticks,
)
from lottery.words import branch_name, method_name

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Lines of the first branch, the second, ... where a colour is a run's."""

OVERVIEW = {"accuracy": EARLY, "early_stop": STOP, "end": LAST, "train": "train_accuracy"}
"""Chart against density -> column of levels.csv."""

TRAINING = {"training_loss": "validation_loss", "training_accuracy": "test_accuracy"}
"""Chart against the iteration -> column of the history."""

HISTORY_BYTES = 2_400_000
"""Of the page that training curves may take: with Plotly's 4.8 MB it stays below 8 MB."""

CURVES = 2_500
"""Lines of a chart of training, about: of more than these at all positions of the slider, each position has fewer."""

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
    rows: int = 0
    """Lines of text at the vertical axis that need room."""


@dataclass(frozen=True)
class Shown:
    """A run on the page."""

    run: Run
    letter: str
    """A, B, ... where there are several, else nothing."""
    label: str
    """What tells it apart from the others, where there are several."""
    index: int
    """Its position among them."""
    levels: pd.DataFrame
    answer: Answer
    margin: Margin
    awaited: list[Place]
    """What the run asks for and has not finished."""

    progress: str = ""
    """How far it has come, in a sentence; empty once it is finished."""

    count: int = 1
    """How many runs the page has."""

    @property
    def branches(self) -> list[str]:
        return branches_of(self.levels)

    def key(self, branch: str) -> str:
        """What the page's script knows the branch by."""
        return f"{self.letter} {branch}".strip()

    @property
    def called(self) -> str:
        """The run's name in a sentence."""
        return run_name(self.letter, self.label)

    def name(self, branch: str) -> str:
        """How the page calls the branch: where there are several runs, the trunk by what tells its run apart."""
        if self.label and branch == self.branches[0]:
            return f"{self.letter} {self.label}"
        return f"{self.letter} {branch_name(branch)}".strip()

    def ink(self, branch: str) -> str:
        """The branch's own colour; where there are several runs, the run's."""
        return run_colour(self.index, self.count) if self.letter else colour(branch)

    def dash(self, branch: str) -> str:
        """The branch's kind of line where a colour is a run's."""
        return DASHES[self.branches.index(branch) % len(DASHES)] if self.letter else "solid"

    @property
    def shade(self) -> Trace:
        """How opaque the band of each of so many runs is."""
        return {"opacity": min(0.15, 0.6 / self.count)}

    def trace(self, branch: str, **more: Any) -> Trace:
        """A line of that branch; the legend finds it by `meta`."""
        line = {"color": self.ink(branch), "dash": self.dash(branch), "width": 2}
        return {"type": "scatter", "meta": self.key(branch), "name": plain(self.name(branch)), "line": line} | more


def plain(text: str) -> str:
    """For Plotly, which reads <b> and the like in what it writes."""
    return html.escape(text)


def rounded(values: Iterable[float], digits: int = 4) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [None if np.isnan(v) else round(float(v), digits) for v in values]


def band(x: list[Any], low: list[Any], high: list[Any], ink: str) -> Trace:
    """An area between two lines; the rest of a scatter trace is the caller's."""
    ends = {"x": [*x, *x[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "fillcolor": ink, "opacity": 0.15}
    return ends | {"mode": "lines", "line": {"width": 0, "color": ink}, "hoverinfo": "skip", "showlegend": False}


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}} | more


def log_axis(title: str, begin: float, end: float, marked: Sequence[float], form: str = "g") -> dict[str, Any]:
    """From `begin`, left or below, to `end`, labelled at these values and nowhere else."""
    span = [float(np.log10(begin)), float(np.log10(end))]
    return axis(title, type="log", range=span, tickvals=[*marked], ticktext=[f"{x:{form}}" for x in marked])


def density_axis(density: Sequence[float]) -> dict[str, Any]:
    """Logarithmic, decreasing, as in the paper."""
    shown = [100 * d for d in density if d > 0] or [100.0]
    marked = ticks(density, 7) or [100.0]
    return log_axis(measure("density").axis, max(shown) * 1.12, min(shown) / 1.12, marked, ".3g")


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


def against_density(shown: Sequence[Shown], levels: Sequence[int], name: str, column: str) -> Chart:
    """Draws a column of levels.csv against the weights left: means, bands from minimum to maximum, replicates on hover.

    Args:
        shown: the runs.
        levels: the positions of the slider.
        name: the chart's.
        column: of levels.csv.
    """
    m = measure(column)
    bands, lines, said = [], [], []
    density: set[float] = set()
    for s in shown:
        found = summary(s.levels, column)
        for name_of, part in found[(found["n"] > 0) & (found["density"] > 0)].groupby("branch", sort=False):
            branch = str(name_of)
            x = rounded(100 * part["density"])
            mean, low, high = (rounded(m.factor * part[end]) for end in ("mean", "min", "max"))
            if len(x) > 1:
                bands.append(s.trace(branch, **band(x, low, high, s.ink(branch)) | s.shade))
            points = part.to_dict("records")
            each = curve(s.levels, column, branch)
            text = [_hover(m, point["mean"], each[point["level"]].dropna()) for point in points]
            marker = {"size": 6, "color": s.ink(branch)}
            line = s.trace(branch, x=x, y=mean, mode="lines+markers", marker=marker, text=text)
            lines.append(line | {"hovertemplate": f"%{{text}}<extra>{plain(s.name(branch))}</extra>"})
            density |= set(part["density"])
            best = int(part["mean"].argmax() if m.higher_is_better else part["mean"].argmin())
            chosen = [points[i] for i in dict.fromkeys((0, best, len(points) - 1))]
            words = (f"{m.words(point['mean'])} with {share(point['density'])} of the weights" for point in chosen)
            said.append(f"{s.name(branch)}: {', '.join(words)}.")
    layout: dict[str, Any] = {"xaxis": density_axis([*density]), "yaxis": axis(m.axis), "hovermode": "x unified"}
    layout["xaxis"]["unifiedhovertitle"] = {"text": f"%{{x:.3g}} % {measure('density').label}"}
    if not m.higher_is_better:
        layout["yaxis"] |= {"rangemode": "tozero", "tickformat": ",~r"}
    title = m.name.capitalize()
    says = f"{title} against {measure('density').label}. {' '.join(said)}"
    return Chart(name, title, "", says, layout, bands + lines, marks=marks_of(shown, levels))


def inference(s: Shown, measured: Sequence[Measured]) -> list[Chart]:
    """What it costs to use a run's tickets, against the weights left: latency at each batch size, and file size."""
    latencies = {f"latency_{n}": (f"Latency at batch {n}", "latency", n) for n in batches_of(measured)}
    charts = []
    for name, (title, column, batch) in (latencies | {"file_size": ("File size", "file_bytes", 0)}).items():
        whole = f"{title}: {s.letter}" if s.letter else title
        charts.append(_costs(f"{s.letter or 'run'}_{name}", whole, column, cost_lines(measured, column, batch)))
    return charts


def _costs(name: str, title: str, column: str, lines: CostLines) -> Chart:
    """A line for each way to compute logits, on logarithmic axes."""
    m, density = measure(column), measure("density")
    traces, said = [], []
    shown: set[str] = set()
    for (method, _, _), points in lines.items():
        ink, label = METHOD_COLOURS.get(method, "dense"), method_name(method)
        line = {"color": ink, "width": 5 if method == "dense" else 2, "dash": "dash" if method in SHRUNK else "solid"}
        y = [m.factor * spread.median for _, spread in points]
        text = [f"{significant(value)} {m.unit}" for value in y]
        trace: Trace = {"type": "scatter", "mode": "lines+markers", "name": plain(label), "line": line}
        trace |= {"x": rounded(100 * d for d, _ in points), "y": y, "marker": {"size": 6}, "text": text}
        trace |= {"hovertemplate": f"%{{text}}<extra>{plain(label)}</extra>", "showlegend": method not in shown}
        traces.append(trace)
        shown.add(method)
        ends = (f"{text[i]} with {share(points[i][0])} of the weights" for i in {0: 0, len(points) - 1: 0})
        said.append(f"{label}: {', '.join(ends)}.")
    values = [value for trace in traces for value in trace["y"]]
    low, high = min(values, default=1.0) / 1.3, max(values, default=1.0) * 1.3
    layout: dict[str, Any] = {"xaxis": density_axis([d for points in lines.values() for d, _ in points])}
    layout |= {"yaxis": log_axis(m.axis, low, high, _ticks(low, high), ","), "showlegend": True}
    layout["hovermode"] = "x unified"
    layout["xaxis"]["unifiedhovertitle"] = {"text": f"%{{x:.3g}} % {density.label}"}
    return Chart(name, title, "", f"{title} against {density.label}. {' '.join(said)}", layout, traces)


def _hover(m: Measure, mean: float, each: "pd.Series[float]") -> str:
    """The mean, and of a few replicates each, of many the lowest and the highest."""
    if len(each) < 2:
        return m.words(mean)
    values = [m.text(v) for v in each] if len(each) <= 5 else [f"{m.text(each.min())} to {m.text(each.max())}"]
    return f"{m.words(mean)} <i>({', '.join(values)})</i>"


def marks_of(shown: Sequence[Shown], levels: Sequence[int]) -> list[list[float]]:
    """The densities of each level, percent."""
    by_run = [densities(s.levels) for s in shown if not s.levels.empty]
    return [sorted({round(100 * d[level], 4) for d in by_run if d.get(level)}) for level in levels]


def training(shown: Sequence[Shown], levels: Sequence[int], arrays: Arrays) -> list[Chart]:
    """Columns of the histories against the iteration: a curve for each replicate and draw, at the slider's level."""
    logged = [(s, place, columns) for s in shown for place, columns in _logged(s.run)]
    if not logged:
        return []
    iterations = np.concatenate([columns["iteration"] for _, _, columns in logged])
    groups = len({(s.index, place.branch, place.level) for s, place, _ in logged})
    most = max(5, CURVES // groups)
    points = len(iterations) * min(1.0, most * groups / len(logged))
    every = max(1, -(-len(TRAINING) * round(points) * 8 // (3 * HISTORY_BYTES)))
    caption = "One line per replicate, early stop marked"
    caption += "; the dense network (level 0) in grey." if len(levels) > 1 else "."
    if max(Counter((s.index, place.branch, place.level) for s, place, _ in logged).values()) > most:
        caption += f" Of more than {most} lines, the first {most} are drawn."
    caption += f" One evaluation in {every} is drawn, and the last." if every > 1 else ""
    charts = []
    for name, column in TRAINING.items():
        values = np.concatenate([columns[column] for _, _, columns in logged])
        if np.isnan(values).all():
            continue
        m = measure(column)
        chart = Chart(name, m.label.capitalize(), caption, "", _training_axes(iterations, m, values))
        chart.by_level = [[] for _ in levels]
        chart.says_by_level = [f"{chart.title} against training iteration at level {level}." for level in levels]
        lines: Counter[tuple[int, str, int]] = Counter()
        for s, place, columns in logged:
            some = ~np.isnan(columns[column])
            lines[s.index, place.branch, place.level] += int(some.any())
            if not some.any() or lines[s.index, place.branch, place.level] > most:
                continue
            line = _curve(s, place, columns["iteration"][some], columns[column][some], m, every, arrays)
            chart.by_level[levels.index(place.level)].append(line)
            if place.level == 0:
                chart.traces.append(
                    line | {"line": {"color": "dense", "dash": DASHES[s.index % len(DASHES)], "width": 1}}
                )
        for s in shown:
            for trace, level, words in _stops(s, m, AT_EARLY_STOP[column]):
                chart.by_level[levels.index(level)].append(trace)
                chart.says_by_level[levels.index(level)] += words
        chart.says = chart.says_by_level[0]
        charts.append(chart)
    return charts


def _logged(run: Run) -> Iterator[tuple[Place, History]]:
    """Of each network the columns that are drawn, and no more of them: there may be thousands."""
    for row in run.rows():
        found = run.history_of(row.place)
        yield row.place, {name: found[name] for name in ("iteration", *TRAINING.values())}


def _curve(
    s: Shown, place: Place, iterations: np.ndarray, values: np.ndarray, m: Measure, every: int, arrays: Arrays
) -> Trace:
    """The history of one network: one evaluation in so many, and the last."""
    label = f"{s.name(place.branch)}, replicate {place.replicate}" + (f", draw {place.draw}" if place.draw else "")
    kept = (np.arange(len(values)) % every == 0) | (np.arange(len(values)) == len(values) - 1)
    line = s.trace(
        place.branch,
        x=arrays.add(iterations[kept].astype(float), 1.0),
        y=arrays.add(m.factor * values[kept], m.factor * 1e-5),
        mode="lines",
        hovertemplate=f"iteration %{{x:,}}: %{{y:{m.form}}}<extra>{plain(label)}</extra>",
    )
    line["line"] |= {"width": 1.3}
    return line


def _stops(s: Shown, m: Measure, column: str) -> Iterable[tuple[Trace, int, str]]:
    """For each branch and level that stopped early: a ring for each network, the level, and the means in words."""
    iterations, values = (summary(s.levels, name).set_index(["branch", "level"])["mean"] for name in (STOP, column))
    stopped: Any = s.levels.dropna(subset=[column]).groupby(["branch", "level"], sort=False)
    for (branch, level), rows in stopped:
        ring = {"size": 10, "symbol": "circle", "color": s.ink(branch), "line": {"width": 2}}
        hover = f"early stop: iteration %{{x:,}}, %{{y:{m.form}}}<extra>{plain(s.name(branch))}</extra>"
        points = {"x": rounded(rows[STOP], 0), "y": rounded(m.factor * rows[column], 5), "mode": "markers"}
        stop, value = measure(STOP).text(iterations[branch, level]), m.text(values[branch, level])
        words = f" {s.name(branch)} stops at iteration {stop} with {value} on average."
        yield s.trace(branch, **points, marker=ring, hovertemplate=hover), level, words


def _training_axes(iterations: np.ndarray, m: Measure, values: np.ndarray) -> dict[str, Any]:
    """Logarithmic but for accuracies. What the first 2 % of the iterations show is left out of the vertical range."""
    first, last = int(iterations.min()), int(iterations.max())
    settled = m.factor * values[(iterations >= last / 50) & ~np.isnan(values)]
    low, high = (float(end(settled)) if len(settled) else float("nan") for end in (np.min, np.max))
    margin = 0.04 * (high - low) or 0.01
    y = axis(m.axis_while_training, range=[round(max(low, 0.0) - margin, 4), round(high + margin, 4)])
    if not m.higher_is_better:
        low, high = max(low, 1e-6), max(high, 1e-6)
        y = log_axis(m.axis_while_training, 0.93 * low, 1.07 * high, _ticks(low, high))
    left = 0.9 * max(first, last / 300)
    return {"xaxis": log_axis("training iteration", left, 1.05 * last, _ticks(first, last), ","), "yaxis": y}


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


def sliding(
    name: str,
    title: str,
    caption: str,
    layout: dict[str, Any],
    at: Sequence[Anatomy],
    draw: Callable[[Anatomy], tuple[list[Trace], str]],
) -> Chart:
    """A chart of one level at a time: its traces, and what they show, in words."""
    drawn = [draw(a) for a in at]
    says = [f"Level {a.level}: {words}." for a, (_, words) in zip(at, drawn, strict=True)]
    return Chart(name, title, caption, says[0], layout, [], [traces for traces, _ in drawn], says)


def pixel_chart(at: Sequence[Anatomy]) -> Chart:
    def draw(a: Anatomy) -> tuple[list[Trace], str]:
        assert a.pixels is not None
        trace: Trace = {"type": "heatmap", "zmin": 0, "zmax": float(a.pixels.max()) or 1.0, "colorscale": "ink"}
        trace |= {"z": [rounded(row, 1) for row in a.pixels], "colorbar": {"thickness": 10, "outlinewidth": 0}}
        trace["colorbar"]["title"] = {"text": "connections", "side": "right"}
        trace |= {"hovertemplate": "row %{y}, column %{x}: %{z} connections<extra></extra>"}
        return [trace], (
            f"{int((a.pixels == 0).sum())} of {a.pixels.size} input pixels have no connection; a pixel has "
            f"{a.pixels.mean():.3g} on average and {a.pixels.max():.3g} at most"
        )

    bare = {"showgrid": False, "showticklabels": False, "ticks": "", "zeroline": False, "showline": False}
    layout = {"xaxis": bare | {"constrain": "domain"}, "yaxis": bare | {"scaleanchor": "x", "autorange": "reversed"}}
    caption = "Connections from each input pixel to the first layer, mean over replicates. Blank: none."
    return sliding("pixels", "What the ticket looks at", caption, layout, at, draw)


def unit_chart(at: Sequence[Anatomy]) -> Chart:
    def draw(a: Anatomy) -> tuple[list[Trace], str]:
        traces, words = [], []
        for i, layer in enumerate(a.layers):
            x = rounded(100 * (np.arange(layer.units) + 0.5) / layer.units, 1)
            y = rounded(100 * layer.into * layer.units / layer.total, 2)
            traces.append(_layer_trace(i, layer.name, "%{y} % of its connections left", x=x, y=y, mode="lines"))
            dead = "" if layer.dead is None else f"{layer.dead:.3g} dead of "
            median = f"a median of {np.median(layer.into):.3g} connections into a unit"
            words.append(f"{layer.name} has {dead}{layer.units} units, with {median}")
        return traces, "; ".join(words)

    x = axis("units, most connected first (%)", range=[0, 100])
    y = axis("connections left (%)", rangemode="tozero")
    layout = {"xaxis": x, "yaxis": y, "showlegend": True, "hovermode": "x unified"}
    caption = "Share of the connections into each unit that are left, unit by unit, mean over replicates."
    return sliding("units", "How connected its units are", caption, layout, at, draw)


def _layer_trace(i: int, name: str, hover: str, **more: Any) -> Trace:
    line = {"color": COLOURS[i % 6], "dash": DASHES[i % 4], "width": 2}
    text = f"{hover}<extra>{plain(name)}</extra>"
    return {"type": "scatter", "name": plain(name.removesuffix(".weight")), "line": line, "hovertemplate": text} | more


def weight_chart(at: Sequence[Anatomy], i: int) -> Chart:
    def draw(a: Anatomy) -> tuple[list[Trace], str]:
        layer = a.layers[i]
        traces: list[Trace] = []
        for name, ink, bins in (("initial", "dense", layer.start), ("trained", COLOURS[0], layer.trained)):
            y = rounded(100 * bins.counts / max(1, bins.counts.max(initial=0)), 1)
            hover = f"{name} weight %{{x}}: %{{y}} % of its fullest bin<extra></extra>"
            line = {"color": ink, "width": 2, "shape": "hvh"}
            trace = {"type": "scatter", "mode": "lines", "name": name, "line": line, "hovertemplate": hover}
            traces.append(trace | {"x": rounded(bins.middles), "y": y})
        words = f"begin with a root mean square of {layer.start.rms:.2g} and end with {layer.trained.rms:.2g}"
        return traces, f"the survivors of {layer.name} {words if layer.kept else 'are none'}"

    layout = {
        "xaxis": axis("weight"),
        "yaxis": axis("survivors (% of the fullest bin)", range=[0, 105]),
        "showlegend": True,
    }
    return sliding(f"weights_{i}", at[0].layers[i].name, "", layout, at, draw)


def layer_chart(found: dict[int, Anatomy], at: Sequence[Anatomy]) -> Chart:
    traces, said, least = [], [], 100.0
    for i, layer in enumerate(found[min(found)].layers):
        left = [100 * a.layers[i].density for a in found.values()]
        points: Trace = {"x": [*found], "y": rounded(left), "mode": "lines+markers", "marker": {"size": 5}}
        traces.append(_layer_trace(i, layer.name, "%{y:.3g} %", **points))
        said.append(f"{layer.name} from {left[0]:.3g} % to {left[-1]:.3g} %")
        least = min([least, *(x for x in left if x > 0)])
    marked = [x for x in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if x >= 0.8 * least]
    layout: dict[str, Any] = {
        "xaxis": axis("level (times pruned)", tickformat="d"),
        "yaxis": log_axis(measure("density").axis, 0.8 * least, 115, marked),
        "showlegend": True,
        "hovermode": "x unified",
    }
    layout["xaxis"]["unifiedhovertitle"] = {"text": "level %{x}"}
    label = measure("density").label.capitalize()
    says = f"{label} of each layer by level: {'; '.join(said)}."
    marks: list[list[float]] = [[a.level] for a in at]
    caption = "Layers pruned at one rate coincide."
    return Chart("layers", f"{label} in each layer", caption, says, layout, traces, marks=marks)


def overlap_chart(found: dict[int, Anatomy], at: Sequence[Anatomy], density: dict[Any, float]) -> Chart:
    """Shared weights as a multiple of chance: the shares themselves mostly follow density."""
    overlaps = [(density[level], o) for level, a in found.items() if (o := a.overlap) and o.chance > 0]
    x = [round(100 * d, 4) for d, _ in overlaps]
    mean, low, high = (rounded([getattr(o, c) / o.chance for _, o in overlaps], 3) for c in ("mean", "min", "max"))
    text = [
        f"{share(d)} of the weights:<br>two tickets share {share(o.mean)}, by chance {share(o.chance)}"
        for d, o in overlaps
    ]
    lines: list[Trace] = [
        band(x, low, high, COLOURS[0]),
        {"x": [x[0], x[-1]], "y": [1, 1], "name": "chance (1)", "mode": "lines", "hoverinfo": "skip"},
        {"x": x, "y": mean, "name": "tickets", "mode": "lines+markers", "marker": {"size": 6}, "text": text},
    ]
    lines[1] |= {"line": {"color": "dense", "dash": "dash", "width": 1.5}}
    lines[2] |= {"line": {"color": COLOURS[0], "width": 2}, "hovertemplate": "%{text}<extra></extra>"}
    ends = [1.0, *(v for v in (*low, *high) if v is not None)]
    room = 0.08 * (max(ends) - min(ends)) or 0.01
    y = axis("shared weights (× chance)", range=[round(min(ends) - room, 4), round(max(ends) + room, 4)])
    layout = {"xaxis": density_axis([d for d, _ in overlaps]), "yaxis": y, "showlegend": True}
    d, last = overlaps[-1]
    says = (
        f"With {share(d)} of the weights two replicates’ tickets share {share(last.mean)} of theirs; random "
        f"masks with as many weights in each layer would share {share(last.chance)}."
    )
    marks = [[round(100 * density[a.level], 4)] for a in at if density[a.level] > 0]
    traces = [{"type": "scatter"} | line for line in lines]
    return Chart("overlap", "Do replicates find the same ticket?", says, says, layout, traces, marks=marks)
