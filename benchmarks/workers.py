"""One process per contestant, alive for the whole benchmark: libraries don't disturb each other, warm stays warm.

A worker runs one thread on one core (the dataloader, whose loaders are processes of their own, on all). It takes the
time itself, from the first evaluation to the last: what happens once in a training run is told apart.
"""

import os
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context, set_start_method
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from benchmarks import tickets
from benchmarks.contestants import CONTESTANTS, SLOW, UNMASKED
from lottery import data
from lottery.engines.history import History
from lottery.runs import experiment
from lottery.runs.store import Run
from lottery.seeds import stream

ONE_THREAD = {
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB_MAXIMUM")},
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
"""Read by the libraries when they are first imported, so set before."""


@dataclass(frozen=True)
class Task:
    level: int
    iterations: int
    evaluate_every: int
    order: int = 0
    """Which order of batches: 0 is the run's own."""


@dataclass(frozen=True)
class Timing:
    ms: float
    """Milliseconds per iteration from the first evaluation to the last: training, and one evaluation in
    `evaluate_every` iterations."""
    once: float
    """Milliseconds for what a training run does once, to set up and at its end."""
    busy: float
    """CPU time / wall time of the process over the same span: below 1, others had the core."""
    history: History


class Worker:
    """A contestant in its process; a context."""

    def __init__(self, name: str, run: Path, data_dir: Path | None):
        os.environ.update(ONE_THREAD)
        context = get_context("spawn")
        self.name = name
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, name, run, data_dir), name=name)
        self.process.start()
        there.close()  # so that a worker that dies is noticed

    def time(self, task: Task) -> Timing:
        try:
            self.connection.send(task)
            timing = self.connection.recv()
        except (EOFError, BrokenPipeError):
            raise SystemExit(f"the worker of {self.name} died: see its message above") from None
        assert isinstance(timing, Timing)
        return timing

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.connection.close()  # the worker takes it for the end
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.terminate()


def _serve(connection: Connection, name: str, run_path: Path, data_dir: Path | None) -> None:
    if name not in SLOW and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    set_start_method(None, force=True)  # the platform's own, for DataLoader: a spawned process would go on spawning
    run = Run(run_path)
    spec = run.spec
    network = experiment.check(spec)
    splits = data.split(
        data.load(spec.data.name, data_dir),
        spec.data.scaling,
        spec.data.validation,
        stream(*tickets.key(spec), "split"),
    )
    train = CONTESTANTS[name]()
    while True:
        try:
            task: Task = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        start = tickets.start(run, 0 if name in UNMASKED else task.level)
        if task.order:
            start = replace(start, order=(*start.order, task.order))
        recipe = replace(spec.recipe, iterations=task.iterations, evaluate_every=task.evaluate_every)
        stamps: list[tuple[int, float, float]] = []  # iteration, wall and CPU seconds

        def report(row: tuple[float, ...], stamps: list[tuple[int, float, float]] = stamps) -> None:
            stamps.append((int(row[0]), time.perf_counter(), time.process_time()))

        began = time.perf_counter()
        history = train(network, splits, start, recipe, report)
        total = time.perf_counter() - began
        (first, wall, cpu), (last, wall_end, cpu_end) = stamps[0], stamps[-1]
        seconds = (wall_end - wall) / (last - first)
        once = total - seconds * task.iterations
        connection.send(Timing(1e3 * seconds, 1e3 * once, (cpu_end - cpu) / (wall_end - wall), history))
