"""Data of one's own: arrays, or a function that makes them, as a row of DATASETS."""

from pathlib import Path
from typing import Any

import numpy as np

from lottery.data.images import Dataset, Raw, bind
from lottery.errors import LotteryError, own_code, shown

PARTS = ("train images", "train labels", "test images", "test labels")


def own(name: str, value: Any) -> Dataset:
    """The data set that those arrays are, checked.

    Args:
        name: of the data set.
        value: train images, train labels, test images, test labels; or a function without arguments that returns
            them. Images are numbers [n, ...], bytes in [0, 255] or floats, examples of any shape; labels are whole
            numbers [n] in [0, classes).

    Returns:
        Its row. Mean and standard deviation are those of the training images: one for each channel c of examples of
        shape (c, h, w), else one for all; where nothing varies the latter is 1.

    Raises:
        LotteryError: naming the data set and the array, for anything else.
    """
    what = f"data.name = {name!r}"
    if callable(value):
        with own_code(f"{what}: its function fails"):
            value = value()
    if not isinstance(value, tuple | list) or len(value) != len(PARTS):
        remedy = f"give {', '.join(PARTS)}, or a function without arguments that returns these four"
        raise LotteryError(f"{what}: is a {type(value).__name__}: {remedy}")
    train_images, train_labels, test_images, test_labels = (
        (_labels if "labels" in part else _images)(f"{what}: {part}", array)
        for part, array in zip(PARTS, value, strict=True)
    )
    for part, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        if len(images) != len(labels):
            raise LotteryError(f"{what}: has {len(images)} {part} images and {len(labels)} {part} labels")
    shape, classes = train_images.shape[1:], int(train_labels.max()) + 1
    if test_images.shape[1:] != shape or test_images.dtype != train_images.dtype:
        one, other = (f"{images.dtype} of shape {images.shape[1:]}" for images in (train_images, test_images))
        raise LotteryError(f"{what}: a train image is {one}, a test image {other}: they must be alike")
    if classes > len(train_labels):
        count = len(train_labels)
        raise LotteryError(f"{what}: has a train label {classes - 1} and {count} train images: number classes from 0")
    if test_labels.max() >= classes:
        raise LotteryError(f"{what}: has a test label {test_labels.max()}, and train labels up to {classes - 1} alone")

    def read(dataset: Dataset, data_dir: Path | None) -> Raw:
        return bind(dataset, train_images, train_labels, test_images, test_labels)

    return Dataset(
        name,
        read,
        *_moments(train_images),
        sha256={},
        train=len(train_labels),
        test=len(test_labels),
        shape=shape,
        classes=classes,
        dtype=train_images.dtype.name,
    )


def _moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and standard deviations / 255, of each channel; a few images at a time, for float64 takes much memory."""
    planes = images.reshape(len(images), images.shape[1] if images.ndim == 4 else 1, -1)
    parts = [slice(i, i + 1000) for i in range(0, len(planes), 1000)]
    count = len(planes) * planes.shape[2]
    mean = sum(planes[part].sum((0, 2), dtype=np.float64) for part in parts) / count
    squares = sum(np.square(planes[part] - mean[:, None]).sum((0, 2)) for part in parts)
    std = np.sqrt(squares / count)
    return tuple((mean / 255).tolist()), tuple((np.where(std > 0, std, 255) / 255).tolist())


def _array(what: str, value: Any, kinds: str, words: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list, a tensor of a GPU
        raise LotteryError(f"{what} are no array ({error}): give {words}") from None
    if array.dtype.kind not in kinds:
        raise LotteryError(f"{what} are {array.dtype}, such as {shown(array.ravel()[:1].tolist())}: give {words}")
    if array.size == 0:
        raise LotteryError(f"{what} have shape {array.shape}: give at least one")
    return array


def _images(what: str, value: Any) -> np.ndarray:
    """uint8 or float32 [n, ...]."""
    words = "numbers [n, ...], such as uint8 or float32"
    array = _array(what, value, "uif", words)
    if array.ndim < 2:
        raise LotteryError(f"{what} have shape {array.shape}: give {words}")
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if bad := np.count_nonzero(~np.isfinite(array)):
        raise LotteryError(f"{what} have {bad:,} values that are NaN or infinite: mend them, or leave those images out")
    return array


def _labels(what: str, value: Any) -> np.ndarray:
    """int64 [n]."""
    words = "whole numbers [n] from 0 to classes - 1"
    array = _array(what, value, "ui", words)
    if array.ndim != 1:
        raise LotteryError(f"{what} have shape {array.shape}: give {words}")
    if array.min() < 0 or array.max() >= 2**31:
        raise LotteryError(f"{what} go from {array.min()} to {array.max()}: give {words}")
    return array.astype(np.int64)
