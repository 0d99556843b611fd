"""A chain of a run trained on a machine that has none of the run's files: what it needs goes there, its levels come
back, with the bytes that they have there."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lottery import engines
from lottery.data import Raw
from lottery.errors import LotteryError
from lottery.runs import files, machine, runners, store
from lottery.runs.replicate import Progress, train_branch
from lottery.runs.rows import Place
from lottery.runs.store import Run

Word = tuple[Progress, dict[str, bytes]]
"""An event, and the files of the level if it is finished."""


@dataclass(frozen=True)
class Bundle:
    """What a chain needs of its run."""

    files: dict[str, bytes]
    """Path in the run's folder -> bytes: its settings, its code, and the finished levels that the chain follows."""
    versions: dict[str, str]
    """Of the machine that has the run."""
    instructions: str
    """Of the processor that trained the last of these levels; "" where there is none, or nothing says it."""


def pack(run: Run, place: Place) -> Bundle:
    """What the chain of `place` needs, as it is on disk now."""
    parts = {store.RECORD: files.read(run.path / store.RECORD)}
    parts |= {f"{store.CODE}/{name}": run.source(name) for name in run.info.get("code", {})}
    trunk = Place(run.spec.start, place.replicate, 0)
    instructions = ""
    for chain in dict.fromkeys([trunk, replace(place, level=0)]):
        for level in range(run.spec.levels + 1):
            if run.has(there := replace(chain, level=level)):
                made = read(run, there)
                parts |= {f"{there.folder}/{name}": data for name, data in made.items()}
                instructions = run.instructions(there) or instructions
    return Bundle(parts, machine.versions(), instructions)


def read(run: Run, place: Place) -> dict[str, bytes]:
    """The files of a finished level by name."""
    folder = run.folder(place)
    return {name: files.read(folder / name) for name in files.names(folder)}


def take(run: Run, heard: Callable[[Progress], None], word: Word) -> bool:
    """Writes the level that comes with an event, if one does, and reads and verifies it; then the event is heard.

    Returns whether there was one.
    """
    event, made = word
    if made and not run.has(event.place):
        files.write_folder(run.folder(event.place), made)
        try:
            run.read(event.place)
        except LotteryError:
            shutil.rmtree(run.folder(event.place))  # it can be made again
            raise
        run.partial(event.place).unlink(missing_ok=True)  # what was left of it here
    heard(event)
    return bool(made)


def train(
    name: str, place: Place, count: int, raw: Raw, engine: str, device: str, bundle: Bundle, emit: runners.Emit
) -> None:
    """`train_branch` where the run is not, in a folder that is removed afterwards.

    Args:
        name: of the run's folder.
        place: where the chain goes on.
        count: the last level.
        raw: the images.
        engine: name of a chosen engine.
        device: cpu or cuda.
        bundle: what `pack` made.
        emit: called with each `Word`.

    Raises:
        Refused: where the replicate could not end in the bits with which it was begun, or there is no such device.
        LotteryError: as `train_branch`.
    """
    check(bundle, place, device)
    with TemporaryDirectory(prefix="lottery-") as folder:
        path = Path(folder) / name
        for inside, data in bundle.files.items():
            (path / inside).parent.mkdir(parents=True, exist_ok=True)
            (path / inside).write_bytes(data)
        run = Run(path)

        def send(event: Progress) -> None:
            emit((event, read(run, event.place) if event.row else {}))

        train_branch(path, place, count, raw, engine, device, send)


def check(bundle: Bundle, place: Place, device: str) -> None:
    """Raises Refused where this machine cannot go on with that chain."""
    here: dict[str, Any] = machine.versions()
    for library, wanted in bundle.versions.items():
        if here[library] != wanted:
            raise runners.Refused(f"it has {library} {here[library]}, and the machine that has the run {wanted}")
    if bundle.instructions not in ("", found := machine.instructions()):
        begun = f"replicate {place.replicate} was begun on {bundle.instructions}, whose last bits differ"
        raise runners.Refused(f"its processor is {found}, and {begun}")
    try:
        engines.resolve_device(device)
    except LotteryError as error:
        raise runners.Refused(str(error)) from None
