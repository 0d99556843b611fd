"""Tasks on a Ray cluster. Whoever calls is the only writer; the other machines share no folder with it.

Ray places the tasks, carries what they are told and what they say, and notices who has died. A task whose worker or
machine died is begun again, elsewhere if need be, from what it had brought home by then: Ray's own retries would begin
from what it was told first, so they are off.
"""

import logging
import math
import os
import queue
import signal
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lottery.errors import LotteryError, check_type, line, shown
from lottery.runs.runners import ONE_THREAD, Ended, Plan, Refused, Task

DEATHS = 5
"""Times in a row that a task may die and leave nothing new behind."""

WAIT = 600.0
"""Seconds that a run waits for a machine when all that could go on are gone: new ones may be on their way."""

AHEAD = 8
"""Tasks that wait at the cluster for room, so that none is idle, and a cluster that grows knows that it should."""


@dataclass(frozen=True)
class Ray:
    """A Ray cluster, and what each chain of levels is given of it.

    Raises LotteryError, when it is made, for values that cannot be.
    """

    address: str = ""
    """Of its head, such as "auto" or "10.0.0.1:6379"; if empty, the one that the script has connected to, that
    $RAY_ADDRESS names, or that was started on this machine; else one is started here, and ended with the run."""
    cpus: float = 1.0
    """Cores that are reserved for a chain; it trains on one thread."""
    gpus: float = 0.0
    """GPUs that are reserved for a chain, fractions too; with any, it trains on CUDA."""

    def __post_init__(self) -> None:
        check_type("address", self.address, str)
        for name in ("cpus", "gpus"):
            check_type(name, getattr(self, name), float)
            value = getattr(self, name)
            if value < 0 or (value > 1 and value % 1) or (name == "cpus" and not value):
                raise LotteryError(f"{name} = {shown(value)}: must be a whole number, or a fraction of one")
        if (address := self.address or os.environ.get("RAY_ADDRESS", "")).startswith("ray://"):
            remedy = "run on a machine of the cluster and give auto, or the head's own address, such as 10.0.0.1:6379"
            raise LotteryError(f"address = {shown(address)}: Ray's client cannot stream results; {remedy}")


@contextmanager
def connect(wanted: Ray) -> Iterator["Cluster"]:
    """The cluster, connected to: left open afterwards if the script itself had connected to it.

    Raises:
        LotteryError: where Ray is not installed; for no cluster at that address, or one of another version of Ray or
            Python; for one with no machine that has what a task is to be given.
    """
    module = find_spec("ray")
    if module is None or module.origin is None:  # the latter: a folder of that name
        raise LotteryError("runner = 'ray': ray is not installed; pip install 'lottery[ray]', or leave it out")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # of half a minute each, for an address that is silent
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray: Any = import_module("ray")
    ours = not ray.is_initialized()
    if ours:
        _init(ray, wanted.address)
    try:
        cluster = Cluster(ray, wanted)
        cluster.check()
        yield cluster
    finally:
        if ours:
            ray.shutdown()


def _init(ray: Any, address: str) -> None:
    at = f"address = {shown(address)}"
    if address not in ("", "auto", "local"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:
            raise LotteryError(f"{at}: must be auto, or the head's host and port, such as 10.0.0.1:6379")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:  # Ray itself would ask again and again
            raise LotteryError(f"{at}: no Ray cluster there ({error}); {START}") from None
    answers = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or None, logging_level=logging.CRITICAL, log_to_driver=False)
    except ConnectionError as error:
        raise LotteryError(f"{at}: no Ray cluster there ({_brief(error)}); {START}") from None
    except (RuntimeError, ValueError) as error:
        said = [part.strip() for part in str(error).splitlines() if part.startswith(" ")]
        if said and "Version mismatch" in str(error):
            both = f"{', '.join(said[: len(said) // 2])} there, {', '.join(said[len(said) // 2 :])} here"
            raise LotteryError(f"{at}: the cluster has other versions ({both}): install the same") from None
        raise LotteryError(f"{at}: cannot connect: {_brief(error)}") from None
    if answers is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, answers)  # Ray has taken it, to end the process at once
    # Of a machine that is lost it would print pages, and has no public switch for that; a line of ours says it.
    vars(import_module("ray._private.worker"))["_worker_logs_enabled"] = False


def _brief(error: Exception) -> str:
    return line(str(error).strip().partition("\n")[0]) or type(error).__name__


START = "`ray start --head` starts one, and prints its address"


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    ray: Any
    """The module."""
    wanted: Ray

    def share(self, value: Any) -> Any:
        """What stands for a big value in the arguments of several tasks: it is sent to each machine once."""
        return self.ray.put(value)

    def room(self, without: tuple[str, ...] = ()) -> int:
        """Tasks that its living machines can carry out at once; those machines, by their IDs, left out."""
        return sum(
            min(math.floor(node["Resources"].get(kind, 0) / amount) for kind, amount in self._needs().items())
            for node in self._alive()
            if node["NodeID"] not in without
        )

    def check(self) -> None:
        """Raises LotteryError where no machine has what a task is to be given."""
        if not self.room():
            needs = " and ".join(f"{amount:g} {kind}" for kind, amount in self._needs().items())
            most = [
                f"{max(node['Resources'].get(kind, 0) for node in self._alive()):g} {kind}" for kind in self._needs()
            ]
            raise LotteryError(
                f"no machine of the Ray cluster has {needs}, which each task is to be given: they have "
                f"{' and '.join(most)} at most; ask for less, or add a machine"
            )

    def _needs(self) -> dict[str, float]:
        return {"CPU": self.wanted.cpus} | ({"GPU": self.wanted.gpus} if self.wanted.gpus else {})

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def carry_out(self, tasks: list[Task]) -> None:
        """As many at a time as there is room for; each begins after the one it needs.

        A task that raises LotteryError stops those that come after it, and no others; the first such error is raised
        when all are done. One whose worker or machine dies is begun again, and so is one that a machine refuses, on
        another.

        Args:
            tasks: in an order in which each comes after the one it needs.

        Raises:
            LotteryError: the first of a task, or that one died again and again, or that every machine refused it; or
                that for a while there has been no machine for one.
        """
        plan, running, room, asked = Plan(tasks), _Running(self, tasks), 0, -math.inf
        try:
            while plan.ready(1) or running.streams:
                if (now := time.monotonic()) - asked > 1:  # seconds: asking takes as long as hearing a word
                    room, asked = self.room(), now
                    running.check_room(now)
                for index in plan.ready(max(room + AHEAD - len(running.streams), 0)):
                    del plan.waiting[index]
                    running.begin(index)
                for index, error in running.listen():
                    plan.ended(index, error)
        finally:
            running.stop()
        plan.close()


class _Running:
    """The tasks that are at the cluster."""

    def __init__(self, cluster: Cluster, tasks: list[Task]):
        self.cluster, self.ray, self.tasks = cluster, cluster.ray, tasks
        self.streams: dict[Any, int] = {}
        """What brings a task's words, in lists -> its index."""
        self.deaths = Counter[int]()
        self.refusals = defaultdict[int, dict[str, str]](dict)
        """Task -> machine -> why it refuses it."""
        self.placed: dict[int, float] = {}
        """Task -> when there was last a living machine that it can be at."""

    def begin(self, index: int) -> None:
        """Sends it off, told what is true now."""
        task, wanted, refused = self.tasks[index], self.cluster.wanted, self.refusals[index]
        options = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus, "max_retries": 0, "num_returns": "streaming"}
        options |= {"runtime_env": {"env_vars": ONE_THREAD}}
        options |= {"label_selector": {"ray.io/node-id": f"!in({', '.join(refused)})"}} if refused else {}
        remote = self.ray.remote(_work).options(**options)
        self.streams[remote.remote(task.function, *task.arguments, *task.late())] = index

    def check_room(self, now: float) -> None:
        """Raises LotteryError where there has been no machine for a task for a while."""
        room: dict[tuple[str, ...], int] = {}
        for index in self.streams.values():
            without = tuple(self.refusals[index])
            if without not in room:
                room[without] = self.cluster.room(without)
            if room[without]:
                self.placed[index] = now
            elif now - self.placed.setdefault(index, now) > WAIT:
                why = "; ".join(["the others are lost", *self.refusals[index].values()])
                raise LotteryError(f"no machine of the Ray cluster can go on: {why}; finished levels are kept")

    def listen(self) -> Iterator[tuple[int, LotteryError | None]]:
        """Lets what has come be heard; gives the tasks that have ended, and how."""
        waiting = list(self.streams)
        if not waiting or not self.ray.wait(waiting, timeout=1.0)[0]:
            return
        for stream in self.ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:  # all that are ready
            index = self.streams[stream]
            try:
                words = self.ray.get(next(stream))
            except self.ray.exceptions.RayTaskError as error:
                if "failed to import" in str(error):
                    raise LotteryError(
                        "a machine of the Ray cluster cannot import lottery: install the same version on all of them"
                    ) from None
                raise  # a mistake of ours: its traceback is printed
            except (StopIteration, self.ray.exceptions.RayError) as error:
                del self.streams[stream]
                yield from self._died(index, error)
                continue
            for word in words:
                if not isinstance(word, Ended):
                    if self.tasks[index].heard(word):
                        self.deaths[index] = 0
                    continue
                del self.streams[stream]
                if isinstance(word.error, Refused):
                    yield from self._refused(index, word.error)
                else:
                    yield index, word.error

    def _died(self, index: int, how: Exception) -> Iterator[tuple[int, LotteryError]]:
        self.deaths[index] += 1
        if self.deaths[index] < DEATHS:
            self.tasks[index].again(f"its worker is lost ({_brief(how)}); begun again")
            self.begin(index)
            return
        remedy = "finished levels are kept; run again to continue, with more --cpus for each if memory is short"
        yield index, LotteryError(f"a worker on the Ray cluster died {DEATHS} times in a row: {_brief(how)}; {remedy}")

    def _refused(self, index: int, why: Refused) -> Iterator[tuple[int, LotteryError]]:
        node, address = why.machine
        self.refusals[index][node] = f"{address}: {why}"
        self.tasks[index].again(f"refused by {address}: {why}")
        if self.cluster.room(tuple(self.refusals[index])):
            self.begin(index)
        else:
            said = "; ".join(self.refusals[index].values())
            yield index, LotteryError(f"no machine of the Ray cluster can go on: {said}")

    def stop(self) -> None:
        """Ends them: what is on disk is complete or absent, nothing needs a goodbye."""
        for stream in self.streams:
            self.ray.cancel(stream, force=True)


def _work(function: Callable[..., None], *arguments: Any) -> Iterator[list[Any]]:
    """Body of a task at the cluster: gives what it says, as much at a time as has come together."""
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            function(*arguments, said.put)
        except Refused as error:
            ray: Any = import_module("ray")
            context = ray.get_runtime_context()
            said.put(Ended(Refused(str(error), (context.get_node_id(), ray.util.get_node_ip_address()))))
        except (LotteryError, OSError) as error:
            said.put(Ended(LotteryError(str(error))))
        except BaseException as error:
            said.put(error)
        else:
            said.put(Ended(None))

    threading.Thread(target=work, daemon=True).start()
    while True:
        words = [said.get()]
        while not said.empty():
            words.append(said.get())
        mistake = words.pop() if isinstance(words[-1], BaseException) else None  # the last word of all
        yield words
        if mistake:
            raise mistake
        if isinstance(words[-1], Ended):
            return
