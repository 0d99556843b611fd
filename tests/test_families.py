"""Each family's layout, written down without torch, is what its module has; counts are the papers'."""

import json
import pickle
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from lottery import models
from lottery.engines import sparse
from lottery.errors import LotteryError
from lottery.models import Layer, Network, Tensor
from lottery.models.layout import batch_norm, weight
from lottery.models.mlp import stack
from lottery.seeds import stream
from lottery.spec import Model, Recipe

COLOUR, GREY = (3, 32, 32), (28, 28)
HAS_WIDTH = ("resnet", "vgg")


def small(name: str, inputs: tuple[int, ...] = COLOUR, classes: int = 10) -> Network:
    """The network of that name, as narrow as can be."""
    hidden = (7, 5) if name == "mlp" else ()
    return models.network(Model(name, hidden, width=2 if name.startswith(HAS_WIDTH) else 0), inputs, classes)


def parameters(network: Network) -> int:
    return sum(prod(tensor.shape) for tensor in network.tensors.values() if not tensor.buffer)


def convolutional(network: Network) -> int:
    return sum(prod(network.tensors[name].shape) for name in network.prunable if len(network.tensors[name].shape) == 4)


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("inputs", [COLOUR, GREY])
def test_a_layout_is_what_its_module_has(name: str, inputs: tuple[int, ...]) -> None:
    """Names, shapes and types in the order of `state_dict`; which are buffers; which are prunable; what starts at 1."""
    network = small(name, inputs, classes=4)
    module = network.module()
    state = module.state_dict()
    assert {n: (t.shape, t.dtype) for n, t in network.tensors.items()} == {
        n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in state.items()
    }
    assert list(network.tensors) == list(state)
    assert {n for n, t in network.tensors.items() if t.buffer} == {n for n, _ in module.named_buffers()}
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert network.prunable == [f"{n}.weight" for n in layers]
    for n, tensor in network.tensors.items():
        if not tensor.fan_in:  # biases too are drawn by PyTorch, and start at 0 here
            is_bias = n.rpartition(".")[0] in layers
            assert tensor.fill == (0 if is_bias else float(state[n].flatten()[0]))
            assert not tensor.prunable
            continue
        fans = nn.init._calculate_fan_in_and_fan_out(state[n])
        assert (tensor.fan_in, tensor.fan_out) == fans


@pytest.mark.parametrize("name", models.MODELS)
def test_modules_take_examples_of_their_inputs_and_give_logits(name: str) -> None:
    for inputs in ((28, 28), (32, 16), (3, 32, 32), (2, 17, 40)):
        network = small(name, inputs, classes=4)
        module = network.module()  # in training: in evaluation narrow VGGs may have no unit left that is above 0
        assert network.inputs == (inputs if network.linear else (1, *inputs)[-3:])
        with torch.no_grad():
            logits = module(torch.from_numpy(stream(0).standard_normal((2, *network.inputs)).astype(np.float32)))
        assert logits.shape == (2, 4)
        assert (logits[0] != logits[1]).all()


@pytest.mark.parametrize(
    ("name", "inputs", "total", "prunable", "convolutions"),
    [
        ("lenet-5", GREY, 431_080, 430_500, 25_500),
        ("conv-2", COLOUR, 4_301_642, 4_300_992, 38_592),  # the paper's 4.3M and 38K
        ("conv-4", COLOUR, 2_425_930, 2_425_024, 259_776),  # 2.4M and 260K
        ("conv-6", COLOUR, 2_262_602, 2_261_184, 1_144_512),  # 1.1M; the paper says 1.7M, where this has 2.3M
        ("resnet-20", COLOUR, 272_474, 270_896, 270_256),
        ("resnet-110", COLOUR, 1_730_714, 1_722_416, 1_721_776),
        ("vgg-16", COLOUR, 14_728_266, 14_715_584, 14_710_464),
        ("vgg-19", COLOUR, 20_040_522, 20_024_000, 20_018_880),
    ],
)
def test_counts(name: str, inputs: tuple[int, ...], total: int, prunable: int, convolutions: int) -> None:
    network = models.network(Model(name), inputs, 10)
    assert (parameters(network), network.weights, convolutional(network)) == (total, prunable, convolutions)


@pytest.mark.parametrize("name", models.MODELS)
def test_depth_is_the_number_of_layers_with_weights(name: str) -> None:
    family, _, depth = name.partition("-")
    if family in ("resnet", "vgg"):
        names = [n for n in small(name).prunable if "shortcut" not in n]
        assert len(names) == int(depth) - (2 if family == "vgg" else 0)  # this VGG has one linear layer, not three
        assert names[-1] == "fc.weight"
    elif family == "conv":
        assert len(small(name).prunable) == int(depth) + 3


def test_width_is_the_first_stages() -> None:
    for name, own in (("resnet-8", 16), ("vgg-11", 64)):
        wide, narrow = (models.network(Model(name, width=w), COLOUR, 10) for w in (0, 3))
        first = narrow.prunable[0]
        assert wide.tensors[first].shape == (own, 3, 3, 3)
        assert narrow.tensors[first].shape == (3, 3, 3, 3)
        multiple = 4 if name == "resnet-8" else 8
        assert narrow.tensors["fc.weight"].shape == (10, 3 * multiple)
        assert models.network(Model(name, width=own), COLOUR, 10) == wide


@pytest.mark.parametrize("name", ["lenet-5", "conv-4", "vgg-11", "lenet-300-100"])
def test_layers_say_what_follows_what(name: str) -> None:
    """By hand: each layer, its norm, ReLU and pooling where they are, from the names alone; as the module computes."""
    network = small(name, GREY)
    assert [layer.weight for layer in network.layers] == network.prunable
    module = network.module().eval()
    draw = stream(3)
    with torch.no_grad():
        for n, t in module.state_dict().items():
            if t.dtype == torch.float32:
                values = torch.from_numpy(draw.random(t.shape).astype(np.float32) + 0.5)
                t.copy_(values if n.rpartition(".")[2] == "running_var" else values - 0.9)
    state = module.state_dict()
    x = torch.from_numpy(draw.standard_normal((2, *network.inputs)).astype(np.float32))
    y = x if len(network.inputs) == 3 else x.flatten(1)
    with torch.no_grad():
        for layer, after in zip(network.layers, [*network.layers[1:], None], strict=True):
            w = state[layer.weight]
            if w.ndim == 4:
                y = nn.functional.conv2d(y, w, state[layer.bias], padding=0 if w.shape[-1] == 5 else 1)
            else:
                y = y.flatten(1) @ w.T + state[layer.bias]
            if layer.norm:
                mean, variance, gain, shift = (
                    state[f"{layer.norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
                )
                columns = [v[:, None, None] for v in (mean, variance, gain, shift)]
                y = (y - columns[0]) / (columns[1] + 1e-5).sqrt() * columns[2] + columns[3]
            if after:
                y = y.relu()
                y = _pooled(name, layer, y)
        torch.testing.assert_close(module(x), y, rtol=1e-3, atol=1e-4 * float(y.abs().max()))


def _pooled(name: str, layer: Layer, y: torch.Tensor) -> torch.Tensor:
    pooled = {"lenet-5": "12", "conv-4": "24", "vgg-11": "1246", "lenet-300-100": ""}[name]
    if layer.weight in [f"conv{i}.weight" for i in pooled]:
        return nn.functional.max_pool2d(y, 2)
    return y.mean((2, 3)) if (name, layer.weight) == ("vgg-11", "conv8.weight") else y


def test_a_residual_block_by_hand() -> None:
    """relu(bn(conv(relu(bn(conv x)))) + shortcut), where the shortcut halves height and width when channels double."""
    network = small("resnet-8")
    module = network.module().double()
    x = torch.from_numpy(stream(1).standard_normal((3, 2, 6, 6)))
    for name, stride in (("stage1.block1", 1), ("stage2.block1", 2)):
        block = module.get_submodule(name)
        w1, w2 = (block.get_parameter(f"conv{i}.weight") for i in (1, 2))
        y = _normed(nn.functional.conv2d(x, w1, stride=stride, padding=1)).relu()
        y = _normed(nn.functional.conv2d(y, w2, padding=1))
        if stride == 2:
            w = block.get_parameter("shortcut.conv.weight")
            y = y + _normed(nn.functional.conv2d(x[:, :, ::2, ::2], w))
        else:
            y = y + x
        torch.testing.assert_close(block(x), y.relu())
        assert y.shape == (3, 2 * stride, 6 // stride, 6 // stride)


def _normed(x: torch.Tensor) -> torch.Tensor:
    """A fresh batch norm in training."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance + 1e-5).sqrt()


def test_modules_can_be_pickled() -> None:
    module = small("resnet-8").module()
    assert list(pickle.loads(pickle.dumps(module)).state_dict()) == list(module.state_dict())


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("init", models.INITS)
def test_initial_weights_are_the_whole_state(name: str, init: str) -> None:
    network = small(name)
    drawn = models.initial_weights(network, init, stream(0))
    assert list(drawn) == list(network.tensors)
    for n, tensor in network.tensors.items():
        assert drawn[n].shape == tensor.shape
        assert drawn[n].dtype == tensor.dtype
        assert drawn[n].std() > 0 if tensor.prunable else (drawn[n] == tensor.fill).all()
    network.module().load_state_dict({n: torch.from_numpy(w) for n, w in drawn.items()})


@pytest.mark.parametrize(("init", "variance"), [("kaiming_normal", 2 / 144), ("glorot_normal", 2 / (144 + 72))])
def test_fans_of_convolutions_count_the_window(init: str, variance: float) -> None:
    """16 channels in, 8 out, 3x3: He et al. 2015, equation 10, and Glorot & Bengio 2010, equation 12."""
    drawn = models.initial_weights(Network({"w": weight(800, 16, 3, 3)}, (16, 4, 4)), "kaiming_normal", stream(0))["w"]
    assert drawn.std() == pytest.approx(np.sqrt(2 / 144), rel=0.01)
    z = models.initial_weights(Network({"w": weight(8, 16, 3, 3)}, (16, 4, 4)), init, stream(0))["w"]
    expected = stream(0).standard_normal((8, 16, 3, 3)) * np.sqrt(variance)
    assert z.tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize("name", models.MODELS)
def test_a_description_comes_back_from_a_file(name: str) -> None:
    network = small(name)
    text = json.dumps(network.to_json())
    read = Network.from_json(json.loads(text))
    assert read == network
    assert list(read.tensors) == list(network.tensors)
    assert json.dumps(read.to_json()) == text


def test_old_networks_keep_their_json() -> None:
    """Byte for byte: a run is compared with what it was begun with. What is new is written only where it says more."""
    assert json.dumps(stack((3, 2), (1, 3)).to_json()) == (
        '{"inputs": [1, 3], "tensors": {"fc1.weight": {"shape": [2, 3], "prunable": true, "buffer": false, "fan_in": 3,'
        ' "fan_out": 2}, "fc1.bias": {"shape": [2], "prunable": false, "buffer": false, "fan_in": 0, "fan_out": 0}},'
        ' "layers": [{"weight": "fc1.weight", "bias": "fc1.bias"}]}'
    )
    network = Network({"w": weight(2, 1, 3, 3), **batch_norm("n", 2)}, (1, 3, 3), (Layer("w", norm="n"),))
    written = network.to_json()
    assert written["layers"] == [{"weight": "w", "bias": "", "norm": "n"}]
    assert written["tensors"]["n.weight"]["fill"] == 1
    assert "fill" not in written["tensors"]["n.bias"]
    assert written["tensors"]["n.num_batches_tracked"]["dtype"] == "int64"


def test_only_stacks_of_linear_layers_are_linear() -> None:
    linear = [name for name in models.MODELS if small(name).linear]
    assert linear == ["lenet-300-100", "mlp"]
    for name in ("lenet-5", "vgg-11", "resnet-8"):
        assert "use --engine torch" in sparse.refuses(small(name), Recipe(), "cpu")
    assert not sparse.refuses(small("mlp"), Recipe(), "cpu")
    assert not Network({"w": Tensor((2, 2), prunable=True)}, (2,)).linear  # its order is unknown


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (
            Model("lenet-5"),
            (5, 5),
            "model.name = 'lenet-5': nothing is left of images of 5 x 5 pixels: they must be at ",
        ),
        (Model("lenet-5"), (15, 99), "at least 16 x 16, or use mlp"),
        (Model("conv-6"), (3, 7, 9), "at least 8 x 8"),
        (Model("vgg-11"), (3, 32, 15), "at least 16 x 16"),
        (Model("resnet-8"), (784,), "model.name = 'resnet-8': takes images, and these examples are 784; use mlp"),
        (Model("conv-2"), (2, 3, 32, 32), "these examples are 2 x 3 x 32 x 32"),
        (Model("resnet-20", hidden=(5,)), COLOUR, "model.hidden = [5]: must be empty for resnet-20"),
        (Model("vgg-11", hidden=(5,)), COLOUR, "model.hidden = [5]: must be empty for vgg-11"),
        (Model("lenet-5", hidden=(5,)), GREY, "model.hidden = [5]: must be empty for lenet-5"),
        (Model("lenet-5", width=5), GREY, "model.width = 5: must be 0 for lenet-5; resnet-N and vgg-N have it"),
        (Model("conv-2", width=5), COLOUR, "model.width = 5: must be 0 for conv-2"),
        (Model("mlp", width=5), GREY, "model.width = 5: must be 0 for mlp"),
        (Model("lenet-300-100", width=5), GREY, "model.width = 5: must be 0 for lenet-300-100"),
        (Model("resnet-20", width=5000), COLOUR, "model.width = 5000: these layers have 26,"),
        (Model("resnet-21"), COLOUR, "unknown model 'resnet-21': choose from"),
    ],
)
def test_what_does_not_fit_is_named(model: Model, inputs: tuple[int, ...], message: str) -> None:
    with pytest.raises(LotteryError) as refused:
        models.network(model, inputs, 10)
    assert message in str(refused.value)


def test_the_smallest_images_that_fit_do() -> None:
    for name, side in (("lenet-5", 16), ("conv-2", 2), ("conv-4", 4), ("conv-6", 8), ("vgg-11", 16), ("resnet-8", 1)):
        network = small(name, (side, side))
        assert network.module().eval()(torch.zeros(1, 1, side, side)).shape == (1, 10)
        if side > 1:
            with pytest.raises(LotteryError, match="nothing is left"):
                small(name, (side, side - 1))


@pytest.mark.parametrize("width", [-1, 100_001, True, 1.5])
def test_a_width_is_a_number_of_channels(width: int) -> None:
    with pytest.raises(LotteryError, match=r"model\.width"):
        replace(Model("resnet-8"), width=width)
