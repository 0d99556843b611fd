"""What a data set is: its images as published, scaled, and split.

Array axes: n images, c channels, h rows, w columns. An image's shape is (h, w) where it is grey and (c, h, w) where it
has colours; its features are its pixels in that order, h · w or c · h · w of them.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lottery.errors import LotteryError, known


@dataclass(frozen=True)
class Images:
    """One part of a data set, ready to train on."""

    images: np.ndarray
    """float32 [n, features], C-contiguous, scaled; features in the order of the data set's shape."""
    labels: np.ndarray
    """int64 [n], in [0, classes)."""


@dataclass(frozen=True, eq=False)  # by identity: engines keep what they made of one
class Splits:
    """What training, early stopping and the final score read; they share no image."""

    train: Images
    validation: Images
    """May have no images."""
    test: Images
    black: np.ndarray = field(default_factory=lambda: np.zeros((), np.float32), kw_only=True)
    """What a black image (of zeros alone) is under the same scaling, which crops are padded with: float32 [features],
    or one number for all features, as 0 where nothing was scaled."""


@dataclass(frozen=True)
class Raw:
    """A data set as published: decoded, not scaled, not split."""

    dataset: "Dataset"
    train_images: np.ndarray
    """[n, *shape], of the data set's dtype: uint8 as a rule."""
    train_labels: np.ndarray
    """Whole numbers [n]."""
    test_images: np.ndarray
    """As the training images."""
    test_labels: np.ndarray
    """As the training labels."""
    sha256: dict[str, str]
    """What a run is bound to. Of IDX files: name without .gz -> SHA-256 of the uncompressed bytes. Of all others: what
    an array holds -> SHA-256 of its bytes, which are the same from whatever archive."""


def bind(dataset: "Dataset", *arrays: np.ndarray) -> Raw:
    """The data set of those training images, training labels, test images and test labels, bound to the arrays'
    checksums: `Raw` says what each must be."""
    names = ("train images", "train labels", "test images", "test labels")
    contiguous = [np.ascontiguousarray(array) for array in arrays]
    sha256 = {name: hashlib.sha256(array.data).hexdigest() for name, array in zip(names, contiguous, strict=True)}
    train_images, train_labels, test_images, test_labels = contiguous
    return Raw(dataset, train_images, train_labels, test_images, test_labels, sha256)


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is read."""

    name: str
    read: "Callable[[Dataset, Path | None], Raw]"
    """From this row and the user's data folder to the data; raises LotteryError."""
    mean: float | tuple[float, ...]
    """Mean of the training pixels in [0, 1]; of images with colours one for each channel."""
    std: float | tuple[float, ...]
    """Their standard deviation, likewise."""
    sha256: Mapping[str, str]
    """File -> SHA-256. A name without .gz has that of the uncompressed bytes, which outlive recompression; a name
    with .gz that of the archive, where no other is known."""
    mirrors: tuple[str, ...] = ()
    """Addresses of folders with the archives, tried in turn."""
    train: int = 60_000
    """Training images."""
    test: int = 10_000
    """Test images."""
    shape: tuple[int, ...] = (28, 28)
    """Of one image: (h, w) if it is grey, (c, h, w) if it has colours."""
    classes: int = 10
    dtype: str = "uint8"
    """Of its images; of one's own also float32."""


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
            f"data.validation = {validation}: {raw.dataset.name} has {count} training images, "
            f"hold out 0 to {count - 1} of them"
        )

    features = math.prod(raw.train_images.shape[1:])

    def scale(images: np.ndarray) -> np.ndarray:
        return SCALINGS[scaling](images.reshape(len(images), features), raw.dataset)

    def part(images: np.ndarray, labels: np.ndarray) -> Images:
        return Images(scale(images), labels.astype(np.int64))

    order = rng.permutation(count)
    held, kept = np.sort(order[:validation]), np.sort(order[validation:])
    return Splits(
        train=part(raw.train_images[kept], raw.train_labels[kept]),
        validation=part(raw.train_images[held], raw.train_labels[held]),
        test=part(raw.test_images, raw.test_labels),
        black=scale(np.zeros((1, features), np.uint8))[0],
    )


def standardize(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(x / 255 - mean) / std in float32, from uint8 [n, features] to float32 of that shape; each channel by its own
    mean and standard deviation.

    Three correctly rounded operations in this order and never fused, so every machine gets the same bits, and a
    pixel's value and channel alone decide its image: all zeros of a channel map to one constant.
    """
    scaled: np.ndarray = np.divide(images, 255, dtype=np.float32)
    for operation, of_channels in ((np.subtract, dataset.mean), (np.divide, dataset.std)):
        of_features = np.repeat(np.asarray(of_channels, np.float32), images.shape[1] // np.size(of_channels))
        operation(scaled, of_features, out=scaled)
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
