"""Networks agree with the PyTorch modules that they build; initial weights are the distribution they claim to be."""

import hashlib
import json

import numpy as np
import pytest
import torch

from lottery import models
from lottery.errors import LotteryError
from lottery.models import Network
from lottery.models.mlp import stack
from lottery.models.torch import get_weights, prunable
from lottery.seeds import stream
from lottery.spec import Model


def test_lenet_has_the_papers_parameters() -> None:
    network = models.network(Model("lenet-300-100"), (28, 28), 10)
    assert network.weights == 266_200
    assert sum(int(np.prod(t.shape)) for t in network.tensors.values() if t.prunable) == 266_200
    assert sum(int(np.prod(t.shape)) for t in network.tensors.values()) == 266_610
    assert network.sizes == (784, 300, 100, 10)
    assert network.inputs == (28, 28)


@pytest.mark.parametrize("sizes", [(784, 300, 100, 10), (5, 3), (7, 1, 2, 4, 3)])
def test_a_network_is_what_its_module_has(sizes: tuple[int, ...]) -> None:
    network = stack(sizes)
    module = network.module()
    assert [(n, t.shape) for n, t in network.tensors.items()] == [
        (n, tuple(p.shape)) for n, p in module.named_parameters()
    ]
    assert not any(tensor.buffer for tensor in network.tensors.values())
    assert not list(module.named_buffers())
    assert network.prunable == prunable(module)
    assert network.sizes == sizes
    assert [name for layer in network.layers for name in (layer.weight, layer.bias)] == list(network.tensors)


def test_a_module_is_linear_layers_with_relu_between() -> None:
    """By hand, for examples flat or square."""
    network = stack((12, 5, 4, 3), inputs=(3, 4))
    module = network.module()
    assert [name for name, _ in module.named_children()] == ["flatten", "fc1", "relu1", "fc2", "relu2", "fc3"]
    weights = {name: w.astype(float) for name, w in get_weights(module).items()}
    x = stream(0).standard_normal((7, 3, 4)).astype(np.float32)
    expected = x.reshape(7, 12).astype(float)
    for i in (1, 2, 3):
        expected = expected @ weights[f"fc{i}.weight"].T + weights[f"fc{i}.bias"]
        expected = np.maximum(expected, 0) if i < 3 else expected
    with torch.no_grad():
        for given in (x, x.reshape(7, 12)):
            np.testing.assert_allclose(module(torch.from_numpy(given)).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_module_is_made_anew_each_time() -> None:
    network = stack((3, 2))
    one, other = network.module(), network.module()
    assert one.get_parameter("fc1.weight").data_ptr() != other.get_parameter("fc1.weight").data_ptr()


@pytest.mark.parametrize("network", [stack((784, 300, 100, 10), (28, 28)), stack((5, 3))])
def test_a_description_comes_back_from_a_file(network: Network) -> None:
    read = Network.from_json(json.loads(json.dumps(network.to_json())))
    assert read == network
    assert list(read.tensors) == list(network.tensors)
    with pytest.raises(LotteryError, match="its description builds no module"):
        read.module()


def test_prunable_goes_by_type() -> None:
    """A batch norm's gain is called weight too."""
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2))
    assert prunable(module) == ["0.weight", "2.weight"]


def test_weights_taken_from_a_module_are_copies() -> None:
    module = stack((3, 2)).module()
    taken = get_weights(module)
    before = taken["fc1.weight"].copy()
    with torch.no_grad():
        module.get_parameter("fc1.weight").add_(1)
    assert taken["fc1.weight"].tobytes() == before.tobytes()
    taken["fc1.weight"][:] = 7  # and the other way round
    assert not (module.get_parameter("fc1.weight") == 7).any()


def test_glorot_normal() -> None:
    weights = models.initial_weights(stack((784, 300, 100, 10)), "glorot_normal", stream(0))
    for name, (fan_in, fan_out) in {"fc1.weight": (784, 300), "fc2.weight": (300, 100)}.items():
        z = weights[name] / np.sqrt(2 / (fan_in + fan_out))
        assert weights[name].dtype == np.float32
        assert abs(z.std() - 1) < 0.02
        assert abs(z.mean()) < 0.02
        assert (np.abs(z) > 2).mean() == pytest.approx(0.0455, abs=0.005)  # Gaussian, not truncated, not uniform
    assert not any(w.any() for n, w in weights.items() if n.endswith("bias"))


def test_gaussian_has_one_standard_deviation_in_every_layer() -> None:
    weights = models.initial_weights(stack((784, 300, 100, 10)), "gaussian", stream(0), std=0.05)
    for name in ("fc1.weight", "fc2.weight"):
        z = weights[name] / 0.05
        assert weights[name].dtype == np.float32
        assert abs(z.std() - 1) < 0.02
        assert abs(z.mean()) < 0.02
        assert (np.abs(z) > 2).mean() == pytest.approx(0.0455, abs=0.005)
    assert not any(w.any() for n, w in weights.items() if n.endswith("bias"))


def test_weights_depend_on_the_stream_alone() -> None:
    network = stack((20, 10, 5))
    a, b, c = (models.initial_weights(network, "glorot_normal", stream(0, r, "weights")) for r in (0, 0, 1))
    assert all(a[n].tobytes() == b[n].tobytes() for n in a)
    assert (a["fc1.weight"] != c["fc1.weight"]).all()


@pytest.mark.parametrize(
    ("init", "digest"),
    [
        ("glorot_normal", "3d7051f8bcccf5f111c9ad579298ac1a1c09dad1910ed38be7e14a533a3c341e"),
        ("gaussian", "861032af20be7b2727d1af8abc4fa8622c5dc877c70c0e1f032d2930795ff9ee"),
    ],
)
def test_initial_weights_never_change(init: str, digest: str) -> None:
    """θ₀ of LeNet, seed 0, replicate 0: published tickets are found again by their seed."""
    theta = models.initial_weights(stack((784, 300, 100, 10)), init, stream(0, 0, "weights"))
    assert list(theta) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"]
    assert hashlib.sha256(b"".join(w.tobytes() for w in theta.values())).hexdigest() == digest


def test_bad_models_are_named() -> None:
    with pytest.raises(LotteryError, match="unknown model 'lenet': choose from lenet-300-100, mlp"):
        models.network(Model("lenet"), (28, 28), 10)
    with pytest.raises(LotteryError, match=r"model.hidden = \[300, 20\]: must be empty for lenet-300-100"):
        models.network(Model("lenet-300-100", hidden=(300, 20)), (28, 28), 10)
    with pytest.raises(LotteryError, match=r"unknown model.init 'he'"):
        models.initial_weights(stack((3, 2)), "he", stream(0))
