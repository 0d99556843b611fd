"""What a run looks like in a terminal: bars while it works, plain lines where output is no terminal, tables after."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, track
from rich.table import Column, Table
from rich.text import Text

from lottery.analysis.listing import Entry
from lottery.analysis.speed import slower
from lottery.runs.experiment import Progress as Event
from lottery.runs.rows import Place, Row, wanted
from lottery.runs.store import Run
from lottery.runs.sweep import Sweep
from lottery.runs.timings import Measured
from lottery.spec import Spec, flatten
from lottery.views.measures import (
    COMPARED,
    EARLY,
    LAST,
    LETTERS,
    SENTENCES,
    STOP,
    Measure,
    Verdict,
    busy_of,
    cost_cells,
    cost_headings,
    machines_of,
    measure,
    missing_of,
    own_columns,
    rules,
    run_labels,
    run_name,
    run_settings,
    setting,
    setting_label,
    setting_value,
    table,
    verdicts,
)
from lottery.words import method_name, number_of

if TYPE_CHECKING:
    import pandas as pd

NARROW = 70
"""Columns below which bars leave out what can be guessed."""

NAMES = 44
"""Letters that a bar of 80 columns has for the names of its run and its branch."""

LINES = 100
"""Most lines of a log, about: one for each level, or where there are more of them one for each percent of the whole."""


class RunsDisplay:
    """Shows the events of runs that are carried out together: used as a context, given each. Bars in a terminal, one
    bar in a notebook, and elsewhere lines, at most about `LINES` of them; all with the time left of the whole."""

    def __init__(self, runs: Mapping[str, tuple[Spec, Path]], console: Console, banner: str = ""):
        """What will be shown.

        Args:
            runs: how each is called -> what was asked for, and its folder, for what is there already.
            console: where it is shown.
            banner: printed when something begins, and not before.
        """
        self.specs = {name: spec for name, (spec, _) in runs.items()}
        self.console, self.banner = console, banner
        self.events = self.told = 0
        self.wanted = {(name, place) for name, spec in self.specs.items() for place in wanted(spec)}
        self.missing = {(name, place) for name, place in self.wanted if not (runs[name][1] / place.folder).exists()}
        self.begun = len(self.wanted) - len(self.missing)
        self.training: dict[tuple[str, Place], float] = {}
        """Level at work -> how much of it is done, a fraction."""
        self.clock: tuple[float, float] | None = None
        """When the first evaluation came, in seconds, and what was done by then, in levels."""
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(min_width=4, max_width=24)),  # names come first
            TextColumn("{task.fields[where]}"),
            TimeRemainingColumn(),
            *([TextColumn("left")] if console.width >= NARROW else []),
            console=console,
            speed_estimate_period=120,
        )
        self.tasks: dict[tuple[str, Place], TaskID] = {}
        self.total: TaskID | None = None
        self.cell: Any = None
        """Of a notebook: the output that is shown anew."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.total is not None:  # else it would end a line that was not begun
            self.bars.stop()

    def show(self, event: Event, run: str) -> None:
        """Shows an event of the run of that name."""
        if not self.events:
            self._begin()
        self.events += 1
        if event.note:
            self.console.print(f"{_of(run, _name(event.place))}: {event.note}", highlight=False, markup=False)
            return
        self._count(event, run)
        if self.console.is_jupyter:
            self._notebook()
        elif self.console.is_terminal:
            self._advance(event, run)
        elif event.row and (len(self.wanted) <= LINES or self._percent() > self.told or not self.missing):
            self.told = self._percent()
            line = f"{_of(run, _line(event.row))}  {self.progress()}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _begin(self) -> None:
        if self.banner:
            self.console.print(self.banner, highlight=False, markup=False, soft_wrap=True)
        if self.console.is_terminal and not self.console.is_jupyter:
            self.bars.start()
            self.total = self.bars.add_task("total", total=len(self.wanted), completed=self.begun, where="")

    def _count(self, event: Event, run: str) -> None:
        key = run, event.place
        if event.row:
            self.missing.discard(key)
            self.training.pop(key, None)
        else:
            self.training[key] = event.done
        self.clock = self.clock or (time.monotonic(), self._done())

    def _done(self) -> float:
        """In levels."""
        return len(self.wanted) - len(self.missing) + sum(self.training.values())

    def _percent(self) -> int:
        return 100 * (len(self.wanted) - len(self.missing)) // len(self.wanted)

    def progress(self) -> str:
        """How far all of it is, and how long the rest takes at the pace so far: "12 of 51 levels, 0:01:23 left"."""
        whole, done = len(self.wanted), self._done()
        said = f"{whole - len(self.missing)} of {whole} levels"
        if self.clock is None or done <= self.clock[1] or not self.missing:
            return said
        left = (whole - done) * (time.monotonic() - self.clock[0]) / (done - self.clock[1])
        return f"{said}, {timedelta(seconds=round(left))} left"

    def _notebook(self) -> None:
        """One bar, and no widgets, which not every notebook has."""
        from IPython.display import HTML, display

        bar: Any = HTML(f'<progress max="{len(self.wanted)}" value="{self._done():.2f}"></progress> {self.progress()}')
        if self.cell is None:
            self.cell = display(bar, display_id=True)
        else:
            self.cell.update(bar)

    def _advance(self, event: Event, run: str) -> None:
        spec, level = self.specs[run], event.place.level
        key = run, replace(event.place, level=0)
        if key not in self.tasks:  # continued runs begin at a later level: only what is left counts for the estimate
            name = escape(_of(run, _short(key[1])))
            self.tasks[key] = self.bars.add_task(name, total=spec.levels + 1, completed=level, where="", start=True)
        finished = event.row is not None and level == spec.levels
        # there may be dozens of branches, and of runs: only the trunk's bars stay, of one run
        self.bars.update(
            self.tasks[key],
            completed=level + event.done,
            where=f"level {level}/{spec.levels} {100 * event.test_accuracy:.1f} %",
            visible=not finished or (event.place.branch == spec.start and len(self.specs) == 1),
        )
        if self.total is not None:
            done = len(self.wanted) - len(self.missing)
            self.bars.update(self.total, completed=self._done(), where=f"{done} of {len(self.wanted)} levels")


class Display(RunsDisplay):
    """Shows the events of `experiment.run`."""

    def __init__(self, spec: Spec, console: Console, path: Path, banner: str = ""):
        """What will be shown: as `RunsDisplay`, of one run and its folder."""
        super().__init__({"": (spec, path)}, console, banner)

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        self.show(event, "")


class SweepDisplay(RunsDisplay):
    """Shows the events of a sweep, called with the spec that each is of."""

    def __init__(self, sweep: Sweep, console: Console, banner: str = ""):
        """What will be shown: as `RunsDisplay`, runs by the settings in which they differ, or by their letters in
        `outcome_table` where those are too long for a bar."""
        labels = run_labels([flatten(spec) for spec in sweep.specs])
        longest = max(len(_of(label, _short(place))) for label in labels for place in wanted(sweep.specs[0]))
        if len(set(labels)) < len(labels) or (console.is_terminal and longest > NAMES):
            letters = LETTERS if len(labels) <= len(LETTERS) else map(str, range(1, len(labels) + 1))
            labels = [f"run {letter}" for letter in letters][: len(labels)]
        self.names = {spec.uid: label for spec, label in zip(sweep.specs, labels, strict=True)}
        runs = {self.names[spec.uid]: (spec, sweep.path / spec.uid) for spec in sweep.specs}
        super().__init__(runs, console, banner)

    def __call__(self, spec: Spec, event: Event) -> None:
        """Shows an event of that experiment."""
        self.show(event, self.names[spec.uid])


def _of(run: str, text: str) -> str:
    """What is said of a run, behind its name where there are several."""
    return f"{run}  {text}" if run else text


def _name(place: Place) -> str:
    draw = f"  draw {place.draw}" if place.draw else ""
    return f"{place.branch}  replicate {place.replicate}{draw}"


def _short(place: Place) -> str:
    """What a bar of 80 columns has room for."""
    return f"{place.branch} {place.replicate}" + (f" draw {place.draw}" if place.draw else "")


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


Cell = Sequence[str]
"""A value, and what qualifies it."""


@dataclass(frozen=True)
class Part:
    """A table among others of the same kind."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Tables:
    """Tables below each other, their columns of one width. Where the console is too narrow for a line per row, what
    qualifies a value stands below it, and then the wider columns are made narrower; nothing is cut off."""

    title: str
    parts: Sequence[Part]
    caption: str = ""
    left: int = 0
    """How many columns are set to the left; the others are numbers."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for joined in ("{} ({})", "{}\n{}"):
            parts = [
                replace(part, rows=[[_written(c, joined) for c in row] for row in part.rows]) for part in self.parts
            ]
            widths = _widths(parts)
            excess = sum(widths) + GAP * (len(widths) - 1) - options.max_width
            if excess <= 0:
                break
        else:
            words = _widths(parts, str.split)
            for _ in range(excess):  # the widest go on below; words are broken where nothing else is left
                i = max(range(len(widths)), key=lambda i: (widths[i] > words[i], widths[i]))
                widths[i] = max(1, widths[i] - 1)
        if self.title:
            yield Text(self.title, style="italic")
        for part in parts:
            if part.title:
                yield Text(f"\n{part.title}", style="bold")
            yield self._table(part, widths)
        if self.caption:
            yield Text(f"\n{self.caption}", style="dim")
        if self.title:
            yield Text()

    def _table(self, part: Part, widths: Sequence[int]) -> Table:
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        for i, (heading, width) in enumerate(zip(part.headings, widths, strict=True)):
            justify: JustifyMethod = "left" if i < self.left else "right"
            table.add_column(Text(heading), justify=justify, width=width, overflow="fold")
        for row in part.rows:
            table.add_row(*(Text.assemble(cell[0], (cell[1], "dim")) for cell in row))
        return table


GAP = 2
"""Between columns."""


def _written(cell: Cell, joined: str) -> Cell:
    """The value, and the rest as it follows or stands below."""
    value, *more = [*cell] or [""]
    whole = value
    for words in more:
        whole = joined.format(whole, words)
    return value, whole.removeprefix(value)


def _widths(parts: Sequence[Part], apart: Callable[[str], list[str]] = str.splitlines) -> list[int]:
    """Of each column, over all tables: its widest line, or whatever its text is taken apart into."""
    columns = zip(
        *(part.headings for part in parts), *(map("".join, row) for part in parts for row in part.rows), strict=True
    )
    return [max(cell_len(line) for cell in column for line in apart(cell) or [""]) for column in columns]


def _heading(shown: Measure) -> str:
    """In two lines, as narrow as they can be."""
    words = shown.axis.split()
    halves = [[" ".join(words[:i]), " ".join(words[i:])] for i in range(1, len(words))]
    return "\n".join(min(halves or [words], key=lambda lines: max(map(len, lines))))


def labels(run: Run) -> Text:
    """The name and the note that a run was given, a line for each."""
    return Text("".join(f"{label}\n" for label in (run.name, run.note) if label))


def answer(run: Run, margin: float | None = None) -> Group:
    """What a run says about its tickets: the sentence that every view of it begins with, and the first of its details.

    Args:
        run: finished or not.
        margin: percentage points that a matching ticket may be less accurate than the dense network; one standard error
            of the dense network's accuracy if None.
    """
    from lottery.analysis.answer import answer_of  # pandas takes half a second to import

    found = answer_of(run, margin)
    return Group(Text(found.headline, style="bold"), *map(Text, found.details[:SENTENCES]), "")


def level_table(run: Run) -> Tables:
    """One line per branch and level: means over replicates, with the lowest and the highest."""
    from lottery.analysis.frames import branches_of

    levels = run.levels()
    columns = (STOP, EARLY, LAST, *own_columns(levels), "seconds")
    headings = ["level", *(_heading(measure(column)) for column in ("density", *columns))]
    rows: dict[str, list[list[Cell]]] = {branch: [] for branch in branches_of(levels)}
    for row in table(levels, columns):
        *cells, seconds = row.cells
        rows[row.branch].append(
            [
                [str(row.level)],
                [measure("density").text(row.density)],
                *([c.mean, " to ".join(c.spread)] if c.spread else [c.mean] for c in cells),
                [seconds.mean],
            ]
        )
    return Tables(run.path.name, _parts({branch: (headings, rows) for branch, rows in rows.items()}, headings))


def ticket_table(run: Run, margin: float | None = None) -> Tables:
    """Which levels are winning tickets, or matching ones, and the numbers that say so: one line per branch and level.

    Args:
        run: finished or not.
        margin: as in `answer`.
    """
    from lottery.analysis.answer import awaited_of, margin_of  # pandas takes half a second to import
    from lottery.analysis.frames import branches_of

    levels, awaited = run.levels(), awaited_of(run)
    chosen = margin_of(run, levels, margin)
    found = {branch: verdicts(levels, chosen.points, branch, awaited) for branch in branches_of(levels)}
    compared = [name for name in COMPARED if any(name in row.compared for v in found.values() for row in v.rows)]
    headings = ["level", _heading(measure("density")), "n", *(_heading(COMPARED[name]) for name in compared)]
    parts = {branch: ([*headings, v.name], [_ticket(row, compared) for row in v.rows]) for branch, v in found.items()}
    if not any(v.rows for v in found.values()):
        return Tables("winning tickets", _parts(parts, [*headings, "winning"]))
    caption = [
        "Means over n replicates, paired, with their 95 % intervals of that level alone. ≥ and ≤: bounds for all "
        "levels together.",
        *rules({v.name for v in found.values()}, chosen),
        *(["–: too early to say, the run is not finished."] if awaited else []),
        "yes: every interval lies on the right side of its limit as a whole. no: one lies on the wrong side. "
        "undecided: all else. shown: every bound lies on the right side, for all levels together (97.5 % for each "
        "condition).",
    ]
    return Tables("winning tickets", _parts(parts, headings), "\n".join(caption))


def _ticket(row: Verdict, compared: Iterable[str]) -> list[Cell]:
    comparisons = [row.compared.get(name) for name in compared]
    return [
        [str(row.level)],
        [measure("density").text(row.density)],
        [str(row.replicates)],
        *([", ".join(filter(None, (c.mean, c.bound))), *filter(None, [c.interval])] if c else [] for c in comparisons),
        [row.verdict or "–", *(["shown"] if row.shown else [])],
    ]


def _parts(
    by_branch: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Cell]]]], headings: Sequence[str]
) -> list[Part]:
    """A table for each branch, named if there are several; without any, the headings."""
    several = len(by_branch) > 1
    return [Part(branch if several else "", *part) for branch, part in by_branch.items()] or [Part("", headings, [])]


def measuring(levels: Iterable[Measured], count: int, console: Console) -> Iterator[Measured]:
    """Levels as they are measured, with a bar below in a terminal."""
    hidden = not console.is_terminal
    yield from track(levels, "measuring", count, console=console, transient=True, disable=hidden)


def cost_table(level: Measured) -> Group:
    """What each way to compute a ticket's logits takes, and where it is slower than dense PyTorch."""
    headings = ["", *(heading.replace(" ", "\n", 1) for heading in cost_headings([level]))]
    rows = [
        [[method_name(cost.method)], *(cell[:2] for cell in cost_cells(cost) or [("–",)] * (len(headings) - 1))]
        for cost in level.costs
    ]
    title = f"{level.place}: {measure('density').words(level.density)} of the weights"
    return Group(Tables(title, [Part("", headings, rows)], left=1), Text(slower(level)), "")


def cost_notes(levels: Sequence[Measured]) -> Text:
    """What the numbers of `cost_table` are, on which machine, and what was not measured for which reason."""
    lines = [
        "Medians over rounds on the run’s own test images; ×: dense PyTorch’s time / its own, paired round by round.",
        *(f"–: {method_name(name)}: {reason}" for name, reason in missing_of(levels).items()),
        *machines_of(levels),
        *busy_of(levels),
    ]
    return Text("\n".join(lines), style="dim")


def run_list(entries: Iterable[Entry]) -> Iterator[RenderableType]:
    """The runs of a folder, a few lines for each: nothing is cut off, and long lines go on below.

    Args:
        entries: as `lottery.analysis.listing.entries` gives them.
    """
    entries = list(entries)
    rows = [(_when(e.begun), e.state, f"{e.done} of {e.wanted}" if e.wanted else "", e.answer) for e in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sweep = ""
    for entry, row in zip(entries, rows, strict=True):
        if entry.sweep and entry.sweep != sweep:
            yield Text.assemble((entry.sweep, "bold"), f"  {number_of(entry.runs, 'run')}")
        sweep, indent = entry.sweep, 4 if entry.sweep else 0
        *cells, answer = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        yield _indented(Text("  ".join([*cells, answer]).rstrip()), indent)
        name = (entry.name, "bold") if entry.name else ""
        folder = (entry.path.name, "dim" if name else "bold")
        yield _indented(Text.assemble(name, "  " if name else "", folder), indent + 4)
        for line in (", ".join(setting(*pair) for pair in entry.differs.items()), entry.note, entry.error):
            if line:
                yield _indented(Text(line), indent + 4)


def outcome_table(outcomes: "pd.DataFrame", settings: Sequence[str]) -> Tables:
    """What came out of several runs, a line for each.

    Args:
        outcomes: as `lottery.analysis.outcomes` has it.
        settings: those in which they differ, which are columns of it.
    """
    dense = measure(EARLY)
    letters = LETTERS if len(outcomes) <= len(LETTERS) else ()
    headings = [*([""] if letters else []), *(setting_label(name) for name in settings), "dense\n(%)", "answer"]
    rows: list[list[Cell]] = []
    for i, row in enumerate(outcomes.to_dict("records")):
        cells = [
            *letters[i : i + 1],
            *(setting_value(row[name]) for name in settings),
            dense.text(row["dense_accuracy"]),
        ]
        rows.append([*([cell] for cell in cells), [row["answer"] if row["finished"] else "not finished"]])
    return Tables("", [Part("", headings, rows)], left=len(headings))


def comparison(runs: Sequence[Run]) -> str:
    """What several runs show, each against the first, in one sentence."""
    from lottery.analysis.comparison import compare, finding, together

    first, *others = map(run_name, LETTERS, run_labels([run_settings(run) for run in runs]))
    found = [finding(compare(run, runs[0]), name, first) for run, name in zip(runs[1:], others, strict=True)]
    return together(found, others, first)


def _when(begun: str) -> str:
    """In local time, to the minute."""
    return f"{datetime.fromisoformat(begun).astimezone():%Y-%m-%d %H:%M}" if begun else ""


def _indented(text: Text, by: int) -> Padding:
    return Padding(text, (0, 0, 0, by), expand=False)
