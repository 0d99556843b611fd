"""Any nn.Module: its state as arrays, which of its tensors masks cover, and its description as a `Network`.

The state is every parameter and every buffer in the module's order, also buffers that `state_dict` leaves out; a tied
tensor once, under its first name.
"""

import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from lottery.errors import LotteryError, shown
from lottery.masks import Weights
from lottery.models.layout import Network, Tensor

PRUNABLE = (nn.Linear, _ConvNd)  # by type: a batch norm's gain is also called `weight`

Build = Callable[[], nn.Module]
"""Makes a new network each time, with weights drawn from torch's global random state."""


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's own parameters and buffers by name, not copies."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for prefix, part in module.named_modules():
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            found.setdefault(id(tensor), (f"{prefix}.{name}".lstrip("."), tensor))
    return dict(found.values())


def prunable(module: nn.Module) -> list[str]:
    """Names of the tensors that masks cover: the weights of linear layers and of convolutions, transposed ones too."""
    return list(_fans(module))


def _fans(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Name of each prunable tensor -> (inputs of one unit, units that one input reaches)."""
    fans = {}
    for part in module.modules():
        weight = part._parameters.get("weight") if isinstance(part, PRUNABLE) else None
        if weight is not None:  # a parametrized layer computes its weight from others
            groups, area = getattr(part, "groups", 1), prod(weight.shape[2:])
            pair = weight.shape[1] * area, weight.shape[0] // groups * area
            fans[id(weight)] = pair[::-1] if isinstance(part, _ConvTransposeNd) else pair
    return {name: fans[id(tensor)] for name, tensor in state(module).items() if id(tensor) in fans}


def get_weights(module: nn.Module) -> Weights:
    """Copies of the whole state as arrays. Never views: what trains later must not reach them."""
    return {name: t.detach().to("cpu", copy=True).numpy() for name, t in state(module).items()}


def set_weights(module: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copies the whole state in. Raises LotteryError, before anything is set, for other names or shapes than its."""
    tensors = state(module)
    if missing := [name for name in tensors if name not in weights]:
        raise LotteryError(f"weights lack {', '.join(missing)}: give every tensor, biases too")
    check_shapes("weights", weights, {name: tuple(t.shape) for name, t in tensors.items()})
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.tensor(weights[name]))


def check_shapes(what: str, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises LotteryError for an array, of those that `what` names, without its name and shape among `shapes`."""
    for name, array in arrays.items():
        if name not in shapes:
            raise LotteryError(f"{what} name {name!r}, which is not a tensor here; there are {', '.join(shapes)}")
        if np.shape(array) != shapes[name]:
            raise LotteryError(f"{what}[{name!r}] has shape {np.shape(array)}, expected {shapes[name]}")


def described(build: Build, inputs: tuple[int, ...], patterns: Sequence[str] = ()) -> Network:
    """The description of any network. It draws its own initial weights, each time by building the module again.

    Args:
        build: makes a new network each time, such as a class without arguments, or a lambda around one with arguments.
        inputs: shape of one example, as the network takes it.
        patterns: of the names of the parameters that are prunable, such as "*.in_proj_weight"; without any, the weights
            of linear layers and convolutions are.

    Returns:
        The network; what follows what in it is unknown.

    Raises:
        LotteryError: for what is no such function, a network whose names, shapes or draws are not the same each time
            under one torch seed, without anything to prune, or with tensors that no array can hold.
    """
    _check_factory(build)
    one, other = built(build, 0), built(build, 0)
    if one is other:
        raise LotteryError(f"build = {shown(build)}: gives the same network each time: it must make a new one")
    tensors = _tensors(one, patterns)
    _check_same(build, tensors, _tensors(other, patterns))
    for pattern in patterns:
        if not any(tensor.prunable and fnmatch.fnmatchcase(name, pattern) for name, tensor in tensors.items()):
            there = ", ".join(name for name, tensor in tensors.items() if not tensor.buffer)
            raise LotteryError(f"prunable: {shown(pattern)} matches no parameter; there are {there}")
    if not any(tensor.prunable for tensor in tensors.values()):
        raise LotteryError(f"build = {shown(build)}: its network has no linear layer and no convolution to prune")
    again = get_weights(other)
    for name, drawn in get_weights(one).items():
        if drawn.tobytes() != again[name].tobytes():
            raise LotteryError(
                f"build = {shown(build)}: {name} differs between two networks made under one torch seed: draw it with "
                "torch's own functions"
            )
    return Network(tensors, inputs, build=build, draw=partial(_draw, build, tensors, patterns))


def described_as_it_is(module: nn.Module, patterns: Sequence[str]) -> Network:
    """The description of a network that is there; nothing makes or draws another. The arguments and what is raised are
    as in `described`."""
    return Network(_tensors(module, patterns), ())


def _draw(build: Build, tensors: dict[str, Tensor], patterns: Sequence[str], rng: np.random.Generator) -> Weights:
    """The state of a new network, under a torch seed from `rng`."""
    module = built(build, int(rng.integers(2**63)))
    _check_same(build, tensors, _tensors(module, patterns))
    return get_weights(module)


def _check_factory(build: Build) -> None:
    if isinstance(build, nn.Module):
        words = "is a network: give the function that makes it, since each replicate draws its own"
        raise LotteryError(f"build = {shown(build).splitlines()[0]}: {words}")
    if not callable(build):
        raise LotteryError(f"build = {shown(build)}: must be a function that makes a network")
    try:
        inspect.signature(build).bind()
    except TypeError as error:
        raise LotteryError(f"build = {shown(build)}: {error}: give one without, such as lambda: Net(10)") from None
    except ValueError:  # some callables in C tell nobody
        pass


def built(build: Build, seed: int) -> nn.Module:
    """A new network under that torch seed; torch's random state is afterwards as before."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        module = build()
    if not isinstance(module, nn.Module):
        raise LotteryError(f"build = {shown(build)}: gives {shown(module)}: it must make a torch.nn.Module")
    return module


def _tensors(module: nn.Module, patterns: Sequence[str]) -> dict[str, Tensor]:
    for name, tensor in state(module).items():
        if is_lazy(tensor) or tensor.is_meta:
            raise LotteryError(f"{name} has no values yet: give its layer all sizes, and a device other than meta")
        try:
            torch.empty(0, dtype=tensor.dtype).numpy()
        except TypeError:
            raise LotteryError(f"{name} has type {tensor.dtype}, which NumPy lacks: make it torch.float32") from None
    fans = _fans(module)

    def covered(name: str, tensor: torch.Tensor) -> bool:
        if not patterns:
            return name in fans
        trains = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
        return trains and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return {
        name: Tensor(
            tuple(tensor.shape),
            covered(name, tensor),
            not isinstance(tensor, nn.Parameter),
            *fans.get(name, (0, 0)),
            dtype=str(tensor.dtype).removeprefix("torch."),
        )
        for name, tensor in state(module).items()
    }


def _check_same(build: Build, expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    for name in expected | tensors:
        one, other = expected.get(name), tensors.get(name)
        if one != other:
            words = " and then ".join(f"{t.shape} in {t.dtype}" if t else "missing" for t in (one, other))
            raise LotteryError(
                f"build = {shown(build)}: gives different networks: {name} is {words}; a network's tensors must be the "
                "same each time"
            )
