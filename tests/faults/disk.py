"""Ways to spoil a run directory, or the writing of one. Each is carried out on real files, and undone."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lottery.errors import LotteryError
from lottery.runs import files, store
from lottery.runs.verify import verify


class Killed(BaseException):
    """No handler of errors runs, as none does after kill -9."""


FAULTS: dict[str, Callable[[], BaseException]] = {
    "no space": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "disk error": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "killed": Killed,
}


class Disk:
    """Counts what the store asks of the disk, and fails at one of these moments; a write then leaves half."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int = -1, fault: str = "killed"):
        self.at, self.fault = at, fault
        self.moments: list[str] = []
        for module, names in ((os, ("fsync", "rename", "replace")), (tempfile, ("mkstemp", "mkdtemp"))):
            counted = {name: self._counted(name, getattr(module, name)) for name in names}
            patch.setattr(files, module.__name__, SimpleNamespace(**vars(module) | counted))
        patch.setattr(files, "open", self._open, raising=False)

    def _moment(self, name: str) -> bool:
        self.moments.append(name)
        return len(self.moments) - 1 == self.at

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self._moment(name):
                raise FAULTS[self.fault]()
            return real(*arguments, **named)

        return call

    @contextlib.contextmanager
    def _open(self, path: Any, mode: str, closefd: bool = True) -> Iterator[Any]:
        with open(path, mode, closefd=closefd) as file:
            yield SimpleNamespace(read=file.read, write=self._half(file), flush=file.flush, fileno=file.fileno)

    def _half(self, file: Any) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            if self._moment("write"):
                file.write(data[: len(data) // 2])
                file.flush()
                raise FAULTS[self.fault]()
            file.write(data)

        return write


def strike(write: Callable[[], object], at: int, fault: str) -> BaseException:
    """Carries it out on a disk that fails at that moment, and returns what it raised: it must raise that."""
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, at, fault)
        with pytest.raises((OSError, Killed)) as caught:
            write()
    return caught.value


def state(path: Path) -> dict[str, Any]:
    """Every number that can be read of a run."""
    run = store.Run(path)
    found: dict[str, Any] = {"spec": run.spec, "info": run.info, "rows": run.rows()}
    for place in run.places():
        saved = run.read(place)
        arrays = {**saved.start, **{f"mask:{n}": m for n, m in saved.masks.items()}}
        for kind, named in (("ticket", arrays), ("trained", saved.trained), ("history", saved.history)):
            found |= {f"{place} {kind} {name}": array.tobytes() for name, array in named.items()}
    return found


def outcome(path: Path, good: dict[str, Any], name: str) -> str:
    """ "refused" or "the same" numbers; a wrong number or another error than LotteryError fails, and so does a `verify`
    that doesn't name the file."""
    wrong = verify(path).wrong
    assert any(name in line for line in wrong), (name, wrong)
    assert not any("delete" in line or "remove" in line for line in wrong)
    found, error = None, ""
    try:
        found = state(path)
    except LotteryError as refused:
        error = str(refused)
    assert found == good or name in error
    return "refused" if error else "the same"


def flips(path: Path, good: dict[str, Any], run: Path, bits: list[int]) -> dict[str, int]:
    """Flips each of these bits of a file, alone, and counts the outcomes."""
    data, counts = path.read_bytes(), {"refused": 0, "the same": 0}
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        counts[outcome(run, good, path.name)] += 1
    path.write_bytes(data)
    return counts


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A file away from its place, where something else can be put; afterwards it is back."""
    kept = path.parent.parent / f".aside-{path.name}"
    os.rename(path, kept)
    try:
        yield kept
    finally:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        os.rename(kept, path)


def folder(path: Path, kept: Path) -> None:
    path.mkdir()
    (path / "x").write_bytes(b"x")


INSTEAD: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda path, kept: None,
    "empty": lambda path, kept: path.write_bytes(b""),
    "a byte": lambda path, kept: path.write_bytes(kept.read_bytes()[:1]),
    "half": lambda path, kept: path.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2]),
    "all but a byte": lambda path, kept: path.write_bytes(kept.read_bytes()[:-1]),
    "a byte more": lambda path, kept: path.write_bytes(kept.read_bytes() + b"\n"),
    "twice": lambda path, kept: path.write_bytes(kept.read_bytes() * 2),
    "zeros": lambda path, kept: path.write_bytes(bytes(kept.stat().st_size)),
    "null": lambda path, kept: path.write_bytes(b"null"),
    "a list": lambda path, kept: path.write_bytes(b"[]"),
    "deep": lambda path, kept: path.write_bytes(b"[" * 100_000),
    "sealed nothing": lambda path, kept: path.write_bytes(files.seal({"a": 1})),
    "not text": lambda path, kept: path.write_bytes(b"\xff\xfe\x00"),
    "a folder": folder,
    "a pipe": lambda path, kept: os.mkfifo(path),
    "a device": lambda path, kept: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path, kept: path.symlink_to("nowhere"),
    "a link to itself": lambda path, kept: path.symlink_to(path.name),
}
"""What may be there instead of a file."""
