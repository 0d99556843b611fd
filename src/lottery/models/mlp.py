"""Stacks of linear layers fc1, fc2, ... with ReLU between them: the layout, and the module that computes with it."""

from collections import OrderedDict
from functools import partial
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from lottery.models.layout import Layer, Network, Tensor, check_unused, weight
from lottery.spec import Model

if TYPE_CHECKING:
    from torch import nn


def mlp(model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """Hidden layers of `model.hidden` units. Raises LotteryError where a width is given."""
    check_unused(model, "width")
    return stack((prod(inputs), *model.hidden, classes), inputs)


def lenet_300_100(model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """LeNet-300-100 (LeCun et al. 1998). Raises LotteryError where hidden sizes or a width are given."""
    check_unused(model, "hidden", "width")
    return stack((prod(inputs), 300, 100, classes), inputs)


def stack(sizes: tuple[int, ...], inputs: tuple[int, ...] | None = None) -> Network:
    """The network with so many units in each layer, those of the input first.

    Args:
        sizes: units per layer, input and output included.
        inputs: shape of one example, of sizes[0] numbers; flat if None.
    """
    tensors: dict[str, Tensor] = {}
    layers = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        layers.append(Layer(f"fc{i}.weight", f"fc{i}.bias"))
        tensors[f"fc{i}.weight"] = weight(fan_out, fan_in)
        tensors[f"fc{i}.bias"] = Tensor((fan_out,))
    return Network(tensors, inputs or sizes[:1], tuple(layers), partial(module, sizes))


def module(sizes: tuple[int, ...]) -> "nn.Module":
    """Examples [n, ...] -> logits [n, sizes[-1]], its tensors named as in `stack`."""
    from torch import nn  # two seconds, which engines without PyTorch need not wait

    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
        parts[f"fc{i}"] = nn.Linear(fan_in, fan_out)
        if i < len(sizes) - 1:
            parts[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(parts)
