"""Layouts agree with the PyTorch modules; initial weights are the distribution they claim to be."""

import hashlib

import numpy as np
import pytest
import torch

from lottery import models, modules
from lottery.errors import LotteryError
from lottery.seeds import stream
from lottery.spec import Model


def test_lenet_has_the_papers_parameters() -> None:
    layout = models.mlp(models.sizes(Model("lenet-300-100"), 784, 10))
    assert sum(int(np.prod(t.shape)) for t in layout.values() if t.prunable) == 266_200
    assert sum(int(np.prod(t.shape)) for t in layout.values()) == 266_610


@pytest.mark.parametrize("sizes", [(784, 300, 100, 10), (5, 3), (7, 1, 2, 4, 3)])
def test_layout_is_the_modules(sizes: tuple[int, ...]) -> None:
    layout, module = models.mlp(sizes), modules.MLP(sizes)
    assert {n: t.shape for n, t in layout.items()} == {n: tuple(p.shape) for n, p in module.named_parameters()}
    assert [n for n, t in layout.items() if t.prunable] == modules.prunable(module)


def test_prunable_goes_by_type() -> None:
    """A batch norm's gain is called weight too."""
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2))
    assert modules.prunable(module) == ["0.weight", "2.weight"]


def test_weights_taken_from_a_module_are_copies() -> None:
    module = modules.MLP((3, 2))
    taken = modules.get_weights(module)
    before = taken["fc1.weight"].clone()
    with torch.no_grad():
        module.get_parameter("fc1.weight").add_(1)
    assert torch.equal(taken["fc1.weight"], before)


def test_glorot_normal() -> None:
    weights = models.initial_weights(models.mlp((784, 300, 100, 10)), "glorot_normal", stream(0))
    for name, (fan_in, fan_out) in {"fc1.weight": (784, 300), "fc2.weight": (300, 100)}.items():
        z = weights[name] / np.sqrt(2 / (fan_in + fan_out))
        assert weights[name].dtype == np.float32
        assert abs(z.std() - 1) < 0.02
        assert abs(z.mean()) < 0.02
        assert (np.abs(z) > 2).mean() == pytest.approx(0.0455, abs=0.005)  # Gaussian, not truncated, not uniform
    assert not any(w.any() for n, w in weights.items() if n.endswith("bias"))


def test_gaussian_has_one_standard_deviation_in_every_layer() -> None:
    weights = models.initial_weights(models.mlp((784, 300, 100, 10)), "gaussian", stream(0), std=0.05)
    for name in ("fc1.weight", "fc2.weight"):
        z = weights[name] / 0.05
        assert weights[name].dtype == np.float32
        assert abs(z.std() - 1) < 0.02
        assert abs(z.mean()) < 0.02
        assert (np.abs(z) > 2).mean() == pytest.approx(0.0455, abs=0.005)
    assert not any(w.any() for n, w in weights.items() if n.endswith("bias"))


def test_weights_depend_on_the_stream_alone() -> None:
    layout = models.mlp((20, 10, 5))
    a, b, c = (models.initial_weights(layout, "glorot_normal", stream(0, r, "weights")) for r in (0, 0, 1))
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
    theta = models.initial_weights(models.mlp((784, 300, 100, 10)), init, stream(0, 0, "weights"))
    assert list(theta) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"]
    assert hashlib.sha256(b"".join(w.tobytes() for w in theta.values())).hexdigest() == digest


def test_bad_models_are_named() -> None:
    with pytest.raises(LotteryError, match="unknown model 'lenet': choose from lenet-300-100, mlp"):
        models.sizes(Model("lenet"), 784, 10)
    with pytest.raises(LotteryError, match=r"model.hidden = \[300, 20\]: must be empty for lenet-300-100"):
        models.sizes(Model("lenet-300-100", hidden=(300, 20)), 784, 10)
    with pytest.raises(LotteryError, match=r"unknown model.init 'he'"):
        models.initial_weights(models.mlp((3, 2)), "he", stream(0))
