"""Softmax and cross-entropy over the rows of the outputs: for training their deltas, for evaluation a score."""

import math

import numpy as np

from lottery.engines.sparse.doors import jit
from lottery.engines.sparse.simd import divide, exp_difference, fma, load_x64, maximum, multiply, splat_x64, store
from lottery.engines.sparse.vectors import LANES


@jit
def exponentials(net):
    """exp(output - the image's largest) into the rows of D; largest and sum into scratch[0] and scratch[1]."""
    A, D, begin, end = net.A, net.D, net.offset + net.hidden, net.offset + net.units
    top = load_x64(A, begin * LANES)
    for row in range(begin + 1, end):
        top = maximum(top, load_x64(A, row * LANES))
    sums = splat_x64(np.float32(0))
    for row in range(begin, end):
        e = exp_difference(load_x64(A, row * LANES), top)
        store(D, row * LANES, e)
        sums = fma(np.float32(1), e, sums)
    store(net.scratch, 0, top)
    store(net.scratch, LANES, sums)


@jit
def softmax(net, labels, images, batch):
    """Deltas of the outputs for a block of images, (softmax - one-hot) / batch, 0 in columns without an image; returns
    the sum of the images' cross-entropies."""
    A, D, scratch, count = net.A, net.D, net.scratch, len(images)
    exponentials(net)
    scale = np.float32(1 / batch)
    factor = divide(scale, load_x64(scratch, LANES))
    for u in range(net.hidden, net.units):
        row = (net.offset + u) * LANES
        store(D, row, multiply(factor, load_x64(D, row)))
        D[row + count : row + LANES] = 0
    loss = 0.0
    for j in range(count):
        right = (net.offset + net.hidden + labels[images[j]]) * LANES + j
        D[right] -= scale
        loss -= A[right] - scratch[j]
    return loss + sum_of_logarithms(scratch, count)


@jit
def sum_of_logarithms(scratch, count):
    """Σ log of the sums of exponentials, each at least 1: a logarithm of eight at a time, as products fit a double."""
    loss = 0.0
    for begin in range(0, count, 8):
        product = 1.0
        for j in range(begin, min(begin + 8, count)):
            product *= scratch[LANES + j]
        loss += math.log(product)
    return loss


@jit
def score(net, labels, images):
    """Sum of the images' cross-entropies, and how many are classified correctly: the first of equal outputs counts."""
    A, scratch, begin = net.A, net.scratch, net.offset + net.hidden
    exponentials(net)
    loss, correct = 0.0, 0
    for j in range(len(images)):
        label = labels[images[j]]
        out = A[(begin + label) * LANES + j]
        loss -= out - scratch[j]
        right = out == scratch[j]
        for c in range(label if right else 0):
            right = right and A[(begin + c) * LANES + j] < out
        correct += right
    return loss + sum_of_logarithms(scratch, len(images)), correct
