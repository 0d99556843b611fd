"""Criteria score weights; the one selector in `masks` selects. A criterion never thresholds and never sees a rate.

To add one: a function from Evidence to scores shaped like the weights (lowest leaves first) and a row in CRITERIA.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from lottery.errors import LotteryError, known, own_code
from lottery.masks import Masks, Weights, select
from lottery.spec import Pruning


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at, for one level."""

    start: Weights
    """The weights that the level started from."""
    trained: Weights
    """The weights that it ended with."""
    masks: Masks
    """What the level kept."""
    rng: np.random.Generator
    """The level's own stream for criteria."""


def magnitude(evidence: Evidence) -> Weights:
    """|trained weight|: Frankle & Carbin 2019, Section 1."""
    return {name: np.abs(evidence.trained[name]) for name in evidence.masks}


def random(evidence: Evidence) -> Weights:
    """Uniform in [0, 1): the control that ignores the evidence."""
    return {name: evidence.rng.random(mask.shape) for name, mask in evidence.masks.items()}


CRITERIA: dict[str, Callable[[Evidence], Weights]] = {"magnitude": magnitude, "random": random}


def rates(pruning: Pruning, names: Iterable[str]) -> dict[str, float]:
    """The rate of each layer. Raises LotteryError for a pattern that matches no layer, or two that match the same."""
    names = list(names)
    chosen: dict[str, tuple[str, float]] = {}
    for pattern, rate in pruning.layer_rates.items():
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise LotteryError(f"pruning.layer_rates: {pattern!r} matches no layer; there are {', '.join(names)}")
        for name in matched:
            if name in chosen:
                raise LotteryError(f"pruning.layer_rates: {chosen[name][0]!r} and {pattern!r} both match {name}")
            chosen[name] = pattern, rate
    return {name: chosen[name][1] if name in chosen else pruning.rate for name in names}


def prune(evidence: Evidence, pruning: Pruning) -> Masks:
    """The next level's masks. Raises LotteryError, naming the tensor, for weights that are NaN or infinite, and for a
    criterion that fails, or gives no finite number for each weight."""
    if pruning.criterion not in CRITERIA:
        raise LotteryError(known("pruning.criterion", pruning.criterion, CRITERIA))
    for name, mask in evidence.masks.items():
        if bad := np.count_nonzero(~np.isfinite(evidence.trained[name][mask])):
            raise LotteryError(f"{bad} trained weights of {name} are NaN or infinite: nothing was pruned")
    with own_code(f"pruning.criterion = {pruning.criterion!r}: fails"):
        scores = CRITERIA[pruning.criterion](evidence)
    scores = _scores(f"pruning.criterion = {pruning.criterion!r}", scores, evidence.masks)
    return select(scores, evidence.masks, rates(pruning, evidence.masks), pruning.scope)


def _scores(what: str, scores: Any, masks: Masks) -> Weights:
    """What a criterion gave, as arrays of the masks' names and shapes."""
    remedy = "give a dict with an array of scores for each mask, of its shape"
    if not isinstance(scores, Mapping):
        raise LotteryError(f"{what}: gives a {type(scores).__name__}: {remedy}")
    arrays: Weights = {}
    for name, mask in masks.items():
        if name not in scores:
            raise LotteryError(f"{what}: gives no scores of {name}: {remedy}")
        try:
            array = np.asarray(scores[name])
        except (RuntimeError, TypeError, ValueError) as error:  # a tensor with gradients, or of a GPU
            raise LotteryError(f"{what}: gives scores of {name} that are no array ({error}): {remedy}") from None
        if array.dtype.kind not in "fiub" or array.shape != mask.shape:
            words = f"{array.dtype} of shape {array.shape}, not numbers of shape {mask.shape}"
            raise LotteryError(f"{what}: gives scores of {name} as {words}: {remedy}")
        if bad := np.count_nonzero(~np.isfinite(array[mask])):
            raise LotteryError(f"{what}: gives {bad} scores of {name} that are NaN or infinite: nothing was pruned")
        arrays[name] = array
    return arrays
