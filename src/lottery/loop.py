"""The level loop: train, record, prune, start again. Knows neither data sets nor files; its parts are passed in."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lottery.errors import LotteryError
from lottery.masks import Masks, Weights, check_applied
from lottery.seeds import Key
from lottery.starts import Fresh, Start, Trunk, no_fresh, rewind


@dataclass(frozen=True)
class Level:
    """One round of the loop. The ticket is `start`: mask and the weights it trains from."""

    number: int
    start: Start
    trained: Weights


def levels(
    initial: Weights,
    prunable: list[str],
    count: int,
    rule: Callable[[Trunk], Start],
    train: Callable[[int, Start], Weights],
    prune: Callable[[Level], Masks],
    key: Key = (),
    fresh: Fresh = no_fresh,
) -> Iterator[Level]:
    """Iterative magnitude pruning (Frankle & Carbin 2019, Section 1): level 0 is dense, then `count` times prune and
    start again.

    initial: θ₀, every tensor. A copy is taken, so that nothing that trains can reach it.
    prunable: names of the tensors that masks cover.
    rule: where a level starts, see `lottery.starts`; level 0 starts from θ₀ under every rule.
    train: from level number and start to the trained weights; pruned ones must come back as 0.
    prune: from a finished level to the next masks, subsets of its own.
    key: head of the names of the random streams that the rule draws from.
    fresh: from a generator to another draw of every tensor, for the rules that reinitialise.
    """
    theta = _frozen(initial)
    masks: Masks = _frozen({name: np.ones(theta[name].shape, bool) for name in prunable})
    dense: Weights = {}
    before: Weights = {}
    for number in range(count + 1):
        trunk = Trunk(key, number, theta, masks, dense, before, fresh)
        begin = rule if number else rewind
        start = begin(trunk)
        trained = train(number, begin(trunk))  # its own copy: what it does to that one is not the ticket
        check_applied(trained, start.masks)
        before = _frozen(trained)
        dense = dense or before
        level = Level(number, start, trained)
        yield level
        if number < count:
            masks = _frozen(prune(level))
            for name in prunable:
                if (masks[name] & ~start.masks[name]).any():
                    raise LotteryError(f"pruning level {number} brought pruned weights of {name} back")


def _frozen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    copies = {name: np.array(array, copy=True) for name, array in arrays.items()}
    for copy in copies.values():
        copy.setflags(write=False)
    return copies
