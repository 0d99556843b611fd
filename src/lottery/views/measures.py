"""How columns, branches and verdicts are shown, everywhere: names, units, formats and colours. Only `table` and
`verdicts` need pandas."""

import colorsys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from lottery.spec import EXTENT, differing, flatten
from lottery.words import METHODS

if TYPE_CHECKING:
    import pandas as pd

    from lottery.analysis.comparison import Contrast
    from lottery.analysis.verdicts import Margin
    from lottery.runs.rows import Place
    from lottery.runs.store import Run
    from lottery.runs.timings import Cost, Measured, Spread


@dataclass(frozen=True)
class Measure:
    """How the values of a column are called and written."""

    label: str
    unit: str = ""
    factor: float = 1.0
    """From the column's unit to the one shown: 100 for fractions that are shown in percent."""
    form: str = ".4g"
    """Format of a value in the unit shown, for Python and for d3 alike."""
    when: str = ""
    """At which moment of a level's training it is taken; a history has it at every evaluation."""
    higher_is_better: bool = False

    @property
    def name(self) -> str:
        """Label and moment."""
        return f"{self.label} {self.when}".strip()

    @property
    def axis(self) -> str:
        """Label, moment and unit, for an axis or a heading."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def axis_while_training(self) -> str:
        """Label and unit, for the axis of a history."""
        return Measure(self.label, self.unit).axis

    def text(self, value: float) -> str:
        """A value of the column, without its unit; a dash for NaN."""
        return "–" if isnan(value) else f"{self.factor * value:{self.form}}"

    def words(self, value: float) -> str:
        """A value of the column, with its unit."""
        return f"{self.text(value)} {self.unit}".strip()


def _accuracy(label: str, when: str = "") -> Measure:
    return Measure(label, "%", 100, ".2f", when, higher_is_better=True)


MEASURES = {
    "density": Measure("weights left", "%", 100, ".2f"),
    "sparsity": Measure("sparsity", "%", 100, ".2f"),
    "early_stop_iteration": Measure("early stop", "iterations", 1, ",.0f"),
    "steady_stop_iteration": Measure("steady stop", "iterations", 1, ",.0f"),
    "test_accuracy_early_stop": _accuracy("test accuracy", "at early stop"),
    "test_accuracy": _accuracy("test accuracy", "at the end"),
    "train_accuracy": _accuracy("training accuracy", "at the end"),
    "validation_accuracy": _accuracy("validation accuracy"),
    "train_loss": Measure("training loss", "nats", 1, ".4f"),
    "validation_loss": Measure("validation loss", "nats", 1, ".4f"),
    "test_loss": Measure("test loss", "nats", 1, ".4f"),
    "validation_loss_min": Measure("validation loss", "nats", 1, ".4f", "at early stop"),
    "seconds": Measure("training time", "s", 1, ",.1f"),
    "file_bytes": Measure("file", "kB", 1e-3),
    "memory_bytes": Measure("memory", "kB", 1e-3),
    "latency": Measure("latency", "ms", 1e3),
}
"""Column of levels.csv or of a history, or size or time of `lottery.runs.timings` -> how it is shown."""

EARLY, LAST, STOP = "test_accuracy_early_stop", "test_accuracy", "early_stop_iteration"
"""Columns that every view shows."""

AT_EARLY_STOP = {"validation_loss": "validation_loss_min", "test_accuracy": EARLY}
"""Column of a history -> the column of levels.csv that has its value at the early-stopping iteration."""


def measure(column: str) -> Measure:
    """How a column is shown; one that is not in `MEASURES` by its own name and as it was recorded."""
    return MEASURES.get(column) or Measure(column.replace("_", " "))


def own_columns(levels: "pd.DataFrame") -> list[str]:
    """Columns that a loop of one's own has recorded, in order."""
    from lottery.runs.rows import COLUMNS, DENSITY

    return [name for name in levels.columns if name not in COLUMNS and not name.startswith(DENSITY)]


class Cell(NamedTuple):
    """A column at one branch and level."""

    value: float
    """The mean over replicates, in the unit shown."""
    mean: str
    spread: tuple[str, str] | None
    """The lowest and the highest replicate; None where there are fewer than two."""


class TableRow(NamedTuple):
    """One branch at one level."""

    branch: str
    level: int
    density: float
    """Fraction."""
    cells: list[Cell]


def table(levels: "pd.DataFrame", columns: Sequence[str]) -> Iterator[TableRow]:
    """The rows of a table of levels: the dense network first in each branch, a cell for each column."""
    from lottery.analysis.statistics import summary

    if levels.empty:
        return
    for rows in zip(*(summary(levels, column).to_dict("records") for column in columns), strict=True):
        cells = [_cell(measure(column), row) for column, row in zip(columns, rows, strict=True)]
        yield TableRow(rows[0]["branch"], int(rows[0]["level"]), rows[0]["density"], cells)


def _cell(shown: Measure, row: Mapping[Any, Any]) -> Cell:
    spread = (shown.text(row["min"]), shown.text(row["max"])) if row["n"] > 1 else None
    return Cell(shown.factor * row["mean"], shown.text(row["mean"]), spread)


SENTENCES = 4
"""How many of an answer's details the short views give."""


COMPARED = {
    "matching": Measure("accuracy − dense", "points"),
    "no_later": Measure("stops after", "× dense"),
    "beats_reinit": Measure("accuracy − reinit", "points"),
}
"""Condition on a ticket -> how what it compares is called."""


class Comparison(NamedTuple):
    """What a condition looks at, at one level."""

    value: float
    """The mean over replicates."""
    mean: str
    interval: str = ""
    """95 % interval of that level alone, where there is one."""
    bound: str = ""
    """For all levels together, where there is one."""


class Verdict(NamedTuple):
    """One pruned level of a branch."""

    level: int
    density: float
    """Fraction."""
    replicates: int
    compared: dict[str, Comparison]
    """By condition, those that are known somewhere in the branch."""
    verdict: str
    """yes, no or undecided: of that level alone; empty where it is too early to say."""
    shown: bool
    """Whether it is "yes" for all levels together."""


class Verdicts(NamedTuple):
    """The pruned levels of a branch."""

    name: str
    """What is judged: "winning", or "matching" for a branch, without validation images, and where `reinit` was not
    trained."""
    rows: list[Verdict]


def verdicts(levels: "pd.DataFrame", margin: float, branch: str, awaited: "Sequence[Place]" = ()) -> Verdicts:
    """What `analysis.verdicts.judge` finds, as it is shown.

    Args:
        levels: the frame of a run with a dense network.
        margin: percentage points that a matching ticket may be less accurate than the dense network.
        branch: the trunk or another.
        awaited: what the run has not finished, see `analysis.answer.awaited_of`.
    """
    from lottery.analysis.answer import too_early
    from lottery.analysis.frames import trunk_of
    from lottery.analysis.verdicts import judge

    found = judge(levels, margin, branch)
    final = not too_early(awaited, trunk_of(levels), branch)
    known = [name for name in COMPARED if found[f"{name}_mean"].notna().any()]
    name = "winning" if len(known) == len(COMPARED) else "matching"
    return Verdicts(
        name,
        [
            Verdict(
                int(row["level"]),
                row["density"],
                int(row["n"]),
                {condition: _comparison(condition, row) for condition in known},
                row[name] if final else "",
                final and bool(row[f"{name}_shown"]),
            )
            for row in found.to_dict("records")
        ],
    )


def _comparison(condition: str, row: Mapping[Any, Any]) -> Comparison:
    mean, low, high, bound = (row[f"{condition}_{end}"] for end in ("mean", "low", "high", "bound"))
    ratio = condition == "no_later"
    text = _ratio if ratio else _signed
    interval = "" if isnan(low) else f"{text(low)} to {text(high)}"
    if isnan(mean) or isnan(bound):
        return Comparison(mean, "–" if isnan(mean) else text(mean), interval)
    from lottery.analysis.answer import round_down, round_up

    safe = f"≤ {text(round_up(bound, 2))}" if ratio else f"≥ {text(round_down(bound, 2))}"
    return Comparison(mean, text(mean), interval, safe)


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return text.replace("-", "−") if float(text) else text[1:]


def rules(names: Iterable[str], margin: "Margin") -> list[str]:
    """What verdicts of these names mean, in sentences.

    Args:
        names: of `Verdicts`.
        margin: by which they are judged.
    """
    from lottery.analysis.answer import round_up

    said = [
        f"Matching: at most {round_up(margin.points, 3):g} points less accurate than the dense network (the margin, "
        f"{margin.source})."
    ]
    if "winning" in names:
        said.append(
            "Winning: matching, stopping after at most 1.1 of the dense network’s iterations, and more accurate than "
            "the same mask reinitialised."
        )
    return said


@dataclass(frozen=True)
class ContrastMeasure:
    """How differences of one kind are called and written: rows of `analysis.comparison.Contrast`."""

    name: str
    title: str
    unit: str
    ratio: bool = False

    @property
    def nothing(self) -> float:
        """What would be no difference."""
        return 1.0 if self.ratio else 0.0

    @property
    def axis(self) -> str:
        return f"{self.name} ({self.unit})"

    def table(self, contrast: "Contrast") -> "pd.DataFrame":
        """The rows of a contrast that are of this kind."""
        return contrast.stops if self.ratio else contrast.accuracy

    def text(self, value: float) -> str:
        return "–" if isnan(value) else _ratio(value) if self.ratio else _signed(value)

    def interval(self, row: Mapping[Any, Any]) -> str:
        """Of a level alone; nothing where there is none."""
        return self._ends(row["low"], row["high"])

    def joint(self, row: Mapping[Any, Any]) -> str:
        """For all levels together; nothing where there is none."""
        return self._ends(row["joint_low"], row["joint_high"])

    def _ends(self, low: float, high: float) -> str:
        return "" if isnan(low) else f"{self.text(low)} to {self.text(high)}"

    def words(self, row: Mapping[Any, Any]) -> str:
        """Mean and interval for all levels together."""
        joint = self.joint(row)
        return self.text(row["mean"]) + (f" ({joint})" if joint else "")


CONTRASTS = {
    "accuracy": ContrastMeasure("test accuracy", "Difference in test accuracy", "points"),
    "stops": ContrastMeasure("early stop", "Ratio of early stops", "times", ratio=True),
}
"""Field of a `Contrast` -> how it is shown."""

SETTINGS = {
    "data.name": "data",
    "data.validation": "validation images",
    "model.name": "network",
    "model.hidden": "hidden units",
    "model.init": "initial weights",
    "model.std": "initial standard deviation",
    "recipe.evaluate_every": "iterations between evaluations",
    "pruning.rate": "pruning rate",
    "pruning.scope": "pruning scope",
}
"""Setting of a run, by its dotted name in a spec -> how it is called, where that is not the name's last part."""


def setting_label(name: str) -> str:
    """How a setting is called: learning rate for recipe.learning_rate."""
    return SETTINGS.get(name) or name.rpartition(".")[2].replace("_", " ")


def setting_value(value: object) -> str:
    """A setting's value for people: 6e-4, 50,000, 300 and 100, fc3.weight 0.1, none, yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        digits, _, power = f"{value:.9e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {setting_value(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " and ".join(map(setting_value, value)) or "none"
    return str(value)


def setting(name: str, value: object) -> str:
    """A setting in words: "learning rate 6e-4"."""
    return f"{setting_label(name)} {setting_value(value)}"


def run_settings(run: "Run") -> dict[str, Any]:
    """What a run was made with: setting -> value, also those that no spec has."""
    return flatten(run.spec) | {name: run.info[name] for name in ("engine", "device")}


def run_labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells runs apart, for legends: "learning rate 6e-4". Three settings at most; how much of an experiment is
    wanted (levels, replicates, branches) counts only where nothing else differs.

    Args:
        settings: of each run, see `run_settings`.
    """
    names = differing(settings)
    names = [name for name in names if name not in EXTENT] or names
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [", ".join(setting(name, each.get(name, "–")) for name in names[:3]) + more for each in settings]


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What runs beside each other are called in short."""


def run_name(letter: str, label: str) -> str:
    """A run's name in a sentence: B (learning rate 6e-4)."""
    return f"{letter} ({label})" if label else letter


def ticks(densities: Iterable[float], most: int) -> list[float]:
    """Where a density axis is labelled: at about one in so many of these densities that `most` remain.

    Args:
        densities: fractions; zeros, which a logarithmic axis has no place for, are left out.
        most: how many labels there is room for.

    Returns:
        Percent, decreasing, the first density always among them.
    """
    percents = sorted({round(100 * density, 4) for density in densities if density > 0}, reverse=True)
    return percents[:: max(1, -(-len(percents) // most))]


def marks(least: float) -> list[float]:
    """Where a logarithmic scale from that percentage to 100 % is labelled, decreasing."""
    marked = (
        (100, 80, 60, 40, 30, 20, 10) if least > 10 else (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    )
    return [x for x in marked if x >= least]


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by the colour-blind too."""


def run_colour(index: int, count: int) -> str:
    """The colour of a run among so many, as #rrggbb. Of more than there are in `COLOURS`, neighbours have related hues,
    and each third one is as dark."""
    if count <= len(COLOURS):
        return COLOURS[index]
    red, green, blue = colorsys.hls_to_rgb(index / count, (0.32, 0.45, 0.62)[index % 3], 0.75)
    return "#" + bytes(round(255 * part) for part in (red, green, blue)).hex()


BRANCH_COLOURS = {
    "rewind": "#0072B2",
    "reinit": "#D55E00",
    "random_mask": "#009E73",
    "random_mask_reinit": "#7FD1B9",
    "one_shot": "#CC79A7",
    "one_shot_reinit": "#7A3B5E",
    "continue": "#000000",
    "lr_rewind": "#666666",
    "finetune": "#A6A6A6",
    "prune_at_init": "#E69F00",
    "reinit_from_ticket": "#F4A582",
    "same_sign": "#56B4E9",
    "shuffle": "#8C6D31",
    "noise_0.5": "#CBC9E2",
    "noise_1": "#9E9AC8",
    "noise_2": "#756BB1",
    "noise_3": "#54278F",
}
"""Start rule -> its colour in every view: relatives have related ones."""

DASHED = ("reinit", "random_mask_reinit", "one_shot_reinit", "random_mask")
"""Branches that lost their initial weights or their place, dashed as in the paper."""


METHOD_COLOURS = {"dense": "#a0a0a0", **dict(zip(list(METHODS)[1:], COLOURS, strict=False))}
"""Way to compute logits -> its colour in every view."""

SHRUNK = ("shrunk", "onnx_shrunk")
"""Ways to compute logits that may coincide with dense ones, dashed."""


def colour(branch: str) -> str:
    """A branch's colour in every view, as #rrggbb; for a rule not in `BRANCH_COLOURS`, one from its name."""
    if branch in BRANCH_COLOURS:
        return BRANCH_COLOURS[branch]
    red, green, blue = colorsys.hls_to_rgb(crc32(branch.encode()) / 2**32, 0.45, 0.5)
    return "#" + bytes(round(255 * part) for part in (red, green, blue)).hex()


def significant(value: float) -> str:
    """Three digits, thousands apart, without an exponent: 0.00312, 1,230,000."""
    return f"{float(f'{value:.3g}'):,.10g}"


def cost_headings(measured: "Sequence[Measured]") -> list[str]:
    """Of the cells that `cost_cells` makes."""
    batches = batches_of(measured)
    times = [f"{measure('latency').unit} at {batch}" for batch in batches]
    return [*(measure(name).axis for name in ("file_bytes", "memory_bytes")), *times, f"images/s at {max(batches)}"]


def cost_cells(cost: "Cost") -> list[tuple[str, ...]]:
    """What one way to compute logits takes: file, memory, time by batch size, throughput at the largest.

    Each with what qualifies it: of a time its speed, × dense PyTorch's, and its quartiles. None of what is missing.
    """
    if cost.file_bytes is None or cost.memory_bytes is None:
        return []
    factor = measure("latency").factor
    sizes = {"file_bytes": cost.file_bytes, "memory_bytes": cost.memory_bytes}
    return [
        *((significant(measure(name).factor * size),) for name, size in sizes.items()),
        *(
            (
                significant(factor * x.seconds.median),
                f"{significant(x.speed.median)} ×",
                f"{significant(factor * x.seconds.low)} to {significant(factor * x.seconds.high)}",
            )
            for x in cost.latencies
        ),
        (significant(cost.latencies[-1].throughput),),
    ]


CostLines = dict[tuple[str, str, int], "list[tuple[float, Spread]]"]
"""(method, branch, replicate) -> density, and what is drawn there."""


def cost_lines(measured: "Sequence[Measured]", column: str, batch: int = 0) -> CostLines:
    """What figures draw against density: of latency at that batch size the spread, of a size one number thrice.

    Densities decrease; a ticket without weights, for which a logarithmic axis has no place, is left out.
    """
    from lottery.runs.timings import Spread

    lines: CostLines = {}
    for level in sorted(measured, key=lambda level: -level.density):
        for cost in level.costs if level.density else ():
            points = [latency.seconds for latency in cost.latencies if latency.batch == batch]
            if column != "latency":
                size = getattr(cost, column)
                points = [] if size is None else [Spread(size, size, size)]
            line = lines.setdefault((cost.method, level.place.branch, level.place.replicate), [])
            line += [(level.density, point) for point in points]
    return {key: line for key, line in lines.items() if line}


def batches_of(measured: "Sequence[Measured]") -> list[int]:
    """The batch sizes of levels that were measured alike."""
    return sorted({latency.batch for level in measured for cost in level.costs for latency in cost.latencies})


def missing_of(measured: "Sequence[Measured]") -> dict[str, str]:
    """Way to compute logits -> why it was not measured, at any of these levels."""
    return {cost.method: cost.missing for level in measured for cost in level.costs if cost.missing}


def machines_of(measured: "Sequence[Measured]") -> list[str]:
    """On which machines, and with which versions, levels were measured, and when last: one line for each."""
    found: dict[str, str] = {}
    for level in measured:
        m = level.machine
        versions = ", ".join(f"{name} {number}" for name, number in {"Python": m["python"], **m["versions"]}.items())
        text = f"{m['processor']}, one core, {m['platform']}; {versions}"
        found[text] = max(m["started"], found.get(text, ""))
    return [f"{text}; {started}" for text, started in found.items()]


BUSY = 0.9
"""Share of a core below which times say more of the machine than of the method."""


def busy_of(measured: "Sequence[Measured]") -> list[str]:
    """What to know of levels that were measured while the core did other work; nothing for an idle machine."""
    least = min(level.core for level in measured)
    share = f"other work had {100 * (1 - least):.0f} % of the core"
    return [f"While it was timed, {share}: measure again on an idle machine."] if least < BUSY else []
