"""What a data set is: its images as published, scaled, and split.

Array axes: n images, h rows, w columns; features = h · w.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lottery.errors import LotteryError, known


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

    dataset: "Dataset"
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

    def part(images: np.ndarray, labels: np.ndarray) -> Images:
        scaled = SCALINGS[scaling](images.reshape(len(images), math.prod(images.shape[1:])), raw.dataset)
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
