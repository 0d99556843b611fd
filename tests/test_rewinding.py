"""Late rewinding and schedules: a level begins at any iteration of a run, as if it had come to it by itself."""

from dataclasses import replace
from math import cos, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lottery
from lottery import engines, masks, models
from lottery.data import Images, Splits, batches
from lottery.engines import Trained, reference
from lottery.engines.optimizers import learning_rate, weight_decays
from lottery.errors import LotteryError
from lottery.masks import Masks, Weights
from lottery.models import Network
from lottery.models.mlp import stack
from lottery.models.torch import described
from lottery.runs.rows import Place
from lottery.seeds import stream
from lottery.spec import Data, Model, Pruning, Recipe, Spec
from lottery.starts import STARTS, Moment, Rewinding, Start, Trunk, rewind

KEY = (3, 0)


def no_report(row: tuple[float, ...]) -> None:
    pass


def images(shape: tuple[int, ...], *counts: int) -> Splits:
    """Images whose first pixels tell their class."""
    rng = stream(5)

    def part(n: int) -> Images:
        x = rng.standard_normal((n, *shape)).reshape(n, -1).astype(np.float32)
        return Images(x, (x[:, :4].argmax(1)).astype(np.int64))

    return Splits(*(part(n) for n in counts))


def ones(network: Network) -> Masks:
    return {name: np.ones(network.tensors[name].shape, bool) for name in network.prunable}


def differing(one: Trained, other: Trained) -> list[str]:
    """The tensors that are not the same to the bit."""
    return [name for name, tensor in one.weights.items() if tensor.tobytes() != other.weights[name].tobytes()]


def expected_rates(recipe: Recipe) -> list[float]:
    return [learning_rate(recipe, iteration) for iteration in range(1, recipe.iterations + 1)]


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({}, [1] * 8),
        ({"warmup": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ({"schedule": "milestones", "milestones": (2, 6)}, [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"schedule": "milestones", "milestones": (6,), "gamma": 0.5, "warmup": 2}, [0.5, 1, 1, 1, 1, 1, 0.5, 0.5]),
        ({"schedule": "cosine"}, [(1 + cos(pi * i / 8)) / 2 for i in range(8)]),
        ({"schedule": "cosine", "warmup": 4}, [0.25, 0.5, 0.75, 1, 1, *((1 + cos(pi * i / 4)) / 2 for i in (1, 2, 3))]),
    ],
)
def test_the_learning_rate_is_a_function_of_the_iteration(settings: dict[str, object], factors: list[float]) -> None:
    recipe = Recipe("sgd", learning_rate=0.2, iterations=8, **settings)  # type: ignore[arg-type]
    np.testing.assert_allclose(expected_rates(recipe), 0.2 * np.array(factors), rtol=1e-12)
    assert learning_rate(recipe, 100) == expected_rates(recipe)[-1]  # finetuning goes on at the last one


def test_batches_from_any_iteration_are_those_of_the_whole_run() -> None:
    for drop_last in (False, True):
        whole = list(batches((1,), 23, 5, drop_last, 20))
        for first in range(21):
            rest = list(batches((1,), 23, 5, drop_last, 20, first))
            assert len(rest) == 20 - first
            assert all(np.array_equal(a, b) for a, b in zip(whole[first:], rest, strict=True))


LENET = stack((784, 300, 100, 10), (28, 28))
SCHEDULED = Recipe(
    learning_rate=2e-3, schedule="milestones", milestones=(6,), warmup=5, batch_size=30, iterations=12, evaluate_every=5
)
LATE = {
    "adam": SCHEDULED,
    "momentum": replace(SCHEDULED, optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.01),
    "cosine": replace(SCHEDULED, schedule="cosine", milestones=()),
}


@pytest.fixture(scope="module")
def digits() -> Splits:
    raw = lottery.data.load("mnist-5k")
    parts = lottery.data.split(raw, "standardize", 100, stream(0))
    return Splits(*(Images(p.images[:200], p.labels[:200]) for p in (parts.train, parts.validation, parts.test)))


@pytest.mark.parametrize("saved", [False, True], ids=["fresh", "saved"])
@pytest.mark.parametrize("recipe", LATE.values(), ids=LATE)
@pytest.mark.parametrize("density", [1.0, 0.4, 0.05])
def test_engines_agree_with_the_twin_from_iteration_k_on(
    digits: Splits, density: float, recipe: Recipe, saved: bool
) -> None:
    initial = models.initial_weights(LENET, "glorot_normal", stream(*KEY))
    kept = {n: stream(n).random(LENET.tensors[n].shape) < density for n in LENET.prunable}
    dense = Start(initial, ones(LENET), (*KEY, "order", 0))
    early = engines.trainer("sparse", "cpu")(LENET, digits, dense, recipe, no_report, keep=4).early
    assert early
    begin = rewind(Trunk(KEY, 1, initial, kept, early=early, rewinding=Rewinding(12, saved)))
    assert begin.first == 4
    assert bool(begin.optimizer) == saved
    twin = reference.train(LENET, digits, begin, recipe, no_report, keep=7)
    assert twin.history["iteration"].tolist() == [5, 10, 12]
    assert twin.early
    for name in ("sparse", "torch"):
        ours = engines.trainer(name, "cpu")(LENET, digits, begin, recipe, no_report, keep=7)
        assert ours.early
        np.testing.assert_array_equal(ours.history["iteration"], twin.history["iteration"])
        for column in ("train_loss", "validation_loss", "test_loss"):
            np.testing.assert_allclose(ours.history[column], twin.history[column], rtol=1e-4, err_msg=name)
        assert set(ours.early.optimizer) == set(twin.early.optimizer)
        for slot, array in twin.early.optimizer.items():
            found = ours.early.optimizer[slot]
            assert (found[~kept[slot.partition(":")[2]]] == 0).all() if slot.endswith(".weight") else True
            np.testing.assert_allclose(found, array, rtol=2e-2, atol=1e-2 * np.abs(array).max(), err_msg=slot)
        assert int(ours.early.optimizer["step"]) == (7 if saved else 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "decay_biases": False},
        {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
        {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.2, "decay_biases": False},
    ],
)
def test_what_only_the_torch_engine_trains_is_what_the_twin_computes(settings: dict[str, object]) -> None:
    network, data = stack((30, 12, 8, 4)), images((30,), 80, 20, 20)
    recipe = Recipe(**{"learning_rate": 0.01, "batch_size": 16, "iterations": 20, "evaluate_every": 5} | settings)  # type: ignore[arg-type]
    assert engines.choose("auto", network, recipe, "cpu") == "torch"
    weights = models.initial_weights(network, "glorot_normal", stream(1))
    for name in (n for n in weights if "bias" in n):
        weights[name] = stream(name).standard_normal(weights[name].shape).astype(np.float32)
    kept = {n: stream(n).random(network.tensors[n].shape) < 0.6 for n in network.prunable}
    begin = Start(masks.apply(weights, kept), kept, (0,))
    ours = engines.trainer("torch", "cpu")(network, data, begin, recipe, no_report)
    twin = reference.train(network, data, begin, recipe, no_report)
    for name, weight in twin.weights.items():
        np.testing.assert_allclose(ours.weights[name], weight, rtol=1e-3, atol=2e-4, err_msg=name)


def test_biases_and_norms_are_spared_where_the_recipe_says_so() -> None:
    network = models.network(Model("resnet-8", width=2), (3, 8, 8), 4)
    decays = weight_decays(network, Recipe("sgd", weight_decay=0.5, decay_biases=False))
    assert {len(network.tensors[name].shape) for name, decay in decays.items() if decay} == {2, 4}
    assert {len(network.tensors[name].shape) for name, decay in decays.items() if not decay} == {1}
    assert not any(network.tensors[name].buffer for name in decays)
    assert set(weight_decays(network, Recipe("sgd", weight_decay=0.5)).values()) == {0.5}


class Noisy(nn.Module):
    """Convolution, batch norm, dropout: state of every kind, and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.4))
        self.head = nn.Linear(4 * 36, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x))
        return out


RESNET = Recipe(
    "sgd",
    learning_rate=0.05,
    schedule="milestones",
    milestones=(8,),
    warmup=6,
    momentum=0.9,
    weight_decay=1e-3,
    crop_padding=1,
    flip=True,
    batch_size=16,
    iterations=11,
    evaluate_every=4,
)


@pytest.fixture(params=["resnet-8", "dropout"])
def network(request: pytest.FixtureRequest) -> Network:
    if request.param == "dropout":
        return described(Noisy, (3, 8, 8))
    return models.network(Model("resnet-8", width=2), (3, 8, 8), 4)


def test_from_theta_k_with_full_masks_the_dense_run_is_reproduced_and_nothing_can_be_left_out(
    network: Network,
) -> None:
    train, data = engines.trainer("torch", "cpu"), images((3, 8, 8), 40, 12, 12)
    initial = models.initial_weights(network, "glorot_normal", stream(*KEY))
    begin = Start(initial, ones(network), (*KEY, "order", 0))
    dense = train(network, data, begin, RESNET, no_report, keep=5)
    assert dense.early
    trunk = Trunk(KEY, 1, initial, ones(network), early=dense.early, rewinding=Rewinding(11, True, True))
    again = rewind(trunk)
    same = train(network, data, again, RESNET, no_report)
    assert differing(dense, same) == []
    for column, values in same.history.items():
        after = values[1:] if column == "train_loss" else values  # the first covers iterations 1 to 4
        np.testing.assert_array_equal(after, dense.history[column][len(dense.history[column]) - len(after) :])
    buffers = {name: initial[name] for name, tensor in network.tensors.items() if tensor.buffer}
    assert buffers
    own_order = rewind(replace(trunk, rewinding=Rewinding(11, saved=True)))
    assert own_order.order != again.order
    left_out = {
        "optimizer": replace(again, optimizer={}),
        "buffers": replace(again, weights=again.weights | buffers),
        "order": own_order,
        "iteration": replace(again, first=4, last=10),
    }
    for what, start in left_out.items():
        assert differing(dense, train(network, data, start, RESNET, no_report)), what


@pytest.mark.parametrize("seeded", [True, False])
def test_noise_is_a_function_of_the_iteration(seeded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not seeded:
        monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    network, train, data = described(Noisy, (3, 8, 8)), engines.trainer("torch", "cpu"), images((3, 8, 8), 40, 8, 8)
    begin = Start(models.initial_weights(network, "glorot_normal", stream(0)), ones(network), (0,))
    state = torch.get_rng_state()
    dense = train(network, data, begin, RESNET, no_report, keep=5)
    assert torch.equal(torch.get_rng_state(), state)  # a caller's own draws are not disturbed
    assert dense.early
    start = replace(begin, weights=dense.early.weights, optimizer=dense.early.optimizer, first=5)
    assert (differing(dense, train(network, data, start, RESNET, no_report)) == []) == seeded


def test_the_sparse_engine_reproduces_the_dense_run_too(digits: Splits) -> None:
    initial = models.initial_weights(LENET, "glorot_normal", stream(*KEY))
    begin = Start(initial, ones(LENET), (*KEY, "order", 0))
    train = engines.trainer("sparse", "cpu")
    dense = train(LENET, digits, begin, SCHEDULED, no_report, keep=7)
    assert dense.early
    trunk = Trunk(KEY, 1, initial, ones(LENET), early=dense.early, rewinding=Rewinding(12, True, True))
    assert differing(dense, train(LENET, digits, rewind(trunk), SCHEDULED, no_report)) == []
    assert differing(dense, train(LENET, digits, replace(rewind(trunk), optimizer={}), SCHEDULED, no_report))


FROM_K = {"rewind", "random_mask", "one_shot", "reinit_from_ticket", "same_sign", "shuffle", "lr_rewind"}


@pytest.mark.parametrize("name", STARTS)
def test_where_each_rule_begins(name: str) -> None:
    network = stack((6, 5, 4))
    states = [models.initial_weights(network, "glorot_normal", stream(i)) for i in range(4)]
    for i, state in enumerate(states):
        state["fc1.bias"] = np.full(5, 1.0 + i, np.float32)
    theta, early, before, dense = states
    slots = {"exp_avg:fc1.weight": np.ones((5, 6), np.float32), "step": np.array(30)}
    kept = {n: stream(n).random(network.tensors[n].shape) < 0.6 for n in network.prunable}
    trunk = Trunk(
        KEY,
        2,
        theta,
        kept,
        dense,
        before,
        lambda rng: models.initial_weights(network, "glorot_normal", rng),
        early=Moment(30, early, slots),
        rewinding=Rewinding(100, saved=True),
    )
    begin = STARTS[name].start(trunk)
    bias = begin.weights["fc1.bias"][0]
    if name in FROM_K or name.startswith("noise"):
        assert (begin.first, begin.last) == (30, None)
        assert bias == (3 if name == "lr_rewind" else 2)
        assert bool(begin.optimizer) == (name != "lr_rewind")
        if begin.optimizer:
            np.testing.assert_array_equal(begin.optimizer["exp_avg:fc1.weight"] == 0, ~begin.masks["fc1.weight"])
    elif name == "finetune":
        assert (begin.first, begin.last, bias) == (100, 170, 3)
        assert STARTS[name].start(replace(trunk, early=None)).last == 200
    else:
        assert (begin.first, begin.last, begin.optimizer) == (0, None, {})
        assert bias == {"continue": 3, "prune_at_init": 1}.get(name, 0)
    slots["exp_avg:fc1.weight"][:] = 7  # what was begun with is a copy
    assert (begin.optimizer.get("exp_avg:fc1.weight", np.zeros(1)) != 7).all()


@pytest.fixture(scope="module")
def late() -> Spec:
    return Spec(
        data=Data("mnist-5k", validation=100),
        recipe=Recipe(iterations=20, evaluate_every=5),
        pruning=Pruning(rate=0.5),
        levels=2,
        rewind_to=8,
        branches=("reinit", "lr_rewind", "finetune", "random_mask"),
    )


@pytest.fixture(scope="module", params=["sparse", "torch"])
def finished(late: Spec, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    return lottery.run(late, runs_dir=tmp_path_factory.mktemp(request.param), engine=request.param)


def test_a_run_rewinds_to_what_its_dense_network_was_at_iteration_k(late: Spec, finished: lottery.Run) -> None:
    dense = finished.read(Place("rewind", 0, 0))
    assert dense.early
    assert dense.early.iteration == 8
    assert any(not np.array_equal(dense.early.weights[n], dense.start[n]) for n in dense.start)
    short = replace(late, levels=0, branches=(), rewind_to=0, recipe=replace(late.recipe, iterations=8))
    until = lottery.run(short, runs_dir=finished.path.parent, engine=str(finished.info["engine"]))
    trained = until.read(Place("rewind", 0, 0)).trained
    assert all(array.tobytes() == trained[name].tobytes() for name, array in dense.early.weights.items())
    for level in (1, 2):
        saved = finished.read(Place("rewind", 0, level))
        assert saved.early is None
        assert saved.history["iteration"].tolist() == [10, 15, 20]
        begun = masks.apply(dense.early.weights, saved.masks)
        assert all(array.tobytes() == saved.start[name].tobytes() for name, array in begun.items())
        before = finished.read(Place("finetune" if level > 1 else "rewind", 0, level - 1)).trained
        tuned = finished.read(Place("finetune", 0, level))
        assert tuned.history["iteration"].tolist() == [25, 30, 32]
        assert all(a.tobytes() == tuned.start[n].tobytes() for n, a in masks.apply(before, tuned.masks).items())
        assert finished.read(Place("reinit", 0, level)).history["iteration"].tolist() == [5, 10, 15, 20]
        elsewhere = finished.read(Place("random_mask", 0, level))
        assert elsewhere.history["iteration"].tolist() == [10, 15, 20]
        begun = masks.apply(dense.early.weights, elsewhere.masks)
        assert all(array.tobytes() == elsewhere.start[name].tobytes() for name, array in begun.items())
        assert finished.read(Place("lr_rewind", 0, level)).history["iteration"].tolist() == [10, 15, 20]
    assert finished.levels().query("branch == 'finetune'").iterations.eq(32).all()


def test_the_settings_of_rewinding_reach_the_levels(late: Spec, tmp_path: Path) -> None:
    plain = replace(late, branches=(), levels=1, pruning=Pruning(rate=0.0))

    def level(**settings: str) -> Weights:
        run = lottery.run(replace(plain, **settings), runs_dir=tmp_path, engine="torch")  # type: ignore[arg-type]
        assert run.path.name == replace(plain, **settings).uid  # type: ignore[arg-type]
        same = run.read(Place("rewind", 0, 1)).trained
        dense = run.read(Place("rewind", 0, 0)).trained
        return {name: np.array(array.tobytes() == same[name].tobytes()) for name, array in dense.items()}

    assert all(level(optimizer_state="saved", data_order="dense").values())
    for settings in ({"optimizer_state": "saved"}, {"data_order": "dense"}):
        assert not any(level(**settings).values())


def test_a_share_of_the_iterations_is_those_iterations(late: Spec) -> None:
    assert replace(late, rewind_to="40%").uid == late.uid
    assert replace(late, rewind_to="40%") == late
    assert replace(late, rewind_to="8").rewind_to == 8
    assert Spec.from_toml('rewind_to = "2%"').rewind_to == 1000
    assert Spec.from_toml("rewind_to = 1000").uid == Spec.from_toml('rewind_to = "2.0%"').uid


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('rewind_to = "2 %"', "rewind_to = '2 %': must be an iteration, or a share of recipe.iterations such as 2%"),
        ("rewind_to = true", "rewind_to = True: must be a whole number, or a share"),
        ("rewind_to = 50000", "rewind_to = 50000: must be 0 or more, and below recipe.iterations = 50,000"),
        ("rewind_to = -1", "rewind_to = -1: must be 0 or more"),
        ('optimizer_state = "saved"', "optimizer_state = 'saved': there is none before the first iteration"),
        ('rewind_to = 9\noptimizer_state = "old"', "optimizer_state = 'old': use fresh or saved"),
        ('data_order = "random"', "data_order = 'random': use level or dense"),
        ('start = "lr_rewind"', "start = 'lr_rewind': needs a rewind_to above 0: at 0 it is continue"),
        ('branches = ["lr_rewind"]', "branches = 'lr_rewind': needs a rewind_to above 0"),
        ('[recipe]\nschedule = "linear"', "recipe.schedule = 'linear': use constant, milestones or cosine"),
        ('[recipe]\nschedule = "milestones"', "recipe.milestones = (): give the iterations"),
        ('[recipe]\nschedule = "milestones"\nmilestones = [9, 5]', "recipe.milestones = (9, 5): must rise"),
        ('[recipe]\nschedule = "milestones"\nmilestones = [5, 5]', "recipe.milestones = (5, 5): must rise"),
        ('[recipe]\nschedule = "milestones"\nmilestones = [50000]', "must lie between 0 and recipe.iterations"),
        ("[recipe]\nmilestones = [5]", "recipe.milestones = (5,): only the schedule milestones has them"),
        ("[recipe]\ngamma = 0.5", "recipe.gamma = 0.5: only the schedule milestones has it"),
        ('[recipe]\nschedule = "milestones"\nmilestones = [5]\ngamma = 0', "recipe.gamma = 0.0: must be above 0"),
        ("[recipe]\nwarmup = 50001", "recipe.warmup = 50001: must be 0 or more iterations, and at most"),
        ("[recipe]\nnesterov = true", "recipe.nesterov = True: needs a recipe.momentum above 0"),
        ("[recipe]\ncrop_padding = -1", "recipe.crop_padding = -1: must be at least 0"),
        ('[recipe]\noptimizer = "adamw"\nmomentum = 0.9', "recipe.momentum = 0.9: only sgd has momentum"),
    ],
)
def test_bad_settings_are_one_line(toml: str, message: str) -> None:
    with pytest.raises(LotteryError, match=r"a\.toml") as caught:
        Spec.from_toml(toml, source="a.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamw"}, "it knows Adam, SGD and SGD with momentum alone; use --engine torch"),
        ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, "it knows Adam, SGD"),
        ({"weight_decay": 0.1, "decay_biases": False}, "it decays weights and biases alike"),
        ({"crop_padding": 1}, "without recipe.crop_padding and recipe.flip; use --engine torch"),
        ({"flip": True}, "without recipe.crop_padding and recipe.flip; use --engine torch"),
    ],
)
def test_what_the_sparse_engine_refuses_goes_to_torch(settings: dict[str, object], message: str) -> None:
    recipe = Recipe(**settings)  # type: ignore[arg-type]
    assert engines.choose("auto", LENET, recipe, "cpu") == "torch"
    with pytest.raises(LotteryError, match="engine = 'sparse'") as caught:
        engines.choose("sparse", LENET, recipe, "cpu")
    assert message in str(caught.value)
