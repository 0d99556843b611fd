"""The run directory: what is in it is complete or absent, checksummed, and never computed twice.

    <run>/run.json             the truth about the run: format, spec, engine, device, data and network that it was begun
                               with, versions and machine of each session, its name and note if it was given any,
                               checksum of all that
    <run>/spec.toml            the spec again, to copy and edit (derived: written from run.json, never read for it)
    <run>/levels.csv           a row for each level, see `lottery.runs.rows` (derived: rebuilt from the levels, in their
                               order, when a run is begun and when it ends; meanwhile a row is added for each)
    <run>/code/                what `use` named, if anything: see `lottery.runs.code`
    <run>/figures/             pictures (derived)
    <run>/inference.json       what it costs to use its tickets, where that was measured: see `lottery.runs.timings`
    <run>/<branch>/replicate-<r>/level-<l>/            and of further draws of a branch, level-<l>-draw-<d>/
        ticket.safetensors     the weights it starts from, and each mask packed to bits as mask:<name>
        trained.safetensors    the weights it ended with
        history.csv            every evaluation
        early.safetensors      of a dense level that tickets are rewound into: its weights at that iteration, and the
                               optimizer's state as optimizer:<slot>:<name>
        level.json             the run that it belongs to, the row for levels.csv (with its place), the SHA-256 of the
                               other files, the processor's instructions, which of the files were dropped on purpose,
                               checksum of all that

    <run>/<branch>/replicate-<r>/level-<l>.partial     a level that is being trained, see `lottery.runs.checkpoints`

A folder of runs may hold sweeps, see `lottery.runs.sweep`: folders with a sweep.toml, which hold runs.

A level is written to a temporary folder, synced, and renamed: that rename makes it exist. No torch here.
Settings are verified when a run is opened, places when rows are read, tensors when they are.
"""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tomli_w
from filelock import FileLock, Timeout
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from lottery.engines import history
from lottery.engines.history import History
from lottery.engines.optimizers import state_slots
from lottery.errors import LotteryError, check_type, shown
from lottery.masks import Masks, Weights, pack, unpack
from lottery.models import Network
from lottery.runs import files
from lottery.runs.files import PARTIAL
from lottery.runs.files import TEMPORARY as TEMPORARY
from lottery.runs.files import write as write
from lottery.runs.machine import instructions
from lottery.runs.rows import Place, Row, columns_of, to_csv, to_frame, wanted
from lottery.runs.ticket import Ticket, begun
from lottery.spec import EXTENT, OwnLoop, Recipe, Spec
from lottery.starts import Moment, masked_slots
from lottery.words import number_of

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
    early: Moment | None = None
    """Of the dense level: what it was at the iteration to which tickets are rewound; None for 0."""


class Dropped(LotteryError):
    """For a level whose files are not all there because somebody wanted it so: nothing is damaged."""


class Record(NamedTuple):
    """What level.json says, verified."""

    row: Row
    sums: dict[str, str]
    """File -> SHA-256, of the dropped ones too."""
    dropped: tuple[str, ...]
    """Files that --keep has dropped."""


class Run:
    """A run directory. Reading needs no lock; whoever writes holds `lock`."""

    def __init__(self, path: Path | str):
        """Opens the run at `path`. Raises LotteryError where there is none, or its settings are damaged."""
        check_type("path", path, Path)
        path = Path(path)
        if not files.there(path / RECORD):
            raise LotteryError(f"{path} is not a run directory: it has no {RECORD}")
        self.path = path
        self.info: dict[str, Any] = _settings(path / RECORD)
        with files.parsing(path / RECORD):
            self.network = Network.from_json(self.info["network"])
            self.spec = Spec.from_toml(tomli_w.dumps(self.info["spec"]))
            bound = {name: self.info[name] for name in ("engine", "device", "data", "images")}
            sessions = [dict(session) for session in self.info["sessions"]]
            self.name, self.note = (_label(name, self.info.get(name, "")) for name in LABELS)
        self.info["sessions"] = sessions
        bound["spec"] = self.spec.identity()
        bound |= {"code": self.info["code"]} if "code" in self.info else {}
        self.identity = hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()
        """What its levels say that they belong to: the hash of all settings that they must have in common."""
        self._records: dict[Place, Record] | None = None
        self._frame: pd.DataFrame | None = None
        """Both of one moment, see `now`."""
        self._columns: list[str] = []
        """Of levels.csv, once this has written it."""
        self._listed: set[Place] = set()
        """The levels that it had then."""

    def __repr__(self) -> str:
        """Where it is and what came out, in a sentence."""
        from lottery.analysis.answer import answer_of

        return f"<Run {self.path}: {answer_of(self).headline}>"

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        from lottery.views.plots import notebook_html

        return notebook_html(self)

    @staticmethod
    def begin(path: Path, spec: Spec, binding: dict[str, Any], session: dict[str, Any], name: str = "") -> "Run":
        """Begins the run at `path`, or opens it to continue it with the levels, replicates and branches of `spec`.

        binding: what a run must not change midway (engine, device, checksums and counts of the images,
        network).
        session: what may change, noted for provenance (versions, machine, command).
        name: what people call it, from now on; as before if empty.
        The caller holds `lock(path)`. Raises LotteryError when the directory holds another spec or binding, or levels
        of which nothing says how they were made.
        """
        sessions, labels = [], {"name": name} if name else {}
        other = "give another path" if isinstance(spec, OwnLoop) else "use another --runs-dir"
        if files.there(path / RECORD):
            run = Run(path)
            run.check_spec_file()
            spec = run.spec.extended(spec) if run.spec.identity() == spec.identity() else spec
            for name, (there, here) in run.spec.differences(spec).items():
                if name not in EXTENT:
                    raise LotteryError(f"{path} was made with {name} = {there!r}, not {here!r}: {other}")
            for name, value in binding.items():
                if run.info[name] != value:
                    raise LotteryError(
                        f"{path} was begun with {name} {run.info[name]!r}, now it is {value!r}: levels of one run must "
                        f"be comparable; use the former, or {other.partition(' ')[2]}"
                    )
            run.check_whole(spec)
            sessions = run.info["sessions"]
            labels = {label: run.info[label] for label in LABELS if label in run.info} | labels
        elif levels := sorted(path.glob("*/replicate-*/level-*")):
            raise LotteryError(
                f"{path / RECORD} is missing, and nothing else says what made {levels[0].relative_to(path)}: restore "
                f"the file from a copy, or {other}"
            )
        record = {"format": FORMAT, "spec": spec.to_table(), **binding, "sessions": [*sessions, session], **labels}
        files.write(path / RECORD, files.seal(record))  # makes the run exist, or extends it
        files.write(path / SPEC, spec.to_toml().encode())
        return Run(path)

    def annotate(self, note: str) -> "Run":
        """This run with that note, which run.json keeps and every view shows; the empty text removes it.

        Raises:
            LotteryError: for a note of more than a line, or a run that a process is working on: it has run.json to
                itself.
        """
        _label("note", note)
        with lock(self.path):
            record = dict(Run(self.path).info)
            record.pop("note", None)
            files.write(self.path / RECORD, files.seal(record | ({"note": note} if note else {})))
        return Run(self.path)

    def check_spec_file(self) -> None:
        """Raises LotteryError where spec.toml says something else than run.json: then somebody changed it.

        One that asks for less is what is left when the process is killed between the two; so is none.
        """
        path = self.path / SPEC
        if not files.there(path):
            return
        text = files.read(path)
        with files.parsing(path):
            spec = Spec.from_toml(text.decode())
        if spec.identity() != self.spec.identity() or self.spec.extended(spec) != self.spec.extended(self.spec):
            (name, (there, here)), *_ = spec.differences(self.spec).items()
            raise LotteryError(
                f"{path} says {name} = {there!r}, but the run was made with {here!r}, says {RECORD}: undo the change, "
                "or move the file away and it is written anew; what `lottery run` is to do differently, tell it"
            )

    def source(self, name: str) -> bytes:
        """A file of the code that `use` named. Raises LotteryError, naming it, for one that is missing or damaged."""
        path = self.path / CODE / name
        source, recorded = files.read(path), self.info["code"][name]
        if (found := hashlib.sha256(source).hexdigest()) != recorded:
            raise files.damaged(path, f"its SHA-256 is {found}, recorded is {recorded}")
        return source

    def now(self) -> "Run":
        """This run with the levels that are finished now, whatever is finished later: for views that read it twice."""
        run = Run(self.path)
        run._records = {record.row.place: record for record in run.records()}
        return run

    def folder(self, place: Place) -> Path:
        """Where that level is, or would be."""
        return self.path / place.folder

    def partial(self, place: Place) -> Path:
        """Where that level is kept while it is trained."""
        return self.path / f"{place.folder}{PARTIAL}"

    def has(self, place: Place) -> bool:
        """Whether that level is finished, or something else has its name: who reads it is told."""
        return files.there(self.folder(place))

    def places(self, unreadable: list[LotteryError] | None = None, ending: str = "") -> list[Place]:
        """Where levels are, trunk first, then by branch, replicate, level and draw. Folders of other names are none.

        With the ending PARTIAL, where levels are kept that are being trained. A folder that cannot be read is noted in
        `unreadable`, or raised: what is in it has not vanished.
        """
        found: list[Place] = []

        def inside(folder: str) -> list[str]:
            try:
                return [f"{folder}/{name}" for name in files.names(self.path / folder)]
            except LotteryError as error:
                if unreadable is None:
                    raise
                unreadable.append(error)
                return []

        for branch in (self.spec.start, *sorted(self.spec.draws)):
            replicates = [folder for folder in inside(branch) if re.fullmatch("replicate-[0-9]+", Path(folder).name)]
            inner = [name for replicate in replicates for name in inside(replicate) if name.endswith(ending)]
            found += sorted(place for name in inner if (place := Place.at(name.removesuffix(ending))))
        return found

    def load(self, branch: str, replicate: int, level: int, draw: int = 0) -> SavedLevel:
        """Reads a finished level, as `read` does."""
        return self.read(self._place(branch, replicate, level, draw))

    def read(self, place: Place) -> SavedLevel:
        """Reads a finished level. Raises LotteryError, naming the file, for one that is missing or damaged; Dropped for
        one that --keep has dropped."""
        row, data = self._files(place)
        if gone := [name for name in self.files(place) if name not in data]:
            raise self._dropped(place, gone)
        start, masks = self._ticket(place, data[TICKET])
        trained = self._trained(place, data[TRAINED])
        early = self._early(place, data[EARLY]) if EARLY in data else None
        return SavedLevel(start, masks, trained, self._history(place, data[HISTORY]), row, early)

    def check(self, place: Place) -> Record:
        """Reads a finished level as `read` does, whatever of it was dropped."""
        record = self._record(place)
        parsers: dict[str, Callable[[Place, bytes], object]] = {
            TICKET: self._ticket,
            TRAINED: self._trained,
            HISTORY: self._history,
            EARLY: self._early,
        }
        for name, data in self._files(place, record)[1].items():
            parsers[name](place, data)
        return record

    def history_of(self, place: Place) -> History:
        """The history of a finished level, which is never dropped. Raises LotteryError, naming the file, for a level of
        which any file is missing or damaged."""
        return self._history(place, self._files(place)[1][HISTORY])

    def _files(self, place: Place, record: Record | None = None) -> tuple[Row, dict[str, bytes]]:
        """The row of a level, and its files that were not dropped, whole or refused."""
        folder = self.folder(place)
        row, sums, dropped = record or self._record(place)
        data = {name: files.read(folder / name) for name in sums if name not in dropped}
        for name in data:
            if (found := hashlib.sha256(data[name]).hexdigest()) != sums[name]:
                raise files.damaged(folder / name, f"its SHA-256 is {found}, recorded is {sums[name]}")
        return row, data

    def _ticket(self, place: Place, data: bytes) -> tuple[Weights, Masks]:
        shapes = {name: tensor.shape for name, tensor in self.network.tensors.items()}
        with files.parsing(self.folder(place) / TICKET):
            ticket = load_tensors(data)
            start = {name: ticket.pop(name) for name in list(ticket) if not name.startswith(MASK)}
            masks = {n: unpack(ticket.pop(MASK + n), start[n].shape) for n in start if MASK + n in ticket}
            _check_tensors(start, shapes)
            if set(masks) != set(self.network.prunable) or ticket:
                raise ValueError(f"masks of {sorted(masks)}, where {self.network.prunable} have them")
        return start, masks

    def _trained(self, place: Place, data: bytes) -> Weights:
        shapes = {name: tensor.shape for name, tensor in self.network.tensors.items()}
        with files.parsing(self.folder(place) / TRAINED):
            _check_tensors(trained := load_tensors(data), shapes)
        return trained

    def _history(self, place: Place, data: bytes) -> History:
        with files.parsing(self.folder(place) / HISTORY):
            return history.from_csv(data.decode())

    def _early(self, place: Place, data: bytes) -> Moment:
        shapes = {name: tensor.shape for name, tensor in self.network.tensors.items()}
        with files.parsing(self.folder(place) / EARLY):
            tensors = load_tensors(data)
            slots = {n.removeprefix(SLOT): tensors.pop(n) for n in list(tensors) if n.startswith(SLOT)}
            _check_tensors(tensors, shapes)
            if not isinstance(self.spec, OwnLoop):  # whose optimizer only its script knows
                _check_tensors(slots, _slots(self.network, self.spec.recipe))
        return Moment(self.spec.rewound, tensors, slots)

    def _dropped(self, place: Place, names: Sequence[str]) -> Dropped:
        return Dropped(
            f"{self.path}: {place} is without {', '.join(names)}, dropped by --keep; its row and history are there, "
            "and in another --runs-dir all can be made and kept"
        )

    def ticket(self, level: int, replicate: int = 0, branch: str | None = None, draw: int = 0) -> Ticket:
        """The ticket of a level, to take away: its masks, the weights it starts from, and those it was trained to.

        Args:
            level: whose; 0 is the dense network.
            replicate: of which replicate.
            branch: the trunk's, if None.
            draw: of a branch that is drawn several times per level.

        Raises:
            LotteryError: for a level that is not there, or damaged.
            Dropped: for one whose ticket --keep has dropped. Where it has dropped the trained weights alone, the ticket
                has none.
        """
        place = self._place(branch or self.spec.start, replicate, level, draw)
        if not self.has(place):
            beside = (place.branch, replicate, draw)
            levels = [found.level for found in self.places() if (found.branch, found.replicate, found.draw) == beside]
            there = f"there are levels {min(levels)} to {max(levels)}" if levels else "there is no level of that kind"
            raise LotteryError(f"{self.path} has no {place}: {there}")
        record, session = self.check(place), self.info["sessions"][0]
        if TICKET in record.dropped:
            raise self._dropped(place, record.dropped)
        row, data = self._files(place, record)
        start, masks = self._ticket(place, data[TICKET])
        trained = self._trained(place, data[TRAINED]) if TRAINED in data else None
        source = {
            "run": self.name or self.path.resolve().name,
            "identity": self.identity,
            "sha256": record.sums,
            **{name: self.info[name] for name in ("engine", "device", "data")},
            **{name: session[name] for name in ("versions", "processor", "started") if name in session},
        }
        what = masks, start, trained, self.network, self.spec, row
        return Ticket(*what, source, self._optimizer(place, start, masks))

    def _optimizer(self, place: Place, start: Weights, masks: Masks) -> Weights:
        """What the optimizer of that level began with."""
        spec = self.spec
        if spec.optimizer_state == "fresh" or isinstance(spec, OwnLoop) or spec.use or not place.level:
            return {}
        dense = Place(spec.start, place.replicate, 0)
        data = self._files(dense)[1]
        slots = masked_slots(self._early(dense, data[EARLY]).optimizer, masks) if EARLY in data else {}
        return slots if begun(spec, place, start, masks, slots).optimizer else {}

    def files(self, place: Place) -> tuple[str, ...]:
        """The files of a level beside level.json."""
        return (*FILES, EARLY) if self.spec.rewound and not place.level else FILES

    @staticmethod
    def _place(branch: str, replicate: int, level: int, draw: int) -> Place:
        for name, value in (("replicate", replicate), ("level", level), ("draw", draw)):
            check_type(name, value, int)
        check_type("branch", branch, str)
        return Place(branch, replicate, level, draw)

    def _record(self, place: Place) -> Record:
        """What level.json says, of this run and of this place or refused."""
        if self._records and place in self._records:
            return self._records[place]
        path = self.path / f"{place.folder}/{LEVEL}"
        record = files.unseal(path)
        with files.parsing(path):
            row = Row.from_json(record["row"])
            sums = {name: str(record["sha256"][name]) for name in self.files(place)}
            dropped = tuple(record.get(DROPPED, ()))
            if not set(dropped) <= set(sums) - {HISTORY}:
                raise ValueError(f"files {dropped} are said to be dropped")
            identity = record["run"]
        if row.place != place:
            raise LotteryError(f"{path} belongs elsewhere: it is {row.place}; {files.remedy(path)}")
        if identity != self.identity:
            raise LotteryError(f"{path} belongs to another run, made otherwise; {files.remedy(path)}")
        return Record(row, sums, dropped)

    def save(self, saved: SavedLevel) -> None:
        """Writes a finished level; when this returns it is on disk. If it doesn't, all of it is there or nothing."""
        ticket = saved.start | {MASK + n: pack(m) for n, m in saved.masks.items()}
        data = {
            TICKET: save_tensors(ticket),  # no metadata: its order is not fixed, bytes would differ
            TRAINED: save_tensors(saved.trained),
            HISTORY: history.to_csv(saved.history).encode(),
        }
        if saved.early:
            slots = {SLOT + name: array for name, array in saved.early.optimizer.items()}
            data[EARLY] = save_tensors(saved.early.weights | slots)
        sums = {name: hashlib.sha256(data[name]).hexdigest() for name in data}
        record = {"run": self.identity, "row": saved.row.to_json(), "sha256": sums, "instructions": instructions()}
        files.write_folder(self.folder(saved.row.place), data | {LEVEL: files.seal(record)})

    def instructions(self, place: Place) -> str:
        """The processor's instructions that a finished level was trained with, as `machine.instructions` names them; ""
        for one from before they were noted."""
        return str(files.unseal(self.folder(place) / LEVEL).get("instructions", ""))

    def drop(self, replicate: int, keep: str) -> None:
        """Drops what `keep`, of KEEP, does not keep of a replicate whose levels are all finished: levels begin from
        others of their replicate, and from nothing else.

        level.json says so before a file goes, and that of the dense level before the others: what is left when the
        process is killed goes the next time, whatever is to be kept then. The caller holds the run's lock.
        """
        gone = {*KEEP[keep], *self.dropped(replicate)}
        for place in wanted(self.spec, [replicate]):
            record, path = self._record(place), self.folder(place) / LEVEL
            names = [name for name in self.files(place) if name in gone or name in record.dropped]
            if names != [*record.dropped]:
                sealed = files.seal(files.unseal(path) | {DROPPED: names})
                write(path, sealed, through=path.parent.parent)  # where `clean` looks
            for name in names:
                (self.folder(place) / name).unlink(missing_ok=True)

    def dropped(self, replicate: int) -> tuple[str, ...]:
        """The files that `drop` has taken from that replicate, from its dense level first."""
        dense = Place(self.spec.start, replicate, 0)
        return self._record(dense).dropped if self.has(dense) else ()

    def dropped_in_words(self) -> list[str]:
        """What was dropped of how many replicates, such as "trained.safetensors of 5 replicates"."""
        of = Counter(names for number in range(self.spec.replicates) if (names := self.dropped(number)))
        return [f"{', '.join(names)} of {number_of(count, 'replicate')}" for names, count in of.items()]

    def check_whole(self, spec: Spec) -> None:
        """Raises LotteryError where `spec` asks for more of a replicate that has dropped what that would begin from."""
        for place in self.unfinished(spec):
            if names := self.dropped(place.replicate):
                raise LotteryError(
                    f"{self.path}: {place} cannot be trained, since --keep has dropped {', '.join(names)} of its "
                    "replicate; ask for more replicates only, or use another --runs-dir"
                )

    def clean(self) -> None:
        """Removes what a killed process left half-written, and what it had of levels that are finished now; a level
        that was being trained keeps what it has come to. The caller holds the run's lock."""
        for where in (f"*/replicate-*/{TEMPORARY}*", f"{CODE}/**/{TEMPORARY}*", f"{TEMPORARY}*"):
            for left in self.path.glob(where):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        for place in self.places(ending=PARTIAL):
            if self.has(place) and not (partial := self.partial(place)).is_dir():
                partial.unlink()

    def rows(self) -> list[Row]:
        """The rows of all finished levels, trunk first, then by branch, replicate, level and draw.

        Raises LotteryError, naming the file, for a level that is damaged or belongs elsewhere: none is left out.
        """
        return [record.row for record in self.records()]

    def records(self) -> list[Record]:
        """What level.json says of all finished levels, in the order of `rows`; raises as that does."""
        return [*map(self._record, self.places())] if self._records is None else [*self._records.values()]

    def levels(self) -> "pd.DataFrame":
        """One row per branch, replicate, draw and level: the columns of levels.csv.

        branch, replicate, draw (of a branch that is drawn several times per level, else 0), level (0 is dense);
        density, sparsity (fractions of the prunable weights), iterations (trained for);
        early_stop_iteration (lowest validation loss), test_accuracy_early_stop, validation_loss_min (NaN without
        validation images); steady_stop_iteration (lowest running mean of it; NaN with few evaluations);
        test_accuracy, train_accuracy (after the last iteration; fractions); seconds, engine;
        and `density:<tensor>` per prunable tensor.
        """
        frame = self._frame if self._frame is not None else to_frame([row.to_json() for row in self.rows()])
        if self._records is not None:
            self._frame = frame
        return frame.copy()

    def history(
        self, branch: str | None = None, replicate: int | None = None, level: int | None = None
    ) -> "pd.DataFrame":
        """One row per evaluation: branch, replicate, draw, level, density; iteration (1 is the first step),
        train_loss, validation_loss, test_loss (nats), validation_accuracy, test_accuracy (fractions).

        Of everything, or of one branch, replicate or level. Raises LotteryError if there is nothing of the kind.
        """
        import numpy as np
        import pandas as pd

        rows = self.rows()
        for name, value in (("branch", branch), ("replicate", replicate), ("level", level)):
            if value is not None:
                names = dict.fromkeys(str(getattr(row.place, name)) for row in rows)
                rows = [row for row in rows if getattr(row.place, name) == value]
                if not rows:
                    raise LotteryError(f"{self.path}: no {name} {value!r} there, only {', '.join(names)}")
        if not rows:
            return pd.DataFrame()
        found = [self.history_of(row.place) for row in rows]  # thousands: a frame for each would take minutes
        counts = [len(columns["iteration"]) for columns in found]
        nothing = [np.full(count, np.nan) for count in counts]
        logged = {
            name: np.concatenate([columns.get(name, nan) for columns, nan in zip(found, nothing, strict=True)])
            for name in dict.fromkeys(name for columns in found for name in columns)
        }
        networks = pd.DataFrame([vars(row.place) | {"density": row.density} for row in rows])
        repeated = networks.take(np.repeat(np.arange(len(rows)), counts)).reset_index(drop=True)
        return pd.concat([repeated, pd.DataFrame(logged)], axis=1)

    def weights(self, level: int, replicate: int = 0, branch: str | None = None, draw: int = 0) -> "pd.DataFrame":
        """One row per prunable weight: tensor, unit (that it leads to), input (that it comes from), kept (bool),
        start (initial weight) and trained (trained weight), both 0 where it is pruned.

        A convolution's units are its filters, its inputs channels: the weights of one kernel share both, and follow
        each other row by row. The linear layer behind it has an input for each pixel of each channel.

        Of the trunk, or of another branch and one of its draws. Raises LotteryError for a level that is not there.
        """
        import numpy as np
        import pandas as pd

        saved = self.load(branch or self.spec.start, replicate, level, draw)
        parts = []
        for name in self.network.prunable:
            mask = saved.masks[name]
            unit, source = (np.repeat(end, prod(mask.shape[2:])) for end in self.network.tensors[name].ends())
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
        """levels.csv, from the finished levels, in their order."""
        rows = self.rows()
        self._columns, self._listed = columns_of(rows), {row.place for row in rows}
        write(self.path / TABLE, to_csv(rows).encode())
        return self.path / TABLE

    def append(self, row: Row) -> None:
        """Adds a finished level to levels.csv, as its last line, whatever its place: that costs the same however many
        there are. A row with other columns, and a file that is not there, make it anew, with the rows that are still
        to be told of."""
        if row.place in self._listed:
            return
        if self._columns and set(row.to_json()) <= set(self._columns):
            with suppress(FileNotFoundError):
                files.append(self.path / TABLE, to_csv([row], self._columns).encode())
                return
        self.write_table()


FORMAT = 1
"""Of what is on disk; runs from before there was this number have none."""

RECORD, SPEC, TABLE, LEVEL = "run.json", "spec.toml", "levels.csv", "level.json"
SWEEP = "sweep.toml"
LABELS = "name", "note"
"""What run.json keeps for people, where they gave any: no result depends on it, and neither does the folder's name."""
FILES = TICKET, TRAINED, HISTORY = "ticket.safetensors", "trained.safetensors", "history.csv"
EARLY = "early.safetensors"
CODE = "code"
DROPPED = "dropped"
KEEP: dict[str, tuple[str, ...]] = {"all": (), "tickets": (TRAINED,), "rows": (TICKET, TRAINED, EARLY)}
"""Value of --keep -> the files that go once all levels of their replicate are finished."""
MASK, SLOT = "mask:", "optimizer:"
LOCK = ".lock"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Held by the one process that writes to the run at `path`; the system frees it when that process dies.

    Makes the folder. Raises LotteryError if it can't be written, or another process holds the lock.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        held = FileLock(path / LOCK)
        held.acquire(timeout=0.2, poll_interval=0.02)  # longer than `worked_on` holds it
    except Timeout:
        raise LotteryError(f"another process is working on {path}: wait until it is done, or stop it") from None
    except OSError as error:
        raise LotteryError(f"cannot write to the runs folder {path.parent}: {error.strerror}") from error
    try:
        yield
    finally:
        held.release()


def worked_on(path: Path) -> bool | None:
    """Whether a process is working on the run at `path`; None where its lock cannot be tried."""
    if not files.there(path / LOCK):
        return False
    try:
        with FileLock(path / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return None


def locate(name: str, runs_dir: Path) -> Path:
    """Where the run is of that path, or of that name in `runs_dir`: its folder's, the one it was given, or the only one
    that begins so. Runs of sweeps are looked for where no other is meant."""
    for path in (Path(name), runs_dir / name):
        if files.there(path / RECORD):
            return path
    given = called(runs_dir)
    matches: list[str] = []
    for inside in (False, True):
        labels = {there: (Path(there).name, label) for there, label in given.items() if ("/" in there) is inside}
        matches = matches or [there for there, words in labels.items() if name in words]
        matches = matches or [
            there for there, words in labels.items() if any(word.startswith(name) for word in (there, *words))
        ]
    if len(matches) == 1:
        return runs_dir / matches[0]
    there = ", ".join(f"{there} ({given[there]})" if given[there] else there for there in matches or given)
    there = there or "none yet"
    raise LotteryError(
        f"{'several runs begin with' if matches else 'no run'} {name!r} in {runs_dir}; there are: {there}"
    )


def find(name: str, runs_dir: Path) -> Run:
    """The run that `locate` finds, opened."""
    return Run(locate(name, runs_dir))


def names(runs_dir: Path) -> list[str]:
    """The runs in a folder, in order, then those of its sweeps, as sweep/run; none if there is no such folder."""
    found = files.names(runs_dir)
    inside = [f"{sweep}/{name}" for sweep in sweeps(runs_dir) for name in files.names(runs_dir / sweep)]
    return [name for name in (*found, *inside) if files.there(runs_dir / name / RECORD)]


def sweeps(runs_dir: Path) -> list[str]:
    """The sweeps in a folder, in order."""
    return [name for name in files.names(runs_dir) if files.there(runs_dir / name / SWEEP)]


def called(runs_dir: Path) -> dict[str, str]:
    """Folder, as of `names` -> the name that its run was given, "" for none or where run.json cannot be read."""
    given = dict.fromkeys(names(runs_dir), "")
    for name in given:
        with suppress(LotteryError):
            given[name] = _label("name", _settings(runs_dir / name / RECORD).get("name", ""))
    return given


def check_name(name: str, path: Path) -> None:
    """Raises LotteryError for a name that the run at `path` cannot have: no line of text, or another run's there."""
    _label("name", name)
    if not name:
        return
    if name.startswith("-") or name != name.strip() or set(name) & {"/", os.sep}:
        raise LotteryError(f"name = {shown(name)}: a name has no slash, and neither dash nor space at its ends")
    for there, label in called(path.parent).items():
        if there != path.name and name in (there, label):
            raise LotteryError(f"name = {shown(name)}: {path.parent / there} is called so already: choose another")


def _label(kind: str, text: Any) -> str:
    """A name or a note. Raises LotteryError for what is no line of text."""
    check_type(kind, text, str)
    if not text.isprintable():
        raise LotteryError(f"{kind} = {shown(text)}: must be one line, of characters that can be printed")
    return str(text)


def _settings(path: Path) -> dict[str, Any]:
    """What run.json says, verified; in one line how to go on where it is of another format."""
    try:
        info = files.unseal(path)
    except LotteryError:
        if _older(path):
            raise LotteryError(
                f"{path.parent} was begun by an older version, whose runs this one cannot verify: use another "
                "--runs-dir, or move the folder away and run again"
            ) from None
        raise
    if info.get("format") != FORMAT:
        raise LotteryError(f"{path} has format {info.get('format')!r}, this version reads {FORMAT}: use a newer one")
    return info


def _older(path: Path) -> bool:
    """Whether it is a run.json from before there were a format and a checksum: whole, without either."""
    try:
        value = json.loads(files.read(path))
    except (LotteryError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "sessions" in value and not {"format", "checksum"} & set(value)


def _check_tensors(tensors: Weights, shapes: dict[str, tuple[int, ...]]) -> None:
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != shapes:
        raise ValueError(f"tensors {found}, where the network has {shapes}")


def _slots(network: Network, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all that an optimizer's state has."""
    trained = {name: tensor.shape for name, tensor in network.tensors.items() if not tensor.buffer}
    return {"step": ()} | {f"{slot}:{name}": shape for slot in state_slots(recipe) for name, shape in trained.items()}
