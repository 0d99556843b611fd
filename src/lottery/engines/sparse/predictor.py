"""Prediction with what survives of a stack of linear layers: one CPU core, and a cost that follows the density.

Units without a path to an output are left out, the weights of the others laid out once in SELL slices: see `sell`.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from lottery.engines.sparse.doors import JIT, alone
from lottery.engines.sparse.sell import build_slices, predict
from lottery.errors import LotteryError, shown
from lottery.masks import Masks, Weights
from lottery.models import Network

FLOAT32 = np.dtype(np.float32)


class Predictor:
    """Computes a stack of linear layers, with ReLU between them, from its kept weights alone.

    It computes the function of the masked module to float32's rounding, where all numbers are finite: NaN and infinity
    reach only the units that they are connected to. An example's logits are the same to the bit alone and in any batch.
    It runs on the thread that calls it. Its weights are copies, and working memory belongs to the call: threads may
    call one predictor at once.

    Batches are computed 16 examples at a time. At densities near 1, PyTorch's dense layers are faster.
    """

    def __init__(self, network: Network, weights: Weights, masks: Masks) -> None:
        """Lays out the weights. The kernel is compiled the first time, which takes seconds, and kept on disk.

        Args:
            network: a stack of linear layers.
            weights: name -> float32 array, of every layer's weight [out, in] and bias [out]. What is pruned is ignored.
            masks: name -> bool array, True = kept, of every layer's weight.

        Raises:
            LotteryError: for any other network, and for arrays that are missing or of another shape or kind.
        """
        if not network.linear:
            raise LotteryError("Predictor is for stacks of linear layers: for other networks, use the shrunk module")
        layers, tensors = network.layers, network.tensors
        self._slices = build_slices(
            [_array("weights", weights, layer.weight, tensors[layer.weight].shape) for layer in layers],
            [_array("masks", masks, layer.weight, tensors[layer.weight].shape) for layer in layers],
            [_array("weights", weights, layer.bias, tensors[layer.bias].shape) for layer in layers],
        )
        self._features, self._outputs = network.sizes[:1], network.sizes[-1]
        self._inputs = network.inputs
        _compile()

    @property
    def nbytes(self) -> int:
        """Of the laid-out weights, biases and indices."""
        return sum(array.nbytes for array in self._slices if isinstance(array, np.ndarray))

    def __call__(self, examples: Any) -> np.ndarray:
        """Computes the logits, float32 [n, classes], of examples [n, ...].

        Args:
            examples: array of floats or integers, or tensor of PyTorch, scaled as the network was trained on. All axes
                but the first are flattened; float32 [n, features], contiguous and writable, is taken as it is.

        Raises:
            LotteryError: for other types, and for another number of features.
        """
        x = examples
        if not (
            type(x) is np.ndarray and x.dtype == FLOAT32 and x.shape[1:] == self._features and x.flags.carray
        ):  # the kernel is compiled for one type alone
            x = self._rows(examples)
        logits = np.empty((len(x), self._outputs), np.float32)
        predict(*self._slices, x, logits)
        return logits

    def _rows(self, examples: Any) -> np.ndarray:
        """Examples as float32 [n, features], contiguous and writable."""
        try:
            x = examples.numpy(force=True) if hasattr(examples, "numpy") else np.asarray(examples)
        except (TypeError, ValueError) as error:  # a tensor of bfloat16, lists of different lengths
            raise LotteryError(f"examples: must be an array of floats or integers ({error})") from error
        if x.dtype.kind not in "fiub":
            raise LotteryError(f"examples have dtype {x.dtype}: must be floats or integers")
        (features,) = self._features
        if x.ndim < 2 or prod(x.shape[1:]) != features:
            shape = ", ".join(["n", *map(str, self._inputs)])
            raise LotteryError(f"examples have shape {x.shape}: must be [{shape}], or [n, {features}]")
        x = np.asarray(x, np.float32).reshape(len(x), features)
        return x if x.flags.carray else x.copy()


def _array(argument: str, arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of that name. Raises LotteryError unless it has that shape, and floats or, of masks, bool."""
    if name not in arrays:
        raise LotteryError(f"{argument} has no {shown(name)}: it must have every layer's")
    array = np.asarray(arrays[name])
    kind, words = ("b", "bool, True = kept,") if argument == "masks" else ("f", "floats")
    if array.shape != shape or array.dtype.kind != kind:
        has = f"{array.dtype} of shape {array.shape}"
        raise LotteryError(f"{argument}[{name!r}] is {has}: must be {words} of shape {shape}")
    return array


@lru_cache(maxsize=1)
def _compile() -> None:
    """Compiles the kernel, or loads it: what one process compiles, those beside it wait for and load."""
    if JIT:
        one = np.ones((1, 1), np.float32)
        with alone(predict):
            predict(*build_slices([one], [one > 0], [one[0]]), one[:0], one[:0])
