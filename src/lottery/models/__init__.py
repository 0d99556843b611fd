"""WHICH NETWORK? From a spec's model, the shape of an example and the number of classes to a `Network`.

To add a network: a function in a file of its family, and a row in MODELS. To add an initialisation: a function and a
row in `initial.INITS`. Nothing here imports torch before a module is built.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from lottery.errors import LotteryError, known
from lottery.models.conv import conv, lenet_5
from lottery.models.initial import INITS, initial_weights
from lottery.models.layout import Layer, Network, Tensor
from lottery.models.mlp import lenet_300_100, mlp
from lottery.models.own import is_row, own
from lottery.models.resnet import resnet
from lottery.models.vgg import vgg
from lottery.spec import Model

__all__ = ["INITS", "MODELS", "Layer", "Network", "Tensor", "initial_weights", "is_row", "network"]

MODELS: dict[str, Callable[..., Any]] = {
    "lenet-300-100": lenet_300_100,
    "mlp": mlp,
    "lenet-5": lenet_5,
    **{f"conv-{depth}": partial(conv, depth) for depth in (2, 4, 6)},
    **{f"resnet-{depth}": partial(resnet, depth) for depth in range(8, 111, 6)},
    **{f"vgg-{depth}": partial(vgg, depth) for depth in (11, 13, 16, 19)},
}
"""Name -> function from the spec's model, shape of an example, number of classes to the network; or, of one's own, a
function without arguments to a new nn.Module, such as its class."""


WEIGHTS = 100_000_000
"""Most that a network may have: training holds some ten arrays of them."""


def network(model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """The network that a spec names, for examples of that shape.

    Args:
        model: which one, and its settings.
        inputs: shape of one example: h, w of a grey image, or c, h, w.
        classes: units of the output layer.

    Raises:
        LotteryError: for an unknown model, a setting that it has no use for, examples that don't fit, or too many
            weights.
    """
    if model.name not in MODELS:
        raise LotteryError(known("model", model.name, MODELS))
    row = MODELS[model.name]
    described = row(model, inputs, classes) if is_row(row) else own(model, inputs, classes, row)
    if not isinstance(described, Network):
        remedy = "give a function without arguments that makes the module"
        raise LotteryError(
            f"model.name = {model.name!r}: is made of three arguments, and no lottery.models.Network: {remedy}"
        )
    if described.weights > WEIGHTS:
        setting = f"model.width = {model.width}" if model.width else f"model.hidden = {list(model.hidden)}"
        raise LotteryError(f"{setting}: these layers have {described.weights:,} weights, at most {WEIGHTS:,}")
    if described.draw and model.init != Model.init:
        raise LotteryError(
            f"model.init = {model.init!r}: {model.name} draws its weights in its own code; leave model.init out"
        )
    return described
