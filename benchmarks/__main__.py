"""Times what an iteration of training costs, in our engines and in the loops that one would write instead.

    python -m benchmarks                                      six densities of the paper's schedule
    python -m benchmarks --schedule                           all 21, and their sum
    python -m benchmarks --output benchmarks/RESULTS.md       writes the tables there, and density.png beside it

The task is that of `lottery run lenet-mnist`: LeNet-300-100, MNIST split 55,000 / 5,000 / 10,000, batches of 60 (the
smaller last one of an epoch included), Adam at 1.2e-3, and every 100 iterations an evaluation of the 15,000 validation
and test images. Tickets come from a short run of our own, see `benchmarks.tickets`; who takes part, from
`benchmarks.contestants`.

Each contestant waits in a process of its own, on one thread and one core. A round gives each its turn at each density,
one after another; each is timed from its first evaluation to its last. Before the rounds each runs once, to compile
and warm up, and what all of them found on the same batches must agree. Figures are medians over the rounds; ratios
are taken within a round, because a machine's speed drifts. A second, shorter run with an evaluation every 10
iterations tells training from evaluation: t = training + evaluation / interval, at two intervals.
"""

import math
import shlex
import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
import tyro
from rich.console import Console

from benchmarks import tickets
from benchmarks.contestants import CONTESTANTS, SLOW, UNMASKED
from benchmarks.results import Record, Results, rewrite
from benchmarks.workers import Task, Timing, Worker
from lottery.engines.history import History
from lottery.errors import LotteryError
from lottery.runs.store import Run

INTERVAL = 100
"""Iterations between evaluations: the preset's."""

SHORT = 10
"""The same in the runs that tell evaluation from training."""

EARLY = 2 * SHORT
"""Iterations in which rounding has not been amplified yet."""

EXACT, DRIFTED = 1e-4, 0.05
"""How far contestants may differ in validation loss (nats): early, where 1e-7 is usual and a forgotten mask makes more
than 0.01, and later, when training has amplified the last bits."""

ORDERS = 3
"""Batch orders that the early comparison trains in, of whose differences the middle one counts. In any one, a unit's
input for some image may happen to be so near 0 that rounding decides whether it is active, and the difference is real:
4e-4 has been seen. An engine that computes something else does so in every order."""


@dataclass(frozen=True)
class Options:
    """Time training: our engines against the loops that one would write instead."""

    levels: tuple[int, ...] = (0, 3, 7, 12, 15, 20)
    """Levels of the schedule, 0 (all weights) to 20 (1.2 %)."""

    schedule: bool = False
    """All levels, and their sum: the cost of a whole experiment. Leaves training and evaluation together."""

    rounds: int = 5
    """Turns of each contestant at each level."""

    iterations: int = 500
    """Iterations of a turn; time is taken from iteration 100 on."""

    contestants: tuple[str, ...] = tuple(CONTESTANTS)
    """Who takes part."""

    ticket_iterations: int = 300
    """Iterations per level of the run that the masks come from."""

    data_dir: Path | None = None
    """Folder with mnist/; default: $LOTTERY_DATA, the cache, or download."""

    output: Path | None = None
    """Markdown file to write the tables to; the figure goes beside it."""


def main(options: Options) -> None:
    console = Console()
    console.width = max(console.width, 120)  # the tables, uncut where output is no terminal
    levels = sorted(range(tickets.LEVELS + 1) if options.schedule else set(options.levels))
    if unknown := set(options.contestants) - set(CONTESTANTS):
        raise LotteryError(f"unknown contestants {sorted(unknown)}: choose from {', '.join(CONTESTANTS)}")
    if not levels or not set(levels) <= set(range(tickets.LEVELS + 1)):
        raise LotteryError(f"levels = {levels}: give some from 0 to {tickets.LEVELS}")
    if options.rounds < 1 or options.iterations < 2 * INTERVAL or options.iterations % INTERVAL:
        raise LotteryError(f"give 1 round or more, and iterations as a multiple of {INTERVAL}, {2 * INTERVAL} or more")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    caveats = []
    if (load := _load()) > 0.3:
        caveats.append(f"the machine was not idle at the start (load average {load:.2f}).")
        console.print(f"[bold red]warning:[/] {caveats[-1]}")

    with console.status("tickets") as status:
        run = tickets.make(
            options.ticket_iterations, options.data_dir, lambda e: status.update(f"ticket {e.place.level}")
        )
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(c, run.path, options.data_dir)) for c in options.contestants]
        status = stack.enter_context(console.status("warming up"))
        differences = _warm_up(workers, levels, options)
        records, busy = [], []
        for number in range(options.rounds):
            for level in levels:
                for worker in workers:
                    if not _takes_part(worker.name, level, levels, number):
                        continue
                    status.update(f"round {number + 1} of {options.rounds}, level {level}, {worker.name}")
                    record, timings = _turn(worker, level, number, options)
                    records.append(record)
                    busy += [t.busy for t in timings if worker.name not in SLOW]
    if busy and min(busy) < 0.97:
        others = f"others used the core: {100 * (1 - median(busy)):.0f} % of the time in the median"
        caveats.append(f"{others} turn, {100 * (1 - min(busy)):.0f} % in the worst.")
        console.print(f"[bold red]warning:[/] {caveats[-1]}")

    results = Results(records, tickets.densities(run))
    sheets = results.sheets(options.schedule)
    for sheet in sheets:
        sheet.show(console)
    console.print(differences)
    if options.output:
        name = "schedule" if options.schedule else "densities"
        text = [_provenance(run, options), differences, *(f"Caution: {c}" for c in caveats)]
        rewrite(options.output, name, "\n\n".join([*text, *(sheet.markdown() for sheet in sheets)]))
        results.draw(options.output.parent / "density.png")


def _takes_part(name: str, level: int, levels: list[int], number: int) -> bool:
    return name not in SLOW or (level in (levels[0], levels[-1]) and number < 2)


def _turn(worker: Worker, level: int, number: int, options: Options) -> tuple[Record, list[Timing]]:
    slow = worker.name in SLOW
    timing = worker.time(Task(level, 2 * INTERVAL if slow else options.iterations, INTERVAL))
    if slow or options.schedule:
        return Record(worker.name, level, number, timing.ms, math.nan, math.nan, timing.once), [timing]
    often = worker.time(Task(level, INTERVAL + SHORT, SHORT))
    evaluation = (often.ms - timing.ms) / (1 / SHORT - 1 / INTERVAL)
    training = timing.ms - evaluation / INTERVAL
    return Record(worker.name, level, number, timing.ms, training, evaluation, timing.once), [timing, often]


def _warm_up(workers: list[Worker], levels: list[int], options: Options) -> str:
    """One turn of each, untimed, and at level 0 too, where all compute the same. Says how far they were apart."""
    found: dict[tuple[int, int, int], dict[str, History]] = defaultdict(dict)  # by level trained, interval and order
    for level in sorted({0, *levels}):
        for worker in workers:
            if level and not _takes_part(worker.name, level, levels, 0):
                continue
            slow, trained = worker.name in SLOW, 0 if worker.name in UNMASKED else level
            for task in (
                Task(level, EARLY if slow or options.schedule else INTERVAL + SHORT, SHORT),
                *(Task(level, EARLY, SHORT, order) for order in range(1, ORDERS)),
                Task(level, 2 * INTERVAL if slow else options.iterations, INTERVAL),
            ):
                found[trained, task.evaluate_every, task.order][worker.name] = worker.time(task).history
    apart = {key: _differences(key[0], histories) for key, histories in found.items()}
    early = 0.0
    for level in {level for level, _, _ in apart}:
        each = [apart[level, SHORT, order][0] for order in range(ORDERS)]
        assert median(each) <= EXACT, f"level {level}: validation losses differ by {each} in {EARLY} iterations"
        early = max(early, median(each))
    late = max(late for _, late in apart.values())
    return (
        f"All contestants compute the same: on the same batches, their validation losses differ by at most {early:.0e} "
        f"in {EARLY} iterations and {late:.0e} in {options.iterations}."
    )


def _differences(level: int, histories: dict[str, History]) -> tuple[float, float]:
    """The largest difference in validation loss between any two, early and later; refuses to go on if either is beyond
    what training makes of rounding."""
    worst = 0.0, 0.0
    for (a, ours), (b, theirs) in combinations(histories.items(), 2):
        n = min(len(ours["iteration"]), len(theirs["iteration"]))
        iteration, apart = ours["iteration"][:n], np.abs(ours["validation_loss"][:n] - theirs["validation_loss"][:n])
        early = iteration <= EARLY
        worst = max(worst[0], apart[early].max(initial=0)), max(worst[1], apart[~early].max(initial=0))
        assert (iteration == theirs["iteration"][:n]).all(), f"level {level}: {a} and {b} evaluate at other iterations"
        assert max(worst) <= DRIFTED, f"level {level}: {a} and {b} differ by {apart} at iterations {iteration}"
    return worst


def _load() -> float:
    """Processes that wanted to run, mean of the last minute; 0 where the system doesn't tell."""
    try:
        return float(Path("/proc/loadavg").read_text().split()[0])
    except OSError:
        return 0.0


def _provenance(run: Run, options: Options) -> str:
    session = run.info["sessions"][-1]
    versions = []
    for name in ("lottery", "torch", "jax", "numpy", "numba"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    return (
        f"`python -m benchmarks {shlex.join(sys.argv[1:])}`, {datetime.now(UTC):%Y-%m-%d}, on {session['processor']} "
        f"({session['cores']} cores, one used), Python {session['python']}, {', '.join(versions)}. "
        f"Medians of {options.rounds} rounds; masks from {options.ticket_iterations} iterations per level."
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except LotteryError as error:
        sys.exit(f"error: {error}")
