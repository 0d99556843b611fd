"""What is known of a network without building it: tensors, shapes, what is prunable, what follows what. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from lottery.errors import LotteryError

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


@dataclass(frozen=True)
class Linear:
    """A linear layer: names of its weight [out, in] and of its bias [out]."""

    weight: str
    bias: str


@dataclass(frozen=True)
class Network:
    """What an engine must know of a model, and a run directory keeps of it."""

    tensors: dict[str, Tensor]
    """Name -> tensor, in the module's order."""
    inputs: tuple[int, ...]
    """Shape of one example: h, w for an image in one channel."""
    layers: tuple[Linear, ...] = ()
    """From input to output with ReLU between them, where the network is such a stack; else empty."""
    build: "Callable[[], nn.Module] | None" = field(default=None, compare=False, repr=False)
    """Makes the module; None where only the description is known."""

    @property
    def prunable(self) -> list[str]:
        """Names of the tensors that masks cover, in order."""
        return [name for name, tensor in self.tensors.items() if tensor.prunable]

    @property
    def weights(self) -> int:
        """How many prunable weights there are."""
        return sum(prod(self.tensors[name].shape) for name in self.prunable)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer of the stack, the input's first."""
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
        """The description, for a file."""
        return {
            "inputs": list(self.inputs),
            "tensors": {name: asdict(tensor) | {"shape": list(tensor.shape)} for name, tensor in self.tensors.items()},
            "layers": [asdict(layer) for layer in self.layers],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Network":
        """The inverse of `to_json`. Raises KeyError or TypeError for anything else."""
        tensors = {
            name: Tensor(**tensor | {"shape": tuple(tensor["shape"])}) for name, tensor in value["tensors"].items()
        }
        return Network(tensors, tuple(value["inputs"]), tuple(Linear(**layer) for layer in value["layers"]))
