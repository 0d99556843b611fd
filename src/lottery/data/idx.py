"""IDX, the format of MNIST and of the data sets made in its likeness: magic 0 0 8 ndim, then each dimension as a
big-endian int32, then the values as uint8. Files are found or downloaded by `lottery.data.fetch`.
"""

import math
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from lottery.data.fetch import find, read, verify
from lottery.data.images import Dataset, Raw
from lottery.errors import LotteryError
from lottery.files import gunzip

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"

TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def read_idx(
    path: Path, shape: tuple[int, ...], sha256: Mapping[str, str] | None = None, remedy: str = "replace it"
) -> tuple[np.ndarray, str]:
    """The uint8 array of `shape` in an IDX file, gzipped if its name ends in .gz, and the SHA-256 of its contents.

    sha256: as in Dataset; a file that is in it neither plain nor gzipped is checked by structure alone. The array is
    read-only: it is the file's bytes, not copied. Raises LotteryError, naming the file and ending with `remedy`, for
    anything else in it.
    """
    return read(path, partial(_decode, shape=shape, sha256=sha256 or {}), largest(shape), remedy)


def largest(shape: tuple[int, ...]) -> int:
    """Bytes of the file of such an array, or of an archive that hardly compresses it: nothing longer is looked at."""
    return 4096 + math.prod(shape) * 101 // 100


def _decode(stored: bytes, name: str, shape: tuple[int, ...], sha256: Mapping[str, str]) -> tuple[np.ndarray, str]:
    """See `read_idx`. Raises LotteryError that says what is wrong, but not with which file."""
    contents = stored
    header = np.array([0x800 + len(shape), *shape], ">i4").tobytes()
    size = len(header) + math.prod(shape)
    if name not in sha256 and f"{name}.gz" in sha256:
        raise LotteryError(f"expected {name}.gz: of the plain file no checksum is published")
    if name.endswith(".gz"):
        verify(stored, sha256.get(name))
        try:
            contents = gunzip(stored, size)
        except EOFError:
            raise LotteryError(f"expected a gzip file, found one cut short at {len(stored)} bytes") from None
        except (OSError, zlib.error) as error:
            raise LotteryError(f"expected a gzip file, found other bytes ({error})") from None

    found = contents[: len(header)]
    if len(found) < len(header):
        raise LotteryError(f"expected {size} bytes, found {len(contents)}")
    if found[:4] != header[:4]:
        kind = f"an IDX file of uint8 with {len(shape)} dimensions"
        raise LotteryError(f"expected {kind} (magic {header[:4].hex()}), found magic {found[:4].hex()}")
    if found != header:
        counts = tuple(np.frombuffer(found, ">u4")[1:].tolist())
        raise LotteryError(f"expected an array of shape {shape}, found {counts}")
    if len(contents) > size:  # how many more, an archive tells only when it is unpacked
        raise LotteryError(f"expected {size} bytes, found more")
    if len(contents) < size:
        raise LotteryError(f"expected {size} bytes, found {len(contents)}")
    digest = verify(contents, sha256.get(name.removesuffix(".gz")))
    return np.frombuffer(contents, np.uint8, offset=len(header)).reshape(shape), digest


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
        names = (f"{file}.gz", file)  # the archive first: it always has a checksum
        decode = partial(_decode, shape=shape, sha256=dataset.sha256)
        arrays[file], sha256[file] = find(dataset, names, data_dir, decode, largest(shape))
    for file in (TRAIN_LABELS, TEST_LABELS):  # matters where contents have no published checksum
        if (highest := int(arrays[file].max(initial=0))) >= dataset.classes:
            raise LotteryError(
                f"{dataset.name}: {file}: expected labels below {dataset.classes}, found {highest}: replace it"
            )
    return Raw(dataset, arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS], arrays[TEST_IMAGES], arrays[TEST_LABELS], sha256)
