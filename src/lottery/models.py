"""Which tensors a network has, which of them are prunable, and how they are first drawn. No torch here.

A layout describes the tensors of a network; `lottery.modules` has the PyTorch module that computes with them, under the
same names (a test compares the two). Engines that don't need PyTorch start without importing it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lottery.errors import LotteryError, known
from lottery.masks import Weights
from lottery.spec import Model


@dataclass(frozen=True)
class Tensor:
    """A parameter: its shape, and for the weights of linear layers, which are what is pruned, their fans."""

    shape: tuple[int, ...]
    prunable: bool = False
    fan_in: int = 0
    fan_out: int = 0


Layout = dict[str, Tensor]


def mlp(sizes: tuple[int, ...]) -> Layout:
    """Linear layers fc1, fc2, ... of those sizes: weights [out, in] as PyTorch has them, biases [out]."""
    layout: Layout = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        layout[f"fc{i}.weight"] = Tensor((fan_out, fan_in), prunable=True, fan_in=fan_in, fan_out=fan_out)
        layout[f"fc{i}.bias"] = Tensor((fan_out,))
    return layout


def _own_sizes(model: Model) -> tuple[int, ...]:
    return model.hidden


def _lenet_300_100(model: Model) -> tuple[int, ...]:
    if model.hidden:
        raise LotteryError(f"model.hidden = {list(model.hidden)}: must be empty for lenet-300-100; use model.name mlp")
    return 300, 100


MODELS: dict[str, Callable[[Model], tuple[int, ...]]] = {"lenet-300-100": _lenet_300_100, "mlp": _own_sizes}
"""Name -> hidden sizes. All are stacks of linear layers with ReLU between them."""


def sizes(model: Model, features: int, classes: int) -> tuple[int, ...]:
    """Units per layer, input and output included. Raises LotteryError for an unknown model."""
    if model.name not in MODELS:
        raise LotteryError(known("model", model.name, MODELS))
    return (features, *MODELS[model.name](model), classes)


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


def initial_weights(layout: Layout, init: str, rng: np.random.Generator, std: float = Model.std) -> Weights:
    """One draw of every tensor, float32, in the layout's order. Raises LotteryError for an unknown init.

    std: standard deviation of the weights under gaussian; the others have their own.
    """
    if init not in INITS:
        raise LotteryError(known("model.init", init, INITS))
    return {n: INITS[init](t, rng, std) if t.prunable else np.zeros(t.shape, np.float32) for n, t in layout.items()}
