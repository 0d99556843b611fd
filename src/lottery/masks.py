"""Masks: plain dicts name -> boolean array, True = kept, over the prunable tensors only. The mask is the only truth
about what is pruned: a kept weight whose value happens to be 0.0 is kept.
"""

from collections.abc import Mapping

import numpy as np

from lottery.errors import LotteryError

Weights = dict[str, np.ndarray]
"""Name -> float32 array, every tensor of the network, biases too."""

Masks = dict[str, np.ndarray]
"""Name -> boolean array of the weight's shape, prunable tensors only."""


def density(masks: Mapping[str, np.ndarray]) -> float:
    """Kept / total over all tensors of `masks`, in [0, 1]."""
    return sum(int(np.count_nonzero(m)) for m in masks.values()) / sum(m.size for m in masks.values())


def apply(weights: Weights, masks: Masks) -> Weights:
    """weights ⊙ masks, always as copies that share no memory with `weights`; pruned weights are +0.0."""
    return {
        name: np.where(masks[name], w, np.zeros((), w.dtype)) if name in masks else np.array(w, copy=True)
        for name, w in weights.items()
    }


def check_applied(weights: Weights, masks: Masks) -> None:
    """Raises LotteryError naming the tensor if a pruned weight is not exactly 0."""
    for name, mask in masks.items():
        if count := np.count_nonzero(weights[name][~mask]):
            raise LotteryError(f"{count} pruned weights of {name} are not 0: training must keep the mask in the update")


def select(scores: Mapping[str, np.ndarray], masks: Masks, rates: Mapping[str, float], scope: str) -> Masks:
    """The next masks: from what `masks` keeps, the lowest-scored `round(rate * kept)` (half to even) leave.

    Scope "layer": each tensor loses its own `rates[name]`. Scope "global": tensors at rate 0 stay as they are, all
    others compete, and their rates must agree.
    Ties leave in order of index (then of tensor), so counts are exact whatever the scores. What was pruned stays
    pruned. Rates 0 and 1 and empty layers are no special cases. Raises LotteryError for a score that is not finite.
    """
    for name, mask in masks.items():
        if not np.isfinite(scores[name][mask]).all():
            raise LotteryError(f"scores of {name} are not finite: nothing was pruned")
    if scope == "layer":
        return {name: keep_highest(scores[name], mask, _left(mask, rates[name])) for name, mask in masks.items()}
    out = {name: mask.copy() for name, mask in masks.items()}
    if names := [name for name in masks if rates[name]]:
        (rate,) = {rates[name] for name in names}
        mask = np.concatenate([masks[name].ravel() for name in names])
        flat = keep_highest(np.concatenate([scores[name].ravel() for name in names]), mask, _left(mask, rate))
        parts = np.split(flat, np.cumsum([masks[name].size for name in names])[:-1])
        out |= {name: part.reshape(masks[name].shape) for name, part in zip(names, parts, strict=True)}
    return out


def keep_highest(scores: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """The `count` highest-scored of what `mask` keeps, boolean of its shape. Of ties, those of lower index leave."""
    kept = np.flatnonzero(mask)
    leaving = kept.size - count
    out = mask.copy()
    if leaving:
        values = scores.ravel()[kept]
        cutoff = np.partition(values, leaving - 1)[leaving - 1]
        below = kept[values < cutoff]
        tied = kept[values == cutoff][: leaving - below.size]
        out.reshape(-1)[np.concatenate([below, tied])] = False
    return out


def _left(mask: np.ndarray, rate: float) -> int:
    kept = int(np.count_nonzero(mask))
    return kept - round(rate * kept)


def pack(mask: np.ndarray) -> np.ndarray:
    """Eight weights to a byte, in index order, uint8."""
    return np.packbits(mask)


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack`. Raises LotteryError where the bytes don't fit the shape."""
    size = int(np.prod(shape))
    if packed.size != -(-size // 8):
        raise LotteryError(f"a packed mask of {packed.size} bytes does not fit the shape {shape}")
    return np.unpackbits(packed, count=size).astype(bool).reshape(shape)
