"""Place, the address of one trained level, and Row, what levels.csv says of it."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lottery.spec import Spec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, order=True)
class Place:
    """Where a level belongs: the address of one trained network of a run."""

    branch: str
    """The trunk's start rule, or a branch's."""
    replicate: int
    level: int
    """0 is the dense network, which only the trunk has."""
    draw: int = 0
    """Repetition of a branch's random rule; 0 for all others."""

    @property
    def folder(self) -> str:
        """Its folder in a run directory, parts apart by slashes."""
        name = f"level-{self.level:02d}-draw-{self.draw}" if self.draw else f"level-{self.level:02d}"
        return f"{self.branch}/replicate-{self.replicate}/{name}"

    @staticmethod
    def at(folder: str) -> "Place | None":
        """The place whose folder that is; None for any other name, a backup's or one with other zeros."""
        found = re.fullmatch(r"([^/]+)/replicate-([0-9]+)/level-([0-9]+)(?:-draw-([0-9]+))?", folder)
        if found is None:
            return None
        place = Place(found[1], int(found[2]), int(found[3]), int(found[4] or 0))
        return place if place.folder == folder else None

    def __str__(self) -> str:
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{self.branch}, replicate {self.replicate}, level {self.level}{draw}"


@dataclass(frozen=True)
class Row:
    """A row of levels.csv. Fractions, not percent; None where there is nothing to say."""

    place: Place
    density: float
    """Kept / total over the prunable weights."""
    iterations: int
    """The last optimizer step, of which those before its rewinding point were the dense network's."""
    early_stop_iteration: int | None = None
    """Iteration of the lowest validation loss; None without validation images, as the next two."""
    test_accuracy_early_stop: float | None = None
    validation_loss_min: float | None = None
    test_accuracy: float | None = None
    """After the last iteration."""
    train_accuracy: float | None = None
    """After the last iteration, on all training images."""
    seconds: float | None = None
    engine: str = ""
    steady_stop_iteration: int | None = None
    """Where a running mean of the validation loss is lowest, see `lottery.engines.history.steady_stop`; None with too
    few evaluations for one."""
    densities: Mapping[str, float] = field(default_factory=dict)
    """Tensor -> kept / total, in the network's order."""
    recorded: Mapping[str, Any] = field(default_factory=dict)
    """Columns of one's own."""

    def to_json(self) -> dict[str, Any]:
        """Column -> value, in the order of levels.csv."""
        values = {name: getattr(self, name) for name in _FIELDS} | vars(self.place) | {"sparsity": 1 - self.density}
        densities = {f"{DENSITY}{name}": density for name, density in self.densities.items()}
        return {name: values[name] for name in COLUMNS} | densities | dict(self.recorded)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Row":
        """The inverse of `to_json`; a column that an older row lacks is empty. Raises KeyError or TypeError for rows
        without an address, density or iterations, or with something else than a number where one belongs."""
        place = Place(value["branch"], value["replicate"], value["level"], value.get("draw", 0))
        known: dict[str, Any] = {}
        densities: dict[str, Any] = {}
        recorded: dict[str, Any] = {}
        for name, number in value.items():
            if name in _FIELDS:
                known[name] = number
            elif name.startswith(DENSITY):
                densities[name] = number
            elif name not in COLUMNS:
                recorded[name] = number
        for name, number in (*known.items(), *densities.items()):
            if not (isinstance(number, int | float) or name == "engine" or (number is None and name in _EMPTY)):
                raise TypeError(f"{name} = {number!r} is no number")
        densities = {name.removeprefix(DENSITY): density for name, density in densities.items()}
        return Row(place, densities=densities, recorded=recorded, **known)


COLUMNS = (
    "branch",
    "replicate",
    "level",
    "density",
    "sparsity",
    "iterations",
    "early_stop_iteration",
    "test_accuracy_early_stop",
    "test_accuracy",
    "validation_loss_min",
    "seconds",
    "train_accuracy",
    "engine",
    "draw",
    "steady_stop_iteration",
)
"""levels.csv begins with these; then one column `density:<tensor>` per prunable tensor, then columns of one's own."""

DENSITY = "density:"

_FIELDS = dict.fromkeys(f.name for f in fields(Row) if f.name not in ("place", "densities", "recorded"))
_EMPTY = set(_FIELDS) - {"density", "iterations"}
"""Fields that may be None."""


def wanted(spec: Spec, replicates: Iterable[int] | None = None) -> Iterator[Place]:
    """The places of all levels that `spec` asks for, or of some replicates, the trunk's first. Branches have no level
    0: the dense network is the trunk's."""
    for branch, draws in {spec.start: 1, **spec.draws}.items():
        for draw in range(draws):
            for replicate in range(spec.replicates) if replicates is None else replicates:
                for level in range(0 if branch == spec.start else 1, spec.levels + 1):
                    yield Place(branch, replicate, level, draw)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """The columns of a levels.csv of these rows."""
    return [*dict.fromkeys([*COLUMNS, *(name for row in rows for name in row.to_json())])]


def to_csv(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """The text of levels.csv; or lines for one that has these columns. Raises ValueError for a row with others."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns or columns_of(rows), lineterminator="\n")
    if not columns:
        writer.writeheader()
    writer.writerows(row.to_json() for row in rows)
    return out.getvalue()


def to_frame(records: "list[dict[str, Any]] | pd.DataFrame") -> "pd.DataFrame":
    """Rows of levels.csv as a frame: numbers as numbers where a column may be empty.

    Raises:
        KeyError: for a column that is missing.
        ValueError: for text where a number belongs.
    """
    import pandas as pd  # half a second, which the command line need not wait for

    frame = pd.DataFrame(records)
    if frame.empty:
        return frame
    if "draw" not in frame:
        frame = frame.assign(draw=0)
    if "steady_stop_iteration" not in frame:
        frame = frame.assign(steady_stop_iteration=float("nan"))
    empty = ["early_stop_iteration", "test_accuracy_early_stop", "validation_loss_min", "steady_stop_iteration"]
    return frame.astype(dict.fromkeys(empty, float)).astype({"draw": int})
