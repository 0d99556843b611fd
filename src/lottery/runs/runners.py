"""Runners carry out tasks: here, or in parallel processes of one thread each. They know no experiment.

A task is a module-level function called with its arguments and an `emit` that sends an event (any picklable object) to
who waits for it. Tasks keep their own results; a runner returns nothing. Arguments are small: a worker that is killed
while they are written to it must not leave the writer waiting for room in a pipe. Big things it loads by itself.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

from lottery.errors import LotteryError

Emit = Callable[[Any], object]


@dataclass(frozen=True)
class Task:
    """Called as function(*arguments, *late(), emit)."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    heard: Emit
    """Called, where the runner is, with each event; returns something true if that has left anything behind that a task
    begun anew can go on from."""
    late: Callable[[], tuple[Any, ...]] = tuple
    """Makes further arguments when the task begins, and anew when it must be begun again."""
    again: Callable[[str], object] = str
    """Told why, when it must be begun again."""
    after: int | None = None
    """Index of an earlier task of the list that must have succeeded before this one begins."""


class Refused(LotteryError):
    """A machine cannot carry out a task that another one can."""

    def __init__(self, why: str, machine: tuple[str, str] = ("", "")):
        super().__init__(why)
        self.machine = machine
        """Its ID and its address, where a runner knows several."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Refused, (str(self), self.machine)


@dataclass(frozen=True)
class Ended:
    """A worker's last word."""

    error: LotteryError | None


class Plan:
    """Which tasks can begin, and what has become of the others.

    Args:
        tasks: in an order in which each comes after the one it needs.
    """

    def __init__(self, tasks: list[Task]):
        self.waiting = dict(enumerate(tasks))
        self.succeeded: set[int | None] = {None}
        self.errors: list[LotteryError] = []

    def ready(self, most: int | None = None) -> list[int]:
        """Indices of the tasks that can begin, of so many at most: whatever waits for one that failed never can. With
        thousands waiting, to be asked for none costs nothing."""
        return list(islice((i for i, task in self.waiting.items() if task.after in self.succeeded), most))

    def ended(self, index: int, error: LotteryError | None) -> None:
        """Notes how a task ended."""
        if error is None:
            self.succeeded.add(index)
        else:
            self.errors.append(error)

    def close(self) -> None:
        """Raises the first error, if there was one."""
        if self.errors:
            raise self.errors[0]


ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def here(tasks: list[Task]) -> None:
    """One after another in this process. A task that raises LotteryError stops those that come after it, and no others;
    the first such error is raised when all are done. Any other error, and one of who hears an event, ends it."""
    plan = Plan(tasks)
    deaf: list[BaseException] = []

    def hear(task: Task, event: Any) -> object:
        try:
            return task.heard(event)
        except BaseException as error:
            deaf.append(error)
            raise

    while ready := plan.ready(1):
        task = plan.waiting.pop(ready[0])
        try:
            task.function(*task.arguments, *task.late(), partial(hear, task))
        except LotteryError as error:
            if deaf:
                raise
            plan.ended(ready[0], error)
        else:
            plan.ended(ready[0], None)
    plan.close()


def processes(tasks: list[Task], jobs: int) -> None:
    """At most `jobs` at a time, each in a process of its own that is heard through a pipe of its own.

    A task that raises LotteryError stops those that come after it, and no others; the first such error is raised when
    all are done. A worker that dies, an error of who hears an event and KeyboardInterrupt stop them all. When this
    process dies, however it dies, so do they.

    Args:
        tasks: in an order in which each comes after the one it needs.
        jobs: workers at a time.

    Raises:
        LotteryError: the first of a task; or one that says how a worker died.
    """
    context = multiprocessing.get_context("spawn")  # fork and PyTorch's threads don't mix
    plan = Plan(tasks)
    running: dict[Connection, tuple[int, Any]] = {}

    def start(index: int) -> None:
        ours, theirs = context.Pipe(duplex=False)
        task = tasks[index]
        sent = (task.function, (*task.arguments, *task.late()), theirs)
        process = context.Process(target=_work, args=sent, daemon=True)  # nobody waits for it when this process ends
        process.start()
        theirs.close()  # so that the pipe ends when the worker does: a queue's lock would be held by the dead
        running[ours] = index, process

    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ |= ONE_THREAD  # libraries read it when they are first imported, in the child
    starter = ThreadPoolExecutor(1, initializer=_hold_ctrl_c)  # Ctrl-C interrupts the main thread only: none half begun
    try:
        while (ready := plan.ready(jobs - len(running))) or running:
            for index in ready:
                del plan.waiting[index]
                starter.submit(start, index).result()
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                index, process = running[pipe]
                word = _receive(pipe, process)
                if not isinstance(word, Ended):
                    tasks[index].heard(word)
                    continue
                del running[pipe]
                pipe.close()
                process.join()
                plan.ended(index, word.error)
    finally:
        starter.shutdown()
        for _, process in running.values():
            process.kill()  # what is on disk is complete or absent: nothing needs a goodbye
        for pipe, (_, process) in running.items():
            process.join()
            pipe.close()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    plan.close()


def _hold_ctrl_c() -> None:
    """What this thread starts inherits it: Ctrl-C reaches the whole group, and from its first moment on a worker leaves
    it to the parent."""
    if hasattr(signal, "pthread_sigmask"):
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # it lets Ctrl-C through again when it is started, with the first process
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _receive(pipe: Connection, process: Any) -> Any:
    """The next word of a worker. Raises LotteryError if it died before its last one."""
    try:
        return pipe.recv()
    except (EOFError, OSError):  # OSError: in the middle of a word
        process.join()
    code = process.exitcode
    how = f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit code {code}"
    raise LotteryError(
        f"a worker process {how}: finished levels are kept; run again to continue, with fewer --jobs if memory is short"
    )


def _work(function: Callable[..., None], arguments: tuple[Any, ...], pipe: Connection) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held
    threading.Thread(target=_die_with_parent, daemon=True).start()

    def send(word: Any) -> None:
        try:
            pipe.send(word)
        except BrokenPipeError:  # the parent is gone
            os._exit(1)

    try:
        function(*arguments, send)
    except (LotteryError, OSError) as error:  # others are ours: their traceback is printed
        send(Ended(LotteryError(str(error))))
    else:
        send(Ended(None))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
