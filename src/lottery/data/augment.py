"""Random crops and flips: which pixels of each image iteration k shows.

A crop is described by indices into the padded image, drawn by NumPy and the same for every engine and device; a flip
is its columns in reverse. Images of n × c channels × h rows × w columns.
"""

from typing import Any

import numpy as np

from lottery.seeds import Key, stream


def crops(
    order: Key, iteration: int, count: int, height: int, width: int, padding: int, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Where the images of one iteration are cut out of their padded selves, and which of them are mirrored.

    Each image has its own crop, uniform among the (2 · padding + 1)² there are, and with `flip` is mirrored left to
    right with probability 1/2 (He et al. 2016, Section 4.2, with padding 4; so did Frankle et al. 2020). All comes
    from stream (*order, "augment", iteration), so it depends on no iteration before.

    Args:
        order: name of the level's data order.
        iteration: number of the optimizer step, the first being 1.
        count: images.
        height: rows of an image, without padding.
        width: its columns.
        padding: black pixels on each side; with 0 every crop is the whole image.
        flip: whether half of the images are mirrored.

    Returns:
        Rows int64 [count, height] and columns int64 [count, width] of the padded images, for `cut`.
    """
    rng = stream(*order, "augment", iteration)
    top, left = rng.integers(2 * padding + 1, size=(2, count, 1))
    mirrored = rng.integers(2, size=(count, 1)).astype(bool) & flip
    across = np.arange(width)
    return top + np.arange(height), left + np.where(mirrored, across[::-1], across)


def pad(images: np.ndarray, black: np.ndarray, padding: int) -> np.ndarray:
    """[n, c, h, w] with so many black pixels on each side: [n, c, h + 2 · padding, w + 2 · padding], as float32.

    black: as in `Splits`; of each channel the first feature counts. To pad scaled images with black is to pad before
    they are scaled, as torchvision's RandomCrop does.
    """
    n, c, h, w = images.shape
    of_channels = np.broadcast_to(black, (c * h * w,)).reshape(c, -1)[:, :1, None]
    padded = np.empty((n, c, h + 2 * padding, w + 2 * padding), np.float32)
    padded[:] = of_channels
    padded[:, :, padding : padding + h, padding : padding + w] = images
    return padded


def cut(padded: Any, chosen: Any, rows: Any, columns: Any) -> Any:
    """Of image `chosen[i]` of the padded ones those rows and columns: [count, c, h, w].

    One expression for NumPy's arrays and for PyTorch's tensors on any device, of which all arguments are one kind. The
    result is a view with a pixel's channels side by side (PyTorch's channels_last).

    Args:
        padded: as from `pad`.
        chosen: int64 [count], numbers of images.
        rows: int64 [count, h], as from `crops`.
        columns: int64 [count, w], as from `crops`.
    """
    channels_last = padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return channels_last.swapaxes(1, 3).swapaxes(2, 3)
