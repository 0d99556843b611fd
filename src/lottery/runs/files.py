"""The files of a run directory: whole or absent, on disk when the writer returns, checked when they are read.

What cannot be read is told apart from what is damaged, and no remedy destroys what may be good.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from lottery.errors import LotteryError

TEMPORARY = ".unfinished-"
"""How the name of what is being written begins: a process that is killed leaves it, and the next one removes it."""

PARTIAL = ".partial"
"""How the name of a level ends while it is being trained."""

CHECKSUM = b',\n "checksum": "'
END = b'"\n}'


def read(path: Path) -> bytes:
    """The bytes of a regular file. A pipe or a device is refused: reading it might block, or never end.

    Raises:
        LotteryError: naming the file, for one that is missing, cannot be read, or is no file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise damaged(path, "not a regular file")
            with open(handle, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)
    except OSError as error:
        raise unreadable(path, error) from error


def names(folder: Path) -> list[str]:
    """What is in a folder, in order; nothing if it is not there. Raises LotteryError for one that cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except NotADirectoryError:
        raise LotteryError(f"{folder} is no folder: move it away") from None
    except FileNotFoundError:
        if there(folder):
            raise LotteryError(f"cannot read {folder}: what it links to is not there; bring that back") from None
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def there(path: Path) -> bool:
    """Whether anything has that name. Where that cannot be found out it may, and whoever reads it is told."""
    try:
        os.lstat(path)
    except ValueError:  # a name that no file can have
        return False
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return True


def unreadable(path: Path, error: OSError) -> LotteryError:
    """For what the system does not give: missing, or something else than damage."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return damaged(path, error.strerror or str(error))
    return LotteryError(
        f"cannot read {path}: {error.strerror or error}; that says nothing against what is in it: give yourself "
        "permission to read it, or see to the disk, and try again"
    )


def damaged(path: Path, how: str) -> LotteryError:
    """For what is not as it was written, with what to do about it."""
    return LotteryError(f"{path} is damaged: {how}; {remedy(path)}")


def remedy(path: Path) -> str:
    """What to do about a file that is not what it should be. Nothing is to be deleted: others may know better."""
    if path.name == "run.json":
        return f"restore the file from a copy, or move {path.parent} out of the way"
    if path.name == "inference.json":
        return "move this file away, and `lottery bench` measures anew"
    if path.name in ("spec.toml", "levels.csv"):
        return "move this file away, and `lottery run` writes it anew from the others"
    if path.name == "sweep.toml" or path.parent.name == "specs":
        return "move this file away, and `lottery sweep` writes it anew when it is asked for the same"
    if path.name.endswith(PARTIAL):
        return "move this file away, and run again: the level is trained from its beginning"
    return f"move the folder {path.parent} out of the run directory, and run again to make it anew"


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Whatever a parser raises about a file's bytes is said in that file's name."""
    try:
        yield
    except LotteryError as error:
        raise damaged(path, str(error)) from error
    except Exception as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def seal(value: Mapping[str, Any]) -> bytes:
    """JSON of a record that is not empty, with the SHA-256 of all its bytes before as the last entry, `checksum`."""
    body = json.dumps(value, indent=1).encode().removesuffix(b"\n}")
    return body + CHECKSUM + hashlib.sha256(body).hexdigest().encode() + END


def unseal(path: Path) -> dict[str, Any]:
    """The record of a sealed file, its checksum verified. Raises LotteryError, naming the file, for any other bytes."""
    data = read(path)
    body, separator, end = data.rpartition(CHECKSUM)
    if not separator:
        raise damaged(path, "it has no checksum")
    if end != (found := hashlib.sha256(body).hexdigest()).encode() + END:
        raise damaged(path, f"its SHA-256 is {found}, and it says another")
    with parsing(path):
        value = json.loads(body + b"\n}")
    if not isinstance(value, dict):
        raise damaged(path, "not a JSON object")
    return value


def digest(arrays: Mapping[str, np.ndarray], *more: object) -> str:
    """The SHA-256 of arrays, with their names, types and shapes, and of what else is given, as text."""
    found = hashlib.sha256(repr(more).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found.update(repr((name, array.dtype.str, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def check_target(path: Path) -> None:
    """Raises LotteryError where no file can be written: to a folder that is not there, or in the place of a folder, a
    device or a pipe."""
    if not path.parent.is_dir():
        raise LotteryError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise LotteryError(f"{path} is a folder: name the file in it")
    if path.exists() and not path.is_file():
        raise LotteryError(f"{path} is no regular file: name another one")


def write(path: Path, data: bytes, through: Path | None = None) -> None:
    """All of it or nothing, on disk when this returns; leaves a file that already says so alone. Until it is whole it
    is in the folder `through`, of the same disk: its own if None."""
    with suppress(LotteryError):
        if there(path) and read(path) == data:
            return
    with _named(path):
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=through or path.parent)
        try:
            os.close(handle)
            _fill(Path(temporary), data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)  # a full disk should not be kept full
            raise
        _sync(path.parent)


def append(path: Path, data: bytes) -> None:
    """Adds to the end of a file that is there, for what can be made anew: a process that is killed may leave half of
    it. Raises FileNotFoundError where there is none."""
    with _named(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        with open(handle, "ab") as file:
            file.write(data)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """A new folder with these files, all or nothing, on disk when this returns. It must not be there."""
    with _named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        try:
            temporary.chmod(0o755)
            for name, data in files.items():
                _fill(temporary / name, data)
            _sync(temporary)
            os.rename(temporary, folder)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(folder.parent)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the system in the name of what was to be written: a full disk names no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _fill(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Puts a folder's names on disk, where a system can: Windows opens no folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
