"""The run directory: what is in it is complete or absent, checksummed, and never computed twice.

    <run>/spec.toml            the spec
    <run>/run.json             engine, device, data and network that the run was begun with; versions and machine of
                               each session
    <run>/levels.csv           a row for each level, see `lottery.runs.rows` (derived: rebuilt from the levels)
    <run>/figures/             pictures (derived)
    <run>/<branch>/replicate-<r>/level-<l>/            and of further draws of a branch, level-<l>-draw-<d>/
        ticket.safetensors     the weights it starts from, and each mask packed to bits as mask:<name>
        trained.safetensors    the weights it ended with
        history.csv            every evaluation
        level.json             the row for levels.csv, and the SHA-256 of the other files

A level is written to a temporary folder, synced, and renamed: that rename makes it exist. No torch here.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from lottery.engines import history
from lottery.engines.history import History
from lottery.errors import LotteryError
from lottery.masks import Masks, Weights, pack, unpack
from lottery.models import Network
from lottery.runs.rows import Place, Row, to_csv, to_frame, wanted
from lottery.spec import EXTENT, Spec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SavedLevel:
    """One finished level, as read back and verified."""

    start: Weights
    """What it started from: with `masks`, the ticket."""
    masks: Masks
    trained: Weights
    """What it ended with."""
    history: History
    row: Row


class Run:
    """A run directory. Reading needs no lock; whoever writes holds `lock`."""

    def __init__(self, path: Path):
        """Opens the run at `path`. Raises LotteryError where there is none, or its spec is damaged."""
        if not (path / "run.json").is_file():
            raise LotteryError(f"{path} is not a run directory: it has no run.json")
        self.path = path
        self.info: dict[str, Any] = _read_json(path / "run.json")
        try:
            self.network = Network.from_json(self.info["network"])
        except (KeyError, TypeError) as error:
            raise _damaged(path / "run.json", f"the network is missing or incomplete ({error})") from None
        if not {"engine", "device", "data", "images", "sessions"} <= set(self.info):
            raise _damaged(path / "run.json", "settings are missing")
        text = _read(path / "spec.toml").decode(errors="replace")
        self.spec = Spec.from_toml(text, source=str(path / "spec.toml"))

    def __repr__(self) -> str:
        """Where it is and what came out, in a sentence."""
        from lottery.analysis.answer import answer_of

        return f"<Run {self.path}: {answer_of(self).headline}>"

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        from lottery.views.plots import notebook_html

        return notebook_html(self)

    @staticmethod
    def begin(path: Path, spec: Spec, binding: dict[str, Any], session: dict[str, Any]) -> "Run":
        """Begins the run at `path`, or opens it to continue it with the levels, replicates and branches of `spec`.

        binding: what a run must not change midway (engine, device, checksums and counts of the images,
        network).
        session: what may change, noted for provenance (versions, machine, command).
        The caller holds `lock(path)`. Raises LotteryError when the directory holds another spec or binding.
        """
        sessions = []
        if (path / "run.json").exists():
            run = Run(path)
            spec = run.spec.extended(spec) if run.spec.identity() == spec.identity() else spec
            for name, (there, here) in run.spec.differences(spec).items():
                if name not in EXTENT:
                    raise LotteryError(f"{path} was made with {name} = {there!r}, not {here!r}: use another --runs-dir")
            for name, value in binding.items():
                if run.info[name] != value:
                    raise LotteryError(
                        f"{path} was begun with {name} {run.info[name]!r}, now it is {value!r}: levels of one run must "
                        "be comparable; use the former, or another --runs-dir"
                    )
            sessions = run.info["sessions"]
        write(path / "spec.toml", spec.to_toml().encode())
        write(path / "run.json", _to_json({**binding, "sessions": [*sessions, session]}))  # last: makes the run exist
        return Run(path)

    def folder(self, place: Place) -> Path:
        """Where that level is, or would be."""
        return self.path / place.folder

    def has(self, place: Place) -> bool:
        """Whether that level is finished."""
        return self.folder(place).is_dir()

    def load(self, branch: str, replicate: int, level: int, draw: int = 0) -> SavedLevel:
        """Reads a finished level, as `read` does."""
        return self.read(Place(branch, replicate, level, draw))

    def read(self, place: Place) -> SavedLevel:
        """Reads a finished level. Raises LotteryError, naming the file, for one that is missing or damaged."""
        folder = self.folder(place)
        record = _read_record(folder)
        files = {name: _read(folder / name) for name in FILES}
        for name, data in files.items():
            if (found := hashlib.sha256(data).hexdigest()) != (expected := record["sha256"][name]):
                raise _damaged(folder / name, f"its SHA-256 is {found}, recorded is {expected}")
        ticket = load_tensors(files["ticket.safetensors"])
        weights = {n: w for n, w in ticket.items() if not n.startswith(MASK)}
        masks = {n: unpack(ticket[MASK + n], weights[n].shape) for n in weights if MASK + n in ticket}
        trained = load_tensors(files["trained.safetensors"])
        row = Row.from_json(record["row"])
        return SavedLevel(weights, masks, trained, history.from_csv(files["history.csv"].decode()), row)

    def save(self, saved: SavedLevel) -> None:
        """Writes a finished level; when this returns it is on disk, and if it doesn't, nothing is."""
        folder = self.folder(saved.row.place)
        folder.parent.mkdir(parents=True, exist_ok=True)
        ticket = saved.start | {MASK + n: pack(m) for n, m in saved.masks.items()}
        files = {
            "ticket.safetensors": save_tensors(ticket),  # no metadata: its order is not fixed, bytes would differ
            "trained.safetensors": save_tensors(saved.trained),
            "history.csv": history.to_csv(saved.history).encode(),
        }
        row = saved.row.to_json()
        checksums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        checksums["row"] = hashlib.sha256(_to_json(row)).hexdigest()
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        temporary.chmod(0o755)
        try:
            for name, data in (files | {"level.json": _to_json({"row": row, "sha256": checksums})}).items():
                with open(temporary / name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            _sync_folder(temporary)
            os.rename(temporary, folder)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk should not be kept full
            raise
        _sync_folder(folder.parent)

    def clean(self) -> None:
        """Removes what a killed process left half-written. The caller holds the run's lock."""
        for left in [*self.path.glob(f"*/replicate-*/{TEMPORARY}*"), *self.path.glob(f"{TEMPORARY}*")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def rows(self) -> list[Row]:
        """The rows of all finished levels, trunk first, then by branch, replicate, level and draw."""
        rows = [Row.from_json(_read_record(folder)["row"]) for folder in self.path.glob("*/replicate-*/level-*/")]
        return sorted(rows, key=lambda row: (row.place.branch != self.spec.start, row.place))

    def levels(self) -> "pd.DataFrame":
        """One row per branch, replicate, draw and level: the columns of levels.csv.

        branch, replicate, draw (of a branch that is drawn several times per level, else 0), level (0 is dense);
        density, sparsity (fractions of the prunable weights), iterations (trained for);
        early_stop_iteration (lowest validation loss), test_accuracy_early_stop, validation_loss_min (NaN without
        validation images); steady_stop_iteration (lowest running mean of it; NaN with few evaluations);
        test_accuracy, train_accuracy (after the last iteration; fractions); seconds, engine;
        and `density:<tensor>` per prunable tensor.
        """
        return to_frame([row.to_json() for row in self.rows()])

    def history(
        self, branch: str | None = None, replicate: int | None = None, level: int | None = None
    ) -> "pd.DataFrame":
        """One row per evaluation: branch, replicate, draw, level, density; iteration (1 is the first step),
        train_loss, validation_loss, test_loss (nats), validation_accuracy, test_accuracy (fractions).

        Of everything, or of one branch, replicate or level. Raises LotteryError if there is nothing of the kind.
        """
        import pandas as pd

        rows = self.rows()
        for name, value in (("branch", branch), ("replicate", replicate), ("level", level)):
            if value is not None:
                names = dict.fromkeys(str(getattr(row.place, name)) for row in rows)
                rows = [row for row in rows if getattr(row.place, name) == value]
                if not rows:
                    raise LotteryError(f"{self.path}: no {name} {value!r} there, only {', '.join(names)}")
        parts = [
            pd.DataFrame(vars(row.place) | {"density": row.density} | self.read(row.place).history) for row in rows
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def weights(self, level: int, replicate: int = 0, branch: str | None = None, draw: int = 0) -> "pd.DataFrame":
        """One row per prunable weight: tensor, unit (that it leads to), input (that it comes from), kept (bool),
        start (initial weight) and trained (trained weight), both 0 where it is pruned.

        Of the trunk, or of another branch and one of its draws. Raises LotteryError for a level that is not there.
        """
        import numpy as np
        import pandas as pd

        saved = self.load(branch or self.spec.start, replicate, level, draw)
        parts = []
        for name in self.network.prunable:
            mask = saved.masks[name]
            unit, source = np.indices((len(mask), mask[0].size)).reshape(2, -1)
            values = {"kept": mask.ravel(), "start": saved.start[name].ravel(), "trained": saved.trained[name].ravel()}
            parts.append(pd.DataFrame({"tensor": name, "unit": unit, "input": source} | values))
        return pd.concat(parts, ignore_index=True)

    def unfinished(self, spec: Spec) -> list[Place]:
        """The first places, one for each branch, replicate and draw, the trunk's first, of what `spec` asks for and is
        not there."""
        missing: dict[tuple[str, int, int], Place] = {}
        for place in wanted(spec):
            if not self.has(place):
                missing.setdefault((place.branch, place.replicate, place.draw), place)
        return list(missing.values())

    def table(self) -> str:
        """The text of levels.csv, from the finished levels."""
        return to_csv(self.rows())

    def write_table(self) -> Path:
        """levels.csv."""
        write(self.path / "levels.csv", self.table().encode())
        return self.path / "levels.csv"


MASK = "mask:"
TEMPORARY = ".unfinished-"
FILES = ("ticket.safetensors", "trained.safetensors", "history.csv")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Held by the one process that writes to the run at `path`; the system frees it when that process dies.

    Makes the folder. Raises LotteryError if it can't be written, or another process holds the lock.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        held = FileLock(path / ".lock")
        held.acquire(timeout=0)
    except Timeout:
        raise LotteryError(f"another process is working on {path}: wait until it is done, or stop it") from None
    except OSError as error:
        raise LotteryError(f"cannot write to the runs folder {path.parent}: {error.strerror}") from error
    try:
        yield
    finally:
        held.release()


def find(name: str, runs_dir: Path) -> Run:
    """The run at that path, or of that name, or of the only name that begins so, in `runs_dir`."""
    for path in (Path(name), runs_dir / name):
        if os.path.isfile(path / "run.json"):  # unlike Path's, no error for a name that no file can have
            return Run(path)
    matches = [there for there in names(runs_dir) if there.startswith(name)]
    if len(matches) == 1:
        return Run(runs_dir / matches[0])
    there = ", ".join(matches or names(runs_dir)) or "none yet"
    raise LotteryError(
        f"{'several runs begin with' if matches else 'no run'} {name!r} in {runs_dir}; there are: {there}"
    )


def names(runs_dir: Path) -> list[str]:
    """The runs in a folder, in order; none if there is no such folder."""
    return sorted(path.parent.name for path in runs_dir.glob("*/run.json"))


def _damaged(path: Path, how: str) -> LotteryError:
    remedy = f"delete the folder {path.parent} and run again to make it anew"
    if path.name in ("run.json", "spec.toml"):
        remedy = f"restore the file, or move {path.parent} out of the way"
    return LotteryError(f"{path} is damaged: {how}; {remedy}")


def _read_record(folder: Path) -> dict[str, Any]:
    record = _read_json(folder / "level.json")
    if hashlib.sha256(_to_json(record.get("row"))).hexdigest() != record.get("sha256", {}).get("row"):
        raise _damaged(folder / "level.json", "its row does not have the recorded SHA-256")
    return record


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise _damaged(path, f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _damaged(path, "not a JSON object")
    return value


def _to_json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error


def write(path: Path, data: bytes) -> None:
    """All of it or nothing, on disk when this returns; leaves a file that already says so alone."""
    if path.is_file() and path.read_bytes() == data:
        return
    handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
