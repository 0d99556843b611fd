"""An order in which images that are alike are neighbours: evaluation takes neighbours together."""

import numpy as np

from lottery.seeds import stream

GROUP = 32
"""Images evaluated together in mode SPARSE: lanes of its vectors, _x32."""


def alike(having: np.ndarray) -> np.ndarray:
    """An order in which images that are alike are neighbours, so that a group of them has few pixels in all, and a pair
    fewer. It changes how fast evaluation is, and nothing else.

    Halves the images along the direction in which they vary most, again and again; in few dimensions, because those
    directions need not be exact.

    Args:
        having: bool [n, features], whether an image has a pixel.

    Returns:
        Indices of the images, int64 [n].
    """
    rng = stream("alike")
    signs = 2 * rng.integers(0, 2, (having.shape[1], 64)) - 1
    points = (having.astype(np.float32) @ signs.astype(np.float32)).astype(float)  # whole numbers: exact

    def halve(index: np.ndarray) -> list[np.ndarray]:
        if len(index) <= GROUP:
            return [index]
        centred = points[index] - points[index].mean(axis=0)
        direction = np.ones(points.shape[1])
        for _ in range(4):
            direction = centred.T @ (centred @ direction)
            direction /= np.linalg.norm(direction) or 1
        place = np.round(centred @ direction, 6)  # whatever the last bits: they depend on NumPy's threads
        ordered = index[np.argsort(place, kind="stable")]
        middle = -(-len(index) // 2 // GROUP) * GROUP or GROUP
        return halve(ordered[:middle]) + halve(ordered[middle:])

    return _paired(having, np.concatenate(halve(np.arange(len(having))))) if len(having) else np.zeros(0, np.int64)


def _paired(having: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The order with those two neighbours in each whole group that share most pixels, then the two of the rest."""
    groups = order[: len(order) // GROUP * GROUP].reshape(-1, GROUP)
    of_group = having[groups].astype(np.float32)
    shared = of_group @ of_group.transpose(0, 2, 1)
    each, pairs = np.arange(len(groups)), []
    shared[:, np.arange(GROUP), np.arange(GROUP)] = -1
    for _ in range(GROUP // 2):
        first, second = np.divmod(shared.reshape(len(groups), GROUP * GROUP).argmax(axis=1), GROUP)
        pairs += [groups[each, first], groups[each, second]]
        for taken in (first, second):
            shared[each, taken, :] = shared[each, :, taken] = -1
    return np.concatenate([np.stack(pairs, axis=1).ravel(), order[groups.size :]])
