"""What is known of a network without building it: tensors, shapes, what is prunable, what follows what. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery.errors import LotteryError
from lottery.masks import Weights
from lottery.spec import Model

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Tensor:
    """A tensor of a network's state."""

    shape: tuple[int, ...]
    prunable: bool = False
    """Whether masks cover it: by the type of its layer, never by its name."""
    buffer: bool = False
    """State that no optimizer trains, such as a batch norm's statistics."""
    fan_in: int = 0
    """Inputs of one unit; 0 for what is not drawn at random."""
    fan_out: int = 0
    """Units that one input reaches."""
    fill: float = 0.0
    """What a tensor that is not drawn at random starts with: 1 for the gain and the variance of a norm."""
    dtype: str = "float32"
    """NumPy's name of its type: int64 for what counts."""

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each kernel of a weight, the unit that it leads to and the input that it comes from: filter and channel of
        a convolution. A kernel of a linear layer is one weight.

        A transposed convolution has its inputs first. It is told by its fans, so one with as many inputs as units in a
        group is taken for another convolution.

        Returns:
            Two arrays of the weight's first two axes, int64.
        """
        first, second = np.indices(self.shape[:2])
        area = prod(self.shape[2:])
        transposed = self.fan_in != self.shape[1] * area
        group = (self.fan_in if transposed else self.fan_out) // area  # the second axis counts within a group
        second += first // group * self.shape[1]
        return (second, first) if transposed else (first, second)


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution, told apart by the number of axes of its weight, and what is its own."""

    weight: str
    """Name of its weight, [out, in] or [out, in, h, w]."""
    bias: str = ""
    """Name of its bias [out]; "" where it has none."""
    norm: str = ""
    """Prefix of the names of the batch norm behind it, such as bn1; "" where there is none."""


@dataclass(frozen=True)
class Network:
    """What an engine must know of a model, and a run directory keeps of it."""

    tensors: dict[str, Tensor]
    """Name -> tensor, in the module's order."""
    inputs: tuple[int, ...]
    """Shape of one example as the module takes it: c, h, w for convolutions; for linear layers that of the data, which
    they flatten."""
    layers: tuple[Layer, ...] = ()
    """From input to output with ReLU, and for convolutions pooling, between them, where the network is such a stack;
    else empty."""
    build: "Callable[[], nn.Module] | None" = field(default=None, compare=False, repr=False)
    """Makes the module; None where only the description is known."""
    draw: Callable[[np.random.Generator], Weights] | None = field(default=None, compare=False, repr=False)
    """Draws every tensor as the module's own code does; None where one of `initial.INITS` draws them."""

    @property
    def prunable(self) -> list[str]:
        """Names of the tensors that masks cover, in order."""
        return [name for name, tensor in self.tensors.items() if tensor.prunable]

    @property
    def weights(self) -> int:
        """How many prunable weights there are."""
        return sum(prod(self.tensors[name].shape) for name in self.prunable)

    @property
    def linear(self) -> bool:
        """Whether it is a stack of linear layers alone."""
        return bool(self.layers) and all(len(self.tensors[layer.weight].shape) == 2 for layer in self.layers)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer of a stack of linear layers, the input's first."""
        shapes = [self.tensors[layer.weight].shape for layer in self.layers]
        return (shapes[0][1], *(shape[0] for shape in shapes))

    def module(self) -> "nn.Module":
        """A new module that computes logits [n, classes] from examples [n, ...], with tensors under these names.

        Raises:
            LotteryError: if only the network's description is known.
        """
        if self.build is None:
            raise LotteryError("this network was read from a run: its description builds no module")
        return self.build()

    def to_json(self) -> dict[str, Any]:
        """The description, for a file. What came later is left out at its default: old networks keep their JSON."""
        return {
            "inputs": list(self.inputs),
            "tensors": {name: _older(tensor) | {"shape": list(tensor.shape)} for name, tensor in self.tensors.items()},
            "layers": [_older(layer) for layer in self.layers],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Network":
        """The inverse of `to_json`. Raises KeyError or TypeError for anything else."""
        tensors = {
            name: Tensor(**tensor | {"shape": tuple(tensor["shape"])}) for name, tensor in value["tensors"].items()
        }
        return Network(tensors, tuple(value["inputs"]), tuple(Layer(**layer) for layer in value["layers"]))


LATER = {"fill": Tensor.fill, "dtype": Tensor.dtype, "norm": Layer.norm}
"""Fields that runs of earlier versions lack -> their defaults."""


def _older(part: Tensor | Layer) -> dict[str, Any]:
    return {name: value for name, value in asdict(part).items() if name not in LATER or value != LATER[name]}


def weight(*shape: int) -> Tensor:
    """The weight of a linear layer [out, in] or of a convolution [out, in, h, w]."""
    outputs, inputs, *area = shape
    return Tensor(shape, prunable=True, fan_in=inputs * prod(area), fan_out=outputs * prod(area))


def batch_norm(prefix: str, channels: int) -> dict[str, Tensor]:
    """The tensors of a batch norm, by name and in the order of `nn.BatchNorm2d`."""
    return {
        f"{prefix}.weight": Tensor((channels,), fill=1.0),
        f"{prefix}.bias": Tensor((channels,)),
        f"{prefix}.running_mean": Tensor((channels,), buffer=True),
        f"{prefix}.running_var": Tensor((channels,), buffer=True, fill=1.0),
        f"{prefix}.num_batches_tracked": Tensor((), buffer=True, dtype="int64"),
    }


def image(model: Model, inputs: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape c, h, w of an image of shape h, w (grey) or c, h, w. Raises LotteryError for anything else."""
    if len(inputs) not in (2, 3) or min(inputs) < 1:
        shape = " x ".join(map(str, inputs))
        raise LotteryError(f"model.name = {model.name!r}: takes images, and these examples are {shape}; use mlp")
    c, h, w = (1, *inputs) if len(inputs) == 2 else inputs
    return c, h, w


def check_unused(model: Model, *settings: str) -> None:
    """Raises LotteryError where a setting is given that this network has no use for: of hidden and width."""
    if "hidden" in settings and model.hidden:
        raise LotteryError(f"model.hidden = {list(model.hidden)}: must be empty for {model.name}; use model.name mlp")
    if "width" in settings and model.width:
        raise LotteryError(f"model.width = {model.width}: must be 0 for {model.name}; resnet-N and vgg-N have it")
