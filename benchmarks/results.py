"""What the timings amount to: tables for the terminal and for RESULTS.md, and the figure."""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import CONTESTANTS, SLOW
from lottery.views.measures import COLOURS
from lottery.views.plots import STYLE

FIRST, REST = 235_200, 31_000
"""Weights of LeNet-300-100's first layer, and of the others."""


def lower_bound(density: float) -> float:
    """The least that an iteration could cost, in ms, on the core of RESULTS.md: whichever is more, of

    operations: a multiply-add for each kept weight and each of 60 images, forward and for its gradient, and backward
    but in the first layer, plus forward for the 150 images evaluated per iteration; in the first layer only for the
    19 % of pixels that differ from the background; 16 a cycle (two AVX2 units) at 3.16 GHz;

    bytes: each kept weight and its two moments, read and written, and six bytes for each such pixel of the 210 images,
    at the 25 GB/s that one core gets from the third-level cache.
    """
    first, rest = density * FIRST, density * REST
    operations = 60 * (2 * 0.19 * first + 3 * rest) + 150 * (0.19 * first + rest)
    bytes_moved = 24 * (first + rest) + 6 * 0.19 * 784 * 210
    return 1e3 * max(operations / (16 * 3.16e9), bytes_moved / 25e9)


@dataclass(frozen=True)
class Record:
    """One contestant's turn in one round."""

    contestant: str
    level: int
    round: int
    ms: float
    """Milliseconds per iteration, evaluations included."""
    training: float
    """Milliseconds per iteration without them."""
    evaluation: float
    """Milliseconds of one evaluation, NaN where it was not taken apart."""
    once: float
    """Milliseconds per training run that don't grow with its iterations."""


@dataclass(frozen=True)
class Sheet:
    title: str
    header: list[str]
    rows: list[list[str]]

    def show(self, console: Console) -> None:
        table = Table(title=self.title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(line) + " |" for line in lines)])


class Results:
    """All records of a benchmark; the figures shown are medians over its rounds."""

    def __init__(self, records: list[Record], densities: list[float]):
        self.records, self.densities = records, densities
        self.contestants = [name for name in CONTESTANTS if any(r.contestant == name for r in records)]
        self.levels = sorted({r.level for r in records})

    def of(self, contestant: str, level: int, value: str = "ms") -> list[float]:
        """By round."""
        found = [r for r in self.records if (r.contestant, r.level) == (contestant, level)]
        return [getattr(r, value) for r in sorted(found, key=lambda r: r.round)]

    def ratios(self, contestant: str, level: int) -> list[float]:
        """How many times faster than `bare` in the same round, by round."""
        return _ratios(self.of("bare", level), self.of(contestant, level))

    def schedule(self, contestant: str) -> list[float]:
        """Sum over the levels of ms per iteration, by round. Where a level was not measured, the others' mean counts:
        only for contestants whose cost is the same at all densities."""
        measured = [self.of(contestant, level) for level in self.levels]
        rounds = zip(*(m for m in measured if m), strict=True)
        return [sum(by_level) * len(self.levels) / len(by_level) for by_level in rounds]

    def sheets(self, whole_schedule: bool) -> list[Sheet]:
        sheets = [self._ms(whole_schedule)]
        if "bare" in self.contestants:
            sheets.append(self._relative(whole_schedule))
        if not whole_schedule and any(name not in SLOW for name in self.contestants):
            sheets.append(self._apart())
        return sheets

    def _ms(self, whole_schedule: bool) -> Sheet:
        rows = [[self._where(level), *(_median(self.of(c, level)) for c in self.contestants)] for level in self.levels]
        if whole_schedule:
            rows.append(["all levels, sum", *(_median(self.schedule(c)) for c in self.contestants)])
        return Sheet("ms per iteration", ["weights (level)", *self.contestants], rows)

    def _relative(self, whole_schedule: bool) -> Sheet:
        rows = [
            [self._where(level), *(_spread(self.ratios(c, level)) for c in self.contestants)] for level in self.levels
        ]
        if whole_schedule:
            bare = self.schedule("bare")
            rows.append(["all levels", *(_spread(_ratios(bare, self.schedule(c))) for c in self.contestants)])
        return Sheet(
            "times faster than bare: median (min–max) of the rounds", ["weights (level)", *self.contestants], rows
        )

    def _apart(self) -> Sheet:
        rows = []
        for contestant in self.contestants:
            for level in self.levels if contestant not in SLOW else ():
                training, evaluation = (self.of(contestant, level, v) for v in ("training", "evaluation"))
                share = [1 - t / ms for t, ms in zip(training, self.of(contestant, level), strict=True)]
                cells = [_median(training), _median(evaluation), f"{100 * median(share):.0f} %"]
                rows.append([contestant, self._where(level), *cells, _median(self.of(contestant, level, "once"))])
        header = ["", "weights (level)", "training, ms/iteration", "one evaluation, ms", "its share", "once, ms"]
        return Sheet("training and evaluation apart", header, rows)

    def _where(self, level: int) -> str:
        return f"{100 * self.densities[level]:.1f} % ({level})"

    def draw(self, path: Path) -> None:
        """ms per iteration against density, both logarithmic; the line is the median, the band all rounds."""
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            ax = figure.add_subplot()
        others = {"bare": ("PyTorch, in memory", COLOURS[6], "s"), "jax": ("JAX, compiled scan", COLOURS[4], "D")}
        ours = [c for c in self.contestants if c not in others and c not in SLOW]
        styles = others | {c: (f"lottery, {c} engine", COLOURS[i], "o") for i, c in enumerate(ours)}
        for contestant in (c for c in self.contestants if c in styles):
            label, colour, marker = styles[contestant]
            values = [self.of(contestant, level) for level in self.levels]
            x = [100 * self.densities[level] for level in self.levels]
            ax.plot(x, [median(v) for v in values], color=colour, marker=marker, markersize=4.5, label=label)
            ax.fill_between(x, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2, linewidth=0)
        bound = [lower_bound(self.densities[level]) for level in self.levels]
        ax.plot(
            [100 * self.densities[level] for level in self.levels],
            bound,
            color="0.4",
            linestyle="dashed",
            label="lower bound",
        )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.invert_xaxis()
        ticks = [x for x in (100, 50, 20, 10, 5, 2, 1) if x >= 95 * self.densities[self.levels[-1]]]
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        for axis, at in ((ax.xaxis, ticks), (ax.yaxis, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50])):
            limits = axis.get_view_interval()
            axis.set_major_locator(FixedLocator([t for t in at if min(limits) <= t <= max(limits)]))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(plain)
        ax.set_xlabel("weights remaining (%)")
        ax.set_ylabel("ms per iteration, evaluations included")
        ax.set_title("LeNet-300-100 on MNIST, batch 60, one thread")
        ax.legend(frameon=False)
        figure.savefig(path, dpi=150)


def rewrite(path: Path, name: str, text: str) -> None:
    """Puts the section of that name into a markdown file, in place of its last version, else at the end."""
    begin, end = f"<!-- {name}: written by python -m benchmarks -->", f"<!-- {name}: end -->"
    section = f"{begin}\n\n{text}\n\n{end}"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    new, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: section, old, flags=re.DOTALL)
    path.write_text(new if count else f"{old.rstrip()}\n\n{section}\n", encoding="utf-8")


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=False)]  # slow contestants sit out the later rounds


def _median(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{value:.2f}" if (value := median(values)) < 10 else f"{value:.0f}"


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else "–"
