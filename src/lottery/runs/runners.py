"""Runners carry out tasks: here, or in parallel processes of one thread each. They know no experiment.

A task is a module-level function called with its arguments and an `emit` that sends an event (any picklable object) to
the caller. Tasks keep their own results; a runner returns nothing.
"""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from lottery.errors import LotteryError

Emit = Callable[[Any], None]


@dataclass(frozen=True)
class Task:
    """Called as function(*arguments, emit)."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    after: int | None = None
    """Index of an earlier task of the list that must have succeeded before this one begins."""


ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def here(tasks: list[Task], emit: Emit) -> None:
    """One after another in this process, so that each comes after those before it; the first error ends it."""
    for task in tasks:
        task.function(*task.arguments, emit)


def processes(tasks: list[Task], emit: Emit, jobs: int) -> None:
    """At most `jobs` at a time, each in a process of its own.

    A task that raises LotteryError stops those that come after it, and no others; the first such error is raised when
    all are done.
    KeyboardInterrupt stops them all. When this process dies, however it dies, so do they.
    """
    context = multiprocessing.get_context("spawn")  # fork and PyTorch's threads don't mix
    events: Any = context.Queue()
    waiting = dict(enumerate(tasks))
    errors: list[LotteryError] = []
    succeeded: set[int | None] = {None}
    running: dict[int, tuple[int, Any]] = {}
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ |= ONE_THREAD  # libraries read it when they are first imported, in the child
    try:
        while (ready := [index for index, task in waiting.items() if task.after in succeeded]) or running:
            for index in ready[: jobs - len(running)]:
                task = waiting.pop(index)
                process = context.Process(target=_work, args=(task.function, task.arguments, events))
                process.start()
                assert process.pid is not None
                running[process.pid] = index, process
            try:
                pid, event, error = events.get(timeout=0.1)
            except queue.Empty:
                for _, process in running.values():
                    if process.exitcode is not None and process.exitcode != 0:
                        raise LotteryError(
                            f"a worker process ended with exit code {process.exitcode} (killed, or out of memory?): "
                            "finished levels are kept; run again to continue, with fewer --jobs if memory is short"
                        ) from None
                continue
            if event is not None:
                emit(event)
                continue
            index, process = running.pop(pid)
            process.join()
            if error is None:
                succeeded.add(index)
            else:
                errors.append(error)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if errors:
        raise errors[0]


def _work(function: Callable[..., None], arguments: tuple[Any, ...], events: Any) -> None:
    """Body of a worker process: its last word is (pid, None, error or None)."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pid = os.getpid()
    try:
        function(*arguments, lambda event: events.put((pid, event, None)))
    except (LotteryError, OSError) as error:  # others are ours: their traceback is printed
        events.put((pid, None, LotteryError(str(error))))
    else:
        events.put((pid, None, None))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
