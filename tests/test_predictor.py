"""Prediction with the surviving weights alone: the masked module's function, for any batch, from any array."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lottery import masks, models
from lottery.engines.sparse import doors, sell
from lottery.engines.sparse.predictor import Predictor
from lottery.errors import LotteryError
from lottery.masks import Masks, Weights
from lottery.models import Network
from lottery.models.mlp import stack
from lottery.spec import Model

BATCHES = (0, 1, 2, 3, 4, 15, 16, 17, 63, 64, 65, 130)


def ticket(
    sizes: tuple[int, ...], density: float, inputs: tuple[int, ...] | None = None
) -> tuple[Network, Weights, Masks]:
    """Random masks, and weights that are not 0 where they are pruned."""
    network, rng = stack(sizes, inputs), np.random.default_rng(0)
    weights = {name: rng.standard_normal(t.shape).astype(np.float32) for name, t in network.tensors.items()}
    kept = {name: rng.random(network.tensors[name].shape) < density for name in network.prunable}
    return network, weights, kept


def examples(features: int, background: float = 0.0, count: int = 130) -> np.ndarray:
    """Mostly background, as images are."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((count, features)).astype(np.float32)
    return np.where(rng.random(x.shape) < 0.3, x, np.float32(background))


def dense(network: Network, weights: Weights, kept: Masks, x: np.ndarray) -> np.ndarray:
    """What the masked module computes."""
    module = network.module()
    module.load_state_dict({name: torch.from_numpy(w) for name, w in masks.apply(weights, kept).items()})
    with torch.no_grad():
        logits: np.ndarray = module(torch.from_numpy(x)).numpy()
    return logits


def check(sizes: tuple[int, ...], density: float, expected: Callable[..., np.ndarray]) -> None:
    """Compares with another implementation; and batches with each other, to the bit."""
    network, weights, kept = ticket(sizes, density)
    predictor = Predictor(network, weights, kept)
    for background in (0.0, -0.42):
        x = examples(sizes[0], background)
        logits, right = predictor(x), expected(network, weights, kept, x)
        np.testing.assert_allclose(logits, right, rtol=0, atol=1e-5 * np.abs(right).max())
        for n in BATCHES:
            some = predictor(x[130 - n :])
            assert some.dtype == np.float32
            np.testing.assert_array_equal(some, logits[130 - n :])


@pytest.mark.parametrize("density", [1.0, 0.3, 0.03, 0.0])
@pytest.mark.parametrize("sizes", [(784, 300, 100, 10), (7, 5, 3), (40, 33, 17), (30, 4)])
def test_it_computes_what_the_module_does(sizes: tuple[int, ...], density: float) -> None:
    check(sizes, density, dense)


def layer_by_layer(network: Network, weights: Weights, kept: Masks, x: np.ndarray) -> np.ndarray:
    """The same without PyTorch, in float64."""
    for i, layer in enumerate(network.layers):
        x = (x if i == 0 else np.maximum(x, 0)) @ (weights[layer.weight] * kept[layer.weight]).T.astype(float)
        x = x + weights[layer.bias]
    return x


def check_without_torch() -> None:
    for sizes, density in (((40, 33, 17), 0.2), ((7, 5, 3), 1.0)):
        check(sizes, density, layer_by_layer)
    assert not doors.JIT


def test_with_the_jit_off() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "import test_predictor; test_predictor.check_without_torch()"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


SMALL = ticket((12, 9, 4), 0.6, inputs=(3, 4))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*SMALL)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "as images": lambda x: x.reshape(-1, 3, 4),
    "float64": lambda x: x.astype(float),
    "big-endian": lambda x: x.astype(">f4"),
    "by columns": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "a list": lambda x: x.tolist(),
    "a tensor": torch.from_numpy,
    "a tensor that needs gradients": lambda x: torch.from_numpy(x.copy()).requires_grad_(),
}
"""Examples in other forms than float32 in rows."""


@pytest.mark.parametrize("form", FORMS)
def test_examples_of_any_form(predictor: Predictor, form: str) -> None:
    x = examples(12, count=20)
    np.testing.assert_array_equal(predictor(FORMS[form](x)), predictor(x))
    read_only = x.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(predictor(read_only), predictor(x))
    if doors.JIT:
        assert len(sell.predict.signatures) == 1  # another would be compiled


def test_whole_numbers(predictor: Predictor) -> None:
    x = np.arange(60).reshape(5, 12)
    for dtype in (np.uint8, np.int64, np.float16):
        np.testing.assert_array_equal(predictor(x.astype(dtype)), predictor(x.astype(np.float32)))
    np.testing.assert_array_equal(predictor(x > 30), predictor((x > 30).astype(np.float32)))


def test_the_callers_arrays_are_copied(predictor: Predictor) -> None:
    network, weights, kept = ticket((12, 9, 4), 0.6, inputs=(3, 4))
    x = examples(12, count=20)
    before, ours = x.copy(), Predictor(network, weights, kept)
    for array in (*weights.values(), *kept.values()):
        array[:] = 0
    np.testing.assert_array_equal(ours(x), predictor(x))
    np.testing.assert_array_equal(x, before)


def test_units_that_lead_nowhere_are_no_work() -> None:
    """Nor those that lead only to such units."""
    network, weights, kept = ticket((12, 9, 8, 4), 0.8)
    kept["fc3.weight"][:, 5] = False
    kept["fc2.weight"][:, 3] = np.arange(8) == 5
    x = examples(12, count=20)
    predictor, right = Predictor(network, weights, kept), dense(network, weights, kept, x)
    np.testing.assert_allclose(predictor(x), right, rtol=1e-5, atol=1e-5)
    kept["fc1.weight"][3] = kept["fc2.weight"][5] = False
    assert np.count_nonzero(predictor._slices.w) == sum(mask.sum() for mask in kept.values())


def test_nan_reaches_what_its_pixel_is_connected_to() -> None:
    network, weights, kept = ticket((12, 4), 1.0)
    kept["fc1.weight"][1, 5] = False
    x = np.zeros((17, 12), np.float32)
    x[[0, 16], 5] = np.nan
    logits = Predictor(network, weights, kept)(x)
    expected = np.zeros((17, 4), bool)
    expected[[0, 16]] = [True, False, True, True]
    np.testing.assert_array_equal(np.isnan(logits), expected)
    hidden = Predictor(*ticket((12, 4, 4), 1.0))(x)
    np.testing.assert_array_equal(np.isnan(hidden).all(axis=1), expected[:, 0])  # ReLU hides none


def test_threads_share_a_predictor() -> None:
    predictor, x = Predictor(*ticket((784, 300, 100, 10), 0.03)), examples(784)
    parts = [x[i % 50 :] for i in range(40)]
    alone = [predictor(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for ours, expected in zip(pool.map(predictor, parts), alone, strict=True):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.skipif(not (doors.JIT and doors.X86), reason="elsewhere subnormal numbers cost nothing")
def test_subnormal_numbers_are_flushed_in_the_kernel_alone() -> None:
    network, weights, kept = ticket((1, 1), 1.0)
    weights["fc1.weight"][:], weights["fc1.bias"][:] = 1e-38, 0
    assert Predictor(network, weights, kept)(np.full((1, 1), 0.1)) == 0
    assert np.float32(1e-38) * np.float32(0.1) != 0


BAD_EXAMPLES: dict[str, tuple[Any, str]] = {
    "features": (np.zeros((2, 13)), "examples have shape (2, 13): must be [n, 3, 4], or [n, 12]"),
    "one example": (np.zeros(12), "examples have shape (12,): must be [n, 3, 4], or [n, 12]"),
    "a number": (3.0, "examples have shape (): must be [n, 3, 4], or [n, 12]"),
    "complex": (np.zeros((2, 12), complex), "examples have dtype complex128: must be floats or integers"),
    "text": (["one"] * 12, "examples have dtype <U3: must be floats or integers"),
    "ragged": ([[1.0], [1.0, 2.0]], "examples: must be an array of floats or integers (setting an array"),
    "bfloat16": (torch.zeros(2, 12).bfloat16(), "examples: must be an array of floats or integers (Got unsupported"),
}


@pytest.mark.parametrize("case", BAD_EXAMPLES)
def test_bad_examples(predictor: Predictor, case: str) -> None:
    bad, message = BAD_EXAMPLES[case]
    with pytest.raises(LotteryError) as error:
        predictor(bad)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


WEIGHT, MASK = SMALL[1]["fc1.weight"], SMALL[2]["fc2.weight"]

Differing = dict[str, np.ndarray | None]

BAD_TICKETS: dict[str, tuple[Differing, Differing, str]] = {
    "no mask": ({}, {"fc2.weight": None}, "masks has no 'fc2.weight': it must have every layer's"),
    "no bias": ({"fc1.bias": None}, {}, "weights has no 'fc1.bias': it must have every layer's"),
    "shape": (
        {"fc1.weight": WEIGHT.T},
        {},
        "weights['fc1.weight'] is float32 of shape (12, 9): must be floats of shape (9, 12)",
    ),
    "numbers for a mask": (
        {},
        {"fc2.weight": MASK.astype(np.float32)},
        "masks['fc2.weight'] is float32 of shape (4, 9): must be bool, True = kept, of shape (4, 9)",
    ),
}
"""What differs from SMALL (None: it is missing), and the message."""


@pytest.mark.parametrize("case", BAD_TICKETS)
def test_bad_tickets(case: str) -> None:
    network, weights, kept = SMALL
    other_weights, other_masks, message = BAD_TICKETS[case]
    weights, kept = (
        {name: array for name, array in {**old, **new}.items() if array is not None}
        for old, new in ((weights, other_weights), (kept, other_masks))
    )
    with pytest.raises(LotteryError) as error:
        Predictor(network, weights, kept)
    assert str(error.value) == message


def test_other_networks_are_refused() -> None:
    network = models.network(Model(name="lenet-5"), (28, 28), 10)
    with pytest.raises(LotteryError, match=r"^Predictor is for stacks of linear layers: .* the shrunk module$"):
        Predictor(network, {}, {})
