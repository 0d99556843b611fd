"""A level that is being trained, kept beside where it will be: a process that is killed loses at most a minute of it.

    <run>/<branch>/replicate-<r>/level-<l>.partial      safetensors: weights, optimizer, history, losses, record, sha256

The record, JSON as bytes, binds it to its run, its place and what it started from; sha256 is that of all the rest.
"""

import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from lottery.engines import Partial
from lottery.engines.history import COLUMNS
from lottery.errors import LotteryError
from lottery.masks import Weights
from lottery.runs import files
from lottery.runs.rows import Place
from lottery.runs.store import RECORD, Run
from lottery.starts import Moment, Start

EVERY = 30.0
"""Seconds between two of a level: one that takes less is never kept."""


class LevelCheckpoint:
    """Where one level is kept while it is trained; see `lottery.engines.Checkpoint`."""

    def __init__(self, run: Run, place: Place, start: Start):
        self.run, self.place, self.path = run, place, run.partial(place)
        arrays = {f"{kind}/{n}": a for kind in ("weights", "masks", "optimizer") for n, a in vars(start)[kind].items()}
        self.start = files.digest(arrays, start.order, start.first, start.last)
        self.next = time.monotonic() + EVERY
        self.rows: list[tuple[float, ...]] = []
        """The evaluations that `read` has found, from before an interruption."""

    def due(self) -> bool:
        """Whether it is a while since the last one."""
        return time.monotonic() >= self.next

    def read(self) -> Partial | None:
        """What was kept of this level; None if nothing was. Raises LotteryError if it is damaged or another's."""
        if not files.there(self.path):
            return None
        record, tensors = _load(self.run, self.place)
        if record["start"] != self.start:
            raise LotteryError(f"{self.path} began otherwise than this level does now; {files.remedy(self.path)}")
        with files.parsing(self.path):
            early = _moment(tensors, "early/", record["early"]) if record["early"] else None
            self.rows = [tuple(row) for row in tensors["rows"].tolist()]
            moment = _moment(tensors, "", record["iteration"])
            return Partial(moment, list(self.rows), tensors["losses"], record["seconds"], early)

    def write(self, partial: Partial) -> None:
        """Keeps that, in place of what was kept before."""
        if not files.there(self.run.path / RECORD):
            raise LotteryError(
                f"{self.run.path} was deleted or moved while it was worked on: run again to make it anew"
            )
        record = {
            "run": self.run.identity,
            "place": asdict(self.place),
            "start": self.start,
            "iteration": partial.moment.iteration,
            "early": partial.early.iteration if partial.early else 0,
            "seconds": partial.seconds,
        }
        tensors = {
            "rows": np.array(partial.rows, float).reshape(-1, len(COLUMNS)),
            "losses": partial.losses,
            "record": np.frombuffer(json.dumps(record).encode(), np.uint8),
        }
        tensors |= _arrays(partial.moment, "") | (_arrays(partial.early, "early/") if partial.early else {})
        checksum = np.frombuffer(bytes.fromhex(files.digest(tensors)), np.uint8)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.write(self.path, save_tensors(tensors | {"sha256": checksum}))
        self.next = time.monotonic() + EVERY

    def remove(self) -> None:
        """Once the level itself is on disk."""
        self.path.unlink(missing_ok=True)


def reached(run: Run, place: Place) -> int:
    """The iteration up to which the level at that place is kept. Raises LotteryError, naming the file, if it is damaged
    or another's."""
    record, _ = _load(run, place)
    return int(record["iteration"])


def _load(run: Run, place: Place) -> tuple[dict[str, Any], Weights]:
    """The record and the other arrays, of this run and of this place or refused."""
    path = run.partial(place)
    data = files.read(path)
    with files.parsing(path):
        tensors = load_tensors(data)
        if tensors.pop("sha256").tobytes().hex() != files.digest(tensors):
            raise LotteryError("its SHA-256 is not the recorded one")
        record = json.loads(tensors.pop("record").tobytes())
        belongs = Place(**record["place"])
    if belongs != place:
        raise LotteryError(f"{path} belongs elsewhere: it is {belongs}; {files.remedy(path)}")
    if record["run"] != run.identity:
        raise LotteryError(f"{path} belongs to another run, made otherwise; {files.remedy(path)}")
    return record, tensors


def _arrays(moment: Moment, prefix: str) -> Weights:
    weights = {f"{prefix}weights/{name}": array for name, array in moment.weights.items()}
    return weights | {f"{prefix}optimizer/{slot}": array for slot, array in moment.optimizer.items()}


def _moment(tensors: Weights, prefix: str, iteration: int) -> Moment:
    def under(kind: str) -> Weights:
        begin = f"{prefix}{kind}/"
        return {name.removeprefix(begin): array for name, array in tensors.items() if name.startswith(begin)}

    return Moment(iteration, under("weights"), under("optimizer"))
