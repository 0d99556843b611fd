"""What a run looks like in a terminal: bars while it works, plain lines where output is no terminal, tables after."""

from collections.abc import Iterable
from dataclasses import replace
from math import isnan
from pathlib import Path
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from lottery.errors import LotteryError
from lottery.runs.experiment import Progress as Event
from lottery.runs.rows import Place, Row, wanted
from lottery.runs.store import Run
from lottery.spec import Spec
from lottery.views.measures import EARLY, LAST, STOP, Measure, measure, table


class Display:
    """Shows the events of `experiment.run`: used as a context, called with each."""

    def __init__(self, spec: Spec, console: Console):
        self.spec, self.console = spec, console
        self.events = 0
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[where]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            speed_estimate_period=120,
        )
        self.tasks: dict[Place, TaskID] = {}

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        self.events += 1
        if self.console.is_terminal:
            self._advance(event)
        elif event.note:
            self.console.print(f"{_name(event.place)}: {event.note}", highlight=False)
        elif event.row:
            self.console.print(_line(event.row), highlight=False, soft_wrap=True)

    def _advance(self, event: Event) -> None:
        iterations, levels, level = self.spec.recipe.iterations, self.spec.levels, event.place.level
        key = replace(event.place, level=0)
        if key not in self.tasks:  # continued runs begin at a later level: only what is left counts for the estimate
            begun, total = level * iterations, (levels + 1) * iterations
            self.tasks[key] = self.bars.add_task(_name(key), total=total, completed=begun, where="", start=True)
        accuracy = measure(LAST)
        where = (
            f"level {level}/{levels}  iteration {event.iteration:,}/{iterations:,}  "
            f"{accuracy.label} {accuracy.words(event.test_accuracy)}"
        )
        finished_branch = event.place.branch != self.spec.start and event.row is not None and level == levels
        # there may be dozens of branches: only the trunk's bars stay
        self.bars.update(
            self.tasks[key],
            completed=level * iterations + event.iteration,
            where=event.note or where,
            visible=not finished_branch,
        )


def _name(place: Place) -> str:
    draw = f"  draw {place.draw}" if place.draw else ""
    return f"{place.branch}  replicate {place.replicate}{draw}"


def _line(row: Row) -> str:
    """What a level came to; what was not measured is left out."""
    words = {
        column: measure(column).words(value)
        for column in ("density", LAST, EARLY, STOP, "seconds")
        if (value := getattr(row, column)) is not None
    }
    stop = f" ({words[EARLY]} {measure(EARLY).when}, {words[STOP]})" if STOP in words else ""
    return (
        f"{_name(row.place)}  level {row.place.level:>2}  {measure('density').label} {words['density']:>8}  "
        f"{measure(LAST).label} {words.get(LAST, '–')}{stop}  {words.get('seconds', '')}"
    )


def _table(title: str, branches: bool, headings: Iterable[str]) -> Table:
    """An empty table, with a column for the branch if there are several."""
    table = Table(title=escape(title), title_justify="left", pad_edge=False, box=SIMPLE_HEAD)
    if branches:
        table.add_column("branch")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _heading(shown: Measure) -> str:
    """In two lines, as narrow as they can be."""
    words = shown.axis.split()
    halves = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return "\n".join(min(halves, key=lambda lines: max(map(len, lines))))


def level_table(run: Run) -> Table:
    """One line per branch and level: means over replicates, with the lowest and the highest in brackets."""
    from lottery.analysis.frames import branches_of  # pandas takes half a second to import

    levels = run.levels()
    several = len(branches_of(levels)) > 1
    columns = (STOP, EARLY, LAST, "seconds")
    headings = ["level", *(_heading(measure(column)) for column in ("density", "sparsity", *columns))]
    found = _table(run.path.name, several, headings)
    branch = None
    for row in table(levels, columns):
        if row.branch != branch:
            found.add_section()
            branch = row.branch
        *cells, seconds = row.cells
        found.add_row(
            *([escape(row.branch)] if several else []),
            str(row.level),
            measure("density").text(row.density),
            measure("sparsity").text(1 - row.density),
            *(f"{c.mean} [dim]({c.spread[0]}-{c.spread[1]})[/dim]" if c.spread else c.mean for c in cells),
            seconds.mean,
        )
    return found


def ticket_table(run: Run) -> Table:
    """Which levels are winning tickets, and by what margins: one line per branch and level."""
    from lottery.analysis.frames import branches_of
    from lottery.analysis.verdicts import winning

    levels = run.levels()
    branches = branches_of(levels)
    headings = ("level", _heading(measure("density")), "replicates", "more accurate\n(points)", "earlier\n(iterations)")
    found = _table("winning tickets", len(branches) > 1, headings)
    found.add_column("winning\nticket")
    for branch in branches:
        found.add_section()
        for row in winning(levels, branch).to_dict("records"):
            found.add_row(
                *([escape(branch)] if len(branches) > 1 else []),
                str(row["level"]),
                measure("density").text(row["density"]),
                str(row["n"]),
                _margin([row[f"accuracy{end}"] for end in ("", "_low", "_high")], measure(EARLY).form),
                _margin([row[f"earlier{end}"] for end in ("", "_low", "_high")], measure(STOP).form),
                row["winning"],
            )
    found.caption = (
        "Against the dense network, at early stop; means over replicates, paired, and their 95 % intervals.\n"
        "yes: neither interval goes below 0. no: one of them is below 0 as a whole. undecided: all else."
    )
    found.caption_justify = "left"
    return found


def _margin(interval: list[float], form: str) -> str:
    mean, low, high = (f"{value:+{form}}" for value in interval)
    return mean if isnan(interval[1]) else f"{mean} [dim]({low} to {high})[/dim]"


def run_table(runs_dir: Path, names: list[str]) -> Table:
    """One line per run; of one that is damaged, how."""
    table = Table(pad_edge=False, box=SIMPLE_HEAD)
    for heading in ("run", "replicates", "levels done", "best test acc. (weights left)"):
        table.add_column(heading, justify="left" if heading == "run" else "right", overflow="fold")
    for name in names:
        try:
            run = Run(runs_dir / name)
            rows = run.rows()
        except LotteryError as error:
            table.add_row(escape(name), "", "", escape(str(error)))
            continue
        best = max(rows, key=lambda row: row.test_accuracy or 0, default=None)
        accuracy = measure(LAST).words(best.test_accuracy or 0) if best else ""
        table.add_row(
            escape(name),
            str(run.spec.replicates),
            f"{len(rows)} of {len(list(wanted(run.spec)))}" if run.unfinished(run.spec) else f"all {len(rows)}",
            f"{accuracy} ({measure('density').words(best.density)})" if best else "–",
        )
    return table
