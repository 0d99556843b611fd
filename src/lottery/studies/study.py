"""The machinery of studies: the parts that a paper's file consists of, and figures that any paper may have.

A study names runs, what is trained, and items, what is shown. An item names the runs and branches that it needs, and
makes something of them; `lottery.studies.reproduce` trains what is missing and writes it all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan
from typing import Any

import pandas as pd

from lottery.analysis.answer import margin_of
from lottery.analysis.frames import curve, trunk_of
from lottery.analysis.verdicts import EARLY, LAST, STOP, Margin
from lottery.errors import LotteryError
from lottery.runs.store import Run
from lottery.spec import OwnLoop, Spec
from lottery.studies.claims import Claim, judge, markdown, near
from lottery.views import plots
from lottery.views.measures import colour
from lottery.words import branch_name, number_of

Panels = Sequence[Any]
"""The axes of one figure, as `lottery.views.plots.panels` makes them."""

COLUMNS = (STOP, EARLY, LAST)
"""What most figures show, a panel for each."""

BARS = "bars: lowest to highest replicate"
MARKS = "marks: the paper's, relative to our dense network or ticket"
"""What stands below the title of a figure that has them."""


@dataclass(frozen=True)
class Planned:
    """A run of a study, before it is known for how many iterations and replicates."""

    spec: Spec
    share: float = 1.0
    """Of the study's iterations."""
    replicates: int | None = None
    """At most so many."""

    def sized(self, iterations: int, replicates: int) -> Spec:
        """The spec of this run in a study of so many iterations and replicates."""
        share = max(min(1, iterations), round(self.share * iterations))  # of 1 it is 1, and 0 is Recipe's to refuse
        recipe = replace(self.spec.recipe, iterations=share)
        return replace(self.spec, recipe=recipe, replicates=min(replicates, self.replicates or replicates))


@dataclass(frozen=True)
class Item:
    """Something that a study shows."""

    says: str
    needs: Mapping[str, tuple[str, ...]]
    """Run -> the branches of it that are needed beside its trunk."""
    make: "Callable[[Results], Panels | Mapping[str, str]]"
    """A figure, or texts by the names of their files."""
    default: bool = True
    """Made unless others are asked for by name."""


@dataclass(frozen=True)
class Stated:
    """A number that the paper states of a column at one level, to be drawn beside ours.

    Papers compare, and so does this: the number is relative to what our own run has.
    """

    column: str
    """Of levels.csv."""
    density: float
    value: float
    """Times as many iterations, for a number of iterations; percentage points more, for an accuracy."""
    branch: str = ""
    """What it is of; the trunk if empty."""
    than: str = ""
    """The branch at that level that it is relative to; the dense network if empty."""
    at_least: bool = False
    """Whether the paper says that it is more than that."""


@dataclass(frozen=True)
class Study:
    """One paper: its runs, what it shows of them, and what it claims."""

    runs: dict[str, Planned]
    """Name -> run. Two names may be one run."""
    items: dict[str, Item]
    main: str
    """Name of the run that the claims are measured on, unless they name another."""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    stated: tuple[Stated, ...] = ()
    """What figures of the main run show beside its own numbers."""
    note: str = ""
    """What must be known to read its table of claims."""

    def is_main(self, spec: Spec) -> bool:
        """Whether that is the main run, whatever its iterations, seed and extent."""
        if isinstance(spec, OwnLoop):
            return False
        planned = self.runs[self.main].spec
        recipe = replace(planned.recipe, iterations=spec.recipe.iterations)
        return replace(planned, recipe=recipe, seed=spec.seed).identity() == spec.identity()


class Results:
    """The finished runs of a study, by name; the main one where no name is given."""

    def __init__(self, study: Study, runs: Mapping[str, Run], margin: float | None = None):
        """A margin in percentage points; of None, each run's own `default_margin`."""
        self.study = study
        self.runs = runs
        self._margin = margin
        self._levels: dict[str, pd.DataFrame] = {}

    def run(self, name: str = "") -> Run:
        """The run of that name."""
        return self.runs[name or self.study.main]

    def levels(self, run: str = "") -> pd.DataFrame:
        """The frame of a run, read once."""
        if run not in self._levels:
            self._levels[run] = self.run(run).levels()
        return self._levels[run]

    def margin(self, run: str = "") -> Margin:
        """By how much a ticket of that run may be less accurate than the dense network and still match it."""
        return margin_of(self.run(run), self.levels(run), self._margin)

    def weights(self, level: int, run: str = "") -> pd.DataFrame:
        """A level's tickets of all replicates, as `Run.weights` has them, with a column `replicate`."""
        frame = self.levels(run)
        replicates = frame.loc[(frame["branch"] == trunk_of(frame)) & (frame["level"] == level), "replicate"]
        return pd.concat([self.run(run).weights(level, r).assign(replicate=r) for r in replicates], ignore_index=True)

    def history(self, curves: Iterable[tuple[str, int]], run: str = "") -> pd.DataFrame:
        """The histories of those pairs of branch and level that the run has."""
        pairs = set(self.levels(run)[["branch", "level"]].itertuples(index=False, name=None))
        parts = [self.run(run).history(branch, level=level) for branch, level in curves if (branch, level) in pairs]
        return pd.concat(parts, ignore_index=True)

    def near(self, percents: Iterable[float], run: str = "") -> list[int]:
        """Those levels of the paper's densities that the run has. Raises LotteryError if it has none."""
        levels: list[int] = []
        for percent in percents:
            with suppress(LotteryError):
                levels.append(near(self.levels(run), percent / 100))
        if not levels:
            wanted = ", ".join(map(str, percents))
            raise LotteryError(f"{self.run(run).path} has no level near {wanted} % of the weights")
        return list(dict.fromkeys(levels))

    def size(self, *runs: str) -> str:
        """How large runs are, in words: the iterations of the first, and the replicates that are there, whatever was
        once asked for; of runs that have different numbers, the fewest and the most."""
        trunks = (frame[frame["branch"] == trunk_of(frame)] for frame in map(self.levels, runs))
        counts = sorted({int(trunk["replicate"].nunique()) for trunk in trunks})
        replicates = f"{counts[0]} to " * (len(counts) > 1) + number_of(counts[-1], "replicate")
        return f"{self.run(runs[0]).spec.recipe.iterations:,} iterations a level, {replicates}"

    def title(self, what: str, *runs: str, notes: Sequence[str] = ()) -> str:
        """A title in lines: what is shown; how the first of these runs was made, and the input scaling where all of
        them have the same; what bars and marks mean, if there are any."""
        runs = runs or (self.study.main,)
        specs = [self.run(run).spec for run in runs]
        scalings = {spec.data.scaling for spec in specs}
        scaling = f" ({scalings.pop()})" if len(scalings) == 1 else ""
        made = f"{specs[0].model.name} on {specs[0].data.name}{scaling}, {self.size(*runs)}"
        return "\n".join([what, made, *notes])

    def judged_on(self, run: str) -> pd.DataFrame:
        """All claims on one run."""
        return judge(self.levels(run), self.study.claims, self.margin(run).points)

    def judged(self) -> pd.DataFrame:
        """Each claim on the run that it is measured on, named in the column `run`; of another than the main one, the
        note says how large that is."""
        parts = []
        for name, claim in self.study.claims.items():
            run = claim.run or self.study.main
            row = judge(self.levels(run), {name: claim}, self.margin(run).points).assign(run=run)
            if run != self.study.main:
                row["note"] = "; ".join(filter(None, [row["note"].item(), self.size(run)]))
            parts.append(row)
        return pd.concat(parts, ignore_index=True)


# --- tables and figures that any paper may have ----------------------------------------------------------------------

Draw = Callable[[Results], Panels]


def claims_files(results: Results, more: str = "", also: Sequence[pd.DataFrame] = ()) -> dict[str, str]:
    """claims.csv and claims.md: each claim on the run that it is measured on.

    Args:
        results: of the study.
        more: what follows in claims.md.
        also: further rows of claims.csv.
    """
    judged, margin = results.judged(), results.margin()
    parts = [
        markdown(judged, results.title("Claims").replace("\n", ": ")),
        results.study.note,
        f"The margin is {margin.points:.3g} points: {margin.source}. Intervals are of each number alone; of claims "
        "about several levels (“at every level”, “fall below at”) they hold for all of these levels together.",
        more,
    ]
    return {
        "claims.csv": pd.concat([judged, *also]).to_csv(index=False, lineterminator="\n"),
        "claims.md": "\n".join(part.rstrip("\n") + "\n" for part in parts if part),
    }


def against_density(
    title: str, lines: Sequence[plots.Line], columns: Sequence[str], mark: Callable[[str, Any], None] | None = None
) -> Panels:
    """The same lines in a panel for each column; `mark` adds to a panel, given its column."""
    axes = plots.panels(len(columns), title)
    for ax, column in zip(axes, columns, strict=True):
        plots.against_density(lines, column, ax)
        if mark:
            mark(column, ax)
    plots.shared_legend(axes)
    return axes


def mark_stated(results: Results, column: str, ax: Any) -> None:
    """Draws what the paper states of a column, where our main run has the level, and makes room for it."""
    levels = results.levels()
    for stated in results.study.stated:
        if stated.column != column:
            continue
        try:
            level = near(levels, stated.density)
            ours = curve(levels, column, stated.than or None)[level if stated.than else 0].mean()
        except (LotteryError, KeyError):  # a level or a branch that the run doesn't have
            continue
        if isnan(ours):
            continue
        y = stated.value * ours if column == STOP else 100 * ours + stated.value
        x = 100 * levels.loc[levels["level"] == level, "density"].mean()
        branch = stated.branch or trunk_of(levels)
        marks: Any = {"fmt": "^" if stated.at_least else "X", "color": colour(branch), "markeredgecolor": "black"}
        label = f"{branch_name(branch)}, paper{': more' if stated.at_least else ''}"
        ax.errorbar([x], [y], markersize=7, zorder=3, label=label, **marks)
        low, high = ax.get_ylim()
        room = 0.05 * (high - low)
        ax.set_ylim(min(low, y - room) if low else 0, max(high, y + room))


def branches(run: str, what: str, names: Sequence[str], columns: Sequence[str] = COLUMNS) -> Draw:
    """A figure of the trunk and of branches of one run against density, a panel for each column.

    Of the main run, what the paper states is drawn beside it.
    """

    def draw(results: Results) -> Panels:
        levels = results.levels(run)
        lines = plots.branch_lines(levels, (trunk_of(levels), *names))
        marked = run == results.study.main and any(stated.column in columns for stated in results.study.stated)
        title = results.title(what, run, notes=(BARS, MARKS) if marked else (BARS,))
        return against_density(title, lines, columns, partial(mark_stated, results) if marked else None)

    return draw


def sweep(what: str, runs: Mapping[str, str], columns: Sequence[str] = COLUMNS) -> Draw:
    """A figure of the trunks of several runs, named by label, against density, a panel for each column."""

    def draw(results: Results) -> Panels:
        lines = plots.value_lines({label: results.levels(run) for label, run in runs.items()})
        return against_density(results.title(what, *runs.values(), notes=(BARS,)), lines, columns)

    return draw
