"""WHICH NETWORK? From a spec's model, the shape of an example and the number of classes to a `Network`.

To add a network: a function in a file of its family, and a row in MODELS. To add an initialisation: a function and a
row in `initial.INITS`. Nothing here imports torch before a module is built.
"""

from collections.abc import Callable

from lottery.errors import LotteryError, known
from lottery.models.initial import INITS, initial_weights
from lottery.models.layout import Linear, Network, Tensor
from lottery.models.mlp import lenet_300_100, mlp
from lottery.spec import Model

__all__ = ["INITS", "MODELS", "Linear", "Network", "Tensor", "initial_weights", "network"]

MODELS: dict[str, Callable[[Model, tuple[int, ...], int], Network]] = {"lenet-300-100": lenet_300_100, "mlp": mlp}
"""Name -> function from the spec's model, shape of an example, number of classes to the network."""


WEIGHTS = 100_000_000
"""Most that a network may have: training holds some ten arrays of them."""


def network(model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """The network that a spec names, for examples of that shape. Raises LotteryError for an unknown model, or one too
    large."""
    if model.name not in MODELS:
        raise LotteryError(known("model", model.name, MODELS))
    described = MODELS[model.name](model, inputs, classes)  # shapes alone: no weight is drawn yet
    if described.weights > WEIGHTS:
        raise LotteryError(
            f"model.hidden = {list(model.hidden)}: these layers have {described.weights:,} weights, at most {WEIGHTS:,}"
        )
    return described
