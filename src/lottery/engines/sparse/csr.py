"""Forward, backward and gradients of layers in CSR: one row of 64 images for each surviving weight.

A row is read and one is added to, in registers: a weight costs its own row's 256 bytes, whatever the density. Where
four units in a row have weights from the same rows, as in layers that are still dense, each row is read once for the
four.
"""

import numpy as np

from lottery.engines.sparse.doors import jit
from lottery.engines.sparse.simd import (
    dot,
    dots,
    fma,
    get,
    load_by4,
    load_x4,
    load_x64,
    put,
    relu,
    splat_by4,
    splat_x64,
    store,
    total,
    where_positive,
)
from lottery.engines.sparse.vectors import BY4, LANES


@jit
def forward(net, begin):
    """Rows of units `begin` and later, from the rows before them; ReLU but for the outputs."""
    A, w, indptr, indices = net.A, net.w, net.indptr, net.indices
    u = begin
    while u < net.units:
        if net.alike[u]:
            forward4(net, u)
            u += 4
            continue
        z = splat_x64(net.bias[u])
        for k in range(indptr[u], indptr[u + 1]):
            z = fma(get(w, k), load_x64(A, get(indices, k) * LANES), z)
        if u < net.hidden:
            z = relu(z)
        store(A, (net.offset + u) * LANES, z)
        u += 1


@jit
def forward4(net, u):
    """Rows of units u to u + 3, whose weights are from the same rows."""
    A, w, indices, bias = net.A, net.w, net.indices, net.bias
    k0, k1, k2, k3 = net.indptr[u], net.indptr[u + 1], net.indptr[u + 2], net.indptr[u + 3]
    for part in range(0, LANES, BY4):
        z0, z1 = splat_by4(bias[u]), splat_by4(bias[u + 1])
        z2, z3 = splat_by4(bias[u + 2]), splat_by4(bias[u + 3])
        for i in range(k1 - k0):
            x = load_by4(A, get(indices, k0 + i) * LANES + part)
            z0 = fma(get(w, k0 + i), x, z0)
            z1 = fma(get(w, k1 + i), x, z1)
            z2 = fma(get(w, k2 + i), x, z2)
            z3 = fma(get(w, k3 + i), x, z3)
        if u < net.hidden:
            z0, z1, z2, z3 = relu(z0), relu(z1), relu(z2), relu(z3)
        row = (net.offset + u) * LANES + part
        store(A, row, z0)
        store(A, row + LANES, z1)
        store(A, row + 2 * LANES, z2)
        store(A, row + 3 * LANES, z3)


@jit
def backward(net, begin):
    """Deltas of the hidden units from `begin` on, the last first, from those of the outputs."""
    A, D, w, indptr_t, indices_t, perm = net.A, net.D, net.w, net.indptr_t, net.indices_t, net.perm
    u = net.hidden - 1
    while u >= begin:
        if u >= begin + 3 and net.alike_t[u - 3]:
            backward4(net, u - 3)
            u -= 4
            continue
        d = splat_x64(np.float32(0))
        for k in range(indptr_t[u], indptr_t[u + 1]):
            d = fma(get(w, get(perm, k)), load_x64(D, get(indices_t, k) * LANES), d)
        row = (net.offset + u) * LANES
        store(D, row, where_positive(load_x64(A, row), d))
        u -= 1


@jit
def backward4(net, u):
    """Deltas of units u to u + 3, whose weights are to the same rows."""
    D, w, indices_t, perm = net.D, net.w, net.indices_t, net.perm
    k0, k1, k2, k3 = net.indptr_t[u], net.indptr_t[u + 1], net.indptr_t[u + 2], net.indptr_t[u + 3]
    row = (net.offset + u) * LANES
    for part in range(0, LANES, BY4):
        d0 = d1 = d2 = d3 = splat_by4(np.float32(0))
        for i in range(k1 - k0):
            d = load_by4(D, get(indices_t, k0 + i) * LANES + part)
            d0 = fma(get(w, get(perm, k0 + i)), d, d0)
            d1 = fma(get(w, get(perm, k1 + i)), d, d1)
            d2 = fma(get(w, get(perm, k2 + i)), d, d2)
            d3 = fma(get(w, get(perm, k3 + i)), d, d3)
        store(D, row + part, d0)
        store(D, row + LANES + part, d1)
        store(D, row + 2 * LANES + part, d2)
        store(D, row + 3 * LANES + part, d3)
    for r in range(row, row + 4 * LANES, LANES):
        store(D, r, where_positive(load_x64(net.A, r), load_x64(D, r)))


@jit
def gradients(net, add):
    """Gradients of the weights in CSR and of all biases: of a block, added to what is there if `add`."""
    A, D, g, bias_g, indptr, indices = net.A, net.D, net.w_g, net.bias_g, net.indptr, net.indices
    for u in range(net.units):
        d = load_x64(D, (net.offset + u) * LANES)
        bias_g[u] = total(d) + (bias_g[u] if add else np.float32(0))
        k, end = indptr[u], indptr[u + 1]
        while k + 3 < end:
            four = dots(
                d,
                load_x64(A, get(indices, k) * LANES),
                load_x64(A, get(indices, k + 1) * LANES),
                load_x64(A, get(indices, k + 2) * LANES),
                load_x64(A, get(indices, k + 3) * LANES),
            )
            store(g, k, fma(np.float32(1), four, load_x4(g, k)) if add else four)
            k += 4
        while k < end:
            put(g, k, dot(d, load_x64(A, get(indices, k) * LANES)) + (get(g, k) if add else np.float32(0)))
            k += 1
