"""What inference costs, as it was measured: RUN/inference.json, whole or absent, checked when it is read.

One entry for each level that was measured, with the machine that it was measured on; `lottery.inference` measures.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lottery.errors import LotteryError
from lottery.runs import files
from lottery.runs.rows import Place
from lottery.runs.store import Run

FILE = "inference.json"

FORMAT = 1
"""Of the file."""


@dataclass(frozen=True)
class Spread:
    """The median over rounds, and the quartiles."""

    median: float
    low: float
    """A quarter of the rounds lie below."""
    high: float
    """A quarter of the rounds lie above."""


@dataclass(frozen=True)
class Latency:
    """How long one batch takes."""

    batch: int
    """Examples in it."""
    seconds: Spread
    speed: Spread
    """Dense PyTorch's seconds / these, paired round by round: above 1 is faster."""
    rounds: int

    @property
    def throughput(self) -> float:
        """Examples per second, from the median."""
        return self.batch / self.seconds.median


@dataclass(frozen=True)
class Cost:
    """One way to compute a ticket's logits."""

    method: str
    """Of `lottery.inference.METHODS`."""
    file_bytes: int | None = None
    """Size of its file; None where it was not measured, as for the next two."""
    memory_bytes: int | None = None
    """Parameters in memory: weights, biases, and the indices that say which they are."""
    latencies: tuple[Latency, ...] = ()
    """By batch size, ascending."""
    missing: str = ""
    """Why it was not measured."""


@dataclass(frozen=True)
class Measured:
    """One level, all methods on one core in the same rounds."""

    place: Place
    density: float
    """Kept / total over the prunable weights."""
    machine: Mapping[str, Any]
    """`started` (date and time), `processor`, `platform`, `python`, `versions` of the libraries."""
    core: float
    """Processor time / time while it was timed: below 1, other work had a part of the core."""
    costs: tuple[Cost, ...]


def path_of(run: Run) -> Path:
    """Where a run keeps it."""
    return run.path / FILE


def read(run: Run) -> list[Measured]:
    """All levels that were measured, by branch, replicate and level; none without the file.

    Raises LotteryError, naming the file, for one that is damaged, of a later version, or of another run.
    """
    path = path_of(run)
    if not files.there(path):
        return []
    record = files.unseal(path)
    if record.get("format") != FORMAT:
        raise LotteryError(f"{path} has format {record.get('format')!r}, this version reads {FORMAT}: use a newer one")
    if record.get("run") != run.identity:
        raise LotteryError(f"{path} belongs to another run, made otherwise; {files.remedy(path)}")
    with files.parsing(path):
        return [_measured(level) for level in record["levels"]]


def record(run: Run, measured: Measured) -> None:
    """Adds a level to the file, in the place of what was measured of it before. The caller holds the run's lock."""
    levels = {kept.place: kept for kept in read(run)} | {measured.place: measured}
    table = [asdict(levels[place]) for place in sorted(levels)]
    files.write(path_of(run), files.seal({"format": FORMAT, "run": run.identity, "levels": table}))


def _measured(value: Mapping[str, Any]) -> Measured:
    parts = {"place": Place(**value["place"]), "costs": tuple(_cost(cost) for cost in value["costs"])}
    return Measured(**{**value, **parts})


def _cost(value: Mapping[str, Any]) -> Cost:
    latencies = tuple(
        Latency(**each | {name: Spread(**each[name]) for name in ("seconds", "speed")}) for each in value["latencies"]
    )
    return Cost(**{**value, "latencies": latencies})
