"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from the archives that their author publishes: binary ones, where a record
is a label (CIFAR-100: a coarse and a fine one) and an image's bytes, or those for Python, where batches are pickled.

Both kinds hold the same images in the same order, so a run is bound to the arrays. The publisher gives the archives'
MD5; `Dataset` has the SHA-256 of the archives that have it. An archive with another is not looked into, nothing is
ever unpacked to disk, and pickles are read by a reader that calls nothing.
"""

import io
import math
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lottery.data.fetch import find, verify
from lottery.data.images import Dataset, Raw, bind
from lottery.errors import LotteryError
from lottery.files import gunzip


@dataclass(frozen=True)
class Archive:
    """What is in an archive."""

    train: tuple[str, ...]
    """Members with the training images, in order, the same number in each."""
    test: str
    labels: int | str
    """Their name in a pickled batch; in a binary one how many bytes precede each image, the last being its label."""


CIFAR10 = {
    "cifar-10-binary.tar.gz": Archive(
        tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)), "cifar-10-batches-bin/test_batch.bin", 1
    ),
    "cifar-10-python.tar.gz": Archive(
        tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)), "cifar-10-batches-py/test_batch", "labels"
    ),
}
"""Name of each archive -> what is in it, the preferred one first."""

CIFAR100 = {
    "cifar-100-binary.tar.gz": Archive(("cifar-100-binary/train.bin",), "cifar-100-binary/test.bin", 2),
    "cifar-100-python.tar.gz": Archive(("cifar-100-python/train",), "cifar-100-python/test", "fine_labels"),
}
"""Likewise, with the fine labels, of which there are 100."""

NOTES = 200
"""Most bytes that an archive spends on an image beside its pixels: label, file name, and what pickle adds."""

MEMBERS = 1 << 20
"""Most bytes of what else is in an archive: names of classes, a page of text, tar's own."""


def read_cifar10(dataset: Dataset, data_dir: Path | None) -> Raw:
    """CIFAR-10 from either archive; see `lottery.data.load`."""
    return _read(dataset, data_dir, CIFAR10)


def read_cifar100(dataset: Dataset, data_dir: Path | None) -> Raw:
    """CIFAR-100 from either archive; see `lottery.data.load`."""
    return _read(dataset, data_dir, CIFAR100)


def _read(dataset: Dataset, data_dir: Path | None, archives: dict[str, Archive]) -> Raw:
    limit = (dataset.train + dataset.test) * (math.prod(dataset.shape) + NOTES) + MEMBERS
    decode = partial(_decode, dataset=dataset, archives=archives, limit=limit)
    return bind(dataset, *find(dataset, tuple(archives), data_dir, decode, limit))


def _decode(stored: bytes, name: str, dataset: Dataset, archives: dict[str, Archive], limit: int) -> list[np.ndarray]:
    """Training images, training labels, test images, test labels. Raises LotteryError that says what is wrong, but not
    with which file."""
    verify(stored, dataset.sha256[name])
    archive = archives[name]
    try:
        unpacked = gunzip(stored, limit)
        if len(unpacked) > limit:
            raise LotteryError(f"expected at most {limit:,} bytes in the archive, found more")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            members = {member.name: member for member in tar if member.isreg()}
            parts = []
            for file in (*archive.train, archive.test):
                count = dataset.test if file == archive.test else dataset.train // len(archive.train)
                if file not in members:
                    raise LotteryError(f"expected a file {file} in the archive, found none")
                parts.append(_batch(unpacked, members[file], archive.labels, count, dataset))
    except EOFError:
        raise LotteryError(f"expected a gzip file, found one cut short at {len(stored)} bytes") from None
    except tarfile.TarError as error:
        raise LotteryError(f"expected a tar archive, found other bytes ({error})") from None
    except (OSError, zlib.error) as error:
        raise LotteryError(f"expected a gzip file, found other bytes ({error})") from None
    *train, test = parts
    return [*(np.concatenate(arrays) for arrays in zip(*train, strict=True)), *test]


def _batch(
    unpacked: bytes, member: tarfile.TarInfo, labels: int | str, count: int, dataset: Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [count, *shape] and labels [count] of a member; raises LotteryError as `_decode` does."""
    contents = memoryview(unpacked)[member.offset_data : member.offset_data + member.size]
    features = math.prod(dataset.shape)
    if isinstance(labels, str):
        images, of_images = _pickled(contents, labels, member.name)
    else:
        size = count * (labels + features)
        if (len(contents), member.size) != (size, size):
            raise LotteryError(f"{member.name}: expected {size} bytes, found {len(contents)}")
        records = np.frombuffer(contents, np.uint8).reshape(count, labels + features)
        images, of_images = records[:, labels:], records[:, labels - 1]
    if (images.size, of_images.size) != (count * features, count):
        found = f"{images.size} and {of_images.size}"
        expected = f"{count} × {features} pixels and {count} labels"
        raise LotteryError(f"{member.name}: expected {expected}, found {found}")
    if (highest := int(of_images.max(initial=0))) >= dataset.classes:
        raise LotteryError(f"{member.name}: expected labels below {dataset.classes}, found {highest}")
    return images.reshape(count, *dataset.shape), of_images


def _pickled(contents: memoryview, labels: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and labels of a pickled batch as flat uint8 arrays of any length."""
    try:
        batch = _Unpickler(io.BytesIO(contents), encoding="bytes").load()
        pixels = batch[b"data"].state[-1]  # of NumPy: (version, shape, type, whether in Fortran's order, bytes)
        return np.frombuffer(pixels, np.uint8), np.frombuffer(bytes([*batch[labels.encode()]]), np.uint8)
    except Exception as error:  # pickle raises nearly anything for bytes that are none of its own
        reason = str(error) if isinstance(error, LotteryError) else f"{type(error).__name__}: {error}"
        raise LotteryError(f"{name}: expected a pickled batch of images and labels, found other ({reason})") from None


class _Stored:
    """Stands in for NumPy's array and its type: keeps what was pickled, and computes nothing of it."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Numbers, text, lists, dicts and arrays; refuses every other class and function, which could do anything."""

    ALLOWED = (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"))

    def find_class(self, module: str, name: str) -> type[_Stored]:
        if (module, name) not in self.ALLOWED:
            raise LotteryError(f"it asks for {module}.{name}")
        return _Stored
