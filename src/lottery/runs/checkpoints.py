"""A level that is being trained, kept beside where it will be: a process that is killed loses at most a minute of it.

    <run>/<branch>/replicate-<r>/level-<l>.partial      safetensors: weights, optimizer, history, losses, record

The record, JSON as bytes, binds it to its run, its place and what it started from, with the checksum of the rest.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from lottery.engines import Partial
from lottery.engines.history import COLUMNS
from lottery.errors import LotteryError
from lottery.runs import files
from lottery.runs.rows import Place
from lottery.runs.store import PARTIAL, RECORD, Run
from lottery.starts import Moment, Start

EVERY = 30.0
"""Seconds between two of a level: one that takes less is never kept."""


class LevelCheckpoint:
    """Where one level is kept while it is trained; see `lottery.engines.Checkpoint`."""

    def __init__(self, run: Run, place: Place, start: Start):
        self.run = run
        self.path = run.folder(place).with_name(run.folder(place).name + PARTIAL)
        bound = {"run": run.identity, "place": asdict(place), "order": start.order, "first": start.first}
        arrays = {f"{kind}/{n}": a for kind in ("weights", "masks", "optimizer") for n, a in vars(start)[kind].items()}
        self.bound = json.loads(json.dumps(bound | {"start": _digest(arrays)}))
        self.next = time.monotonic() + EVERY

    def due(self) -> bool:
        """Whether it is a while since the last one."""
        return time.monotonic() >= self.next

    def read(self) -> Partial | None:
        """What was kept of this level; None if nothing was. Raises LotteryError if it is damaged or another's."""
        if not files.there(self.path):
            return None
        data = files.read(self.path)
        with files.parsing(self.path):
            tensors = load_tensors(data)
            record = json.loads(tensors.pop("record").tobytes())
            if record["sha256"] != _digest(tensors):
                raise LotteryError("its SHA-256 is not the recorded one")
            if record["bound"] != self.bound:
                raise LotteryError("it belongs to another level, or to one that started otherwise")
            early = _moment(tensors, "early/", record["early"]) if record["early"] else None
            rows = [tuple(row) for row in tensors["rows"].tolist()]
            moment = _moment(tensors, "", record["iteration"])
            return Partial(moment, rows, tensors["losses"], record["seconds"], early)

    def write(self, partial: Partial) -> None:
        """Keeps that, in place of what was kept before."""
        if not files.there(self.run.path / RECORD):
            raise LotteryError(
                f"{self.run.path} was deleted or moved while it was worked on: run again to make it anew"
            )
        tensors = {"rows": np.array(partial.rows, float).reshape(-1, len(COLUMNS)), "losses": partial.losses}
        tensors |= _arrays(partial.moment, "") | (_arrays(partial.early, "early/") if partial.early else {})
        record = {
            "bound": self.bound,
            "iteration": partial.moment.iteration,
            "early": partial.early.iteration if partial.early else 0,
            "seconds": partial.seconds,
            "sha256": _digest(tensors),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        as_bytes = np.frombuffer(json.dumps(record).encode(), np.uint8)
        files.write(self.path, save_tensors(tensors | {"record": as_bytes}))
        self.next = time.monotonic() + EVERY

    def remove(self) -> None:
        """Once the level itself is on disk."""
        self.path.unlink(missing_ok=True)


def _arrays(moment: Moment, prefix: str) -> dict[str, np.ndarray]:
    weights = {f"{prefix}weights/{name}": array for name, array in moment.weights.items()}
    return weights | {f"{prefix}optimizer/{slot}": array for slot, array in moment.optimizer.items()}


def _moment(tensors: Mapping[str, np.ndarray], prefix: str, iteration: int) -> Moment:
    def under(kind: str) -> dict[str, Any]:
        begin = f"{prefix}{kind}/"
        return {name.removeprefix(begin): array for name, array in tensors.items() if name.startswith(begin)}

    return Moment(iteration, under("weights"), under("optimizer"))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
