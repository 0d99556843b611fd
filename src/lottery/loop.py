"""The level loop: train, record, prune, start again. Knows neither data sets nor files; its parts are passed in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lottery.errors import LotteryError
from lottery.masks import Masks, Weights, check_applied
from lottery.seeds import Key
from lottery.starts import TO_START, Fresh, Moment, Rewinding, Start, Trunk, no_fresh, rewind


@dataclass(frozen=True)
class Level:
    """One round of the loop. The ticket is `start`: mask and the weights it trains from."""

    number: int
    start: Start
    trained: Weights


@dataclass
class Round:
    """A level that is to be trained: from `given`, whatever that does to its arrays, and then to be finished."""

    number: int
    start: Start
    given: Start
    """A copy of `start` to train."""
    level: Level | None = None
    """Once it is finished."""
    before: Weights = field(default_factory=dict)
    """Then a copy of the trained weights, for the level after it: the others are the caller's to change."""

    def finish(self, trained: Mapping[str, Any]) -> Level:
        """Takes the trained weights. Raises LotteryError, naming the tensor, for what is no array or not masked."""
        arrays = _arrays(trained, self.start.weights)
        check_applied(arrays, self.start.masks)
        self.level, self.before = Level(self.number, self.start, arrays), _frozen(arrays)
        return self.level


def levels(
    initial: Weights,
    prunable: list[str],
    count: int,
    rule: Callable[[Trunk], Start],
    train: Callable[[int, Start], Weights],
    prune: Callable[[Level], Masks],
    key: Key = (),
    fresh: Fresh = no_fresh,
    early: Callable[[], Moment | None] = lambda: None,
    rewinding: Rewinding = TO_START,
) -> Iterator[Level]:
    """Trains every round of `rounds` by a function, from level number and start to the trained weights; pruned ones
    must come back as 0. The other arguments are those of `rounds`."""
    for begun in rounds(initial, prunable, count, rule, prune, key, fresh, early, rewinding):
        yield begun.finish(train(begun.number, begun.given))


def rounds(
    initial: Weights,
    prunable: list[str],
    count: int,
    rule: Callable[[Trunk], Start],
    prune: Callable[[Level], Masks],
    key: Key = (),
    fresh: Fresh = no_fresh,
    early: Callable[[], Moment | None] = lambda: None,
    rewinding: Rewinding = TO_START,
) -> Iterator[Round]:
    """Iterative magnitude pruning (Frankle & Carbin 2019, Section 1): level 0 is dense, then `count` times prune and
    start again. Whoever iterates trains each round and finishes it.

    initial: θ₀, the state: every parameter and buffer. A copy is taken, so that nothing that trains can reach it.
    prunable: names of the tensors that masks cover.
    rule: where a level starts, see `lottery.starts`; level 0 starts from θ₀ under every rule.
    prune: from a finished level to the next masks, subsets of its own.
    key: head of the names of the random streams that the rule draws from.
    fresh: from a generator to another draw of every tensor, for the rules that reinitialise.
    early: asked once the dense network is trained: what it was at the iteration to rewind to; None for θ₀.
    rewinding: the other settings that start rules follow.
    """
    theta = _frozen(initial)
    masks: Masks = _frozen({name: np.ones(theta[name].shape, bool) for name in prunable})
    dense: Weights = {}
    before: Weights = {}
    point: Moment | None = None
    for number in range(count + 1):
        if number == 1 and (point := early()):
            point = Moment(point.iteration, _frozen(point.weights), _frozen(point.optimizer))
        trunk = Trunk(key, number, theta, masks, dense, before, fresh, early=point, rewinding=rewinding)
        begin = rule if number else rewind
        start = begin(trunk)
        begun = Round(number, start, begin(trunk))  # its own copy: what training does to that is not the ticket
        yield begun
        assert begun.level, "each round is finished before the next"
        before = begun.before
        dense = dense or before
        if number < count:
            masks = _frozen(prune(begun.level))
            for name in prunable:
                if (masks[name] & ~start.masks[name]).any():
                    raise LotteryError(f"pruning level {number} brought pruned weights of {name} back")


def _arrays(trained: Mapping[str, Any], like: Weights) -> Weights:
    """What training returned, as arrays. Raises LotteryError, naming the tensor, for anything else."""
    arrays: Weights = {}
    remedy = "return a dict of NumPy arrays, such as lottery.models.torch.get_weights(module)"
    for name in dict.fromkeys([*like, *trained] if isinstance(trained, Mapping) else like):
        if not isinstance(trained, Mapping) or name not in trained:
            raise LotteryError(f"train returned no weights of {name}: {remedy}")
        try:
            array = np.asarray(trained[name])
        except (RuntimeError, TypeError, ValueError) as error:  # a tensor with gradients, or of a GPU
            kind = type(trained[name]).__name__
            raise LotteryError(f"train returned {name} as {kind}, which is no array ({error}): {remedy}") from None
        shape = like[name].shape if name in like else array.shape  # buffers, say: no concern of the loop
        if array.dtype.kind not in "fiu" or array.shape != shape:
            words = f"{array.dtype} of shape {array.shape}, not numbers of shape {shape}"
            raise LotteryError(f"train returned {name} as {words}: {remedy}")
        arrays[name] = array
    return arrays


def _frozen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    copies = {name: np.array(array, copy=True) for name, array in arrays.items()}
    for copy in copies.values():
        copy.setflags(write=False)
    return copies
