"""Any nn.Module as a network: its whole state, what is prunable, and its own initial weights, drawn by seed."""

import random
from collections.abc import Callable
from functools import partial
from itertools import count
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lottery import models
from lottery.errors import LotteryError
from lottery.masks import Weights
from lottery.models.layout import Network
from lottery.models.torch import described, get_weights, prunable, set_weights
from lottery.seeds import stream
from lottery.spec import Model


class Net(nn.Module):
    """What is hard: tied tensors, buffers, a frozen gain, own parameters, a buffer that state_dict leaves out."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3))
        self.register_buffer("table", torch.arange(5))
        self.register_buffer("phases", torch.rand(2), persistent=False)
        self.embed = nn.Embedding(6, width)
        self.conv = nn.Conv2d(2, 4, (3, 1), groups=2, bias=False)
        self.up = nn.ConvTranspose2d(4, 6, 3, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.norm.weight.requires_grad_(False)
        self.attention = nn.MultiheadAttention(width, 2)
        self.again = self.conv  # the same layer twice
        self.out = nn.Linear(width, 6, bias=False)
        self.out.weight = self.embed.weight  # tied, under the embedding's name


NAMES = [
    *("scale", "table", "phases", "embed.weight", "conv.weight", "up.weight", "up.bias"),
    *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    *(f"attention.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
]


def same(one: Weights, other: Weights) -> bool:
    return list(one) == list(other) and all(one[n].tobytes() == other[n].tobytes() for n in one)


def test_the_state_is_every_parameter_and_buffer_and_tied_tensors_once() -> None:
    module = Net()
    weights = get_weights(module)
    assert list(weights) == NAMES
    assert set(module.state_dict()) - set(weights) == {"again.weight", "out.weight"}
    for name, tensor in module.state_dict().items():
        if name in weights:
            assert weights[name].tobytes() == tensor.numpy().tobytes()
    assert weights["norm.num_batches_tracked"].shape == ()
    assert weights["table"].dtype == np.int64


def test_weights_that_are_set_are_all_there_and_copies() -> None:
    one, other = Net(), Net()
    taken = get_weights(one)
    assert not same(get_weights(other), taken)
    set_weights(other, taken)
    assert same(get_weights(other), taken)
    assert other.out.weight is other.embed.weight  # still tied, still the module's own
    before = {n: w.copy() for n, w in taken.items()}
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers(), *one.parameters(), *one.buffers()):
            tensor.add_(1)
    assert same(taken, before)


def test_weights_given_are_checked_before_any_is_set() -> None:
    module = Net()
    before = get_weights(module)
    other = {n: w + 1 for n, w in before.items()}
    for wrong, message in (
        ({n: w for n, w in other.items() if n != "phases"}, "weights lack phases: give every tensor"),
        (other | {"out.weight": other["embed.weight"]}, r"weights name 'out\.weight', which is not a tensor here"),
        (other | {"table": np.ones(4)}, r"weights\['table'\] has shape \(4,\), expected \(5,\)"),
    ):
        with pytest.raises(LotteryError, match=message):
            set_weights(module, wrong)
        assert same(get_weights(module), before)


def test_a_described_network() -> None:
    network = described(Net, (3, 8, 8))
    weights = get_weights(Net())
    assert {n: (t.shape, np.dtype(t.dtype)) for n, t in network.tensors.items()} == {
        n: (w.shape, w.dtype) for n, w in weights.items()
    }
    assert list(network.tensors) == NAMES
    buffers = [n for n, t in network.tensors.items() if t.buffer]
    assert buffers == ["table", "phases", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert network.prunable == ["embed.weight", "conv.weight", "up.weight", "attention.out_proj.weight"]
    assert network.prunable == prunable(Net())
    assert (network.inputs, network.layers, network.linear) == ((3, 8, 8), (), False)
    assert isinstance(network.module(), Net)
    assert Network.from_json(network.to_json()) == network


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_fans_are_what_a_unit_reads_and_what_an_input_reaches(kind: Any, groups: int) -> None:
    """Counted, where all weights are 1: the output of ones at an inner unit, the sum's gradient at an inner input."""
    build = partial(kind, 4, 6, 3, groups=groups, bias=False)
    network = described(build, (4, 9))
    layer = build()
    nn.init.ones_(layer.weight)
    axes = layer.weight.ndim - 2
    x = torch.ones(1, 4, *[9] * axes, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    middle = (0, 0, *[4] * axes)
    tensor = network.tensors["weight"]
    assert (tensor.fan_in, tensor.fan_out) == (float(y.detach()[middle]), float(x.grad[middle]))


def test_initial_weights_are_the_factorys_own() -> None:
    """For everything, by the stream alone: reinitialisation and workers draw them again."""
    network = described(Net, (3, 8, 8))
    a, b, c = (models.initial_weights(network, "glorot_normal", stream(0, r)) for r in (0, 0, 1))
    assert same(a, b)
    for name in ("scale", "phases", "conv.weight", "up.bias", "attention.in_proj_weight"):
        assert (a[name] != c[name]).any()
    torch.manual_seed(int(stream(0, 0).integers(2**63)))
    assert same(a, get_weights(Net()))  # PyTorch's own uniform draws, not Glorot's normal
    assert a["norm.running_var"].all()


def test_torchs_random_state_is_as_before() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    network = described(Net, (3, 8, 8))
    models.initial_weights(network, "glorot_normal", stream(0))
    assert torch.equal(torch.get_rng_state(), before)

    def fails() -> nn.Module:
        torch.rand(3)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        described(fails, (3,))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_registered_network_draws_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another initialisation would be ignored: it is refused."""
    row = lambda model, inputs, classes: described(lambda: nn.Linear(prod(inputs), classes), inputs)  # noqa: E731
    monkeypatch.setitem(models.MODELS, "mine", row)
    network = models.network(Model("mine"), (5,), 3)
    assert network.weights == 15
    with pytest.raises(LotteryError, match=r"model.init = 'kaiming_normal': mine draws its weights in its own code"):
        models.network(Model("mine", init="kaiming_normal"), (5,), 3)


def test_a_weight_that_is_computed_from_others_is_not_prunable() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))

    network = described(build, (3,))
    assert network.prunable == ["1.weight"]
    assert list(network.tensors)[:3] == ["0.bias", *(f"0.parametrizations.weight.original{i}" for i in (0, 1))]


def changing(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Builds one after the other, the last for ever."""
    calls = count()
    return lambda: layers[min(next(calls), len(layers) - 1)]()


ONE = nn.Linear(2, 2)
BAD: dict[str, tuple[Any, str]] = {
    "instance": (
        ONE,
        "build = Linear(in_features=2, out_features=2, bias=True): is a network: give the function that m",
    ),
    "tall instance": (Net(), "build = Net(: is a network"),
    "nothing": (None, "build = None: must be a function that makes a network"),
    "name": ("Net", "build = 'Net': must be a function"),
    "arguments": (nn.Linear, "missing a required argument: 'in_features': give one without, such as lambda: Net(10)"),
    "argument": (lambda width: Net(width), "missing a required argument: 'width'"),
    "no module": (
        lambda: [ONE],
        "gives [Linear(in_features=2, out_features=2, bias=True)]: it must make a torch.nn.Mo",
    ),
    "same one": (lambda: ONE, "gives the same network each time: it must make a new one"),
    "shape": (
        changing(lambda: nn.Linear(2, 3), lambda: nn.Linear(2, 4)),
        "gives different networks: weight is (3, 2) in float32 and then (4, 2) in float32; a network's tensors must",
    ),
    "name changes": (
        changing(lambda: nn.Linear(2, 3), lambda: nn.Sequential(nn.Linear(2, 3))),
        "gives different networks: weight is (3, 2) in float32 and then missing",
    ),
    "more": (
        changing(lambda: nn.Linear(2, 3, bias=False), lambda: nn.Linear(2, 3)),
        "gives different networks: bias is missing and then (3,) in float32",
    ),
    "type": (
        lambda: nn.Linear(2, 2, dtype=torch.bfloat16),
        "weight has type torch.bfloat16, which NumPy lacks: make it",
    ),
    "lazy": (lambda: nn.LazyLinear(2), "weight has no values yet: give its layer all sizes"),
    "meta": (lambda: nn.Linear(2, 2, device="meta"), "weight has no values yet"),
    "nothing to prune": (lambda: nn.BatchNorm1d(2), "its network has no linear layer and no convolution to prune"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_describes_no_network_is_named(name: str) -> None:
    build, message = BAD[name]
    with pytest.raises(LotteryError) as refused:
        described(build, (2,))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("draw", [random.random, lambda: float(np.random.default_rng().random())])
def test_weights_drawn_without_torch_are_refused(draw: Callable[[], float]) -> None:
    def build() -> nn.Module:
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.bias, draw())
        return layer

    with pytest.raises(LotteryError, match="bias differs between two networks made under one torch seed"):
        described(build, (2,))


def test_a_network_that_changes_later_is_refused_when_it_is_drawn() -> None:
    network = described(changing(*[partial(nn.Linear, 2, 3)] * 2, partial(nn.Linear, 2, 4)), (2,))
    with pytest.raises(LotteryError, match="gives different networks: weight is"):
        models.initial_weights(network, "glorot_normal", stream(0))
