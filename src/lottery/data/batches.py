"""Which images iteration k sees."""

import math
from collections.abc import Iterator

import numpy as np

from lottery.errors import LotteryError
from lottery.seeds import Key, stream


def batches(
    order: Key, examples: int, batch_size: int, drop_last: bool, iterations: int, first: int = 0
) -> Iterator[np.ndarray]:
    """The images of the iterations after the `first` up to number `iterations`: int64 indices [batch_size], or fewer at
    the end of an epoch.

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
    for iteration in range(first, iterations):
        epoch, batch = divmod(iteration, per_epoch)
        if batch == 0 or iteration == first:
            permutation = stream(*order, epoch).permutation(examples)
        yield permutation[batch * batch_size : (batch + 1) * batch_size]
