"""Masks held in any training loop of PyTorch: by hooks around it, with nothing in the module or its `state_dict`.

A hook on each masked parameter zeroes its gradient before it is accumulated, so that accumulation, all-reduce,
unscaling, the norm for clipping and the optimizer's moments see kept weights only. A hook on every optimizer's step
sets pruned weights to +0.0. Neither alone is enough: without the first, the norm counts pruned weights; without the
second, an optimizer that mixes entries (Muon) moves them. A hook before the step masks what came past the first.

Masking is an integer AND with all bits or none: +0.0 whatever was there, NaN and infinity too, at the speed of a
multiplication.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from lottery.errors import LotteryError, shown

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number -> the integers of that size."""

TRAINABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Types of parameters that can be held."""


@dataclass
class Held:
    """What has been seen of the training of a module since its masks were held."""

    steps: int = 0
    """Optimizer steps on any of the module's parameters."""
    untrained: set[str] = field(default_factory=set)
    """Names of masks whose parameters no gradient has reached. All of them, though there were steps: a copy was
    trained."""


@contextmanager
def hold(module: nn.Module, masks: Mapping[str, np.ndarray | Tensor]) -> Iterator[Held]:
    """Keeps pruned weights at +0.0 while the `with` block trains; see `lottery.hold`."""
    holder = _Holder(module, masks)
    with ExitStack() as stack:
        for place in holder.places.values():
            stack.callback(place.leave)
            if (parameter := place.parameter) is not None:
                place.take(parameter)
        stack.enter_context(register_module_parameter_registration_hook(holder.registered))
        stack.enter_context(register_optimizer_step_pre_hook(holder.before_step))
        stack.enter_context(register_optimizer_step_post_hook(holder.after_step))
        yield holder.held


class _Mask:
    """One mask, and its bits where they are needed: all ones at a kept weight, all zeros at a pruned one."""

    def __init__(self, name: str, kept: Tensor):
        self.name, self.kept = name, kept
        self._bits: dict[tuple[torch.device, int], Tensor] = {}

    def bits(self, like: Tensor) -> Tensor:
        """Integers as wide as the numbers of `like`, on its device."""
        key = like.device, like.dtype.itemsize
        if key not in self._bits:
            bits = -self.kept.to(like.device, INTEGERS[like.dtype.itemsize])
            # laid out as the weights are (channels last): else no vector instruction fits both
            self._bits[key] = bits if like.is_sparse else torch.empty_like(like, dtype=bits.dtype).copy_(bits)
        return self._bits[key]

    def masked(self, gradient: Tensor) -> Tensor:
        """A masked copy: others may share the memory of the gradient."""
        bits = self.bits(gradient)
        if gradient.requires_grad:  # create_graph=True: integers have no derivative
            return gradient.masked_fill(bits == 0, 0.0)
        if gradient.is_sparse:
            indices, values = gradient._indices(), gradient._values()
            values = (values.view(bits.dtype) & bits[tuple(indices)]).view(values.dtype)
            coalesced = gradient.is_coalesced()
            return torch.sparse_coo_tensor(
                indices, values, gradient.shape, is_coalesced=coalesced, check_invariants=False
            )
        return (gradient.view(bits.dtype) & bits).view(gradient.dtype)

    def zero(self, tensor: Tensor) -> None:
        """Sets what is pruned to +0.0, in place."""
        bits = self.bits(tensor)
        tensor = tensor.detach()
        if tensor.is_sparse:
            bits, tensor = bits[tuple(tensor._indices())], tensor._values()
        tensor.view(bits.dtype).bitwise_and_(bits)


class _Place:
    """Where a module keeps a masked parameter. Tied tensors have several places and one mask."""

    def __init__(self, owner: nn.Module, attribute: str, mask: _Mask, held: Held):
        self.owner, self.attribute, self.mask, self.held = owner, attribute, mask, held
        self.taken: nn.Parameter | None = None
        self._handle: RemovableHandle | None = None

    @property
    def parameter(self) -> nn.Parameter | None:
        """The one that is there now: load_state_dict(assign=True) puts another in its place."""
        return self.owner._parameters.get(self.attribute)

    def take(self, parameter: nn.Parameter) -> None:
        """Masks a parameter and its gradient, if it has one, and those to come."""
        if parameter.shape != self.mask.kept.shape:
            raise _wrong_shape(self.mask.name, self.mask.kept, parameter)
        self.leave()
        trains = parameter.requires_grad
        parameter.requires_grad_()  # which a hook needs: a frozen parameter may thaw later
        self._handle = parameter.register_hook(self._gradient)
        parameter.requires_grad_(trains)
        self.taken = parameter
        self.mask.zero(parameter)
        if parameter.grad is not None:
            self.mask.zero(parameter.grad)

    def leave(self) -> None:
        """Takes the hook away."""
        if self._handle:
            self._handle.remove()

    def _gradient(self, gradient: Tensor) -> Tensor:
        self.held.untrained.discard(self.mask.name)
        return self.mask.masked(gradient)


class _Holder:
    """The hooks. They touch only the parameters of the optimizer that steps: others may be in use elsewhere."""

    def __init__(self, module: nn.Module, masks: Mapping[str, np.ndarray | Tensor]):
        self.module, self.held = module, Held()
        self.places = _places(module, masks, self.held)
        self.held.untrained.update(place.mask.name for place in self.places.values())
        self._clean: WeakKeyDictionary[Optimizer, Any] = WeakKeyDictionary()

    def registered(self, owner: nn.Module, attribute: str, parameter: nn.Parameter) -> None:
        """Called by PyTorch when any module is given a parameter."""
        if place := self.places.get((owner, attribute)):
            place.take(parameter)

    def before_step(self, optimizer: Optimizer, *arguments: Any) -> None:
        """Masks what came past the other hooks: weights and gradients that were written by hand, and old state."""
        for place in self.places.values():
            if (there := place.parameter) is not None and there is not place.taken:
                place.take(there)  # it was put there past the module's own door
        masks = self._masks(optimizer)
        for parameter, mask in masks.items():
            mask.zero(parameter)  # which would decay into its momentum
            if parameter.grad is not None:
                mask.zero(parameter.grad)
        if self._clean.get(optimizer) is not optimizer.state:  # optimizer.load_state_dict makes another
            for key, state in optimizer.state.items():
                for tensor in _tensors(state) if isinstance(key, Tensor) else ():
                    _zero_state(optimizer, key, tensor, masks)
            self._clean[optimizer] = optimizer.state

    def after_step(self, optimizer: Optimizer, *arguments: Any) -> None:
        """Sets pruned weights to +0.0, and counts."""
        for parameter, mask in self._masks(optimizer).items():
            mask.zero(parameter)
        parameters = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.held.steps += any(id(p) in parameters for p in self.module.parameters())

    def _masks(self, optimizer: Optimizer) -> dict[Tensor, _Mask]:
        """Of those parameters that the optimizer steps."""
        here = {id(place.taken): place for place in self.places.values()}
        found = [p for group in optimizer.param_groups for p in group["params"] if id(p) in here]
        return {parameter: here[id(parameter)].mask for parameter in found}


def _tensors(state: Any) -> Iterator[Tensor]:
    """What an optimizer keeps for a parameter, but for the number of its steps."""
    for key, value in state.items() if isinstance(state, dict) else ():
        for tensor in value if isinstance(value, list) else [value]:
            if key != "step" and isinstance(tensor, Tensor) and tensor.is_floating_point():
                yield tensor


def _zero_state(optimizer: Optimizer, parameter: Tensor, tensor: Tensor, masks: dict[Tensor, _Mask]) -> None:
    """Masks a tensor of an optimizer's state: one number for each weight, or LBFGS's vector of all weights."""
    if tensor.shape == parameter.shape:
        if parameter in masks:
            masks[parameter].zero(tensor)
    elif isinstance(optimizer, LBFGS) and tensor.dim() == 1:
        parameters = optimizer.param_groups[0]["params"]
        for part, p in zip(tensor.split([p.numel() for p in parameters]), parameters, strict=True):
            if p in masks:
                masks[p].zero(part.view(p.shape))


def _places(
    module: nn.Module, masks: Mapping[str, np.ndarray | Tensor], held: Held
) -> dict[tuple[nn.Module, str], _Place]:
    """(owner, attribute) -> place, of every parameter that has a mask under any of its names.

    Raises LotteryError for what can't be held.
    """
    if not isinstance(module, nn.Module):
        raise LotteryError(f"module is a {type(module).__name__}: must be a torch.nn.Module, the one that trains")
    if not isinstance(masks, Mapping):
        raise LotteryError(f'masks is a {type(masks).__name__}: must be a dict, such as {{"fc1.weight": mask}}')
    owners = {
        f"{prefix}.{attribute}".removeprefix("."): (owner, attribute, parameter)
        for prefix, owner in module.named_modules(remove_duplicate=False)
        for attribute, parameter in owner._parameters.items()
        if parameter is not None
    }
    of: dict[nn.Parameter, _Mask] = {}
    for name, mask in masks.items():
        if name not in owners:
            there = ", ".join([*islice(owners, 20), *(["..."] if len(owners) > 20 else [])]) or "none"
            raise LotteryError(f"masks name {shown(name)}, which is not a parameter here; there are {there}")
        parameter, kept = owners[name][2], _boolean(name, mask)
        if is_lazy(parameter):
            raise LotteryError(f"masks[{name!r}]: its parameter has no shape yet; run the module once before")
        if parameter.shape != kept.shape:
            raise _wrong_shape(name, kept, parameter)
        if parameter.dtype not in TRAINABLE:
            known = ", ".join(str(dtype) for dtype in TRAINABLE)
            raise LotteryError(f"masks[{name!r}]: its parameter is {parameter.dtype}; masks can be held on {known}")
        other = of.setdefault(parameter, _Mask(name, kept))
        if not torch.equal(other.kept, kept):
            raise LotteryError(
                f"masks[{other.name!r}] and masks[{name!r}] differ, but the two are one tied tensor: give one mask"
            )
    return {
        (owner, attribute): _Place(owner, attribute, of[parameter], held)
        for owner, attribute, parameter in owners.values()
        if parameter in of
    }


def _boolean(name: str, mask: object) -> Tensor:
    """A copy on the CPU: the caller may go on with theirs."""
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        return torch.from_numpy(mask.copy())
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        return mask.detach().to("cpu", copy=True)
    kind = f"{type(mask).__name__} of {mask.dtype}" if isinstance(mask, np.ndarray | Tensor) else type(mask).__name__
    raise LotteryError(f"masks[{name!r}] is a {kind}: must be a boolean array or tensor, True = kept")


def _wrong_shape(name: str, kept: Tensor, parameter: Tensor) -> LotteryError:
    return LotteryError(f"masks[{name!r}] has shape {tuple(kept.shape)}, expected {tuple(parameter.shape)}")
