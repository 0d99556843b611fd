"""The level loop: every level starts from θ₀ ⊙ m, bit for bit, whatever training did."""

import numpy as np
import pytest

from lottery import criteria, loop, masks, models, starts
from lottery.errors import LotteryError
from lottery.masks import Masks, Weights
from lottery.seeds import stream
from lottery.spec import Pruning

LAYOUT = models.mlp((12, 8, 5))
PRUNABLE = [name for name, tensor in LAYOUT.items() if tensor.prunable]


def theta() -> Weights:
    weights = models.initial_weights(LAYOUT, "glorot_normal", stream(3))
    return weights | {"fc1.bias": stream(4).standard_normal(8).astype(np.float32)}  # non-zero: biases rewind too


def vandal(level: int, start: starts.Start) -> Weights:
    """Trains in place, as an optimizer would, and scribbles on everything that it was given."""
    for name, weight in start.weights.items():
        weight += stream(level, name).standard_normal(weight.shape).astype(np.float32)
        if name in start.masks:
            weight *= start.masks[name]
    return start.weights


def prune(level: loop.Level) -> Masks:
    evidence = criteria.Evidence(level.start.weights, level.trained, level.start.masks, stream(0))
    return criteria.prune(evidence, Pruning(rate=0.3))


@pytest.mark.parametrize("rule", starts.STARTS)
def test_starts_share_nothing_with_the_trunk(rule: str) -> None:
    initial = theta()
    kept = {n: stream(5).random(initial[n].shape) < 0.5 for n in PRUNABLE}
    start = starts.STARTS[rule](starts.Trunk((0, 0), 1, initial, kept))
    for made, given in ((start.weights, initial), (start.masks, kept)):
        for a in made.values():
            assert not any(np.shares_memory(a, b) for b in given.values())
    masks.check_applied(start.weights, start.masks)


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
