"""Start rules: where one level begins. Rewinding variants and controls are the same kind of function.

To add one: a function from Trunk to Start and a row in STARTS.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lottery.masks import Masks, Weights, apply
from lottery.seeds import Key


@dataclass(frozen=True)
class Start:
    """Everything that a training run reads but the data and the recipe. Its arrays are copies, shared with nothing."""

    weights: Weights
    """What training begins with: every tensor, biases too, pruned weights exactly 0."""
    masks: Masks
    """What it keeps."""
    order: Key
    """Names the stream of the data order."""


@dataclass(frozen=True)
class Trunk:
    """What a start rule may use: the state of the level loop before a level is trained."""

    key: Key
    """The spec's seed and the replicate: the head of every stream's name."""
    level: int
    """0 is the dense network."""
    initial: Weights
    """θ₀."""
    masks: Masks
    """What this level keeps."""


def rewind(trunk: Trunk) -> Start:
    """θ₀ ⊙ m: Frankle & Carbin 2019, Section 1. Keeps mask and initial weights, changes nothing else."""
    order = (*trunk.key, "order", trunk.level)
    return Start(apply(trunk.initial, trunk.masks), {n: m.copy() for n, m in trunk.masks.items()}, order)


STARTS: dict[str, Callable[[Trunk], Start]] = {"rewind": rewind}
