"""The kernel that trains: the three modes, each a straight line from a batch to its loss and gradients, and the loop
over iterations around them."""

import numpy as np

from lottery.engines.sparse.csr import backward, forward, gradients
from lottery.engines.sparse.doors import jit
from lottery.engines.sparse.images import fetch, fill_batch, fill_rows, fill_values
from lottery.engines.sparse.loss import softmax
from lottery.engines.sparse.simd import FLUSH, control, set_control
from lottery.engines.sparse.step import step_of, take_steps
from lottery.engines.sparse.tiles import (
    first_bias,
    first_deltas,
    first_forward,
    first_rows,
    first_step,
    second_backward,
    second_bias,
    second_forward,
    second_step,
)
from lottery.engines.sparse.vectors import LANES


@jit
def sparse_batch(net, batch, lists, background, images):
    """Mode SPARSE: all layers in CSR. Gradients of one batch; returns the sum of its cross-entropies."""
    loss = 0.0
    for begin in range(0, len(images), LANES):
        block = images[begin : begin + LANES]
        fill_rows(net, batch, lists, block, background, begin // LANES)
        forward(net, 0)
        loss += softmax(net, lists.labels, block, len(images))
        backward(net, 0)
        gradients(net, begin > 0)
    return loss


@jit
def mixed_batch(net, first, batch, lists, background, images, step, backwards):
    """Mode MIXED: the first layer in tiles, the others in CSR. Gradients of one batch, the first layer's step; returns
    the sum of its cross-entropies."""
    loss = 0.0
    first_bias(net, first, background)
    for begin in range(0, len(images), LANES):
        block = images[begin : begin + LANES]
        first_forward(first, lists, block)
        first_rows(net, first)
        forward(net, first.units)
        loss += softmax(net, lists.labels, block, len(images))
        backward(net, 0)
        gradients(net, begin > 0)
        first_deltas(net, first, begin)
    if not lists.coded:
        fill_values(batch, net, lists, images)
    first_step(net, first, batch, lists, background, step, backwards)
    return loss


@jit
def dense_batch(net, first, second, batch, lists, background, images, step, backwards):
    """Mode DENSE: the first two layers in tiles, the others in CSR. Gradients of one batch, the step of both; returns
    the sum of its cross-entropies."""
    loss = 0.0
    first_bias(net, first, background)
    second_bias(net, second, first.units)
    for begin in range(0, len(images), LANES):
        block = images[begin : begin + LANES]
        first_forward(first, lists, block)
        first_rows(net, first)
        second_forward(net, first, second, len(block))
        forward(net, first.units + second.units)
        loss += softmax(net, lists.labels, block, len(images))
        backward(net, first.units)
        second_backward(net, first.units, second)
        second_step(net, first.units, second, len(block), begin > 0, begin + LANES >= len(images), step)
        gradients(net, begin > 0)
        first_deltas(net, first, begin)
    if not lists.coded:
        fill_values(batch, net, lists, images)
    first_step(net, first, batch, lists, background, step, backwards)
    return loss


@jit
def train(net, first, second, batch, lists, background, order, ends, done, use_adam, rates, momentum, decay, losses):
    """As many iterations as `losses` has entries.

    Args:
        net: all layers' `Net`.
        first: the first layer's `Tiles`; empty in mode SPARSE.
        second: the second layer's `Tiles`; empty but in mode DENSE.
        batch: room for a `Batch`.
        lists: the training images.
        background: float32, the value of most pixels.
        order: int64, indices of the images in the order in which they come.
        ends: int64 [iterations + 1]: batch i is order[ends[i] : ends[i + 1]].
        done: how many steps the optimizer has behind it.
        use_adam: Adam, or else SGD.
        rates: float64 [iterations], the learning rates.
        momentum: SGD's.
        decay: weight decay.
        losses: float64 [iterations], to be filled: the batches' mean losses, each before its step.
    """
    before = control()
    set_control(before | np.uint32(FLUSH))
    for i in range(len(losses)):
        images = order[ends[i] : ends[i + 1]]
        following = order[ends[i + 1] : ends[min(i + 2, len(losses))]]  # none after the last
        fetch(lists, following, first.units > 0 or not lists.coded)
        fill_batch(batch, lists, images)
        step = step_of(use_adam, rates[i], momentum, decay, done + i + 1)
        backwards = i % 2 == 0
        if second.units > 0:
            loss = dense_batch(net, first, second, batch, lists, background, images, step, backwards)
        elif first.units > 0:
            loss = mixed_batch(net, first, batch, lists, background, images, step, backwards)
        else:
            loss = sparse_batch(net, batch, lists, background, images)
        losses[i] = loss / len(images)
        take_steps(net.w, net.w_m, net.w_v, net.w_g, step)
        take_steps(net.bias, net.bias_m, net.bias_v, net.bias_g, step)
    set_control(before)
