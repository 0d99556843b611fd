"""The level loop: train, record, prune, start again. Knows neither data sets nor files; its parts are passed in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lottery.errors import LotteryError
from lottery.masks import Masks, Weights, check_applied
from lottery.seeds import Key
from lottery.starts import Start, Trunk


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
) -> Iterator[Level]:
    """Iterative magnitude pruning (Frankle & Carbin 2019, Section 1): level 0 is dense, then `count` times prune and
    start again.

    initial: θ₀, every tensor. A copy is taken, so that nothing that trains can reach it.
    prunable: names of the tensors that masks cover.
    rule: where a level starts, see `lottery.starts`.
    train: from level number and start to the trained weights; pruned ones must come back as 0.
    prune: from a finished level to the next masks, subsets of its own.
    key: head of the names of the random streams that the rule draws from.
    """
    theta = {name: _frozen(w) for name, w in initial.items()}
    masks: Masks = {name: _frozen(np.ones(theta[name].shape, bool)) for name in prunable}
    for number in range(count + 1):
        trunk = Trunk(key, number, theta, masks)
        start = rule(trunk)
        trained = train(number, rule(trunk))  # its own copy: what it does to that one is not the ticket
        check_applied(trained, start.masks)
        level = Level(number, start, trained)
        yield level
        if number < count:
            masks = {name: _frozen(m) for name, m in prune(level).items()}
            for name in prunable:
                if (masks[name] & ~start.masks[name]).any():
                    raise LotteryError(f"pruning level {number} brought pruned weights of {name} back")


def _frozen(array: np.ndarray) -> np.ndarray:
    copy = np.array(array, copy=True)
    copy.setflags(write=False)
    return copy
