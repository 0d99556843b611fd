"""Networks of one's own: any factory of an nn.Module as a row of MODELS."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from lottery.errors import LotteryError, own_code
from lottery.models.layout import Network, check_unused
from lottery.spec import Model

if TYPE_CHECKING:
    from torch import nn


def is_row(function: object) -> bool:
    """Whether it takes what the package's own rows take, and not nothing, as a factory does."""

    def takes(*arguments: object) -> bool:
        try:
            inspect.signature(function).bind(*arguments)  # type: ignore[arg-type]  # of unknown type
        except (TypeError, ValueError):  # ValueError: some callables in C tell nobody
            return False
        return True

    return takes(None, None, None) and not takes()


def own(model: Model, inputs: tuple[int, ...], classes: int, build: "Callable[[], nn.Module]") -> Network:
    """The network that a factory makes. It draws its own initial weights.

    Args:
        model: its name; no other setting of it has a meaning here.
        inputs: shape of one example. A grey image of shape (h, w) reaches the network as PyTorch's convolutions take
            it, (1, h, w), and anything else as it is.
        classes: logits that must come out for each example.
        build: makes a new module each time.

    Raises:
        LotteryError: for what is no such factory, or whose module doesn't take such examples to so many logits.
    """
    import torch  # two seconds, for which networks that are written down need not wait

    from lottery.models.torch import described

    check_unused(model, "hidden", "width")
    what = f"model.name = {model.name!r}"
    shape = (1, *inputs) if len(inputs) == 2 else inputs
    try:
        with own_code("its factory fails"):
            network = described(build, shape)
        with own_code(f"fails on examples [n, {', '.join(map(str, shape))}]"), torch.random.fork_rng([]):
            logits = network.module().eval()(torch.zeros(2, *shape))
    except LotteryError as error:
        raise LotteryError(f"{what}: {error}") from error
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != (2, classes):
        raise LotteryError(f"{what}: makes {found} of 2 examples in {classes} classes: it must make (2, {classes})")
    return network
