"""A shrunk module computes what the whole one does, of what was pruned nothing is left that could leave, and what must
stay stays."""

import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lottery import models
from lottery.errors import LotteryError
from lottery.models.conv import POOL, Plan
from lottery.models.conv import stack as convolutions
from lottery.models.mlp import stack
from lottery.models.residual import Residual
from lottery.models.shrink import shrink
from lottery.spec import Model

IMAGE = (2, 9, 8)


def plan(*channels: int, **settings: Any) -> nn.Module:
    return convolutions(Model("conv-2"), Plan(channels, **settings), IMAGE, 3).module()


def nested() -> nn.Module:
    """Parts in parts, one ReLU for all, what only passes on, and convolutions that don't pad with zeros."""
    relu = nn.ReLU()
    return nn.Sequential(
        nn.BatchNorm2d(2),
        nn.Sequential(nn.Conv2d(2, 5, (2, 3), stride=2, bias=False), nn.BatchNorm2d(5, affine=False), relu),
        nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(5, 5, 3, padding=1, padding_mode="replicate"), relu)),
        nn.Sequential(),
        nn.Conv2d(5, 5, 3, padding="same"),
        nn.MaxPool2d(3, 1, padding=1, ceil_mode=True),
        relu,
        nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(10, 6), relu, nn.Linear(6, 3)),
    )


def residual() -> nn.Module:
    """The stream of a stage is the input's, another ends in the output's."""
    return nn.Sequential(Residual(2, 2, 1), Residual(2, 4, 2), Residual(4, 4, 1))


MODULES = {
    "mlp": lambda: stack((144, 9, 8, 7, 3), IMAGE).module(),
    "unpadded": lambda: plan(4, POOL, 5, hidden=(6,), padding=0),
    "padded": lambda: plan(4, 5, POOL, 5, POOL, hidden=(6, 5)),
    "norm": lambda: plan(4, 5, POOL, 5, norm=True, average=True),
    "norm, unpadded": lambda: plan(4, 5, POOL, 5, norm=True, hidden=(6,), padding=0, kernel=2),
    "resnet-8": lambda: models.network(Model("resnet-8", width=2), IMAGE, 3).module(),
    "nested": nested,
    "residual": residual,
}


def drawn(module: nn.Module, density: float, seed: int) -> nn.Module:
    """The same module, pruned, with gains, biases and statistics of both signs. Some units lose all."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=rng))
            if tensor.dim() > 1:
                kept = torch.rand(tensor.shape, generator=rng) < density
                for axis in (0, 1) if density < 1 else ():
                    ends = torch.rand(tensor.shape[axis], generator=rng) < 0.8
                    kept &= ends.view([-1 if a == axis else 1 for a in range(tensor.dim())])
                tensor.masked_fill_(~kept, 0.0)
    return module


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def assert_same_function(small: nn.Module, module: nn.Module, tolerance: float = 1e-5) -> None:
    """In evaluation mode, to a share of the largest logit."""
    was_training = module.training
    parameter = next(module.parameters())
    x = torch.randn(5, *IMAGE, generator=torch.Generator().manual_seed(9)).to(parameter.dtype) + 1
    with torch.no_grad():
        expected, y = module.eval()(x), small(x)
    module.train(was_training)
    assert y.dtype == expected.dtype == parameter.dtype
    assert float((y - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", MODULES)
def test_nothing_changes_and_nothing_more_could_leave(name: str) -> None:
    removed = 0
    for seed, density in enumerate((0, 0.1, 0.4, 0.4, 0.7, 1)):
        module = drawn(MODULES[name](), density, seed)
        before, whole = pickle.dumps(module.state_dict()), shapes(module)
        small = shrink(module)
        assert pickle.dumps(module.state_dict()) == before
        assert module.training
        assert not any(part.training for part in small.modules())
        assert_same_function(small, module)
        assert set(whole) <= set(shapes(small))
        removed += sum(p.numel() for p in module.parameters()) - sum(p.numel() for p in small.parameters())
        exact = shrink(module.double())
        assert_same_function(exact, module, tolerance=1e-12)  # rounding hides nothing here
        assert shapes(shrink(exact)) == shapes(exact) == shapes(small)
        if density == 1:
            assert shapes(small) == whole
    assert removed > 0


def test_a_network_without_weights_is_its_last_bias() -> None:
    """A unit of each layer is left, so that every dimension is at least 1."""
    module = drawn(MODULES["mlp"](), 0, 0)
    small = shrink(module)
    assert shapes(small) == shapes(stack((144, 1, 1, 1, 3)).module())
    assert torch.equal(small(torch.ones(1, *IMAGE))[0], module.get_parameter("fc4.bias"))


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return layer


def test_constants_of_units_without_a_way_in_move_into_biases() -> None:
    """Of four hidden units one lives, one is constant at 2, one at relu(-3) = 0, and one leads nowhere."""
    fc1 = linear([[1, 5], [0, 0], [0, 0], [1, 1]], [0.5, 2, -3, 1])
    fc2 = linear([[1, 10, 100, 0], [2, 20, 200, 0]], [7, 8])
    small = shrink(nn.Sequential(OrderedDict(fc1=fc1, relu=nn.ReLU(), fc2=fc2)))
    assert {name: tensor.tolist() for name, tensor in small.state_dict().items()} == {
        "fc1.weight": [[1, 5]],
        "fc1.bias": [0.5],
        "fc2.weight": [[1], [2]],
        "fc2.bias": [27, 48],
    }


def test_what_leaves_takes_others_along() -> None:
    """Forwards: a unit that only constants lead to is constant. Backwards: a unit that only unread units read is not
    read."""
    fc1 = linear([[0, 0], [1, 1], [1, 2]], [2, 1, 1])
    fc2 = linear([[3, 0, 0], [0, 1, 0], [0, 0, 1]], [-1, 0, 0])  # of the constant; of the next; of the last
    fc3 = linear([[10, 0, 1]], [0])  # the second leads nowhere
    small = shrink(nn.Sequential(fc1, nn.ReLU(), fc2, nn.ReLU(), fc3))
    assert shapes(small) == shapes(
        nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    )
    assert small.state_dict()["4.bias"].tolist() == [50]  # 10 * (3 * 2 - 1)


def two_convolutions(constant: float, **settings: Any) -> nn.Module:
    """The first of three channels between them has no way in; the second leads nowhere."""
    module: nn.Module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, **settings), nn.Flatten(), nn.LazyLinear(3)
    )
    module(torch.zeros(1, *IMAGE))
    module = drawn(module, 1, 0)
    with torch.no_grad():
        module.get_parameter("0.weight")[0] = 0
        module.get_parameter("0.bias")[0] = constant
        module.get_parameter("2.weight")[:, 1] = 0
    return module


@pytest.mark.parametrize(
    ("constant", "settings", "left"),
    [
        (2, {"padding": 1}, 2),  # its border sees 0 and 2
        (2, {"padding": "same", "bias": False}, 2),
        (-2, {"padding": 1}, 1),
        (-2, {"padding": 1, "bias": False}, 1),
        (2, {"padding": 0}, 1),
        (2, {"padding": "valid"}, 1),
        (2, {"padding": 1, "padding_mode": "reflect"}, 1),  # it sees 2 everywhere
        (2, {"padding": 0, "stride": 2, "bias": False}, 1),  # needs a bias now
    ],
)
def test_a_constant_channel_stays_where_its_reader_pads_with_zeros(
    constant: float, settings: dict[str, Any], left: int
) -> None:
    module = two_convolutions(constant, **settings)
    small = shrink(module)
    assert shapes(small)["0.weight"] == (left, 2, 3, 3)
    assert shapes(small)["2.weight"] == (2, left, 3, 3)
    bias = settings.get("bias", True) or (constant > 0 and left == 1)
    assert ("2.bias" in shapes(small)) == bias
    assert_same_function(small, module)


STREAM = [f"1.{i}.conv2" for i in (0, 1)]


def stage(stem: Tensor, blocks: list[Tensor], last: int = 3) -> nn.Module:
    """A stem and two residual blocks around one stream of 4 channels, and the mean of each channel.

    Args:
        stem: per channel of the stream, what batch norm adds to it where the stem has no way in; NaN where it has one.
        blocks: the same of each block's last convolution.
        last: how many of the channels, from the first, the linear layer reads.
    """
    module: nn.Module = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(Residual(4, 4, 1), Residual(4, 4, 1)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    module = drawn(module, 1, 1)
    with torch.no_grad():
        for name, norm, added in zip(("0.0", *STREAM), ("0.1", "1.0.bn2", "1.1.bn2"), (stem, *blocks), strict=True):
            closed = ~added.isnan()
            module.get_parameter(f"{name}.weight")[closed] = 0
            module.get_parameter(f"{norm}.bias")[closed] = added[closed]
            module.get_buffer(f"{norm}.running_mean")[closed] = 0
        module.get_parameter("2.2.weight")[:, last:] = 0
    return module


def unread(module: nn.Module, *channels: int, blocks: tuple[int, ...] = (0, 1)) -> nn.Module:
    """The same module, in which the first convolutions of blocks don't read those channels of the stream."""
    with torch.no_grad():
        for i in blocks:
            module.get_parameter(f"1.{i}.conv1.weight")[:, list(channels)] = 0
    return module


OPEN = torch.full((4,), torch.nan)


def closed(channel: int, value: float) -> Tensor:
    return OPEN.index_fill(0, torch.tensor(channel), value)


@pytest.mark.parametrize(
    ("module", "left"),
    [
        (stage(OPEN, [OPEN, OPEN], last=4), 4),
        # nobody reads the last channel
        (unread(stage(OPEN, [OPEN, OPEN]), 3), 3),
        (unread(stage(OPEN, [OPEN, OPEN]), 3, blocks=(1,)), 4),  # but the first block does
        (unread(stage(OPEN, [OPEN, OPEN], last=4), 3), 4),  # but the linear layer does
        # the first channel is 0 everywhere
        (stage(closed(0, -1), [closed(0, -1), closed(0, -1)], last=4), 3),
        (stage(closed(0, -1), [closed(0, 2), closed(0, -3)], last=4), 4),  # but between the blocks, where it is read
        (unread(stage(closed(0, -1), [closed(0, 2), closed(0, -3)], last=4), 0), 3),  # where it is not
        (stage(closed(0, -1), [OPEN, closed(0, -1)], last=4), 4),  # but where the first block writes
        (stage(closed(0, -1), [closed(0, -1), OPEN], last=4), 4),
        (stage(OPEN, [closed(0, -1), closed(0, -1)], last=4), 4),
        # the first channel is constant, which only the linear layer is to know
        (unread(stage(closed(0, 2), [closed(0, -1), closed(0, 2)], last=4), 0), 3),
        (stage(closed(0, 2), [closed(0, -1), closed(0, 2)], last=4), 4),
    ],
)
def test_a_channel_of_a_residual_sum_leaves_where_all_who_share_it_allow_it(module: nn.Module, left: int) -> None:
    small = shrink(module)
    found = shapes(small)
    assert found["0.0.weight"][0] == found["1.0.conv1.weight"][1] == found["2.2.weight"][1] == left
    assert {found[f"{name}.weight"] for name in STREAM} == {(left, 4, 3, 3)}
    assert_same_function(small, module)


def test_a_block_loses_inner_channels_and_a_projection_is_given_a_bias() -> None:
    """The block's input has a constant channel: its padded convolution reads it no more, its projection does."""
    module = drawn(nn.Sequential(nn.Conv2d(2, 3, 1), Residual(3, 6, 2), nn.ReLU()), 1, 2)
    with torch.no_grad():
        module.get_parameter("0.weight")[0] = 0
        module.get_parameter("1.conv1.weight")[:, 0] = 0
        module.get_parameter("1.conv1.weight")[4] = 0
        module.get_parameter("1.bn1.weight")[4] = 0  # relu(-1): nothing
        module.get_parameter("1.bn1.bias")[4] = -1
        module.get_parameter("1.conv2.weight")[:, 5] = 0
    small = shrink(module)
    found = shapes(small)
    assert (found["1.conv1.weight"], found["1.conv2.weight"]) == ((4, 2, 3, 3), (6, 4, 3, 3))
    assert (found["1.shortcut.conv.weight"], found["1.shortcut.conv.bias"]) == ((6, 2, 1, 1), (6,))
    assert set(found) - set(shapes(module)) == {"1.shortcut.conv.bias"}
    assert_same_function(small, module)


def test_a_layer_that_is_used_twice_becomes_two() -> None:
    fc = linear([[1, 2], [0, 0]], [1, 3])
    small = shrink(nn.Sequential(fc, nn.ReLU(), fc))
    assert shapes(small) == {"0.weight": (1, 2), "0.bias": (1,), "2.weight": (2, 1), "2.bias": (2,)}
    assert small(torch.tensor([[1.0, 1.0]])).tolist() == [[11, 3]]


def test_the_result_is_made_of_plain_parts() -> None:
    module = drawn(MODULES["resnet-8"](), 0.5, 3)
    for name in ("conv.weight", "fc.bias"):
        module.get_parameter(name).requires_grad_(False)
    small = shrink(module)
    assert_same_function(pickle.loads(pickle.dumps(small)), module)
    assert [name for name, p in small.named_parameters() if not p.requires_grad] == ["conv.weight", "fc.bias"]
    for part in small.modules():
        if isinstance(part, nn.Conv2d):
            assert (part.out_channels, part.in_channels) == part.weight.shape[:2]
        if isinstance(part, nn.Linear):
            assert (part.out_features, part.in_features) == part.weight.shape
        if isinstance(part, nn.BatchNorm2d):
            assert {t.numel() for t in part.state_dict().values() if t.dim()} == {part.num_features}


def hooked() -> nn.Module:
    prune.identity(layer := nn.Linear(2, 2), "weight")
    return layer


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [nn.Sequential(nn.Dropout())],
            r"module\.0\.0 \(Dropout\) can't be shrunk: only nn\.Sequential of Linear, Conv",
        ),
        ([nn.Conv2d(4, 4, 1, groups=2)], r"module\.0 \(Conv2d\) has groups = 2"),
        ([nn.BatchNorm2d(2, track_running_stats=False)], "has no running statistics"),
        ([nn.MaxPool2d(2, padding=1, dilation=2)], "has dilation = 2"),
        ([nn.Flatten(2)], "flattens dimensions 2 to -1: must be 1 to -1"),
        ([hooked()], r"module\.0 \(Linear\) has forward hooks"),
        ([nn.Conv2d(2, 4, 1), nn.Linear(4, 3)], r"module\.1 \(Linear\) takes vectors, and what comes are images: put "),
        ([nn.Linear(4, 3), nn.Flatten(), nn.Linear(6, 3)], r"module\.1 \(Flatten\) takes images, and what comes are v"),
        ([nn.Linear(4, 3), nn.Linear(4, 3)], r"module\.1 \(Linear\) takes 4 inputs, and 3 channels come"),
        ([nn.Conv2d(2, 4, 1), nn.BatchNorm2d(8)], "takes 8 inputs, and 4 channels come"),
        ([Residual(1, 4, 1)], r"module\.0 \(Residual\) adds 4 channels and 1 of its shortcut"),
    ],
)
def test_what_cannot_be_followed_is_named(parts: list[nn.Module], message: str) -> None:
    with pytest.raises(LotteryError, match=message) as refused:
        shrink(nn.Sequential(*parts))
    assert "\n" not in str(refused.value)
