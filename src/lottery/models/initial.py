"""How weights are first drawn."""

from collections.abc import Callable

import numpy as np

from lottery.errors import LotteryError, known
from lottery.masks import Weights
from lottery.models.layout import Network, Tensor
from lottery.spec import Model


def _glorot_normal(tensor: Tensor, rng: np.random.Generator, std: float) -> np.ndarray:
    """Gaussian with variance 2 / (fan_in + fan_out): Glorot & Bengio 2010, equation 12."""
    draws: np.ndarray = rng.standard_normal(tensor.shape) * np.sqrt(2 / (tensor.fan_in + tensor.fan_out))
    return draws.astype(np.float32)


def _gaussian(tensor: Tensor, rng: np.random.Generator, std: float) -> np.ndarray:
    """Gaussian of that standard deviation in every layer: Frankle & Carbin 2019, Appendix G.5."""
    draws: np.ndarray = rng.standard_normal(tensor.shape) * std
    return draws.astype(np.float32)


INITS: dict[str, Callable[[Tensor, np.random.Generator, float], np.ndarray]] = {
    "glorot_normal": _glorot_normal,
    "gaussian": _gaussian,
}
"""Name -> draw of one weight tensor, float32, given `model.std`. Biases start at zero."""


def initial_weights(network: Network, init: str, rng: np.random.Generator, std: float = Model.std) -> Weights:
    """One draw of every tensor.

    Args:
        network: whose tensors are drawn, in its order.
        init: name of one of INITS.
        rng: the generator to draw from.
        std: standard deviation of the weights under gaussian; the others have their own.

    Returns:
        Name -> float32 array; what is not prunable is zero.

    Raises:
        LotteryError: for an unknown init.
    """
    if init not in INITS:
        raise LotteryError(known("model.init", init, INITS))
    return {
        name: INITS[init](tensor, rng, std) if tensor.prunable else np.zeros(tensor.shape, np.float32)
        for name, tensor in network.tensors.items()
    }
