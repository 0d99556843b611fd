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


def _kaiming_normal(tensor: Tensor, rng: np.random.Generator, std: float) -> np.ndarray:
    """Gaussian with variance 2 / fan_in: He et al. 2015, equation 10."""
    draws: np.ndarray = rng.standard_normal(tensor.shape) * np.sqrt(2 / tensor.fan_in)
    return draws.astype(np.float32)


INITS: dict[str, Callable[[Tensor, np.random.Generator, float], np.ndarray]] = {
    "glorot_normal": _glorot_normal,
    "kaiming_normal": _kaiming_normal,
    "gaussian": _gaussian,
}
"""Name -> draw of one weight tensor, float32, given `model.std`. Biases start at zero, norms at one."""


def initial_weights(network: Network, init: str, rng: np.random.Generator, std: float = Model.std) -> Weights:
    """One draw of every tensor.

    Args:
        network: whose tensors are drawn, in its order.
        init: name of one of INITS; of no effect on a network that draws its own tensors.
        rng: the generator to draw from.
        std: standard deviation of the weights under gaussian; the others have their own.

    Returns:
        Name -> array of the tensor's type, parameters and buffers; what is not drawn has the tensor's `fill`.

    Raises:
        LotteryError: for an unknown init.
    """
    if init not in INITS:
        raise LotteryError(known("model.init", init, INITS))
    if network.draw:
        return network.draw(rng)
    return {
        name: INITS[init](tensor, rng, std) if tensor.fan_in else np.full(tensor.shape, tensor.fill, tensor.dtype)
        for name, tensor in network.tensors.items()
    }
