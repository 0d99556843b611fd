"""What a run looks like in a terminal: bars while it works, plain lines where output is no terminal, tables after."""

from math import isnan
from pathlib import Path
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from lottery.errors import LotteryError
from lottery.experiment import Progress as Event
from lottery.spec import Spec
from lottery.store import Row, Run, wanted


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
        self.tasks: dict[tuple[str, int, int], TaskID] = {}

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
            self.console.print(f"{_name(event.branch, event.replicate, event.draw)}: {event.note}", highlight=False)
        elif event.row:
            self.console.print(_line(event.row), highlight=False, soft_wrap=True)

    def _advance(self, event: Event) -> None:
        iterations, levels = self.spec.recipe.iterations, self.spec.levels
        key = event.branch, event.replicate, event.draw
        if key not in self.tasks:  # continued runs begin at a later level: only what is left counts for the estimate
            begun = event.level * iterations
            total = (levels + 1) * iterations
            self.tasks[key] = self.bars.add_task(_name(*key), total=total, completed=begun, where="", start=True)
        where = (
            f"level {event.level}/{levels}  iteration {event.iteration:,}/{iterations:,}  "
            f"test accuracy {100 * event.test_accuracy:.2f} %"
        )
        done = event.level * iterations + event.iteration
        finished_branch = event.branch != self.spec.start and event.row is not None and event.level == levels
        # there may be dozens of branches: only the trunk's bars stay
        self.bars.update(self.tasks[key], completed=done, where=event.note or where, visible=not finished_branch)


def _name(branch: str, replicate: int, draw: int) -> str:
    return f"{branch}  replicate {replicate}" + (f"  draw {draw}" if draw else "")


def _line(row: Row) -> str:
    stop = ""
    if row["early_stop_iteration"] is not None:
        stop = (
            f" ({100 * row['test_accuracy_early_stop']:.2f} % at early stop, iteration {row['early_stop_iteration']:,})"
        )
    return (
        f"{_name(row['branch'], row['replicate'], row['draw'])}  level {row['level']:>2}  "
        f"weights left {100 * row['density']:6.2f} %  test accuracy {100 * row['test_accuracy']:.2f} %{stop}  "
        f"{row['seconds']:.1f} s"
    )


def level_table(run: Run) -> Table:
    """One line per branch and level: means over replicates and draws, with minimum and maximum in brackets."""
    table = Table(title=escape(run.path.name), title_justify="left", pad_edge=False, box=SIMPLE_HEAD)
    curves = run.curves()
    if len(curves) > 1:
        table.add_column("branch")
    for heading in ("level", "weights\nleft %", "sparsity\n%", "early stop\n(iteration)"):
        table.add_column(heading, justify="right")
    for heading in ("test accuracy %\nat early stop", "test accuracy %\nat the end", "s"):
        table.add_column(heading, justify="right")
    for branch, rows in curves.items():
        table.add_section()
        for level in sorted({row["level"] for row in rows}):
            at = [row for row in rows if row["level"] == level]
            density = _mean([row["density"] for row in at])
            table.add_row(
                *([escape(branch)] if len(curves) > 1 else ()),
                str(level),
                f"{100 * density:.2f}",
                f"{100 * (1 - density):.2f}",
                _spread(at, "early_stop_iteration", 1, ",.0f"),
                _spread(at, "test_accuracy_early_stop", 100, ".2f"),
                _spread(at, "test_accuracy", 100, ".2f"),
                f"{_mean([row['seconds'] for row in at]):.1f}",
            )
    return table


def _spread(rows: list[Row], column: str, factor: float, form: str) -> str:
    values = [factor * row[column] for row in rows if row[column] is not None]
    if not values:
        return "-"
    mean = f"{_mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} [dim]({min(values):{form}}-{max(values):{form}})[/dim]"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def ticket_table(run: Run) -> Table:
    """Which levels are winning tickets, and by what margins: one line per branch and level."""
    from lottery import analysis  # pandas takes half a second to import, and only this table needs it

    levels = analysis.open_run(run.path).levels()
    branches = list(run.curves())
    table = Table(title="winning tickets", title_justify="left", pad_edge=False, box=SIMPLE_HEAD)
    if len(branches) > 1:
        table.add_column("branch")
    for heading in ("level", "weights\nleft %", "replicates", "more accurate\n(points)", "earlier\n(iterations)"):
        table.add_column(heading, justify="right")
    table.add_column("winning\nticket")
    for branch in branches:
        table.add_section()
        for row in analysis.winning(levels, branch, run.spec.start).to_dict("records"):
            table.add_row(
                *([escape(branch)] if len(branches) > 1 else ()),
                str(row["level"]),
                f"{100 * row['density']:.2f}",
                str(row["n"]),
                _margin([row[f"accuracy{end}"] for end in ("", "_low", "_high")], "+.2f"),
                _margin([row[f"earlier{end}"] for end in ("", "_low", "_high")], "+,.0f"),
                row["winning"],
            )
    table.caption = (
        "Against the dense network, at early stop; means over replicates, paired, and their 95 % intervals.\n"
        "yes: neither interval goes below 0. no: one of them is below 0 as a whole. undecided: all else."
    )
    table.caption_justify = "left"
    return table


def _margin(interval: list[float], form: str) -> str:
    mean, low, high = interval
    return f"{mean:{form}}" if isnan(low) else f"{mean:{form}} [dim]({low:{form}} to {high:{form}})[/dim]"


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
        best = max(rows, key=lambda row: row["test_accuracy"], default=None)
        table.add_row(
            escape(name),
            str(run.spec.replicates),
            f"{len(rows)} of {len(list(wanted(run.spec)))}" if run.unfinished(run.spec) else f"all {len(rows)}",
            f"{100 * best['test_accuracy']:.2f} % ({100 * best['density']:.1f} %)" if best else "-",
        )
    return table
