"""One step of the optimizer: Adam, or SGD with momentum, for 64 weights at a time. Their constants are all engines'."""

import math
from typing import NamedTuple

import numpy as np

from lottery.engines.optimizers import BETA1, BETA2, EPSILON
from lottery.engines.sparse.doors import inline, jit
from lottery.engines.sparse.simd import adam, fma, load_x64, store
from lottery.engines.sparse.vectors import LANES


class Step(NamedTuple):
    """What one iteration's step needs beside weights and gradients: float32 but for `adam`.

    Adam with its bias corrections taken out of the loop: w -= size · m / (sqrt(v) · root + epsilon).
    """

    adam: bool  # else SGD, which reads size, momentum and decay
    size: np.float32  # Adam: learning rate / (1 - β1^t); SGD: learning rate
    decay: np.float32  # weight decay: g += decay · w
    momentum: np.float32
    beta1: np.float32
    one_minus_beta1: np.float32
    beta2: np.float32
    one_minus_beta2: np.float32
    root: np.float32  # 1 / sqrt(1 - β2^t)
    epsilon: np.float32


@jit
def step_of(use_adam, rate, momentum, decay, t):
    """The `Step` of the optimizer's t-th step, the first being 1."""
    return Step(
        use_adam,
        np.float32(rate / (1 - BETA1**t) if use_adam else rate),
        np.float32(decay),
        np.float32(momentum),
        np.float32(BETA1),
        np.float32(1 - BETA1),
        np.float32(BETA2),
        np.float32(1 - BETA2),
        np.float32(1 / math.sqrt(1 - BETA2**t)),
        np.float32(EPSILON),
    )


@inline
def take_step(w, m, v, i, g, step):
    """One step for the 64 weights at i, with gradient g; returns the new weights. m, v: the optimizer's state, zero
    before the first step: Adam's two moments, or SGD's momentum in m, which then begins with the whole gradient."""
    if step.adam:
        return adam(w, m, v, i, g, step)
    return sgd(w, m, i, g, step)


@jit
def sgd(w, m, i, g, step):
    """SGD's alternative of `take_step`. A function that is called: with its lines in there, Adam's loop over the tiles
    lacks registers, and takes twice as long."""
    old = load_x64(w, i)
    direction = fma(step.momentum, load_x64(m, i), fma(step.decay, old, g))
    new = fma(-step.size, direction, old)
    store(m, i, direction)
    store(w, i, new)
    return new


@jit
def take_steps(w, m, v, g, step):
    """One step for all weights, with gradients g; all arrays are padded with zeros to a multiple of 64."""
    for i in range(0, len(w), LANES):
        take_step(w, m, v, i, load_x64(g, i), step)
