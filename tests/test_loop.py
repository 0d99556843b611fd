"""The level loop: every level starts from θ₀ ⊙ m, bit for bit, whatever training did."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from lottery import criteria, loop, masks, models, starts
from lottery.errors import LotteryError
from lottery.masks import Masks, Weights
from lottery.models.mlp import stack
from lottery.models.torch import get_weights
from lottery.seeds import stream
from lottery.spec import Pruning

NETWORK = stack((12, 8, 5))
PRUNABLE = NETWORK.prunable


def theta() -> Weights:
    weights = models.initial_weights(NETWORK, "glorot_normal", stream(3))
    return weights | {"fc1.bias": stream(4).standard_normal(8).astype(np.float32)}  # non-zero: biases rewind too


def draw_theta(rng: np.random.Generator) -> Weights:
    return models.initial_weights(NETWORK, "glorot_normal", rng)


def vandal(level: int, start: starts.Start) -> Weights:
    """Trains in place, as an optimizer would, and scribbles on everything that it was given."""
    for name, weight in start.weights.items():
        weight += stream(level, name).standard_normal(weight.shape).astype(np.float32)
        if name in start.masks:
            weight *= start.masks[name]
    return start.weights


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w["fc1.weight"].requires_grad_(), "train returned fc1.weight as Tensor, which is no array"),
        (
            lambda w: w.update({"fc1.weight": w["fc1.weight"].T}),
            r"fc1.weight as float32 of shape \(12, 8\), not numbers",
        ),
        (lambda w: w.update({"fc1.weight": None}), "fc1.weight as object of shape"),
        (lambda w: w.pop("fc2.bias"), "train returned no weights of fc2.bias: return a dict of NumPy arrays"),
    ],
)
def test_what_training_returns_is_arrays_or_one_error(spoil: Callable[[Any], object], message: str) -> None:
    """Tensors are taken where NumPy takes them; a copy of a module's weights is what it says."""
    import torch

    def module(start: starts.Start) -> torch.nn.Module:
        made = NETWORK.module()
        made.load_state_dict({name: torch.tensor(w) for name, w in start.weights.items()})
        return made

    def copies(level: int, start: starts.Start) -> Weights:
        return get_weights(module(start))

    def tensors(level: int, start: starts.Start) -> Any:
        return {name: tensor.detach() for name, tensor in module(start).named_parameters()}

    def spoilt(level: int, start: starts.Start) -> Any:
        weights = tensors(level, start)
        spoil(weights)
        return weights

    first, second = ([*loop.levels(theta(), PRUNABLE, 2, starts.rewind, f, prune)][-1] for f in (copies, tensors))
    assert all(first.trained[name].tobytes() == second.trained[name].tobytes() for name in NETWORK.tensors)
    with pytest.raises(LotteryError, match=message):
        list(loop.levels(theta(), PRUNABLE, 2, starts.rewind, spoilt, prune))


def prune(level: loop.Level) -> Masks:
    evidence = criteria.Evidence(level.start.weights, level.trained, level.start.masks, stream(0))
    return criteria.prune(evidence, Pruning(rate=0.3))


def test_every_level_starts_from_the_initial_weights_bit_for_bit() -> None:
    initial = theta()
    begun: list[tuple[Weights, Masks]] = []

    def train(level: int, start: starts.Start) -> Weights:
        begun.append(({n: w.copy() for n, w in start.weights.items()}, {n: m.copy() for n, m in start.masks.items()}))
        return vandal(level, start)

    finished = []
    for level in loop.levels(initial, PRUNABLE, 6, starts.rewind, train, prune):
        finished.append(level)
        for weight in initial.values():  # even the caller's own arrays may change meanwhile
            weight += 1
    assert len(begun) == 7
    for level, (weights, kept) in zip(finished, begun, strict=True):  # the ticket is what it started from
        assert all(level.start.weights[n].tobytes() == w.tobytes() for n, w in weights.items())
        assert all(level.start.masks[n].tobytes() == m.tobytes() for n, m in kept.items())
    previous = None
    for weights, kept in begun:
        for name, w in theta().items():
            expected = np.where(kept[name], w, np.float32(0)) if name in kept else w
            assert weights[name].tobytes() == expected.tobytes()
        if previous:
            assert not any((kept[n] & ~previous[n]).any() for n in kept)  # nothing comes back
            assert all(kept[n].sum() == previous[n].sum() - round(0.3 * previous[n].sum()) for n in kept)
        previous = kept
    assert masks.density(begun[0][1]) == 1


@pytest.mark.parametrize("rule", starts.STARTS)
def test_any_rule_can_be_the_trunks_and_level_0_is_the_same(rule: str) -> None:
    finished = list(loop.levels(theta(), PRUNABLE, 3, starts.STARTS[rule].start, vandal, prune, (0, 0), draw_theta))
    assert all(finished[0].start.weights[n].tobytes() == w.tobytes() for n, w in theta().items())
    for before, after in pairwise(finished):
        for name in PRUNABLE:
            kept = before.start.masks[name].sum()
            assert after.start.masks[name].sum() == kept - round(0.3 * kept)


def test_continuing_goes_on_from_its_own_trained_weights_whatever_becomes_of_them_later() -> None:
    ended: list[Weights] = []
    for level in loop.levels(theta(), PRUNABLE, 3, starts.continue_, vandal, prune):
        if level.number:
            for name, w in masks.apply(ended[-1], level.start.masks).items():
                assert level.start.weights[name].tobytes() == w.tobytes()
        ended.append({n: w.copy() for n, w in level.trained.items()})
        for w in level.trained.values():  # the caller's to change: the next level must not see it
            w[...] = 0 if level.number else w


def test_a_rule_sees_what_the_dense_network_and_the_level_before_ended_with() -> None:
    seen: list[starts.Trunk] = []

    def rule(trunk: starts.Trunk) -> starts.Start:
        seen.append(trunk)
        return starts.rewind(trunk)

    finished = list(loop.levels(theta(), PRUNABLE, 3, rule, vandal, prune))
    for trunk in seen:
        assert all(trunk.dense[n].tobytes() == w.tobytes() for n, w in finished[0].trained.items())
        assert all(trunk.before[n].tobytes() == w.tobytes() for n, w in finished[trunk.level - 1].trained.items())
    assert {trunk.level for trunk in seen} == {1, 2, 3}


def test_a_rule_that_needs_fresh_weights_says_so() -> None:
    with pytest.raises(LotteryError, match=r"draws fresh weights: pass levels\(\.\.\., fresh="):
        list(loop.levels(theta(), PRUNABLE, 1, starts.reinit, vandal, prune))


def test_pruning_sees_the_weights_that_training_ended_with() -> None:
    def train(level: int, start: starts.Start) -> Weights:
        return start.weights | {
            "fc1.weight": np.arange(96, dtype=np.float32).reshape(8, 12) * start.masks["fc1.weight"]
        }

    *_, last = loop.levels(theta(), PRUNABLE, 1, starts.rewind, train, prune)
    np.testing.assert_array_equal(np.flatnonzero(~last.start.masks["fc1.weight"]), range(29))


def test_training_that_moves_pruned_weights_is_caught() -> None:
    def train(level: int, start: starts.Start) -> Weights:
        return {n: w + np.float32(0.1) for n, w in start.weights.items()}

    with pytest.raises(LotteryError, match=r"pruned weights of fc1\.weight are not 0"):
        list(loop.levels(theta(), PRUNABLE, 1, starts.rewind, train, prune))


def test_pruning_that_brings_weights_back_is_caught() -> None:
    def shuffle(level: loop.Level) -> Masks:
        return {n: stream(level.number, n).random(m.shape) < 0.5 for n, m in level.start.masks.items()}

    with pytest.raises(LotteryError, match="brought pruned weights of"):
        list(loop.levels(theta(), PRUNABLE, 3, starts.rewind, vandal, shuffle))


def test_levels_are_yielded_as_they_finish_and_the_last_is_not_pruned() -> None:
    pruned: list[int] = []

    def count(level: loop.Level) -> Masks:
        pruned.append(level.number)
        return prune(level)

    assert [lv.number for lv in loop.levels(theta(), PRUNABLE, 2, starts.rewind, vandal, count)] == [0, 1, 2]
    assert pruned == [0, 1]
