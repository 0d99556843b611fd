"""The kernels' vectors: how wide they are, and what each operation on them computes, in NumPy.

These are the twins of `simd`'s operations: what they mean, what tests compare them with, and what runs in their place
with the JIT off.

Axes: v and w are vectors, float32 [lanes]; a and b flat contiguous arrays, i and j indices of their elements.
"""

import numpy as np

from lottery.engines.sparse.doors import AVX512

LANES = 64
"""Images in a block and in its rows, outputs in a tile: lanes of the vectors that end in _x64."""

BY4 = 64 if AVX512 else 16
"""Lanes of vectors that end in _by4: the widest of which the registers hold four sums and what these need."""

BY2 = 64 if AVX512 else 32
"""Lanes of vectors that end in _by2: the widest of which the registers hold two sums."""

SQUARE = 16 if AVX512 else 8
"""Rows, and columns, of what `transpose_square` transposes: the registers hold it."""


def loading(lanes):
    """load_x...: a[i : i + lanes], as floats, of float32 or uint8."""

    def load(a, i):
        return a[i : i + lanes].astype(np.float32)

    return load


def splatting(lanes):
    """splat_x...: x in every lane."""

    def splat(x):
        return np.full(lanes, x, np.float32)

    return splat


def store(a, i, v):
    """a[i : i + lanes] = v"""
    a[i : i + len(v)] = v


def get(a, i):
    """a[i] for i ≥ 0"""
    return a[i]


def put(a, i, x):
    """a[i] = x for i ≥ 0"""
    a[i] = x


def prefetch(a, i):
    """Asks for the cache line of a[i], and does not wait for it."""


def gather_x16(a, indices, i):
    """a[indices[i : i + 16]] for indices ≥ 0, int32"""
    return a[indices[i : i + 16]]


def fma(x, v, w):
    """x · v + w for a scalar or a vector x; fused where the machine can."""
    return np.float32(x) * v + w


def relu(v):
    """max(v, 0); NaN stays NaN, so that a broken network shows in its loss."""
    return np.maximum(v, np.float32(0))


def where_positive(condition, v):
    """v where condition > 0, else 0"""
    return np.where(condition > 0, v, np.float32(0))


def maximum(v, w):
    """The larger of each lane's two; w's where v's is not a number."""
    return np.where(v > w, v, w)


def multiply(v, w):
    """v · w"""
    return v * w


def divide(x, v):
    """x / v for a scalar x"""
    return np.float32(x) / v


def exp_difference(v, w):
    """exp(v - w) where v ≤ w, to 2e-7 of its value; differences below -87 count as -87. NaN stays NaN."""
    return np.exp(np.maximum(v - w, np.float32(-87)))


def dot(v, w):
    """Σ v · w"""
    return np.dot(v, w)


def dots(v, *ws):
    """Σ v · w for each of four w: a vector [4]"""
    return np.array([np.dot(v, w) for w in ws])


def total(v):
    """Σ v"""
    return v.sum()


def nonzero(v):
    """Bit i is whether v[i] is not 0: int64. NaN is not 0."""
    return int(np.packbits(v != 0, bitorder="little").view(np.int64)[0])


def nonzero_bytes(a, i):
    """Bit j is whether a[i + j], uint8, is not 0, for 64 of them: int64"""
    return nonzero(a[i : i + LANES])


def lowest_bit(bits):
    """Number of the lowest bit that is set, of an int64 that is not 0."""
    bits = int(bits) % (1 << 64)
    return (bits & -bits).bit_length() - 1


def clear_lowest(bits):
    """bits without the lowest that is set"""
    bits = int(bits) % (1 << 64)
    return bits & (bits - 1)


def keep_bits(bits, v):
    """v[i] where bit i of the int64 is set, else 0"""
    kept = np.unpackbits(np.array([int(bits) % (1 << 64)], np.uint64).view(np.uint8), bitorder="little")
    return np.where(kept, v, np.float32(0))


def adam(w, m, v, i, g, step):
    """One step of Adam (Kingma & Ba 2015, Algorithm 1) for the 64 weights at i, with gradient g.

    Args:
        w: weights.
        m: moving mean of the gradient.
        v: moving mean of its square.
        i: index of the first of the 64 in all three.
        g: gradient, a vector [64].
        step: `step.Step`.

    Returns:
        The new weights, a vector [64].
    """
    lanes = slice(i, i + LANES)
    g = g + step.decay * w[lanes]
    m[lanes] = step.beta1 * m[lanes] + step.one_minus_beta1 * g
    v[lanes] = step.beta2 * v[lanes] + step.one_minus_beta2 * g * g
    w[lanes] -= step.size * m[lanes] / (np.sqrt(v[lanes]) * step.root + step.epsilon)
    return w[lanes].copy()


def transpose_square(a, i, stride_a, b, j, stride_b):
    """b[j + column * stride_b + row] = a[i + row * stride_a + column], `SQUARE` rows and columns"""
    for k in range(SQUARE):
        b[j + k * stride_b : j + k * stride_b + SQUARE] = a[i + k : i + k + SQUARE * stride_a : stride_a]


def transpose_bytes(a, places, i, p, b, j):
    """b.flat[j + column * 64 + row] = a.flat[places[i + row] + p + column], 16 rows and columns of uint8"""
    rows = np.array([a.flat[begin + p : begin + p + 16] for begin in places[i : i + 16]])
    for k in range(16):
        b.flat[j + k * LANES : j + k * LANES + 16] = rows[:, k]


def control():
    """The thread's floating-point control word; 0 on machines where subnormal numbers cost nothing."""
    return 0


def set_control(word):
    """Sets what `control` reads."""
