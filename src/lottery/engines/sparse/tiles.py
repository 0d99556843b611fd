"""Layers that are still dense, in tiles of 64 outputs: image by image, over the inputs that are not zero.

The first layer skips the pixels that are background, four fifths of MNIST's; the second the units that ReLU made 0,
half of them. Both hold one tile's 64 outputs of one image in registers. The layers after them are in CSR, by rows: what
leads from one to the other transposes.
"""

import numpy as np

from lottery.engines.sparse.doors import jit
from lottery.engines.sparse.simd import (
    clear_lowest,
    fma,
    get,
    keep_bits,
    load_by2,
    load_by4,
    load_x64,
    lowest_bit,
    nonzero,
    nonzero_bytes,
    put,
    relu,
    splat_by2,
    splat_by4,
    splat_x64,
    store,
    transpose_square,
    where_positive,
)
from lottery.engines.sparse.step import take_step
from lottery.engines.sparse.vectors import BY2, BY4, LANES, SQUARE


@jit
def transpose(a, i, stride_a, b, j, stride_b, rows, columns):
    """b[j + column * stride_b + row] = a[i + row * stride_a + column], for so many rows and columns."""
    whole_rows, whole_columns = rows - rows % SQUARE, columns - columns % SQUARE
    for row in range(0, whole_rows, SQUARE):
        for column in range(0, whole_columns, SQUARE):
            transpose_square(a, i + row * stride_a + column, stride_a, b, j + column * stride_b + row, stride_b)
    for row in range(rows):
        for column in range(whole_columns if row < whole_rows else 0, columns):
            put(b, j + column * stride_b + row, get(a, i + row * stride_a + column))


# ---- the first layer -------------------------------------------------------------------------------------------------


@jit
def first_bias(net, first, background):
    """Outputs of an image of nothing but background."""
    for u in range(first.units):
        first.bias[u] = net.bias[u] + background * first.sums[u]


@jit
def first_forward(first, lists, images):
    """The layer's outputs for up to 64 images: 64 outputs of one image stay in registers, over the pixels of one
    chunk."""
    count, pixels, _ = first.w.shape
    w, z, indices, values = first.w.ravel(), first.z, lists.indices, lists.values
    for j in range(len(images)):
        for t in range(count):
            store(z, (j * count + t) * LANES, load_x64(first.bias, t * LANES))
    for chunk in range(lists.chunks.shape[1] - 1):
        for t in range(count):
            base = t * pixels
            for j in range(len(images)):
                place = (j * count + t) * LANES
                acc = load_x64(z, place)
                for k in range(lists.chunks[images[j], chunk], lists.chunks[images[j], chunk + 1]):
                    acc = fma(get(values, k), load_x64(w, (base + get(indices, k)) * LANES), acc)
                store(z, place, acc)
    for i in range(0, len(images) * count * LANES, LANES):
        store(z, i, relu(load_x64(z, i)))


@jit
def first_rows(net, first):
    """The outputs of up to 64 images, from image by image to rows."""
    transpose(first.z, 0, first.deltas.shape[1], net.A, 0, LANES, LANES, first.units)


@jit
def first_deltas(net, first, begin):
    """Deltas of the layer's units, from rows to image by image, from image `begin` of the batch on."""
    width = first.deltas.shape[1]
    transpose(net.D, 0, LANES, first.deltas.ravel(), begin * width, width, first.units, LANES)


@jit
def first_step(net, first, batch, lists, background, step, backwards):
    """Gradient of the whole batch and the optimizer's step, in one pass over the weights, so that no gradient is ever
    stored.

    Every other step goes `backwards`: it begins with what the cache still has. Neighbouring pixels, which mostly the
    same images have, are taken two at a time: each image's deltas are loaded once for both.
    """
    count, pixels, _ = first.w.shape
    w, m, v, mask = first.w.ravel(), first.m.ravel(), first.v.ravel(), first.mask.ravel()
    deltas, bias_g, scratch, width = first.deltas.ravel(), net.bias_g, net.scratch, first.deltas.shape[1]
    blocks, room = batch.codes.shape
    codes, values, table, coded = batch.codes.ravel(), batch.values.ravel(), lists.table, lists.coded
    nothing = splat_by2(np.float32(0))
    for i in range(count):
        t = count - 1 - i if backwards else i
        sums = splat_x64(np.float32(0))
        for p in range(0, pixels, 2):
            for lane in range(0, LANES, BY2):
                g0 = g1 = fma(background, load_by2(bias_g, t * LANES + lane), nothing)
                for block in range(blocks):
                    row0 = block * room + p * LANES
                    row1 = row0 + LANES
                    bits = nonzero_bytes(codes, row0) | nonzero_bytes(codes, row1)
                    while bits != 0:
                        j = lowest_bit(bits)
                        d = load_by2(deltas, (block * LANES + j) * width + t * LANES + lane)
                        x0 = get(table, get(codes, row0 + j)) if coded else get(values, row0 + j)
                        x1 = get(table, get(codes, row1 + j)) if coded else get(values, row1 + j)
                        g0, g1 = fma(x0, d, g0), fma(x1, d, g1)
                        bits = clear_lowest(bits)
                store(scratch, lane, g0)
                store(scratch, LANES + lane, g1)
            for which in range(min(2, pixels - p)):
                place = t * pixels + p + which
                g = keep_bits(get(mask, place), load_x64(scratch, which * LANES))
                sums = fma(np.float32(1), take_step(w, m, v, place * LANES, g, step), sums)
        store(first.sums, t * LANES, sums)


# ---- the second layer ------------------------------------------------------------------------------------------------


@jit
def second_bias(net, second, begin):
    """The layer's biases, those of the units from `begin` on, filled up."""
    second.bias[: second.units] = net.bias[begin : begin + second.units]


@jit
def second_forward(net, first, second, count):
    """Rows of the layer's units for `count` images, over the units of the first that are not 0."""
    tiles, inputs, _ = second.w.shape
    w, x, z = second.w.ravel(), first.z, second.z
    for t in range(tiles):
        for j in range(count):
            store(z, j * LANES, load_x64(second.bias, t * LANES))
        for part in range(0, inputs, LANES):
            for j in range(count):
                acc = load_x64(z, j * LANES)
                bits = nonzero(load_x64(x, j * inputs + part))
                while bits != 0:
                    u = part + lowest_bit(bits)
                    acc = fma(get(x, j * inputs + u), load_x64(w, (t * inputs + u) * LANES), acc)
                    bits = clear_lowest(bits)
                store(z, j * LANES, acc)
        second_rows(net, first.units, second, t, count)


@jit
def second_rows(net, begin, second, t, count):
    """The outputs of tile t for `count` images, which are in z's first 64 · 64, through ReLU to rows. begin: the
    layer's first unit."""
    for j in range(count):
        store(second.z, j * LANES, relu(load_x64(second.z, j * LANES)))
    unit, units = begin + t * LANES, min(LANES, second.units - t * LANES)
    transpose(second.z, 0, LANES, net.A, unit * LANES, LANES, LANES, units)


@jit
def second_backward(net, begin, second):
    """Deltas of the first layer's units, `begin` in number, from those of the second's, four units at a time."""
    inputs = second.w.shape[1]
    w, D = second.w.ravel(), net.D
    for u in range(0, begin, 4):
        for part in range(0, LANES, BY4):
            d0 = d1 = d2 = d3 = splat_by4(np.float32(0))
            for out in range(0, second.units, LANES):
                base = (out // LANES * inputs + u) * LANES
                for o in range(min(LANES, second.units - out)):
                    d = load_by4(D, (begin + out + o) * LANES + part)
                    d0 = fma(get(w, base + o), d, d0)
                    d1 = fma(get(w, base + LANES + o), d, d1)
                    d2 = fma(get(w, base + 2 * LANES + o), d, d2)
                    d3 = fma(get(w, base + 3 * LANES + o), d, d3)
            store(D, u * LANES + part, d0)  # units come in fours but for the last: after them are the second layer's
            if u + 1 < begin:
                store(D, (u + 1) * LANES + part, d1)
            if u + 2 < begin:
                store(D, (u + 2) * LANES + part, d2)
            if u + 3 < begin:
                store(D, (u + 3) * LANES + part, d3)
    for r in range(0, begin * LANES, LANES):
        store(D, r, where_positive(load_x64(net.A, r), load_x64(D, r)))


@jit
def second_step(net, begin, second, count, add, last, step):
    """Gradient of the layer's weights, over those of a block of `count` images for which the input is not 0; added to
    what is there if `add`. The optimizer's step as well, if this is the batch's `last` block."""
    tiles, inputs, _ = second.w.shape
    deltas, A = second.deltas.ravel(), net.A
    w, m, v, g, mask = second.w.ravel(), second.m.ravel(), second.v.ravel(), second.g.ravel(), second.mask.ravel()
    transpose(net.D, begin * LANES, LANES, deltas, 0, tiles * LANES, second.units, LANES)
    images = (1 << count) - 1 if count < LANES else -1  # a bit for each
    for t in range(tiles):
        for u in range(inputs):
            place = (t * inputs + u) * LANES
            acc = load_x64(g, place) if add else splat_x64(np.float32(0))
            bits = nonzero(load_x64(A, u * LANES)) & images if u < begin else 0
            while bits != 0:
                j = lowest_bit(bits)
                acc = fma(get(A, u * LANES + j), load_x64(deltas, (j * tiles + t) * LANES), acc)
                bits = clear_lowest(bits)
            acc = keep_bits(get(mask, t * inputs + u), acc)
            if last:
                take_step(w, m, v, place, acc, step)
            else:
                store(g, place, acc)
