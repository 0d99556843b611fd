"""Prediction: surviving weights in SELL slices, and the kernel that computes logits with them."""

from typing import NamedTuple

import numpy as np

from lottery.engines.sparse.doors import jit
from lottery.engines.sparse.layout import leading_on
from lottery.engines.sparse.simd import (
    FLUSH,
    control,
    fma,
    gather_x16,
    get,
    load_x16,
    relu,
    set_control,
    splat_x16,
    store,
)
from lottery.engines.sparse.tiles import transpose

SLICE = 16
"""Units whose weights lie together, or examples predicted together: lanes of the vectors here, _x16."""

FEW = 4
"""Examples from which on it is faster to predict `SLICE` together than each alone."""


class Slices(NamedTuple):
    """Surviving weights in SELL-C-σ (Kreutzer et al. 2014, doi:10.1137/130930352), C = `SLICE`.

    The units of a hidden layer are sorted by how many weights they have, and `SLICE` neighbours make a slice: theirs
    are filled up to the longest with weights of 0 from the spare row, which is 0. Rows are all pixels, the spare row,
    and units, whose layers are filled up to whole slices."""

    hidden: int  # slices of hidden layers
    features: int
    indptr: np.ndarray  # int64 [slices + 1]: where the weights of each begin: SLICE units' first, their second, ...
    indices: np.ndarray  # int32 [indptr[-1]]: the row that a weight is from
    w: np.ndarray  # float32 [indptr[-1]]
    bias: np.ndarray  # float32 [slices * SLICE]
    used: np.ndarray  # int64: first pixels of those whole SLICEs of them in which some have connections


def build_slices(weights: list[np.ndarray], masks: list[np.ndarray], biases: list[np.ndarray]) -> Slices:
    """Lays out layers, from the first to the output. weights, masks: [out, in] each; biases: [out] each."""
    masks = leading_on(masks)
    features = spare = masks[0].shape[1]
    sources: list[np.ndarray] = []
    values: list[np.ndarray] = []
    constants: list[np.ndarray] = []
    hidden = 0
    row_of = np.arange(features)  # rows of the layer's inputs
    for i, (weight, mask, bias) in enumerate(zip(weights, masks, biases, strict=True)):
        units = np.arange(len(mask))
        if i + 1 < len(masks):
            leads: np.ndarray = np.any(masks[i + 1], axis=0)
            units = np.argsort(-mask.sum(axis=1), kind="stable")
            units = units[leads[units]]  # no others are read
            hidden += -(-len(units) // SLICE)
        rows = np.zeros(len(mask), np.int64)
        rows[units] = spare + 1 + SLICE * len(constants) + np.arange(len(units))
        for begin in range(0, len(units), SLICE):
            members = units[begin : begin + SLICE]
            source = np.full((mask[members].sum(axis=1).max(), SLICE), spare, np.int32)
            value, constant = np.zeros(source.shape, np.float32), np.zeros(SLICE, np.float32)
            for lane, unit in enumerate(members):
                (inputs,) = np.nonzero(mask[unit])
                source[: len(inputs), lane] = row_of[inputs]
                value[: len(inputs), lane] = weight[unit, inputs]
                constant[lane] = bias[unit]
            sources.append(source.ravel())
            values.append(value.ravel())
            constants.append(constant)
        row_of = rows
    return Slices(
        hidden=hidden,
        features=features,
        indptr=np.cumsum([0, *map(len, sources)]),
        indices=np.concatenate(sources),
        w=np.concatenate(values),
        bias=np.concatenate(constants),
        used=np.unique(np.flatnonzero(masks[0].any(axis=0)) // SLICE) * SLICE,
    )


@jit
def predict_one(net, x, i, A, logits):
    """Logits of example i, SLICE units at a time. A: float32 [rows], working memory."""
    hidden, features, indptr, indices, w, bias, _ = net
    A[:features] = x[i * features : (i + 1) * features]
    A[features] = 0
    first = features + 1
    for s in range(len(indptr) - 1):
        z = load_x16(bias, s * SLICE)
        for k in range(indptr[s], indptr[s + 1], SLICE):
            z = fma(load_x16(w, k), gather_x16(A, indices, k), z)
        store(A, first + s * SLICE, relu(z) if s < hidden else z)
    first += hidden * SLICE
    logits[i] = A[first : first + logits.shape[1]]


@jit
def predict_block(net, x, begin, count, A, logits):
    """Logits of `count` examples, SLICE at most, from `begin` on: four units at a time, whose sums don't wait for each
    other. A: float32 [rows * SLICE], working memory."""
    hidden, features, indptr, indices, w, bias, used = net
    for p in used:
        transpose(x, begin * features + p, features, A, p * SLICE, SLICE, count, min(SLICE, features - p))
    A[features * SLICE : (features + 1) * SLICE] = 0
    first = features + 1
    for u in range(0, len(bias), 4):
        s, unit = u // SLICE, u % SLICE
        z0, z1 = splat_x16(get(bias, u)), splat_x16(get(bias, u + 1))
        z2, z3 = splat_x16(get(bias, u + 2)), splat_x16(get(bias, u + 3))
        for k in range(indptr[s] + unit, indptr[s + 1] + unit, SLICE):
            z0 = fma(get(w, k), load_x16(A, get(indices, k) * SLICE), z0)
            z1 = fma(get(w, k + 1), load_x16(A, get(indices, k + 1) * SLICE), z1)
            z2 = fma(get(w, k + 2), load_x16(A, get(indices, k + 2) * SLICE), z2)
            z3 = fma(get(w, k + 3), load_x16(A, get(indices, k + 3) * SLICE), z3)
        if s < hidden:
            z0, z1, z2, z3 = relu(z0), relu(z1), relu(z2), relu(z3)
        row = (first + u) * SLICE
        store(A, row, z0)
        store(A, row + SLICE, z1)
        store(A, row + 2 * SLICE, z2)
        store(A, row + 3 * SLICE, z3)
    first += hidden * SLICE
    for j in range(count):
        for c in range(logits.shape[1]):
            logits[begin + j, c] = get(A, (first + c) * SLICE + j)


@jit
def predict(hidden, features, indptr, indices, w, bias, used, examples, logits):
    """Logits [n, outputs] of examples [n, features], to the bit the same for an example alone and among others.

    The first arguments are those of `Slices`, which numba takes a microsecond longer to take apart. Working memory is
    the call's own: threads may share them."""
    net = Slices(hidden, features, indptr, indices, w, bias, used)
    before = control()
    set_control(before | np.uint32(FLUSH))
    n, rows, x = len(examples), features + 1 + len(bias), examples.ravel()
    room = np.empty((rows if n < FEW else rows * SLICE) + 16, np.float32)
    A = room[-room.ctypes.data % 64 // 4 :]  # begins with a cache line
    if FEW <= n < SLICE:
        A[:] = 0  # no example will ever fill all columns
    for begin in range(0, n, SLICE):
        if n - begin < FEW:
            for i in range(begin, n):
                predict_one(net, x, i, A, logits)
        else:  # of the last, some may be predicted again: whole blocks are transposed faster
            predict_block(net, x, max(0, min(begin, n - SLICE)), min(n, SLICE), A, logits)
    set_control(before)
