"""Reads everything of a run and says what is sound, and what to do about the rest. Changes nothing."""

import csv
import io
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from lottery.errors import LotteryError
from lottery.runs import checkpoints, files, store, timings
from lottery.runs.rows import Row, to_csv, wanted
from lottery.runs.store import Run
from lottery.spec import Spec
from lottery.words import number_of


@dataclass(frozen=True)
class Found:
    """What is to be said of a run."""

    sound: list[str] = field(default_factory=list)
    """Things that are as they were written."""
    wrong: list[str] = field(default_factory=list)
    """One sentence for each thing that is not: which file, what is wrong, what to do."""
    notes: list[str] = field(default_factory=list)
    """What is neither: unfinished levels, folders that belong to no level."""

    @contextmanager
    def attempt(self, what: str = "") -> Iterator[None]:
        """Notes what is tried as sound, or the LotteryError that it raises as wrong."""
        try:
            yield
        except LotteryError as error:
            self.wrong.append(str(error))
        else:
            self.sound.extend([what] if what else [])


def verify(path: Path) -> Found:
    """What is sound of the run at `path`: its settings, every file of every level, and what is derived from them."""
    found, unreadable = Found(), list[LotteryError]()
    with found.attempt(store.RECORD):
        run = Run(path)
    if found.wrong:
        return found
    places, rows, gone = run.places(unreadable), list[Row](), Counter[tuple[str, ...]]()
    found.wrong.extend(map(str, unreadable))
    for place in places:
        with found.attempt():
            record = run.check(place)
            rows.append(record.row)
            gone.update([record.dropped] if record.dropped else [])
            for name in record.dropped:
                if files.there(left := run.folder(place) / name):
                    found.notes.append(f"{left} is left of what --keep has dropped: `lottery run` removes it")
    found.sound.append(f"{len(rows)} of {len(places)} levels")
    if code := run.info.get("code", {}):
        with found.attempt(f"{len(code)} files of {store.CODE}"):
            for name in code:
                run.source(name)
    if files.there(timings.path_of(run)):
        with found.attempt(timings.FILE):
            timings.read(run)
    with found.attempt(store.SPEC):
        _check_spec(path / store.SPEC, run.spec)
    for names, count in gone.items():
        found.notes.append(f"{number_of(count, 'level')} are without {', '.join(names)}, dropped by --keep")
    asked = list(wanted(run.spec))
    missing = sum(not run.has(place) for place in asked)
    if len(rows) == len(places) and not unreadable:
        with found.attempt(store.TABLE):
            if (missing or store.worked_on(path)) and _goes_on(path / store.TABLE, rows):
                found.notes.append(f"{store.TABLE} is brought into order when the run ends, or goes on")
            else:
                _check_derived(path / store.TABLE, to_csv(rows))
    if missing:
        found.notes.append(f"{missing} of {len(asked)} levels are not there yet: run again to continue")
    known = {place.folder for place in places}
    for place in run.places([], files.PARTIAL):  # what is unreadable is known by now
        known.add(f"{place.folder}{files.PARTIAL}")
        if run.has(place):
            found.notes.append(f"{run.partial(place)} is left of a level that is finished: `lottery run` removes it")
            continue
        with found.attempt():
            iteration = checkpoints.reached(run, place)
            found.notes.append(
                f"{place}: kept at iteration {iteration:,} of its training: run again to go on from there"
            )
    for folder in sorted(path.glob("*/replicate-*/*")):
        if (name := folder.relative_to(path).as_posix()) not in known:
            found.notes.append(f"{name} is no level of this run by its name: it is not counted")
    return found


def _check_spec(path: Path, spec: Spec) -> None:
    """Settings that came after the version that wrote it are at their defaults, in text too."""
    with suppress(LotteryError, ValueError):
        text = files.read(path).decode()
        if Spec.from_toml(text) == spec and tomli_w.dumps(tomllib.loads(text)) == text:
            return
    _check_derived(path, spec.to_toml())


def _goes_on(path: Path, rows: Sequence[Row]) -> bool:
    """Whether a levels.csv is what rows that were added as levels were finished make of it: in any order, without the
    last ones, or with half a line, where a process was killed. Every other line is that of a row."""
    text = files.read(path).decode(errors="replace") if files.there(path) else ""
    whole = to_csv(rows)
    if text == whole:
        return False
    known, said = (_lines(part) for part in (whole, text[: text.rfind("\n") + 1]))
    return bool(said) and said <= known


def _lines(text: str) -> Counter[frozenset[tuple[str, str]]]:
    """The lines of a levels.csv, each by its columns, in whichever order these are."""
    lines = csv.DictReader(io.StringIO(text))
    return Counter(frozenset((str(name), str(value)) for name, value in line.items() if value) for line in lines)


def _check_derived(path: Path, text: str) -> None:
    if not files.there(path):
        raise LotteryError(f"{path} is missing: `lottery run` writes it anew from the others")
    if files.read(path) != text.encode():
        raise LotteryError(f"{path} is not what {store.RECORD} and the levels say: {files.remedy(path)}")
