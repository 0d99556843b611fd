"""Shrinking that changes nothing: what pruning left without effect leaves the network, and a smaller one is left.

Zero weights are all the evidence. Three walks over the layers: forwards, constants move into the layers that read them;
backwards, units that nobody reads stop reading; forwards again, what nobody reads is cut out. No walk has to be
repeated: folding only takes readers away, which the walk backwards sees, and what loses its inputs there is read by
nobody. Axes of a weight: o units or output channels, i input channels, t all that leads from one input channel to one
unit: a convolution's window, the pixels of a channel that was flattened, else 1.
"""

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor, nn

from lottery.errors import LotteryError
from lottery.models.residual import Residual

TAKES = {
    nn.Linear: "vectors",
    nn.Conv2d: "images",
    nn.BatchNorm2d: "images",
    nn.MaxPool2d: "images",
    nn.AdaptiveAvgPool2d: "images",
    nn.Flatten: "images",
    Residual: "images",
    nn.ReLU: "",
    nn.Identity: "",
}
"""What can be shrunk, by its class alone: a subclass may compute anything. "" takes both."""


@torch.no_grad()
def shrink(module: nn.Module) -> nn.Module:
    """A smaller module that computes the same: without the units that have no way in or no way out.

    A unit or channel with no way in (all its incoming weights are 0) has a constant output, which batch norm, ReLU,
    pooling and flattening keep constant. It is added to the biases of the layers that read it; a convolution without a
    bias is given one. A convolution that pads with zeros sees the constant only inside the image, not around it, so
    there no bias can stand for it: such a channel stays, unless its constant is 0. A unit or channel with no way out
    (all weights that read it are 0) leaves too, and then whatever only it read. Channels of a residual sum leave
    together: only where nobody reads them along the whole chain of identity shortcuts that shares them.

    Each layer keeps at least one unit; inputs and outputs of the module keep theirs.

    Args:
        module: an `nn.Sequential` of batches, nested or not, of the classes in `TAKES`. It is not changed. Pruned
            weights must be exactly 0.

    Returns:
        A new module in evaluation mode, which computes what `module` computes in evaluation mode, to rounding. Its
        parts have the same names, its tensors the same types and devices, none shared where parts were used twice. Its
        batch norms would train on other statistics than the original's.

    Raises:
        LotteryError: for a part of another class, one that is set up to work across channels (groups, batch norm
            without running statistics), one with forward hooks, and parts that don't fit together.
    """
    reader = _Reader()
    reader.read("module", module)  # refuses before anything is copied
    small = _copied(module).eval()
    reader = _Reader()
    parts = reader.read("module", small)
    _fold(parts, torch.full((reader.inputs,), nan, dtype=torch.float64))
    _drop(parts, torch.ones(reader.channels, dtype=torch.bool))
    _cut(parts, torch.ones(reader.inputs, dtype=torch.bool))
    return small


def _copied(module: nn.Module) -> nn.Module:
    """A copy in which each part is one of its own: a layer that is used twice may lose different units each time."""
    if type(module) is not nn.Sequential:
        return deepcopy(module)
    return nn.Sequential(OrderedDict((name, _copied(part)) for name, part in _named(module)))


def _named(module: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Its parts in order, again where one is used again: `named_children` leaves that out."""
    return list(zip(module._modules, module, strict=True))


@dataclass(eq=False)
class _Layer:
    """A linear layer or a convolution with its numbers in float64, which `cut` writes back."""

    part: nn.Linear | nn.Conv2d
    weight: Tensor
    """[o, i, t]"""
    bias: Tensor
    """[o]"""
    padded: bool
    """Whether it reads zeros around its input, too."""
    kept: Tensor
    """[o], boolean: the units that stay."""

    def fold(self, value: Tensor) -> Tensor:
        """Moves constants from the weights into the bias: values of the inputs [i] -> of the units [o]."""
        known = value == 0 if self.padded else ~value.isnan()
        self.bias += self.weight[:, known].sum(2) @ value[known]
        self.weight[:, known] = 0
        return self.bias.masked_fill(self.weight.any(2).any(1), nan)

    def drop(self, read: Tensor) -> Tensor:
        """Takes the inputs from units that nobody reads: which units are read [o] -> which inputs are [i]."""
        self.weight[~read] = 0
        self.kept = read.clone()
        self.kept[0] |= not read.any()  # no dimension becomes 0; a unit without inputs and readers does no harm
        return self.weight.any(2).any(0)

    def cut(self, inputs: Tensor) -> Tensor:
        """Writes what stays into the part: which inputs [i] are left -> which units [o] are."""
        old, old_bias = self.part.weight, self.part.bias
        weight, bias = self.weight[self.kept][:, inputs], self.bias[self.kept]
        self.part.weight = _like(old, weight.reshape(len(bias), -1, *old.shape[2:]))
        if old_bias is not None or bias.any():
            self.part.bias = _like(old if old_bias is None else old_bias, bias)
        outputs_inputs = self.part.weight.shape[:2]
        if isinstance(self.part, nn.Linear):
            self.part.out_features, self.part.in_features = outputs_inputs
        else:
            self.part.out_channels, self.part.in_channels = outputs_inputs
        return self.kept


def _like(old: Tensor, numbers: Tensor) -> nn.Parameter:
    return nn.Parameter(numbers.to(old.device, old.dtype), old.requires_grad)


@dataclass(eq=False)
class _Sum:
    """Two ways from one input, whose outputs are added."""

    residual: "list[_Part]"
    last: _Layer
    """The layer of `residual` that writes into the sum."""
    shortcut: "list[_Part]"


_Part = _Layer | _Sum | nn.BatchNorm2d | nn.ReLU
"""What is more to a channel than passing it on."""


def _fold(parts: Sequence[_Part], value: Tensor) -> Tensor:
    """Folds constants into their readers: values of the channels before -> behind the parts; NaN where they vary."""
    for part in parts:
        if isinstance(part, _Layer):
            value = part.fold(value)
        elif isinstance(part, _Sum):
            value = _fold(part.residual, value) + _fold(part.shortcut, value)
        elif isinstance(part, nn.BatchNorm2d):
            exact = deepcopy(part).to("cpu", torch.float64)
            value = exact(value[None, :, None, None]).flatten()
        else:
            value = value.relu()
    return value


def _drop(parts: Sequence[_Part], read: Tensor) -> Tensor:
    """Takes the inputs from what nobody reads: which channels are read behind -> before the parts."""
    for part in reversed(parts):
        if isinstance(part, _Layer):
            read = part.drop(read)
        elif isinstance(part, _Sum):
            read = _drop(part.residual, read) | _drop(part.shortcut, read)
    return read


def _cut(parts: Sequence[_Part], kept: Tensor) -> Tensor:
    """Makes the modules smaller: which channels are kept before -> behind the parts."""
    for part in parts:
        if isinstance(part, _Layer):
            kept = part.cut(kept)
        elif isinstance(part, _Sum):
            # the shortcut decides: `_drop` saw all who read along a chain of identities before the layer that begins it
            part.last.kept = _cut(part.shortcut, kept)
            kept = _cut(part.residual, kept)
        elif isinstance(part, nn.BatchNorm2d):
            for name, tensor in (*part.named_parameters(), *part.named_buffers()):
                if tensor.dim():  # the count of batches has no channels
                    left = tensor[kept.to(tensor.device)]
                    setattr(part, name, _like(tensor, left) if isinstance(tensor, nn.Parameter) else left)
            part.num_features = int(kept.sum())
    return kept


class _Reader:
    """Goes through a module in the order in which it computes, and checks that channels can be followed through it."""

    def __init__(self) -> None:
        self.inputs = 0
        """Channels of the module's input; 0 until something says it. Vectors have a channel for each number."""
        self.channels = 0
        """Channels here."""
        self.shape = ""
        """Whether examples are images or vectors here; "" until something says it."""

    def read(self, name: str, module: nn.Module) -> list[_Part]:
        """What the module does to channels, under that name in errors."""
        if words := self._refusal(module):
            raise LotteryError(f"{name} ({type(module).__name__}) {words}")
        if isinstance(module, nn.Sequential):
            return [part for child, inner in _named(module) for part in self.read(f"{name}.{child}", inner)]
        self.shape = TAKES[type(module)] or self.shape
        if isinstance(module, Residual):
            return self._sum(name, module)
        if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d):
            return [self._sized(name, module)]
        if isinstance(module, nn.Flatten):
            self.shape = "vectors"
        return [module] if isinstance(module, nn.ReLU) else []

    def _refusal(self, module: nn.Module) -> str:
        """Why a module can't be shrunk, and what to do; "" if it can."""
        if type(module) is not nn.Sequential and type(module) not in TAKES:
            return f"can't be shrunk: only nn.Sequential of {', '.join(t.__name__ for t in TAKES)}; replace it"
        if module._forward_pre_hooks or module._forward_hooks:
            return "has forward hooks, which may change what it computes: remove them, make prunings permanent"
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            return f"has groups = {module.groups}: must be 1 to be shrunk"
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
            return "has no running statistics: make it with track_running_stats=True to be shrunk"
        if isinstance(module, nn.MaxPool2d) and module.dilation not in (1, (1, 1)):
            return f"has dilation = {module.dilation}: must be 1 to be shrunk"
        if isinstance(module, nn.Flatten) and (module.start_dim != 1 or module.end_dim not in (-1, 3)):
            return f"flattens dimensions {module.start_dim} to {module.end_dim}: must be 1 to -1 to be shrunk"
        takes = TAKES.get(type(module), "")
        if takes and self.shape and takes != self.shape:
            return f"takes {takes}, and what comes are {self.shape}: put one nn.Flatten() between images and vectors"
        return ""

    def _sized(self, name: str, module: nn.Linear | nn.Conv2d | nn.BatchNorm2d) -> _Part:
        size = module.num_features if isinstance(module, nn.BatchNorm2d) else module.weight.shape[1]
        if not self.inputs:
            self.inputs = self.channels = size
        if size % self.channels if isinstance(module, nn.Linear) else size != self.channels:
            words = f"takes {size} inputs, and {self.channels} channels come: give it the size of what is before it"
            raise LotteryError(f"{name} ({type(module).__name__}) {words}")
        if isinstance(module, nn.BatchNorm2d):
            return module
        weight = module.weight.detach().to("cpu", torch.float64, copy=True)
        weight = weight.reshape(len(weight), self.channels, -1)
        self.channels, bias = len(weight), weight.new_zeros(len(weight))
        if module.bias is not None:
            bias.copy_(module.bias.detach())
        zeros = isinstance(module, nn.Conv2d) and module.padding_mode == "zeros"
        padded = zeros and module.padding not in ("valid", (0, 0))
        return _Layer(module, weight, bias, padded, kept=bias.new_ones(len(bias), dtype=torch.bool))

    def _sum(self, name: str, block: Residual) -> list[_Part]:
        """What `Residual.forward` computes."""
        self.inputs = self.inputs or block.conv1.in_channels
        before = self.channels = self.channels or self.inputs
        conv1, bn1, conv2, bn2 = (
            self.read(f"{name}.{child}", getattr(block, child)) for child in ("conv1", "bn1", "conv2", "bn2")
        )
        behind, self.channels = self.channels, before
        shortcut = self.read(f"{name}.shortcut", block.shortcut)
        if self.channels != behind:
            words = f"adds {behind} channels and {self.channels} of its shortcut: give it stride 2, or as many"
            raise LotteryError(f"{name} (Residual) {words}")
        last = conv2[-1]
        assert isinstance(last, _Layer)
        return [_Sum([*conv1, *bn1, nn.ReLU(), *conv2, *bn2], last, shortcut), nn.ReLU()]
