"""Loss and accuracy over validation and test images, which are taken together where they are alike.

In mode SPARSE `Groups` of 32 images go through the first layer pixel by pixel (CSC): each weight of a pixel is applied
to the 32 at once. In modes MIXED and DENSE `Pairs` of images go through the tiles: each weight is loaded once for two.
The layers behind are those of training.
"""

from typing import NamedTuple

import numpy as np

from lottery.engines.sparse.csr import forward
from lottery.engines.sparse.doors import jit
from lottery.engines.sparse.images import CHUNK, Lists
from lottery.engines.sparse.layout import Net, zeros
from lottery.engines.sparse.loss import score
from lottery.engines.sparse.order import GROUP
from lottery.engines.sparse.simd import (
    FLUSH,
    clear_lowest,
    control,
    fma,
    get,
    load_by2,
    load_x32,
    load_x64,
    lowest_bit,
    nonzero,
    put,
    relu,
    set_control,
    splat_x32,
    store,
)
from lottery.engines.sparse.tiles import first_bias, first_rows, second_bias, second_rows
from lottery.engines.sparse.vectors import BY2, LANES

# ---- mode SPARSE: groups of 32 images --------------------------------------------------------------------------------


class Groups(NamedTuple):
    """Images taken together, `GROUP` at a time: the rows of the pixels that any of them has, and for each of these rows
    the pixel's code, or its value, in each image."""

    indptr: np.ndarray  # int64 [groups + 1]
    indices: np.ndarray  # int32: rows of pixels
    codes: np.ndarray  # uint8 [len(indices) * GROUP], or none where they are not `coded`
    values: np.ndarray  # float32 [len(indices) * GROUP]: then this; otherwise none
    coded: bool
    scale: np.float32  # 1 for values
    labels: np.ndarray  # int64 [n], in the order of the groups


class Csc(NamedTuple):
    """The first layer's weights by pixel, in CSC, and what evaluating in groups needs beside them."""

    indptr: np.ndarray  # int64 [rows of pixels + 2]
    places: np.ndarray  # int32 [weights]: where the unit's values begin in z
    weights: np.ndarray  # float32 [weights]: times the scale of the images
    constant: np.ndarray  # float32 [units of the first layer]: outputs of an image of background
    z: np.ndarray  # float32 [units of the first layer * GROUP]


def build_csc(net: Net, units: int) -> Csc:
    """Room for a first layer of so many units."""
    return Csc(
        indptr=np.zeros(net.offset + 2, np.int64),
        places=np.zeros(net.indptr[units], np.int32),
        weights=np.zeros(net.indptr[units], np.float32),
        constant=np.zeros(units, np.float32),
        z=zeros(units * GROUP),
    )


def build_groups(lists: Lists, order: np.ndarray, net: Net) -> Groups:
    """Images in that order, `GROUP` neighbours together, of the pixels that the net's first layer has weights from."""
    place = np.zeros(net.offset, np.int64)
    count = count_groups(net, lists, order, place)
    groups = Groups(
        indptr=np.zeros(-(-len(order) // GROUP) + 1, np.int64),
        indices=np.zeros(count, np.int32),
        codes=zeros(count * GROUP if lists.coded else 0, dtype=np.uint8),
        values=zeros(0 if lists.coded else count * GROUP),
        coded=lists.coded,
        scale=lists.scale,
        labels=lists.labels[order],
    )
    fill_groups(net, lists, order, place, groups)
    return groups


@jit
def count_groups(net, lists, order, place):
    """How many rows `fill_groups` will have. place: int64 [rows of pixels], working memory."""
    spare = net.offset - 1
    place[:] = -1
    count = 0
    for j in range(len(order)):
        for k in range(lists.indptr[order[j]], lists.indptr[order[j] + 1]):
            row = get(net.row_of, get(lists.indices, k))
            count += row != spare and get(place, row) != j // GROUP
            put(place, row, j // GROUP)
    return count


@jit
def fill_groups(net, lists, order, place, groups):
    """`groups` from `lists`, taken in that order. place: int64 [rows of pixels], working memory."""
    indices, spare = lists.indices, net.offset - 1
    groups.codes[:] = 0
    groups.values[:] = 0
    end = 0
    for begin in range(0, len(order), GROUP):
        images = order[begin : begin + GROUP]
        place[:] = -1
        for image in images:
            for k in range(lists.indptr[image], lists.indptr[image + 1]):
                put(place, get(net.row_of, get(indices, k)), 0)
        for row in range(spare):  # in the order of rows, so that loops over their weights become shorter and shorter
            if get(place, row) == 0:
                put(place, row, end)
                groups.indices[end] = row
                end += 1
        for j in range(len(images)):
            for k in range(lists.indptr[images[j]], lists.indptr[images[j] + 1]):
                row = get(net.row_of, get(indices, k))
                if row != spare and lists.coded:
                    groups.codes[get(place, row) * GROUP + j] = lists.codes[images[j], indices[k]]
                elif row != spare:
                    put(groups.values, get(place, row) * GROUP + j, get(lists.values, k))
        groups.indptr[begin // GROUP + 1] = end


@jit
def fill_csc(net, background, scale, csc):
    """Fills `csc` from the first layer's weights."""
    indptr, units = csc.indptr, len(csc.constant)
    indptr[:] = 0
    for k in range(net.indptr[units]):
        indptr[net.indices[k] + 2] += 1
    for p in range(2, len(indptr)):
        indptr[p] += indptr[p - 1]
    for u in range(units):
        total_weight = np.float32(0)
        for k in range(net.indptr[u], net.indptr[u + 1]):
            p = net.indices[k] + 1
            csc.places[indptr[p]] = u * GROUP
            csc.weights[indptr[p]] = scale * net.w[k]
            indptr[p] += 1
            total_weight += net.w[k]
        csc.constant[u] = net.bias[u] + background * total_weight


@jit
def groups_forward(net, csc, groups, pixels, begin, end):
    """Rows of the first layer's units for groups `begin` to `end`, 2 at most. pixels: the groups' codes or values."""
    indptr, places, weights, constant, z = csc
    units = len(constant)
    for group in range(begin, end):
        for u in range(units):
            store(z, u * GROUP, splat_x32(constant[u]))
        for i in range(groups.indptr[group], groups.indptr[group + 1]):
            row = get(groups.indices, i)
            x = load_x32(pixels, i * GROUP)
            k, end = get(indptr, row), get(indptr, row + 1)
            while k + 3 < end:  # a pixel's weights are to different units, so the four don't wait for each other
                u0, u1, u2, u3 = get(places, k), get(places, k + 1), get(places, k + 2), get(places, k + 3)
                z0 = fma(get(weights, k), x, load_x32(z, u0))
                z1 = fma(get(weights, k + 1), x, load_x32(z, u1))
                z2 = fma(get(weights, k + 2), x, load_x32(z, u2))
                z3 = fma(get(weights, k + 3), x, load_x32(z, u3))
                store(z, u0, z0)
                store(z, u1, z1)
                store(z, u2, z2)
                store(z, u3, z3)
                k += 4
            while k < end:
                u0 = get(places, k)
                store(z, u0, fma(get(weights, k), x, load_x32(z, u0)))
                k += 1
        for u in range(units):
            out = load_x32(z, u * GROUP)
            place = (net.offset + u) * LANES + (group - begin) * GROUP
            store(net.A, place, relu(out) if net.hidden else out)


@jit
def evaluate_groups(net, groups, background, csc):
    """Mode SPARSE: sum of the cross-entropies of the images in `groups`, and how many are classified correctly."""
    before = control()
    set_control(before | np.uint32(FLUSH))
    fill_csc(net, background, groups.scale, csc)
    everything = np.arange(len(groups.labels))
    loss, correct = 0.0, 0
    for begin in range(0, len(everything), LANES):
        images = everything[begin : begin + LANES]
        first, end = begin // GROUP, (begin + len(images) + GROUP - 1) // GROUP
        if groups.coded:
            groups_forward(net, csc, groups, groups.codes, first, end)
        else:
            groups_forward(net, csc, groups, groups.values, first, end)
        forward(net, len(csc.constant))
        block = score(net, groups.labels, images)
        loss += block[0]
        correct += block[1]
    set_control(before)
    return loss, correct


# ---- modes MIXED and DENSE: pairs of images --------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Images taken together, two at a time: the pixels that either has, and their offsets from the background in
    both."""

    chunks: np.ndarray  # int64 [pairs, chunks + 1]: where the pixels of each chunk begin, and the end
    indices: np.ndarray  # as in `Lists`
    values: np.ndarray  # float32 [len(indices) * 2]: the second is 0 where there is no second image
    labels: np.ndarray  # int64 [n], in the order of the pairs


def build_pairs(lists: Lists, order: np.ndarray) -> Pairs:
    """Images in that order, two neighbours together."""
    indptr = np.zeros(-(-len(order) // 2) + 1, np.int64)
    count_pairs(lists, order, indptr)
    pairs = Pairs(
        chunks=np.zeros((len(indptr) - 1, lists.chunks.shape[1]), np.int64),
        indices=np.zeros(indptr[-1], lists.indices.dtype),
        values=zeros(2 * indptr[-1]),
        labels=lists.labels[order],
    )
    fill_pairs(lists, order, indptr, pairs)
    return pairs


@jit
def count_pairs(lists, order, indptr):
    """Where the pixels of each of `Pairs` begin, and the end. indptr: int64 [pairs + 1]"""
    indices = lists.indices
    for i in range(len(indptr) - 1):
        k, end = lists.indptr[order[2 * i]], lists.indptr[order[2 * i] + 1]
        count = end - k
        if 2 * i + 1 < len(order):
            for other in range(lists.indptr[order[2 * i + 1]], lists.indptr[order[2 * i + 1] + 1]):
                while k < end and get(indices, k) < get(indices, other):
                    k += 1
                count += k == end or get(indices, k) != get(indices, other)
        indptr[i + 1] = indptr[i] + count


@jit
def fill_pairs(lists, order, indptr, pairs):
    """`pairs` from `lists`, taken in that order."""
    indices, values, into = lists.indices, lists.values, pairs.indices
    for i in range(len(indptr) - 1):
        k0, end0 = lists.indptr[order[2 * i]], lists.indptr[order[2 * i] + 1]
        k1 = end1 = 0
        if 2 * i + 1 < len(order):
            k1, end1 = lists.indptr[order[2 * i + 1]], lists.indptr[order[2 * i + 1] + 1]
        chunk = 0
        for k in range(indptr[i], indptr[i + 1]):
            first = k1 == end1 or (k0 < end0 and get(indices, k0) <= get(indices, k1))
            second = k0 == end0 or (k1 < end1 and get(indices, k1) <= get(indices, k0))
            into[k] = get(indices, k0) if first else get(indices, k1)
            if first:
                pairs.values[2 * k] = values[k0]
                k0 += 1
            if second:
                pairs.values[2 * k + 1] = values[k1]
                k1 += 1
            while chunk * CHUNK <= into[k]:
                pairs.chunks[i, chunk] = k
                chunk += 1
        pairs.chunks[i, chunk:] = indptr[i + 1]


@jit
def pairs_first(first, pairs, begin, end):
    """The first layer's outputs for pairs `begin` to `end`, 32 at most: each weight is loaded once for two images."""
    count, pixels, _ = first.w.shape
    w, z, indices, values = first.w.ravel(), first.z, pairs.indices, pairs.values
    width = count * LANES
    for place in range(0, 2 * (end - begin) * width, LANES):
        store(z, place, load_x64(first.bias, place % width))
    for chunk in range(pairs.chunks.shape[1] - 1):
        for t in range(count):
            for part in range(0, LANES, BY2):
                base = t * pixels * LANES + part
                for i in range(begin, end):
                    place0 = 2 * (i - begin) * width + t * LANES + part
                    place1 = place0 + width
                    z0, z1 = load_by2(z, place0), load_by2(z, place1)
                    for k in range(pairs.chunks[i, chunk], pairs.chunks[i, chunk + 1]):
                        weights = load_by2(w, base + get(indices, k) * LANES)
                        z0 = fma(get(values, 2 * k), weights, z0)
                        z1 = fma(get(values, 2 * k + 1), weights, z1)
                    store(z, place0, z0)
                    store(z, place1, z1)
    for i in range(0, 2 * (end - begin) * width, LANES):
        store(z, i, relu(load_x64(z, i)))


@jit
def pairs_second(net, first, second, pairs):
    """Rows of the second layer's units for so many pairs of images, over the units that are not 0 for one of them: each
    weight is loaded once for two."""
    tiles, inputs, _ = second.w.shape
    w, x, z = second.w.ravel(), first.z, second.z
    for t in range(tiles):
        for j in range(2 * pairs):
            store(z, j * LANES, load_x64(second.bias, t * LANES))
        for part in range(0, inputs, LANES):
            for j in range(0, 2 * pairs, 2):
                x0, x1 = j * inputs, (j + 1) * inputs
                either = nonzero(load_x64(x, x0 + part)) | nonzero(load_x64(x, x1 + part))
                for lane in range(0, LANES, BY2):
                    place = j * LANES + lane
                    z0, z1 = load_by2(z, place), load_by2(z, place + LANES)
                    bits = either
                    while bits != 0:
                        u = part + lowest_bit(bits)
                        weights = load_by2(w, (t * inputs + u) * LANES + lane)
                        z0 = fma(get(x, x0 + u), weights, z0)
                        z1 = fma(get(x, x1 + u), weights, z1)
                        bits = clear_lowest(bits)
                    store(z, place, z0)
                    store(z, place + LANES, z1)
        second_rows(net, first.units, second, t, 2 * pairs)


@jit
def evaluate_pairs(net, first, second, pairs, background):
    """Modes MIXED and DENSE: sum of the cross-entropies of the images in `pairs`, and how many are classified
    correctly."""
    before = control()
    set_control(before | np.uint32(FLUSH))
    first_bias(net, first, background)
    second_bias(net, second, first.units)
    everything = np.arange(len(pairs.labels))
    loss, correct = 0.0, 0
    for begin in range(0, len(everything), LANES):
        images = everything[begin : begin + LANES]
        end = begin + len(images) + 1
        pairs_first(first, pairs, begin // 2, end // 2)
        if second.units:
            pairs_second(net, first, second, end // 2 - begin // 2)
        else:
            first_rows(net, first)
        forward(net, first.units + second.units)
        block = score(net, pairs.labels, images)
        loss += block[0]
        correct += block[1]
    set_control(before)
    return loss, correct
