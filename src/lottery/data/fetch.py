"""Where the files of a data set are: in the user's folders, in the cache, or at a mirror."""

import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lottery.data.images import Dataset
from lottery.errors import LotteryError
from lottery.files import read_bytes

if TYPE_CHECKING:
    from rich.progress import Progress

Decoded = TypeVar("Decoded")

TIMEOUT = (5, 30)
"""Seconds to wait for a mirror's connection, and for its next bytes."""

ROUNDS = 2
"""Times that every mirror is tried: few, as a machine without a network should say so soon."""


def folders(name: str, data_dir: Path | None) -> Iterator[Path]:
    """Where the files of a data set may be, in the order of search; the last is the cache."""
    if data_dir is not None:
        yield data_dir / name
    if environment := os.environ.get("LOTTERY_DATA"):
        yield Path(environment) / name
    import pooch  # 0.1 s, which those who have the files need not wait

    yield Path(pooch.os_cache("lottery")) / name


def find(
    dataset: Dataset,
    files: Sequence[str],
    data_dir: Path | None,
    decode: Callable[[bytes, str], Decoded],
    limit: int,
) -> Decoded:
    """The first of the files that is in one of the folders, decoded; if none is, the first file from a mirror.

    Args:
        dataset: whose files they are.
        files: names of files that hold the same, the preferred one first.
        data_dir: the user's folder of data sets.
        decode: from a file's bytes and name to its contents; raises LotteryError for what was not published.
        limit: bytes of the largest: nothing longer is looked at.

    Raises:
        LotteryError: for a file that is damaged, which is never passed over, and if there is none: see `download`.
    """
    searched = []
    for folder in folders(dataset.name, data_dir):
        for file in files:
            if os.path.exists(folder / file):
                place = f"{dataset.mirrors[0]}{files[0]}"
                remedy = f"replace it with {place}, or delete it to use the next place or mirror"
                return read(folder / file, decode, limit, remedy)
        searched.append(folder)
    return download(dataset, files[0], searched, lambda stored: decode(stored, files[0]), limit)


def read(path: Path, decode: Callable[[bytes, str], Decoded], limit: int, remedy: str) -> Decoded:
    """A file of at most `limit` bytes, decoded as in `find`. Raises LotteryError that names it and says the remedy."""
    try:
        return decode(read_bytes(path, limit), path.name)
    except OSError as error:
        raise LotteryError(f"{path}: cannot be read ({error.strerror}): {remedy}") from None
    except LotteryError as error:
        raise LotteryError(f"{path}: {error}: {remedy}") from None


def download(
    dataset: Dataset, file: str, searched: list[Path], decode: Callable[[bytes], Decoded], limit: int
) -> Decoded:
    """A file from the first mirror that has it intact, decoded; it is kept in the last folder searched, the cache.

    Args:
        dataset: whose mirrors are tried in turn.
        file: name of the file at the mirrors and in the cache.
        searched: folders that do not have it.
        decode: from the file's bytes to its contents; raises LotteryError for bytes that are not what was published.
        limit: bytes after which a mirror is given up.

    Raises:
        LotteryError: if no mirror has it: says what each answered, and where the file may be put by hand.
    """
    import pooch
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    failures: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for attempt in range(ROUNDS):
            time.sleep(attempt)  # a second before the second round, for what passes by itself
            for mirror in dataset.mirrors:
                bar, buffer = _Bar(progress, f"{dataset.name}/{file}"), _Bounded(limit)
                fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT)
                try:
                    fetch(mirror + file, buffer, None)
                    decoded = decode(stored := buffer.getvalue())
                except (OSError, LotteryError) as error:  # what requests raises is an OSError
                    failures[mirror] = _reason(error)
                    bar.close()
                    continue
                _keep(searched[-1] / file, stored)
                return decoded
    places = ", ".join(str(folder) for folder in searched)
    reasons = "; ".join(f"{mirror}: {reason}" for mirror, reason in failures.items())
    raise LotteryError(
        f"{dataset.name}: {file} is not in {places}, and could not be downloaded ({reasons}): "
        f"download {dataset.mirrors[0]}{file} to {searched[-1]}, "
        f"or point --data-dir or $LOTTERY_DATA to a folder that has {dataset.name}/{file}"
    )


class _Bounded(BytesIO):
    """Bytes in memory, so many at most: a mirror may send without end."""

    def __init__(self, limit: int):
        super().__init__()
        self.limit = limit

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.limit:
            raise LotteryError(f"expected at most {self.limit} bytes, found more")
        return super().write(data)


class _Bar:
    """What pooch asks of a progress bar, drawn by rich."""

    total = 0  # pooch sets it; a mirror that doesn't tell leaves it 0

    def __init__(self, progress: "Progress", file: str):
        self.progress, self.task = progress, progress.add_task(file, total=None)

    def update(self, count: int) -> None:
        self.progress.update(self.task, advance=count, total=self.total or None)

    def reset(self) -> None:
        self.progress.reset(self.task)

    def close(self) -> None:
        self.progress.update(self.task, visible=False)


def _reason(error: Exception) -> str:
    """A failed download in a few words: what requests says fills three lines."""
    import requests

    match error:
        case LotteryError():
            return str(error)
        case requests.HTTPError(response=requests.Response(status_code=status)):
            return f"HTTP status {status}"
        case requests.Timeout():
            return "no answer in time"
        case requests.ConnectionError():
            return "no connection"
        case _:
            return f"broken off ({type(error).__name__})"


def _keep(path: Path, stored: bytes) -> None:
    """Write a file that is complete or absent. It is verified and in memory, so a full disk is no reason to stop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            part = Path(scratch, path.name)
            with part.open("wb") as file:
                file.write(stored)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except OSError as error:
        warnings.warn(f"cannot keep {path} ({error.strerror}): it will be downloaded again next time", stacklevel=2)


def verify(data: bytes | memoryview, expected: str | None) -> str:
    """The SHA-256 of the data. Raises LotteryError if another one is expected."""
    digest = hashlib.sha256(data).hexdigest()
    if expected not in (None, digest):
        raise LotteryError(f"expected SHA-256 {expected}, found {digest}")
    return digest
