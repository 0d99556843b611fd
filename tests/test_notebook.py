"""The by-hand functions keep the invariants of the loop, and the notebook written with them runs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lottery
from lottery import masks as core
from lottery import models
from lottery.errors import LotteryError
from lottery.masks import Masks, Weights
from lottery.notebook import (
    LeNet300100,
    Maskable,
    Shuffled,
    create_initial_masks,
    evaluate,
    get_overall_sparsity,
    get_sparsity,
    loaders,
    prune_by_percent,
    train_epoch,
    train_iterations,
)
from lottery.seeds import stream
from lottery.spec import PRESETS, Data, Model, Spec

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "lenet_mnist.ipynb"
PERCENTS = {"fc1.weight": 0.2, "fc2.weight": 0.2, "fc3.weight": 0.1}
CROSS_ENTROPY = nn.CrossEntropyLoss()
Batch = tuple[Tensor, Tensor]
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=1.2e-3),
    "adam with decay": lambda m: torch.optim.Adam(m.parameters(), lr=1.2e-3, weight_decay=0.1),
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Of networks this small a second thread makes nothing faster, and on a busy machine everything slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(Maskable):
    """A user's own model, with what LeNet lacks: a convolution, a batch norm, two-dimensional input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 5, stride=4)
        self.norm = nn.BatchNorm2d(2)
        self.out = nn.Linear(72, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.norm(self.conv(x))).flatten(1))
        return out


def examples(count: int = 100, shape: tuple[int, ...] = (1, 28, 28)) -> Batch:
    rng = stream("notebook")
    images = rng.standard_normal((count, *shape)).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(rng.integers(0, 10, count))


def batches(size: int = 30, count: int = 100, shape: tuple[int, ...] = (1, 28, 28)) -> list[Batch]:
    """The last one is smaller."""
    x, y = examples(count, shape)
    return list(zip(x.split(size), y.split(size), strict=True))


def some_masks(model: nn.Module, keep: float = 0.3) -> Masks:
    rng = stream("masks")
    return {name: rng.random(mask.shape) < keep for name, mask in create_initial_masks(model).items()}


def train(model: nn.Module, masks: Masks | None = None, optimizer: str = "adam", iterations: int = 9) -> Any:
    return train_iterations(
        model,
        batches(),
        batches(),
        CROSS_ENTROPY,
        OPTIMIZERS[optimizer](model),
        iterations,
        "cpu",
        masks,
        verbose=False,
    )


def same(a: Weights, b: Weights) -> bool:
    """Bit for bit, the sign of zero too."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


def copied(weights: Weights) -> Weights:
    return {name: w.copy() for name, w in weights.items()}


# --- the model


def test_lenet_is_the_papers_and_starts_as_a_spec_of_its_seed() -> None:
    weights = LeNet300100(3).get_weights_as_dict()
    assert {n: w.shape for n, w in weights.items()} == {
        "fc1.weight": (300, 784),
        "fc1.bias": (300,),
        "fc2.weight": (100, 300),
        "fc2.bias": (100,),
        "fc3.weight": (10, 100),
        "fc3.bias": (10,),
    }
    assert sum(w.size for w in weights.values()) == 266_610
    assert sum(m.size for m in create_initial_masks(weights).values()) == 266_200
    assert all((weights[f"fc{i}.bias"] == 0).all() for i in (1, 2, 3))
    assert weights["fc1.weight"].std() == pytest.approx((2 / (784 + 300)) ** 0.5, rel=0.01)
    assert same(weights, LeNet300100(3).get_weights_as_dict())
    assert not same(weights, LeNet300100(4).get_weights_as_dict())


def test_lenet_takes_images_flat_or_square() -> None:
    model, (x, _) = LeNet300100(), examples()
    assert torch.equal(model(x), model(x.flatten(1)))


def test_lenet_is_written_out_and_computes_what_the_packages_own_network_does() -> None:
    model, (x, _) = LeNet300100(5), examples()
    for layer, shape in ((model.fc1, (784, 300)), (model.fc2, (300, 100)), (model.fc3, (100, 10))):
        assert isinstance(layer, nn.Linear)
        assert (layer.in_features, layer.out_features) == shape
    network = models.network(Model("lenet-300-100"), (28, 28), 10)
    assert list(model.get_weights_as_dict()) == list(network.tensors)
    assert same(model.get_weights_as_dict(), models.initial_weights(network, Model.init, stream(5, 0, "weights")))
    module = network.module()
    module.load_state_dict(model.state_dict())
    assert torch.equal(model(x), module(x))


@pytest.mark.parametrize("make", [LeNet300100, Net])
def test_what_trains_reaches_neither_the_weights_taken_nor_those_given(make: type[Maskable]) -> None:
    model = make()
    taken = model.get_weights_as_dict()
    before = copied(taken)
    train(model)
    assert same(taken, before)
    model.set_weights_from_dict(taken)
    train(model)
    assert same(taken, before)
    taken["extra"] = model.get_weights_as_dict()[next(iter(before))]
    taken["extra"][:] = 0  # and the other way round: writing to a copy does not reach the model
    assert model.get_weights_as_dict()[next(iter(before))].any()


@pytest.mark.parametrize("make", [LeNet300100, Net])
def test_reset_is_theta_0_under_the_mask_bit_for_bit(make: type[Maskable]) -> None:
    """Biases and a batch norm's statistics too, whatever happened before."""
    model = make()
    theta_0, masks = model.get_weights_as_dict(), some_masks(model)
    for _ in range(2):
        train(model, masks)
        assert all(not same({n: w}, {n: theta_0[n]}) for n, w in model.get_weights_as_dict().items())
        model.set_weights_from_dict(theta_0)
        model.apply_mask(masks)
        assert same(model.get_weights_as_dict(), core.apply(theta_0, masks))


def test_weights_given_are_checked_before_any_is_set() -> None:
    model = LeNet300100()
    before = model.get_weights_as_dict()
    other = {n: w + 1 for n, w in before.items()}
    for wrong, message in (
        ({n: w for n, w in other.items() if n != "fc3.bias"}, "weights lack fc3.bias: give every tensor, biases too"),
        (other | {"fc4.weight": np.ones(3)}, "weights name 'fc4.weight', which is not a tensor here; there are fc1.w"),
        (other | {"fc3.bias": np.ones(9)}, r"weights\['fc3.bias'\] has shape \(9,\), expected \(10,\)"),
    ):
        with pytest.raises(LotteryError, match=message):
            model.set_weights_from_dict(wrong)
        assert same(model.get_weights_as_dict(), before)


def test_masks_given_are_checked() -> None:
    model, masks = LeNet300100(), create_initial_masks(LeNet300100())
    for wrong, message in (
        ({"fc9.weight": masks["fc1.weight"]}, "masks name 'fc9.weight', which is not a tensor here"),
        ({"fc1.weight": masks["fc1.weight"].T}, r"masks\['fc1.weight'\] has shape \(784, 300\), expected \(300, 784\)"),
        ({"fc3.weight": np.full((10, 100), 0.5)}, r"masks\['fc3.weight'\] has values other than 0 and 1"),
    ):
        with pytest.raises(LotteryError, match=message):
            model.apply_mask(wrong)
        with pytest.raises(LotteryError, match=message):
            train(model, wrong)


def test_frozen_arrays_will_do() -> None:
    """The core's own weights and masks can't be written to, and PyTorch warns of views of such arrays."""
    model = LeNet300100()
    weights, masks = model.get_weights_as_dict(), some_masks(model)
    for array in (*weights.values(), *masks.values()):
        array.setflags(write=False)
    model.set_weights_from_dict(weights)
    train(model, masks)


# --- masks and pruning


def test_initial_masks_go_by_type_in_a_model_and_by_dimensions_in_a_dict() -> None:
    model = Net()
    masks = create_initial_masks(model)
    assert {n: m.shape for n, m in masks.items()} == {"conv.weight": (2, 1, 5, 5), "out.weight": (10, 72)}
    assert all(m.dtype == bool and m.all() for m in masks.values())
    assert same(masks, create_initial_masks(model.get_weights_as_dict()))
    for nothing in (nn.ReLU(), {}, {"fc1.bias": np.ones(3)}):
        with pytest.raises(LotteryError, match="nothing to prune"):
            create_initial_masks(nothing)


def test_pruning_counts_are_exact_for_twenty_rounds() -> None:
    weights = LeNet300100().get_weights_as_dict()
    masks = create_initial_masks(weights)
    for _ in range(20):
        kept = {n: int(m.sum()) for n, m in masks.items()}
        following = prune_by_percent(PERCENTS, masks, weights)
        for n, mask in masks.items():
            assert following[n].sum() == kept[n] - round(PERCENTS[n] * kept[n])
            assert not (following[n] & ~mask).any()
            assert abs(weights[n][mask & ~following[n]]).max() <= abs(weights[n][following[n]]).min()
        masks = following


@pytest.mark.parametrize("dtype", [bool, np.float32, np.int64])
def test_pruning_by_magnitude_within_each_layer(dtype: type) -> None:
    weights = {
        "a": np.array([[-5.0, 0.1, 4.0, -0.2]]),
        "a.bias": np.zeros(1),
        "b": np.array([[10.0, -11.0], [12.0, 0.0]]),
    }
    masks: Masks = {
        "a": np.array([[1, 1, 1, 1]]).astype(dtype),
        "b": np.array([[1, 1, 1, 0]]).reshape(2, 2).astype(dtype),
    }
    before = copied(masks)
    out = prune_by_percent({"a": 0.5, "b": 1 / 3}, masks, weights)
    np.testing.assert_array_equal(out["a"], [[True, False, True, False]])
    np.testing.assert_array_equal(out["b"], [[False, True], [True, False]])
    assert all(m.dtype == bool for m in out.values())
    assert same(masks, before)
    alike = prune_by_percent({"a": 0.5, "b": 0.5}, create_initial_masks(weights), weights)
    assert get_sparsity(alike) == {"a": 0.5, "b": 0.5}  # layers do not compete, at equal rates neither


def test_a_kept_weight_of_zero_is_kept_and_ties_leave_by_index() -> None:
    masks = prune_by_percent({"a": 0.5}, {"a": np.ones((1, 4), bool)}, {"a": np.zeros((1, 4))})
    np.testing.assert_array_equal(masks["a"], [[False, False, True, True]])
    assert get_sparsity(masks) == {"a": 0.5}
    masks = prune_by_percent({"a": 0.5}, masks, {"a": np.zeros((1, 4))})
    np.testing.assert_array_equal(masks["a"], [[False, False, False, True]])


def test_rates_of_0_and_1_and_empty_layers_are_defined() -> None:
    masks = {"a": np.ones((2, 2), bool), "b": np.ones((2, 2), bool), "c": np.zeros((2, 2), bool)}
    out = prune_by_percent({"a": 0, "b": 1, "c": 0.2}, masks, {n: np.ones((2, 2)) for n in masks})
    assert get_sparsity(out) == {"a": 0, "b": 1, "c": 1}


def test_pruning_refuses_what_does_not_fit() -> None:
    weights = {"a": np.ones((2, 2)), "b": np.ones((2, 2))}
    masks = create_initial_masks(weights)
    nan = weights | {"b": np.array([[1, np.nan], [1, 1]])}
    for percents, given, message in (
        ({"a": 0.2}, weights, "percents lack b: give a fraction for each layer"),
        ({"a": 0.2, "b": 0.2, "c": 0.1}, weights, "percents name c, which no mask has; there are a, b"),
        ({"a": 20, "b": 0.2}, weights, r"percents\['a'\] = 20: must be a fraction in \[0, 1\], 0.2 for 20 %"),
        ({"a": float("nan"), "b": 0.2}, weights, r"percents\['a'\] = nan: must be a fraction"),
        ({"a": 0.2, "b": 0.2}, {"a": weights["a"]}, "final_weights lack b"),
        ({"a": 0.2, "b": 0.2}, weights | {"a": np.ones(4)}, r"masks\['a'\] has shape \(2, 2\), expected \(4,\)"),
        ({"a": 0.2, "b": 0.2}, nan, "scores of b are not finite"),
    ):
        with pytest.raises(LotteryError, match=message):
            prune_by_percent(percents, masks, given)


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_sparsity_is_the_fraction_pruned(dtype: type) -> None:
    masks: Masks = {"a": np.array([[1, 1, 0, 0]]).astype(dtype), "b": np.zeros((2, 6)).astype(dtype)}
    assert get_sparsity(masks) == {"a": 0.5, "b": 1.0}
    assert get_overall_sparsity(masks) == 14 / 16
    with pytest.raises(LotteryError, match="masks are empty"):
        get_overall_sparsity({})


# --- training


class Watched:
    """A loader that looks at the model after each step, that is when the next batch or the end is asked for."""

    def __init__(self, model: Maskable, masks: Masks):
        self.model, self.masks, self.looks = model, masks, 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in batches():
            self.look()
            yield batch
        self.look()

    def look(self) -> None:
        self.looks += 1
        weights = self.model.get_weights_as_dict()
        for name, mask in self.masks.items():
            assert (weights[name][~mask] == 0).all(), f"{name} has pruned weights that are not 0"


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("function", [train_epoch, train_iterations])
def test_pruned_weights_are_zero_after_every_step(function: Any, kind: str, used_before: bool) -> None:
    """Before the first forward pass too, and with momentum from a time when they were not pruned."""
    model = LeNet300100()
    optimizer = OPTIMIZERS[kind](model)
    if used_before:
        train_epoch(model, batches(), CROSS_ENTROPY, optimizer, "cpu")
    masks = some_masks(model)
    kept_before = model.get_weights_as_dict()
    watched = Watched(model, masks)
    if function is train_epoch:
        train_epoch(model, watched, CROSS_ENTROPY, optimizer, "cpu", masks)
        assert watched.looks == 5
    else:
        train_iterations(model, watched, batches(), CROSS_ENTROPY, optimizer, 9, "cpu", masks, verbose=False)
        assert watched.looks == 4 + 1 + 4 + 1 + 1
        watched.look()
    for name, after in model.get_weights_as_dict().items():
        if name in masks:
            for sign in (-1, 1):  # kept weights of both signs move
                of_sign = masks[name] & (np.sign(kept_before[name]) == sign)
                assert (after[of_sign] != kept_before[name][of_sign]).mean() > 0.5
    if not used_before:  # nothing of a pruned weight is in the optimizer's state
        for name, mask in masks.items():
            state = optimizer.state[model.get_parameter(name)]
            moments = [v for v in state.values() if isinstance(v, Tensor) and v.shape == mask.shape]
            assert moments
            assert all((v.numpy()[~mask] == 0).all() and v.numpy()[mask].any() for v in moments)


def test_masks_of_floats_train_alike() -> None:
    one, other = LeNet300100(), LeNet300100()
    masks = some_masks(one)
    train(one, masks)
    train(other, {n: m.astype(np.float64) for n, m in masks.items()})
    assert same(one.get_weights_as_dict(), other.get_weights_as_dict())


def test_no_masks_train_the_dense_network() -> None:
    one, other = LeNet300100(), LeNet300100()
    train(one)
    train(other, create_initial_masks(other))
    assert same(one.get_weights_as_dict(), other.get_weights_as_dict())


class Counting(LeNet300100):
    calls = 0

    def apply_mask(self, masks: Any) -> None:
        self.calls += 1
        super().apply_mask(masks)


def test_apply_mask_fn_is_used_where_given_else_the_models() -> None:
    model = Counting()
    masks = some_masks(model)
    train(model, masks, iterations=6)
    assert model.calls == 1 + 6  # at once, and after every step
    given: list[Any] = []

    def apply(masks: Masks) -> None:
        given.append(masks)
        LeNet300100.apply_mask(model, masks)

    model.calls = 0
    optimizer = OPTIMIZERS["sgd"](model)
    train_epoch(model, Watched(model, masks), CROSS_ENTROPY, optimizer, "cpu", masks, apply)
    train_iterations(
        model, batches(), batches(), CROSS_ENTROPY, optimizer, 3, "cpu", masks, apply_mask_fn=apply, verbose=False
    )
    assert model.calls == 0
    assert len(given) == (1 + 4) + (1 + 3)
    assert all(m is masks for m in given)


def test_apply_mask_fn_may_have_names_of_its_own() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    mask = some_masks(model)["1.weight"]

    def apply(masks: Masks) -> None:
        with torch.no_grad():
            model.get_parameter("1.weight").mul_(torch.from_numpy(masks["only"]))

    train_epoch(model, batches(), CROSS_ENTROPY, OPTIMIZERS["sgd"](model), "cpu", {"only": mask}, apply)
    assert (model.get_parameter("1.weight").detach().numpy()[~mask] == 0).all()


def test_a_model_without_apply_mask_needs_apply_mask_fn() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(LotteryError, match=r"Sequential has no apply_mask\(masks\): give apply_mask_fn, or derive"):
        train(model, some_masks(model))
    train(model)


# --- evaluation, units, history


@pytest.mark.parametrize("size", [1, 3, 7, 32, 99, 100, 1000])
def test_a_perfect_model_scores_exactly_100_with_any_batch_size(size: int) -> None:
    labels = examples()[1]
    logits = 100 * nn.functional.one_hot(labels, 10).float()
    loader = list(zip(logits.split(size), labels.split(size), strict=True))
    assert evaluate(nn.Identity(), loader, CROSS_ENTROPY, "cpu") == (0.0, 100.0)
    loader[-1] = (-loader[-1][0], loader[-1][1])  # all of the last batch wrong
    assert evaluate(nn.Identity(), loader, CROSS_ENTROPY, "cpu")[1] == 100 * (100 - len(loader[-1][1])) / 100


@pytest.mark.parametrize("size", [1, 7, 100])
def test_means_are_over_examples_not_batches(size: int) -> None:
    x, y = examples()
    model = LeNet300100()
    with torch.no_grad():
        logits = model(x)
    loss, correct = float(CROSS_ENTROPY(logits, y)), int((logits.argmax(1) == y).sum())
    assert 0 < correct < 100
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    for means in (
        evaluate(model, batches(size), CROSS_ENTROPY, "cpu"),
        train_epoch(model, batches(size), CROSS_ENTROPY, still, "cpu"),
    ):
        assert means[0] == pytest.approx(loss, rel=1e-6)
        assert means[1] == correct  # of a hundred images


def test_evaluate_leaves_no_trace() -> None:
    model = Net()
    before = model.get_weights_as_dict()
    for mode in (True, False):
        model.train(mode)
        evaluate(model, batches(), CROSS_ENTROPY, "cpu")
        assert model.training == mode
    assert same(model.get_weights_as_dict(), before)  # a batch norm in training mode would have moved


def test_iterations_are_steps_and_history_has_every_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    model = LeNet300100()
    optimizer = OPTIMIZERS["adam"](model)
    seen = train_iterations(model, batches(), batches(), CROSS_ENTROPY, optimizer, 10, "cpu", eval_freq=4)
    assert seen["iteration"] == [4, 8, 10]
    assert optimizer.state[model.get_parameter("fc1.bias")]["step"] == 10
    loss, accuracy = evaluate(model, batches(), CROSS_ENTROPY, "cpu")
    assert (seen["final_test_loss"], seen["final_test_acc"]) == (loss, accuracy)
    assert (seen["test_loss"][-1], seen["test_acc"][-1]) == (loss, accuracy)
    assert accuracy > 20  # percent: a hundred images are soon learnt by heart
    assert all(len(seen[c]) == 3 for c in ("train_loss", "train_acc", "test_loss", "test_acc"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("iteration 10/10  train loss ")
    assert lines[-1].endswith(f"test accuracy {accuracy:.2f} %")
    train(model)
    assert not capsys.readouterr().out


def test_train_loss_is_of_the_batches_since_the_last_evaluation() -> None:
    model = LeNet300100()
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    each = [evaluate(model, [batch], CROSS_ENTROPY, "cpu") for batch in batches()]  # 30, 30, 30 and 10 images
    seen = train_iterations(model, batches(), batches(), CROSS_ENTROPY, still, 4, "cpu", eval_freq=1, verbose=False)
    assert seen["train_loss"] == pytest.approx([loss for loss, _ in each], rel=1e-6)
    assert seen["train_acc"] == [accuracy for _, accuracy in each]


def test_train_iterations_trains_in_training_mode_after_each_evaluation() -> None:
    model = Net().eval()
    modes = []
    model.norm.register_forward_hook(lambda m, *_: modes.append(m.training))
    train_iterations(
        model, batches(), batches(100), CROSS_ENTROPY, OPTIMIZERS["sgd"](model), 3, "cpu", eval_freq=1, verbose=False
    )
    assert modes == [True, False] * 3


# --- loaders


class Reiterable:
    def __iter__(self) -> Iterator[Batch]:
        yield from batches()


def numpy_batches() -> list[Any]:
    return [(x.numpy(), y.numpy()) for x, y in batches()]


@pytest.mark.parametrize(
    "make",
    [
        batches,
        lambda: tuple(batches()),
        lambda: [list(b) for b in batches()],
        lambda: batches(shape=(784,)),
        lambda: DataLoader(TensorDataset(*examples()), batch_size=30),
        Reiterable,
        numpy_batches,
        lambda: [*batches(), (torch.empty(0, 1, 28, 28), torch.empty(0, dtype=torch.int64))],
        lambda: Shuffled(*examples(), 30, ("key",)),
    ],
    ids=["list", "tuple", "lists", "flat", "dataloader", "object", "numpy", "empty-batch", "shuffled"],
)
def test_any_iterable_of_batches_is_a_loader(make: Callable[[], Any]) -> None:
    model = LeNet300100()
    optimizer = OPTIMIZERS["adam"](model)
    seen = train_iterations(model, make(), make(), CROSS_ENTROPY, optimizer, 30, "cpu", verbose=False)
    assert seen["final_test_acc"] == 100
    assert np.isfinite(seen["final_test_loss"])
    assert train_epoch(model, make(), CROSS_ENTROPY, optimizer, "cpu")[1] == 100


def test_a_generator_lasts_for_one_epoch() -> None:
    model = LeNet300100()
    optimizer = OPTIMIZERS["adam"](model)

    def go(iterations: int, train_loader: Any, test_loader: Any) -> None:
        train_iterations(
            model, train_loader, test_loader, CROSS_ENTROPY, optimizer, iterations, "cpu", eval_freq=2, verbose=False
        )

    go(4, iter(batches()), batches())
    assert train_epoch(model, iter(batches()), CROSS_ENTROPY, optimizer, "cpu")[1] > 0
    with pytest.raises(LotteryError, match="train_loader ended after 4 batches and can't be iterated again"):
        go(5, iter(batches()), batches())
    with pytest.raises(LotteryError, match="test_loader gave no batches: is it empty, or a generator that is used up"):
        go(4, batches(), iter(batches()))


def test_empty_loaders_and_wrong_counts_are_errors() -> None:
    model = LeNet300100()
    optimizer = OPTIMIZERS["adam"](model)
    with pytest.raises(LotteryError, match="train_loader gave no batches"):
        train_epoch(model, [], CROSS_ENTROPY, optimizer, "cpu")
    with pytest.raises(LotteryError, match="train_loader gave no batches"):
        train_iterations(model, [], batches(), CROSS_ENTROPY, optimizer, 1, "cpu")
    with pytest.raises(LotteryError, match="test_loader gave no batches"):
        evaluate(model, [], CROSS_ENTROPY, "cpu")
    with pytest.raises(LotteryError, match="num_iterations = 0: must be at least 1"):
        train_iterations(model, batches(), batches(), CROSS_ENTROPY, optimizer, 0, "cpu")
    with pytest.raises(LotteryError, match="eval_freq = 0: must be at least 1"):
        train_iterations(model, batches(), batches(), CROSS_ENTROPY, optimizer, 1, "cpu", eval_freq=0)
    with pytest.raises(LotteryError, match="batch_size = 0"):
        loaders(0, name="mnist-5k")
    with pytest.raises(LotteryError, match="seed = -1"):
        LeNet300100(-1)
    for function in (evaluate, lambda m, b, c, d: train_epoch(m, b, c, optimizer, d)):
        with pytest.raises(LotteryError, match="criterion has reduction 'sum': it must give the mean"):
            function(model, batches(), nn.CrossEntropyLoss(reduction="sum"), "cpu")


def test_shuffled_has_every_image_once_an_epoch_in_another_order_each() -> None:
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    loader = Shuffled(x, y, 4, ("key",))
    epochs = [list(loader), list(loader)]
    assert [len(labels) for _, labels in epochs[0]] == [4, 4, 2]
    assert len(loader) == 3
    orders = [torch.cat([labels for _, labels in epoch]) for epoch in epochs]
    assert all(sorted(order.tolist()) == list(range(10)) for order in orders)
    assert not torch.equal(*orders)
    assert all(torch.equal(images[:, 0].long(), labels) for epoch in epochs for images, labels in epoch)
    again = Shuffled(x, y, 4, ("key",))
    assert torch.equal(torch.cat([labels for _, labels in again]), orders[0])


def test_loaders_give_mnist_normalised(mnist_dir: Path) -> None:
    train_loader, test_loader = loaders(data_dir=mnist_dir)
    assert (len(train_loader.labels), sum(len(y) for _, y in test_loader)) == (60_000, 10_000)
    assert len(next(iter(train_loader))[1]) == 60
    assert train_loader.images.dtype == torch.float32
    assert train_loader.labels.dtype == torch.int64
    assert float(train_loader.images.mean()) == pytest.approx(0, abs=1e-3)
    assert float(train_loader.images.std()) == pytest.approx(1, abs=1e-3)
    assert float(test_loader[0][0].min()) == pytest.approx(-0.1307 / 0.3081)


# --- the whole experiment


def test_the_first_round_by_hand_is_the_runs(tmp_path: Path) -> None:
    """Same θ₀, same batches, same arithmetic up to the fused optimizer's rounding; and the run's masks by hand."""
    spec = replace(PRESETS["notebook"], data=Data(name="mnist-5k", validation=0), levels=1)
    assert isinstance(spec, Spec)
    run = lottery.run(spec, runs_dir=tmp_path)
    saved, following = (run.load("rewind", 0, level) for level in (0, 1))

    train_loader, test_loader = loaders(name="mnist-5k")
    model = LeNet300100()
    assert same(model.get_weights_as_dict(), saved.start)
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.recipe.learning_rate)
    masks = create_initial_masks(model)
    seen = train_iterations(
        model, train_loader, test_loader, CROSS_ENTROPY, optimizer, spec.recipe.iterations, "cpu", masks, verbose=False
    )
    for name, trained in model.get_weights_as_dict().items():
        np.testing.assert_allclose(trained, saved.trained[name], atol=1e-5)
    assert saved.row.test_accuracy is not None
    assert seen["final_test_acc"] == pytest.approx(100 * saved.row.test_accuracy, abs=0.2)
    assert same(prune_by_percent(PERCENTS, masks, saved.trained), following.masks)


class Original(nn.Module):
    """The model of the notebook that this package grew from: its dicts are views of what trains, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 28 * 28)
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        out: Tensor = self.fc3(x)
        return out

    def get_weights_as_dict(self) -> Weights:
        return {
            "fc1.weight": self.fc1.weight.data.cpu().numpy(),
            "fc2.weight": self.fc2.weight.data.cpu().numpy(),
            "fc3.weight": self.fc3.weight.data.cpu().numpy(),
        }

    def set_weights_from_dict(self, weights: Weights) -> None:
        self.fc1.weight.data = torch.from_numpy(weights["fc1.weight"]).float()
        self.fc2.weight.data = torch.from_numpy(weights["fc2.weight"]).float()
        self.fc3.weight.data = torch.from_numpy(weights["fc3.weight"]).float()

    def apply_mask(self, masks: Masks) -> None:
        self.fc1.weight.data *= torch.from_numpy(masks["fc1.weight"]).float()
        self.fc2.weight.data *= torch.from_numpy(masks["fc2.weight"]).float()
        self.fc3.weight.data *= torch.from_numpy(masks["fc3.weight"]).float()


@pytest.mark.parametrize("given", [False, True])
def test_the_notebook_that_this_grew_from_runs_as_it_is(given: bool) -> None:
    """Twenty rounds of five iterations, although training writes into the dict that it is rewound to."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    train_loader = DataLoader(TensorDataset(*examples(600)), batch_size=60, shuffle=True)
    test_loader = DataLoader(TensorDataset(*examples(100)), batch_size=1000, shuffle=False)
    model = Original().to(device)
    initial_weights = model.get_weights_as_dict()
    before = copied(initial_weights)
    masks = create_initial_masks(initial_weights)
    criterion = nn.CrossEntropyLoss()
    results = []
    for pruning_round in range(20):
        model.set_weights_from_dict(initial_weights)
        model.apply_mask(masks)
        optimizer = torch.optim.Adam(model.parameters(), lr=1.2e-3)
        history = train_iterations(
            model=model,
            train_loader=train_loader,
            test_loader=test_loader,
            criterion=criterion,
            optimizer=optimizer,
            num_iterations=5,
            device=device,
            masks=masks,
            eval_freq=5,
            apply_mask_fn=model.apply_mask if given else None,
            verbose=False,
        )
        final_weights = model.get_weights_as_dict()
        for name, mask in masks.items():
            assert (final_weights[name][~mask] == 0).all()
            assert np.isfinite(final_weights[name]).all()
        test_loss, test_acc = evaluate(model, test_loader, criterion, device)
        assert (history["final_test_loss"], history["final_test_acc"]) == (test_loss, test_acc)
        assert history["iteration"] == [5]
        results.append((pruning_round, get_overall_sparsity(masks), get_sparsity(masks), test_acc))
        masks = prune_by_percent(PERCENTS, masks, final_weights)
    assert not same(initial_weights, before)  # it does write there
    kept = {name: 1.0 * mask.size for name, mask in masks.items()}
    for _, overall, sparsity, _ in results:
        for name, size in kept.items():
            assert sparsity[name] == 1 - size / masks[name].size
            kept[name] -= round(PERCENTS[name] * size)
        assert overall == pytest.approx(sum(s * masks[n].size for n, s in sparsity.items()) / 266_200)
    assert results[-1][1] > 0.98


def test_the_notebook_runs(mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTTERY_DATA", str(mnist_dir))
    monkeypatch.setenv("LOTTERY_NOTEBOOK_ITERATIONS", "3")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # none of the user's own settings
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's own
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed, figures, tables = shown(notebook)
    for part in (
        *("(fc1): Linear(in_features=784, out_features=300, bias=True)", "evaluated       every 1 iterations"),
        "images          60,000 for training, 10,000 for testing",
        "parameters      266,610\nprunable        266,200\n",
        "rounds          20 of 3 iterations, batch 60, Adam at 0.0012",
        *("round 19  test accuracy", "best test accuracy"),
        "weights left: fc1.weight 188,160  fc2.weight 24,000  fc3.weight 900\n",
    ):
        assert part in printed
    assert printed.count("test accuracy") == 20 + 1 + 3
    overall = 1 - sum(size * (1 - p) ** 19 for size, p in ((235_200, 0.2), (30_000, 0.2), (1_000, 0.1))) / 266_200
    assert f"sparsity {100 * overall:5.2f} %  weights left: fc1.weight 3,390" in printed
    assert (figures, tables) == (3, 3)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "levels.csv").is_file()
    progress, last = (out for out in notebook.cells[-1].outputs if "data" in out)
    assert '<progress max="20" value="20.00"></progress> 20 of 20 levels' in progress.data["text/html"]
    assert f"<b>{run.name}</b>" in last.data["text/html"]


def test_the_notebook_is_stored_with_its_outputs_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 500_000
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's own
    printed, figures, tables = shown(notebook)
    assert "rounds          20 of 1,000 iterations" in printed
    assert (figures, tables) == (3, 3)


def shown(notebook: Any) -> tuple[str, int, int]:
    """What the cells printed, and the numbers of figures and of tables."""
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
    printed = "".join(out.text for out in outputs if out.output_type == "stream")
    data = [out.data for out in outputs if out.output_type in ("display_data", "execute_result")]
    return printed, sum("image/png" in d for d in data), sum("text/html" in d for d in data)
