"""Every engine: masks hold at each step, nothing leaks from pruned weights, same function as the float64 reference."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lottery import engines, masks, models
from lottery.data import Images, Splits, batches
from lottery.engines import history, reference, sparse
from lottery.engines import torch as engine_torch
from lottery.errors import LotteryError
from lottery.masks import Masks, Weights
from lottery.models import Network, Tensor
from lottery.models.mlp import stack
from lottery.seeds import stream
from lottery.spec import Recipe
from lottery.starts import Start

NETWORK = stack((30, 12, 8, 4))
NAMES = list(engines.ENGINES)
RECIPES = {
    "adam": Recipe(learning_rate=0.01, batch_size=16, iterations=25, evaluate_every=10),
    "adam, decay": Recipe(learning_rate=0.01, weight_decay=0.05, batch_size=16, iterations=25, evaluate_every=10),
    "sgd": Recipe("sgd", learning_rate=0.1, batch_size=16, iterations=25, evaluate_every=10, drop_last=True),
    "momentum": Recipe("sgd", 0.1, momentum=0.9, weight_decay=0.01, batch_size=16, iterations=25, evaluate_every=10),
}


def no_report(row: tuple[float, ...]) -> None:
    pass


def parts(*counts: int, in_bytes: bool = False) -> Splits:
    """Random inputs, four fifths zeros as in MNIST, with labels that can be learned; as in MNIST, 0 to 255 times a
    number, if `in_bytes`."""
    rng = stream(7)
    teach = rng.standard_normal((30, 4))

    def part(n: int) -> Images:
        x = (rng.standard_normal((n, 30)) * (rng.random((n, 30)) < 0.2)).astype(np.float32)
        if in_bytes:
            x = np.round(255 * np.abs(x) / np.abs(x).max()).astype(np.float32) / 127
        return Images(x, (x @ teach).argmax(1).astype(np.int64))

    return Splits(*(part(n) for n in counts))


def logits(weights: Weights, images: np.ndarray) -> np.ndarray:
    """Of NETWORK, by hand."""
    for i in (1, 2, 3):
        images = images @ weights[f"fc{i}.weight"].T + weights[f"fc{i}.bias"]
        images = np.maximum(images, 0) if i < 3 else images
    return images


def start(density: float = 0.4) -> Start:
    weights = models.initial_weights(NETWORK, "glorot_normal", stream(1))
    kept = {n: stream(2, n).random(NETWORK.tensors[n].shape) < density for n in NETWORK.prunable}
    return Start(masks.apply(weights, kept), kept, (0, 0, "order", 0))


@dataclass
class Case:
    """One training run, drawn by hypothesis."""

    network: Network
    data: Splits
    begin: Start
    recipe: Recipe


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any sizes, batches, optimizers and masks: full, random, empty rows and columns, empty layers, a single weight."""
    sizes = tuple(draw(st.lists(st.integers(1, 70), min_size=2, max_size=5)))
    examples, batch = draw(st.integers(1, 150)), draw(st.integers(1, 140))
    recipe = Recipe(
        optimizer=draw(st.sampled_from(["adam", "sgd"])),
        learning_rate=draw(st.sampled_from([1e-3, 1e-2])),
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
        batch_size=batch,
        drop_last=draw(st.booleans()) and batch <= examples,
        iterations=draw(st.integers(1, 6)),
        evaluate_every=draw(st.integers(1, 3)),
    )
    if recipe.optimizer == "sgd":
        recipe = replace(recipe, momentum=draw(st.sampled_from([0.0, 0.9])))
    rng = stream(draw(st.integers(0, 1000)))
    background, in_bytes = draw(st.sampled_from([0.0, -0.42])), draw(st.booleans())

    def part(n: int) -> Images:
        shape = (n, sizes[0])
        bytes_ = rng.integers(1, 256, shape)
        bytes_[:1, 0] = 255  # whatever else is drawn: the largest is what says how much one of them is
        values = background + bytes_ / np.float32(127) if in_bytes else rng.standard_normal(shape)
        pixels = np.where((rng.random(shape) < 0.2) | (bytes_ == 255), values, background)
        return Images(pixels.astype(np.float32), rng.integers(0, sizes[-1], n))

    network = stack(sizes)
    weights = models.initial_weights(network, "glorot_normal", rng)
    kept = {}
    for name, tensor in network.tensors.items():
        if tensor.prunable:
            kind = draw(st.sampled_from(["full", "half", "sparse", "rows", "columns", "one", "empty"]))
            kept[name] = {
                "full": np.ones(tensor.shape, bool),
                "half": rng.random(tensor.shape) < 0.5,
                "sparse": rng.random(tensor.shape) < 0.1,
                "rows": np.broadcast_to(rng.random((tensor.shape[0], 1)) < 0.5, tensor.shape).copy(),
                "columns": np.broadcast_to(rng.random(tensor.shape[1]) < 0.5, tensor.shape).copy(),
                "one": np.arange(np.prod(tensor.shape)).reshape(tensor.shape) == 0,
                "empty": np.zeros(tensor.shape, bool),
            }[kind]
        else:  # biases that start at zero would hide a bias that is lost
            weights[name] = rng.standard_normal(tensor.shape).astype(np.float32)
    begin = Start(masks.apply(weights, kept), kept, (0, 0, "order", 0))
    return Case(network, Splits(part(examples), part(draw(st.sampled_from([0, 3]))), part(70)), begin, recipe)


def assert_same(trained: engines.Trained, expected: engines.Trained, recipe: Recipe) -> None:
    """Weights within what a float32 gradient makes of a step: Adam turns the sign of a vanishing one into a whole step,
    so weights may differ where gradients are rounding errors; losses may not."""
    for column in ("train_loss", "validation_loss", "test_loss"):
        np.testing.assert_allclose(trained.history[column], expected.history[column], rtol=1e-4, atol=1e-5)
    for name, weight in expected.weights.items():
        apart = np.abs(trained.weights[name] - weight)
        assert (apart > 1e-4).sum() <= max(2, 0.02 * apart.size), (name, apart.max())
        assert apart.max(initial=0) < 2.5 * recipe.learning_rate * recipe.iterations


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.data_too_large])
@given(case=cases())
def test_same_function_as_the_reference(name: str, case: Case) -> None:
    trained = engines.trainer(name, "cpu")(case.network, case.data, case.begin, case.recipe, no_report)
    expected = reference.train(case.network, case.data, case.begin, case.recipe, no_report)
    assert_same(trained, expected, case.recipe)
    for layer, mask in case.begin.masks.items():
        assert not trained.weights[layer][~mask].any()
    np.testing.assert_array_equal(trained.history["iteration"], expected.history["iteration"])


def test_the_reference_is_pytorchs_float64() -> None:
    """The oracle itself, against PyTorch's autograd and optimizers."""
    for recipe in RECIPES.values():
        data, begin = parts(100, 40, 50), start(0.4)
        weights = {n: torch.from_numpy(w).double().requires_grad_() for n, w in begin.weights.items()}
        options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        optimizer: torch.optim.Optimizer = torch.optim.Adam(weights.values(), **options)
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(weights.values(), momentum=recipe.momentum, **options)
        for index in batches(begin.order, 100, recipe.batch_size, recipe.drop_last, recipe.iterations):
            x = torch.from_numpy(data.train.images[index]).double()
            for i in (1, 2, 3):
                x = torch.nn.functional.linear(x, weights[f"fc{i}.weight"], weights[f"fc{i}.bias"])
                x = torch.relu(x) if i < 3 else x
            loss = torch.nn.functional.cross_entropy(x, torch.from_numpy(data.train.labels[index]))
            optimizer.zero_grad()
            loss.backward()
            for name, mask in begin.masks.items():
                grad = weights[name].grad
                assert grad is not None
                grad[torch.from_numpy(~mask)] = 0
            optimizer.step()
        ours = reference.train(NETWORK, data, begin, recipe, no_report)
        for name, expected in weights.items():
            np.testing.assert_allclose(ours.weights[name], expected.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.fixture(params=NAMES)
def train(request: pytest.FixtureRequest) -> Callable[..., engines.Trained]:
    return engines.trainer(request.param, "cpu")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("density", [1.0, 0.4, 0.05])
def test_same_losses_over_many_steps(train: Any, recipe: Recipe, density: float) -> None:
    """100 examples in batches of 16: the last one of an epoch is a partial batch, kept or dropped."""
    data, begin = parts(100, 40, 50), start(density)
    recipe = replace(recipe, iterations=200, evaluate_every=20)
    ours = train(NETWORK, data, begin, recipe, no_report).history
    expected = reference.train(NETWORK, data, begin, recipe, no_report).history
    for column in ("train_loss", "validation_loss", "test_loss"):
        np.testing.assert_allclose(ours[column], expected[column], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_pruned_weights_are_zero_after_every_step(train: Any, recipe: Recipe) -> None:
    data, begin = parts(100, 10, 10), start()
    for steps in range(1, 12):
        trained = train(NETWORK, data, begin, replace(recipe, iterations=steps), no_report)
        for name, mask in begin.masks.items():
            assert trained.weights[name][~mask].tobytes() == bytes(4 * int((~mask).sum()))  # +0.0, each of them
            moved = trained.weights[name] != begin.weights[name]
            for sign in (begin.weights[name] > 0, begin.weights[name] < 0):  # a wrong sign test freezes half of them
                if steps > 5:
                    assert (moved & sign).sum() > 0.3 * sign.sum()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_unit_without_connections_might_as_well_not_exist(train: Any, recipe: Recipe) -> None:
    """Nothing leaks from pruned weights into kept ones: compare with the network that never had that unit."""
    data, full = parts(100, 40, 50), start(0.7)
    full.masks["fc1.weight"][5], full.masks["fc2.weight"][:, 5] = False, False
    full = Start(masks.apply(full.weights, full.masks), full.masks, full.order)

    def cut(arrays: Masks | Weights) -> Any:
        out = dict(arrays)
        for name, axis in (("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1)):
            if name in out:
                out[name] = np.delete(out[name], 5, axis=axis)
        return out

    small = Start(cut(full.weights), cut(full.masks), full.order)
    a = train(NETWORK, data, full, recipe, no_report)
    b = train(stack((30, 11, 8, 4)), data, small, recipe, no_report)
    np.testing.assert_allclose(a.history["train_loss"], b.history["train_loss"], rtol=1e-4)
    for name, expected in b.weights.items():
        np.testing.assert_allclose(cut(a.weights)[name], expected, rtol=2e-3, atol=2e-5)


def test_the_start_is_not_written_to(train: Any) -> None:
    begin = start()
    before = {n: w.copy() for n, w in begin.weights.items()}
    trained = train(NETWORK, parts(100, 10, 10), begin, RECIPES["adam"], no_report)
    for name, weight in before.items():
        assert begin.weights[name].tobytes() == weight.tobytes()
        assert not np.shares_memory(begin.weights[name], trained.weights[name])


def test_same_start_same_bits(train: Any) -> None:
    a, b = (train(NETWORK, parts(100, 40, 50), start(), RECIPES["adam"], no_report) for _ in range(2))
    assert all(a.weights[n].tobytes() == b.weights[n].tobytes() for n in a.weights)
    assert all(a.history[c].tobytes() == b.history[c].tobytes() for c in a.history)


def test_more_iterations_begin_with_the_same_ones(train: Any) -> None:
    short, long = (
        train(NETWORK, parts(100, 40, 50), start(), replace(RECIPES["adam"], iterations=n), no_report) for n in (20, 40)
    )
    assert all(short.history[c].tobytes() == long.history[c][:2].tobytes() for c in short.history)


@pytest.mark.parametrize("count", [1, 7, 1000, 2345])
def test_evaluation_is_exact_for_any_number_of_images(train: Any, count: int) -> None:
    """Labels are what the trained network says: it scores exactly 1, and with one label changed, exactly 1 - 1/n."""
    data, begin, recipe = parts(100, 10, count), start(1.0), replace(RECIPES["sgd"], iterations=1)
    weights = train(NETWORK, data, begin, recipe, no_report).weights
    labels = logits(weights, data.test.images).argmax(1).astype(np.int64)
    for wrong in (0, 1):
        labels[:wrong] = (labels[:wrong] + 1) % 4
        scored = replace(data, test=Images(data.test.images, labels))
        assert train(NETWORK, scored, begin, recipe, no_report).history["test_accuracy"][-1] == (count - wrong) / count


@pytest.mark.parametrize("counts", [(1001, 1999), (2345, 64)])
def test_mean_losses_weigh_every_image_alike(train: Any, counts: tuple[int, int]) -> None:
    """Engines evaluate by the chunk, and the last chunk is smaller: its images count no more and no less."""
    data, begin, recipe = parts(100, *counts), start(), replace(RECIPES["sgd"], iterations=1)
    ours, expected = (f(NETWORK, data, begin, recipe, no_report).history for f in (train, reference.train))
    for column in ("validation_loss", "test_loss"):
        np.testing.assert_allclose(ours[column], expected[column], rtol=1e-5)


@pytest.mark.parametrize("name", [*NAMES, "reference"])
def test_train_accuracy_is_that_of_the_last_weights_on_all_training_images(name: str) -> None:
    data, engine = parts(101, 40, 50), reference.train if name == "reference" else engines.trainer(name, "cpu")
    trained = engine(NETWORK, data, start(), RECIPES["adam"], no_report)
    right = [
        (logits(trained.weights, part.images).argmax(1) == part.labels).mean()
        for part in (data.train, data.validation, data.test)
    ]
    assert trained.train_accuracy == right[0]
    assert len(set(right)) == 3  # or another part's would pass for it


def test_nothing_held_out_is_not_a_number(train: Any) -> None:
    trained = train(NETWORK, parts(100, 0, 10), start(), RECIPES["adam"], no_report)
    assert np.isnan(trained.history["validation_loss"]).all()
    assert np.isfinite(trained.history["test_loss"]).all()


def test_reports_come_with_each_evaluation(train: Any) -> None:
    heard: list[tuple[float, ...]] = []
    trained = train(NETWORK, parts(100, 10, 10), start(), RECIPES["adam"], heard.append)
    assert heard == list(zip(*(trained.history[name].tolist() for name in history.COLUMNS), strict=True))


def test_a_loss_that_is_not_finite_names_its_iteration(train: Any) -> None:
    recipe = Recipe("sgd", learning_rate=1e25, batch_size=16, iterations=25, evaluate_every=10)
    with pytest.raises(engines.LossNotFinite, match=r"at iteration [2-4]: lower recipe\.learning_rate"):
        train(NETWORK, parts(100, 10, 10), start(), recipe, no_report)


def test_weights_that_are_not_numbers_show_in_the_loss(train: Any) -> None:
    """ReLU must not turn NaN into 0: the network would seem to train."""
    begin = start()
    begin.weights["fc1.weight"][begin.masks["fc1.weight"]] = np.nan
    with pytest.raises(engines.LossNotFinite, match="training loss nan at iteration 1"):
        train(NETWORK, parts(100, 10, 10), begin, RECIPES["adam"], no_report)


def test_one_loss_of_many_that_is_not_finite_is_enough(train: Any) -> None:
    """An image so bright that its loss overflows, once in an epoch; steps so small that the weights survive it."""
    data, recipe = parts(100, 10, 10), Recipe("sgd", learning_rate=1e-37, batch_size=16, iterations=6, evaluate_every=6)
    *_, third = batches((0,), 100, 16, False, 3)
    data.train.images[:, 0] = 0
    data.train.images[third[0], 0], data.train.labels[third[0]] = 3e38, 1
    weights = {"fc1.weight": np.zeros((4, 30), np.float32), "fc1.bias": np.zeros(4, np.float32)}
    weights["fc1.weight"][:2, 0] = 1, -1
    begin = Start(weights, {"fc1.weight": np.ones((4, 30), bool)}, (0,))
    train(stack((30, 4)), data, begin, replace(recipe, iterations=2), no_report)
    with pytest.raises(engines.LossNotFinite, match="training loss inf at iteration 3"):
        train(stack((30, 4)), data, begin, recipe, no_report)


ADAM = RECIPES["adam"]
NO_STACK = Network({"conv.weight": Tensor((2, 1, 3, 3), prunable=True), "conv.bias": Tensor((2,))}, (28, 28))


def test_auto_is_the_first_engine_that_refuses_nothing() -> None:
    assert list(engines.ENGINES) == ["sparse", "torch"]
    assert engines.choose("auto", NETWORK, ADAM, "cpu") == "sparse"
    assert engines.choose("auto", NETWORK, ADAM, "cuda") == "torch"
    assert engines.choose("auto", NO_STACK, ADAM, "cpu") == "torch"
    for name in NAMES:
        assert engines.choose(name, NETWORK, ADAM, "cpu") == name
    assert engines.choose("torch", NO_STACK, ADAM, "cuda") == "torch"


@pytest.mark.parametrize(
    ("network", "device", "reason"),
    [
        (NETWORK, "cuda", "it runs on a CPU, not on cuda; use --device cpu, or --engine torch"),
        (NO_STACK, "cpu", "it trains stacks of linear layers alone; use --engine torch"),
    ],
)
def test_sparse_refuses_what_it_cannot_train(network: Network, device: str, reason: str) -> None:
    """With its own reason, which is what the user reads."""
    assert sparse.refuses(network, ADAM, device) == reason
    with pytest.raises(LotteryError, match=rf"^engine = 'sparse': {re.escape(reason)}$"):
        engines.choose("sparse", network, ADAM, device)


def test_where_all_engines_refuse_each_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_torch, "refuses", lambda network, recipe, device: "out of order")
    with pytest.raises(LotteryError, match=r"^engine = 'sparse': it trains stacks.*; engine = 'torch': out of order$"):
        engines.choose("auto", NO_STACK, ADAM, "cpu")


def test_what_is_chosen_is_what_trains() -> None:
    assert engines.trainer("sparse", "cpu") is sparse.train
    assert engines.trainer("torch", "cpu") is engine_torch.train
    on_gpu = engines.trainer("torch", "cuda")
    assert isinstance(on_gpu, partial)
    assert (on_gpu.func, on_gpu.keywords) == (engine_torch.train, {"device": "cuda"})
    for name in NAMES:
        trained = engines.trainer(name, "cpu")(
            NETWORK, parts(20, 5, 5), start(), replace(ADAM, iterations=2), no_report
        )
        assert trained.engine == name


def test_choosing_an_engine_imports_no_other() -> None:
    """PyTorch takes two seconds, numba half of one."""
    code = (
        "import sys; from lottery import Recipe, engines; from lottery.models.mlp import stack; "
        "assert engines.choose('auto', stack((3, 2)), Recipe(), 'cpu') == 'sparse'; "
        "assert not {'torch', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_engine_and_device() -> None:
    with pytest.raises(LotteryError, match=r"^unknown engine 'fast': choose from auto, sparse, torch$"):
        engines.choose("fast", NETWORK, ADAM, "cpu")
    with pytest.raises(
        LotteryError, match=r"^engine = 'dense': the engine dense is called torch now; use --engine torch$"
    ):
        engines.choose("dense", NETWORK, ADAM, "cpu")
    with pytest.raises(LotteryError, match="unknown device 'gpu': choose from auto, cpu, cuda"):
        engines.resolve_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there() -> None:
    assert engines.resolve_device("auto") == "cpu"
    with pytest.raises(LotteryError, match="no CUDA device"):
        engines.resolve_device("cuda")
