"""The machinery of studies: the parts that a paper's file consists of, and figures that any paper may have.

A study names runs, what is trained, and items, what is shown. An item names the runs and branches that it needs, and
makes something of them; `lottery.studies.reproduce` trains what is missing and writes it all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from lottery.analysis.frames import trunk_of
from lottery.analysis.verdicts import EARLY, LAST, STOP
from lottery.errors import LotteryError
from lottery.runs.store import Run
from lottery.spec import Spec
from lottery.studies.claims import Claim, judge, near
from lottery.views import plots

Panels = Sequence[Any]
"""The axes of one figure, as `lottery.views.plots.panels` makes them."""

COLUMNS = (STOP, EARLY, LAST)
"""What most figures show, a panel for each."""


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
class Study:
    """One paper: its runs, what it shows of them, and what it claims."""

    runs: dict[str, Planned]
    """Name -> run. Two names may be one run."""
    items: dict[str, Item]
    main: str
    """Name of the run that the claims are measured on, unless they name another."""
    claims: Mapping[str, Claim] = field(default_factory=dict)

    def is_main(self, spec: Spec) -> bool:
        """Whether that is the main run, whatever its iterations, seed and extent."""
        planned = self.runs[self.main].spec
        recipe = replace(planned.recipe, iterations=spec.recipe.iterations)
        return replace(planned, recipe=recipe, seed=spec.seed).identity() == spec.identity()


class Results:
    """The finished runs of a study, by name; the main one where no name is given."""

    def __init__(self, study: Study, runs: Mapping[str, Run]):
        self.study = study
        self.runs = runs
        self._levels: dict[str, pd.DataFrame] = {}

    def run(self, name: str = "") -> Run:
        """The run of that name."""
        return self.runs[name or self.study.main]

    def levels(self, run: str = "") -> pd.DataFrame:
        """The frame of a run, read once."""
        if run not in self._levels:
            self._levels[run] = self.run(run).levels()
        return self._levels[run]

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

    def title(self, what: str, *runs: str) -> str:
        """A title in two lines: what is shown, and how the first of these runs was made; the input scaling only where
        all of them have the same."""
        specs = [self.run(run).spec for run in runs or [self.study.main]]
        scalings = {spec.data.scaling for spec in specs}
        scaling = f" ({scalings.pop()})" if len(scalings) == 1 else ""
        return f"{what}\n{specs[0].model.name} on {specs[0].data.name}{scaling}, {size(specs[0])}"

    def judged(self) -> pd.DataFrame:
        """Each claim on the run that it is measured on, named in the column `run`; of another than the main one, the
        note says how large that is."""
        parts = []
        for name, claim in self.study.claims.items():
            run = claim.run or self.study.main
            row = judge(self.levels(run), {name: claim}).assign(run=run)
            if run != self.study.main:
                row["note"] = "; ".join(filter(None, [row["note"].item(), size(self.run(run).spec)]))
            parts.append(row)
        return pd.concat(parts, ignore_index=True)


def size(spec: Spec) -> str:
    """How large a run is, in words."""
    return f"{spec.recipe.iterations:,} iterations a level, {spec.replicates} replicate(s)"


# --- figures that any paper may have ---------------------------------------------------------------------------------

Draw = Callable[[Results], Panels]


def against_density(title: str, lines: Sequence[plots.Line], columns: Sequence[str]) -> Panels:
    """The same lines in a panel for each column."""
    axes = plots.panels(len(columns), title)
    for ax, column in zip(axes, columns, strict=True):
        plots.against_density(lines, column, ax)
    plots.shared_legend(axes)
    return axes


def branches(run: str, what: str, names: Sequence[str], columns: Sequence[str] = COLUMNS) -> Draw:
    """A figure of the trunk and of branches of one run against density, a panel for each column."""

    def draw(results: Results) -> Panels:
        levels = results.levels(run)
        lines = plots.branch_lines(levels, (trunk_of(levels), *names))
        return against_density(results.title(what, run), lines, columns)

    return draw


def sweep(what: str, runs: Mapping[str, str], columns: Sequence[str] = COLUMNS) -> Draw:
    """A figure of the trunks of several runs, named by label, against density, a panel for each column."""

    def draw(results: Results) -> Panels:
        lines = plots.value_lines({label: results.levels(run) for label, run in runs.items()})
        return against_density(results.title(what, *runs.values()), lines, columns)

    return draw
