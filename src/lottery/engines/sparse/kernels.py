"""The sparse engine's kernels: numba, one thread, and work only for what survives.

Axes and layouts:
  images   come as lists of the pixels that differ from the background (four fifths of MNIST don't): image i's are
           starts[i] .. starts[i + 1] of columns (which pixel) and values (how far from the background); and as
           bytes, all pixels of them
  rows     64 images' values of one unit, contiguous: A[row * 64 + image] for activations, D for deltas, dL/d(input of
           the unit). Pixels with connections come first, then a spare row, then the units: hidden layers, outputs.
           Unit u is row `first + u`
  k        a surviving weight. Unit u's are ptr[u] .. ptr[u + 1], each from row source[k]; the way back from hidden unit
           u is tptr[u] .. tptr[u + 1], to row target[i] by weight position[i]
  tiles    a first layer that is still dense: W[tile, pixel, 64 outputs]
A batch is cut in blocks of 64 images; columns that hold no image have deltas of 0, so that no gradient sees them.
"""

import math
import pickle
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.core.caching import IndexDataCacheFile

from lottery.engines import optimizers
from lottery.engines.optimizers import BETA1, BETA2, EPSILON
from lottery.engines.sparse import vectors
from lottery.engines.sparse.vectors import (
    FLUSH,
    GROUP,
    LANES,
    PART,
    SLICE,
    SQUARE,
    TWICE,
    active,
    adam,
    at,
    control,
    divide,
    dot,
    dots,
    exp_difference,
    fma,
    fma4,
    fma_group,
    fma_part,
    fma_slice,
    fma_slices,
    fma_twice,
    gather_slice,
    keep,
    largest,
    load,
    load4,
    load_group,
    load_part,
    load_slice,
    load_twice,
    lowest,
    marked,
    multiply,
    prefetch,
    put,
    relu,
    relu_group,
    relu_part,
    relu_slice,
    rest,
    set_control,
    splat,
    splat_group,
    splat_part,
    splat_slice,
    splat_twice,
    square,
    square_bytes,
    store,
    store4,
    store_group,
    store_part,
    store_slice,
    store_twice,
    total,
    where_positive,
)

SOURCES = sha256(
    b"".join(Path(file).read_bytes() for file in (__file__, vectors.__file__, optimizers.__file__))
).digest()
"""Hash of all that kernels are compiled from. Numba finds them by the text of their own file alone: kernels compiled
with other vectors or constants would go on being used."""


class Checked(IndexDataCacheFile):
    """Numba's files of one compiled kernel, each behind its SHA-256: a damaged one, which could raise anything or end
    the process, is as good as none. It is compiled and written again."""

    def _dump(self, value):
        data = super()._dump(value)
        return sha256(data).digest() + data

    def _read(self, path):
        """The value that `_dump` was given. Raises OSError for a file that is missing or damaged."""
        stored = Path(path).read_bytes()
        if sha256(stored[32:]).digest() != stored[:32]:
            raise OSError(f"{path} is damaged")
        return pickle.loads(stored[32:])

    def _save_index(self, overloads):
        with self._open_for_write(self._index_path) as file:
            file.write(self._dump((self._version, self._source_stamp, overloads)))

    def _load_index(self):
        try:
            *made_by, overloads = self._read(self._index_path)
        except OSError:
            return {}
        return overloads if made_by == [self._version, self._source_stamp] else {}

    def _load_data(self, name):
        return self._read(self._data_path(name))  # numba compiles where this raises OSError

    def save(self, key, data):
        with suppress(OSError):  # a full disk: it will be compiled again next time
            super().save(key, data)


def jit(function):
    """Compiles a kernel, or loads what was compiled from the same sources."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled = njit(cache=True, **options)(function)
    except RuntimeError:  # numba finds no folder that it may write to
        return njit(**options)(function)
    if vectors.JIT:  # numba has no other door for it
        cache = compiled._cache
        cache._cache_file = Checked(cache.cache_path, f"{cache._impl.filename_base}.checked", SOURCES)
    return compiled


CHUNK = 196
"""Pixels of a tile that are worked through for all images before the next: 49 KiB of weights, of which those that some
image needs fit the first level of the cache. From the second level a weight takes three times as long."""


class Lists(NamedTuple):
    """Images as lists of pixels, and as bytes."""

    starts: np.ndarray  # int64 [n + 1]
    marks: np.ndarray  # int64 [n, chunks + 1]: the same, chunk by chunk: where the pixels of each begin, and the end
    columns: np.ndarray  # uint16 or int32 [nonzeros]
    values: np.ndarray  # float32 [nonzeros]: how far from the background
    codes: np.ndarray  # uint8 [n + 1, features, padded to a multiple of 16]: 0 for background; the last image is empty
    coded: bool  # whether values are scale · codes: pixels that were bytes are, and four bytes are not moved for one
    scale: np.float32
    table: np.ndarray  # float32 [256]: scale · code
    labels: np.ndarray  # int64 [n]


class Groups(NamedTuple):
    """Images taken together, `GROUP` at a time, to be evaluated: the rows of the pixels that any of them has, and for
    each of these rows the pixel's code, or its value, in each image."""

    starts: np.ndarray  # int64 [groups + 1]
    rows: np.ndarray  # int32
    codes: np.ndarray  # uint8 [len(rows) * GROUP], or none where they are not `coded`
    values: np.ndarray  # float32 [len(rows) * GROUP]: then this; otherwise none
    coded: bool
    scale: np.float32  # 1 for values
    labels: np.ndarray  # int64 [n], in the order of the groups


class Pairs(NamedTuple):
    """Images taken together, two at a time, to be evaluated: the pixels that either has, and how far these are from the
    background in both."""

    marks: np.ndarray  # int64 [pairs, chunks + 1]: where the pixels of each chunk begin, and the end
    columns: np.ndarray  # as in `Lists`
    values: np.ndarray  # float32 [len(columns) * 2]: the second is 0 where there is no second image
    labels: np.ndarray  # int64 [n], in the order of the pairs


class Columns(NamedTuple):
    """The first layer's weights by pixel, and what evaluating in groups needs beside them."""

    starts: np.ndarray  # int64 [rows of pixels + 2]
    places: np.ndarray  # int32 [weights]: where the unit's values begin in Z
    weights: np.ndarray  # float32 [weights]: times the scale of the images
    constant: np.ndarray  # float32 [units of the first layer]: what an image without pixels gives
    Z: np.ndarray  # float32 [units of the first layer * GROUP]


class Net(NamedTuple):
    """Structure, parameters and working memory of the units that are computed by rows."""

    shape: np.ndarray  # int64: first row of units, units, hidden units; units in tiles, then those of the inner layer
    ptr: np.ndarray  # int64 [units + 1]
    source: np.ndarray  # int32 [weights]
    tptr: np.ndarray  # int64 [hidden + 1]
    target: np.ndarray  # int32
    position: np.ndarray  # int32
    alike: np.ndarray  # bool [units]: this unit and the next three have weights from the same rows, and as many
    back_alike: np.ndarray  # bool [hidden]: the same of the way back
    row_of: np.ndarray  # int32 [pixels]: the spare row for those without connections; themselves over tiles
    places: np.ndarray  # int64 [blocks of the batch * 64]: where the images' codes begin in `Lists`
    codes: np.ndarray  # uint8 [blocks of the batch, features, padded, * 64]: the batch's, by pixel
    w: np.ndarray  # float32 [weights], padded with zeros to a multiple of 64; so are m, v, g
    m: np.ndarray
    v: np.ndarray
    g: np.ndarray
    bias: np.ndarray  # float32 [units], padded; so are mb, vb, gb
    mb: np.ndarray
    vb: np.ndarray
    gb: np.ndarray
    A: np.ndarray  # float32 [rows * 64]
    D: np.ndarray
    scratch: np.ndarray  # float32 [128]


class Tiles(NamedTuple):
    """A dense first layer: parameters and working memory. No tiles where it is computed by rows."""

    W: np.ndarray  # float32 [tiles, pixels, 64]; so are M, V
    M: np.ndarray
    V: np.ndarray
    mask: np.ndarray  # int64 [tiles, pixels]: bit i is whether output i's weight is kept
    constant: np.ndarray  # float32 [tiles * 64]: what an image without pixels gives
    sums: np.ndarray  # float32 [tiles * 64]: of each output's weights
    gb: np.ndarray  # float32 [tiles * 64]
    Z: np.ndarray  # float32 [64 * tiles * 64]: what the units give for up to 64 images, image by image
    D: np.ndarray  # float32 [blocks of the batch * 64, tiles * 64]: deltas, image by image
    values: np.ndarray  # float32, as Net's codes: how far pixels are from the background, if not coded; otherwise none


class Inner(NamedTuple):
    """A second hidden layer that is still dense, over a first one in tiles. Empty where it is computed by rows.

    Half of the first layer's units are 0 for an image: this layer skips them. Its inputs are padded as the tiles'
    outputs are."""

    W: np.ndarray  # float32 [tiles, inputs, 64]; so are M, V, G
    M: np.ndarray
    V: np.ndarray
    G: np.ndarray
    mask: np.ndarray  # int64 [tiles, inputs]: as in `Tiles`
    bias: np.ndarray  # float32 [tiles * 64]
    Z: np.ndarray  # float32 [64 * 64]
    D: np.ndarray  # float32 [64 * tiles * 64]: deltas of up to 64 images, image by image


class Slices(NamedTuple):
    """Surviving weights laid out for prediction: SELL-C-σ (Kreutzer et al. 2014, doi:10.1137/130930352), C = `SLICE`.

    The units of a hidden layer are sorted by how many weights they have, and `SLICE` neighbours make a slice: theirs
    are filled up to the longest with weights of 0 from the spare row, which is 0. Rows are as above, without leaving
    pixels out: pixels, the spare row, units, whose layers are filled up to whole slices."""

    hidden: int  # slices of hidden layers
    features: int
    ptr: np.ndarray  # int64 [slices + 1]: where the weights of each begin: SLICE units' first, their second, ...
    source: np.ndarray  # int32 [ptr[-1]]: the row that a weight leads from
    w: np.ndarray  # float32 [ptr[-1]]
    bias: np.ndarray  # float32 [slices * SLICE]
    used: np.ndarray  # int64: first pixels of those whole SLICEs of them in which some have connections


@jit
def count_pixels(images, background, starts):
    """starts of `Lists`, from images float32 [n, features]."""
    for i in range(len(images)):
        count = 0
        for p in range(images.shape[1]):
            count += images[i, p] != background
        starts[i + 1] = starts[i] + count


@jit
def list_pixels(images, background, scale, starts, marks, columns, values, codes):
    """marks, columns, codes and values of `Lists`; returns `coded`."""
    coded = True
    for i in range(len(images)):
        k = starts[i]
        for p in range(images.shape[1]):
            if p % CHUNK == 0:
                marks[i, p // CHUNK] = k
            if images[i, p] != background:
                columns[k] = p
                values[k] = images[i, p] - background
                code = np.rint(values[k] / scale)
                fits = 1 <= code <= 255 and abs(scale * code - values[k]) <= 1e-4 * abs(scale)  # float32's rounding
                codes[i, p] = np.uint8(code if fits else 1)
                coded = coded and fits
                k += 1
        marks[i, -1] = k
    return coded


@jit
def lay_out(net, lists, images):
    """The batch's codes, from images to pixels."""
    width, places = lists.codes.shape[1], net.places
    for j in range(len(places)):
        places[j] = (images[j] if j < len(images) else len(lists.labels)) * width
    for block in range(len(net.codes)):
        for p in range(0, width, 16):
            for j in range(0, LANES, 16):
                square_bytes(lists.codes, places, block * LANES + j, p, net.codes, (block * width + p) * LANES + j)


@jit
def fill_rows(net, lists, images, background, block):
    """Rows of the pixels for up to 64 images, those of the batch's `block`."""
    A, row_of, codes, empty = net.A, net.row_of, net.codes[block], splat(background)
    for p in range(len(row_of)):
        store(A, at(row_of, p) * LANES, fma(lists.scale, load(codes, p * LANES), empty))
    if not lists.coded:
        put_values(net, lists, images, background, A)


@jit
def put_values(net, lists, images, background, into):
    """Values of up to 64 images into rows; not those of the background."""
    for j in range(len(images)):
        for k in range(lists.starts[images[j]], lists.starts[images[j] + 1]):
            put(into, at(net.row_of, at(lists.columns, k)) * LANES + j, background + at(lists.values, k))


@jit
def forward(net, begin):
    """Rows of units `begin` and later, from the rows before them; ReLU but for the outputs."""
    first, units, hidden, _, _ = net.shape
    A, w, ptr, source = net.A, net.w, net.ptr, net.source
    u = begin
    while u < units:
        if net.alike[u]:
            forward4(net, u)
            u += 4
            continue
        acc = splat(net.bias[u])
        for k in range(ptr[u], ptr[u + 1]):
            acc = fma(at(w, k), load(A, at(source, k) * LANES), acc)
        if u < hidden:
            acc = relu(acc)
        store(A, (first + u) * LANES, acc)
        u += 1


@jit
def forward4(net, u):
    """Rows of units u to u + 3, whose weights lead from the same rows: each is loaded once for the four."""
    first, _, hidden, _, _ = net.shape
    A, w, source, k0, k1, k2, k3 = net.A, net.w, net.source, net.ptr[u], net.ptr[u + 1], net.ptr[u + 2], net.ptr[u + 3]
    for part in range(0, LANES, PART):
        z0, z1, z2, z3 = (
            splat_part(net.bias[u]),
            splat_part(net.bias[u + 1]),
            splat_part(net.bias[u + 2]),
            splat_part(net.bias[u + 3]),
        )
        for i in range(k1 - k0):
            x = load_part(A, at(source, k0 + i) * LANES + part)
            z0 = fma_part(at(w, k0 + i), x, z0)
            z1 = fma_part(at(w, k1 + i), x, z1)
            z2 = fma_part(at(w, k2 + i), x, z2)
            z3 = fma_part(at(w, k3 + i), x, z3)
        if u < hidden:
            z0, z1, z2, z3 = relu_part(z0), relu_part(z1), relu_part(z2), relu_part(z3)
        row = (first + u) * LANES + part
        store_part(A, row, z0)
        store_part(A, row + LANES, z1)
        store_part(A, row + 2 * LANES, z2)
        store_part(A, row + 3 * LANES, z3)


@jit
def backward(net, begin):
    """Deltas of the hidden units from `begin` on, from those of the outputs."""
    first, _, hidden, _, _ = net.shape
    A, D, w, tptr, target, position = net.A, net.D, net.w, net.tptr, net.target, net.position
    u = hidden - 1
    while u >= begin:
        if u >= begin + 3 and net.back_alike[u - 3]:
            backward4(net, u - 3)
            u -= 4
            continue
        acc = splat(np.float32(0))
        for k in range(tptr[u], tptr[u + 1]):
            acc = fma(at(w, at(position, k)), load(D, at(target, k) * LANES), acc)
        row = (first + u) * LANES
        store(D, row, where_positive(load(A, row), acc))
        u -= 1


@jit
def backward4(net, u):
    """Deltas of units u to u + 3, whose weights lead to the same rows."""
    D, w, tptr, target, position = net.D, net.w, net.tptr, net.target, net.position
    k0, k1, k2, k3 = tptr[u], tptr[u + 1], tptr[u + 2], tptr[u + 3]
    row = (net.shape[0] + u) * LANES
    for part in range(0, LANES, PART):
        z0 = z1 = z2 = z3 = splat_part(np.float32(0))
        for i in range(k1 - k0):
            d = load_part(D, at(target, k0 + i) * LANES + part)
            z0 = fma_part(at(w, at(position, k0 + i)), d, z0)
            z1 = fma_part(at(w, at(position, k1 + i)), d, z1)
            z2 = fma_part(at(w, at(position, k2 + i)), d, z2)
            z3 = fma_part(at(w, at(position, k3 + i)), d, z3)
        store_part(D, row + part, z0)
        store_part(D, row + LANES + part, z1)
        store_part(D, row + 2 * LANES + part, z2)
        store_part(D, row + 3 * LANES + part, z3)
    for r in range(row, row + 4 * LANES, LANES):
        store(D, r, where_positive(load(net.A, r), load(D, r)))


@jit
def gradients(net, add):
    """Gradients of weights and biases, added to what is there if `add`."""
    first, units, _, _, _ = net.shape
    A, D, g, gb, ptr, source = net.A, net.D, net.g, net.gb, net.ptr, net.source
    for u in range(units):
        d = load(D, (first + u) * LANES)
        gb[u] = total(d) + (gb[u] if add else np.float32(0))
        k, end = ptr[u], ptr[u + 1]
        while k + 3 < end:
            four = dots(
                d,
                load(A, at(source, k) * LANES),
                load(A, at(source, k + 1) * LANES),
                load(A, at(source, k + 2) * LANES),
                load(A, at(source, k + 3) * LANES),
            )
            store4(g, k, fma4(np.float32(1), four, load4(g, k)) if add else four)
            k += 4
        while k < end:
            put(g, k, dot(d, load(A, at(source, k) * LANES)) + (at(g, k) if add else np.float32(0)))
            k += 1


@jit
def exponentials(net):
    """exp(output - the image's largest) into the rows of D; largest and sum into scratch[0] and scratch[1]."""
    first, units, hidden, _, _ = net.shape
    A, D = net.A, net.D
    top = load(A, (first + hidden) * LANES)
    for u in range(hidden + 1, units):
        top = largest(top, load(A, (first + u) * LANES))
    sums = splat(np.float32(0))
    for u in range(hidden, units):
        row = (first + u) * LANES
        e = exp_difference(load(A, row), top)
        store(D, row, e)
        sums = fma(np.float32(1), e, sums)
    store(net.scratch, 0, top)
    store(net.scratch, LANES, sums)


@jit
def softmax(net, labels, images, batch):
    """Deltas of the outputs, (softmax - one-hot) / batch; returns the sum of the images' cross-entropies in nats."""
    first, units, hidden, _, _ = net.shape
    A, D, scratch, count = net.A, net.D, net.scratch, len(images)
    exponentials(net)
    scale = np.float32(1 / batch)
    factor = divide(scale, load(scratch, LANES))
    for u in range(hidden, units):
        row = (first + u) * LANES
        store(D, row, multiply(factor, load(D, row)))
        D[row + count : row + LANES] = 0
    loss = 0.0
    for j in range(count):
        right = (first + hidden + labels[images[j]]) * LANES + j
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
    first, units, hidden, _, _ = net.shape
    A, scratch = net.A, net.scratch
    exponentials(net)
    loss, correct = 0.0, 0
    for j in range(len(images)):
        label = labels[images[j]]
        out = A[(first + hidden + label) * LANES + j]
        loss -= out - scratch[j]
        right = out == scratch[j]
        for c in range(label if right else 0):
            right = right and A[(first + hidden + c) * LANES + j] < out
        correct += right
    return loss + sum_of_logarithms(scratch, len(images)), correct


@jit
def step_constants(use_adam, rate, decay, step):
    """What `vectors.adam` wants at this step, the first being 1; of it, SGD reads decay and step size."""
    return (
        np.float32(decay),
        np.float32(BETA1),
        np.float32(1 - BETA1),
        np.float32(BETA2),
        np.float32(1 - BETA2),
        np.float32(rate / (1 - BETA1**step) if use_adam else rate),
        np.float32(1 / math.sqrt(1 - BETA2**step)),
        np.float32(EPSILON),
    )


@jit
def sgd(w, m, i, g, rate, momentum, decay):
    """One step of SGD for the 64 weights at i; returns the new weights. m, the momentum, begins at 0."""
    old = load(w, i)
    step = fma(momentum, load(m, i), fma(decay, old, g))
    new = fma(-rate, step, old)
    store(m, i, step)
    store(w, i, new)
    return new


@jit
def update(w, m, v, g, use_adam, constants, momentum):
    """One optimizer step; all arrays are padded to a multiple of 64."""
    for k in range(0, len(w), LANES):
        if use_adam:
            adam(w, m, v, k, load(g, k), constants)
        else:
            sgd(w, m, k, load(g, k), constants[5], momentum, constants[0])


@jit
def count_groups(net, lists, order, place):
    """How many rows `fill_groups` will have. place: int64 [rows of pixels], working memory."""
    spare = net.shape[0] - 1
    place[:] = -1
    count = 0
    for j in range(len(order)):
        for k in range(lists.starts[order[j]], lists.starts[order[j] + 1]):
            row = at(net.row_of, at(lists.columns, k))
            count += row != spare and at(place, row) != j // GROUP
            put(place, row, j // GROUP)
    return count


@jit
def fill_groups(net, lists, order, place, groups):
    """`groups` from `lists`, taken in that order. place: int64 [rows of pixels], working memory."""
    columns, spare = lists.columns, net.shape[0] - 1
    groups.codes[:] = 0
    groups.values[:] = 0
    end = 0
    for begin in range(0, len(order), GROUP):
        images = order[begin : begin + GROUP]
        place[:] = -1
        for image in images:
            for k in range(lists.starts[image], lists.starts[image + 1]):
                put(place, at(net.row_of, at(columns, k)), 0)
        for row in range(spare):  # in the order of rows, so that loops over their weights become shorter and shorter
            if at(place, row) == 0:
                put(place, row, end)
                groups.rows[end] = row
                end += 1
        for j in range(len(images)):
            for k in range(lists.starts[images[j]], lists.starts[images[j] + 1]):
                row = at(net.row_of, at(columns, k))
                if row != spare and lists.coded:
                    groups.codes[at(place, row) * GROUP + j] = lists.codes[images[j], columns[k]]
                elif row != spare:
                    put(groups.values, at(place, row) * GROUP + j, at(lists.values, k))
        groups.starts[begin // GROUP + 1] = end


@jit
def tiles_forward(tiles, lists, images):
    """What the first layer's units give for up to 64 images: 64 outputs of one image stay in registers, over the pixels
    of one chunk."""
    count, pixels, _ = tiles.W.shape
    W, Z, columns, values = tiles.W.ravel(), tiles.Z, lists.columns, lists.values
    for j in range(len(images)):
        for t in range(count):
            store(Z, (j * count + t) * LANES, load(tiles.constant, t * LANES))
    for chunk in range(lists.marks.shape[1] - 1):
        for t in range(count):
            base = t * pixels
            for j in range(len(images)):
                place = (j * count + t) * LANES
                acc = load(Z, place)
                for k in range(lists.marks[images[j], chunk], lists.marks[images[j], chunk + 1]):
                    acc = fma(at(values, k), load(W, (base + at(columns, k)) * LANES), acc)
                store(Z, place, acc)
    for i in range(0, len(images) * count * LANES, LANES):
        store(Z, i, relu(load(Z, i)))


@jit
def turn(a, i, stride_a, b, j, stride_b, rows, columns):
    """b[j + column * stride_b + row] = a[i + row * stride_a + column], for so many rows and columns."""
    whole_rows, whole_columns = rows - rows % SQUARE, columns - columns % SQUARE
    for row in range(0, whole_rows, SQUARE):
        for column in range(0, whole_columns, SQUARE):
            square(a, i + row * stride_a + column, stride_a, b, j + column * stride_b + row, stride_b)
    for row in range(rows):
        for column in range(whole_columns if row < whole_rows else 0, columns):
            put(b, j + column * stride_b + row, at(a, i + row * stride_a + column))


@jit
def tiles_rows(net, tiles):
    """The same in rows."""
    turn(tiles.Z, 0, tiles.D.shape[1], net.A, 0, LANES, LANES, net.shape[3])


@jit
def count_pairs(lists, order, starts):
    """Where the pixels of each of `Pairs` begin, and the end. starts: int64 [pairs + 1]"""
    columns = lists.columns
    for i in range(len(starts) - 1):
        k, end = lists.starts[order[2 * i]], lists.starts[order[2 * i] + 1]
        count = end - k
        if 2 * i + 1 < len(order):
            for other in range(lists.starts[order[2 * i + 1]], lists.starts[order[2 * i + 1] + 1]):
                while k < end and at(columns, k) < at(columns, other):
                    k += 1
                count += k == end or at(columns, k) != at(columns, other)
        starts[i + 1] = starts[i] + count


@jit
def fill_pairs(lists, order, starts, pairs):
    """`pairs` from `lists`, taken in that order."""
    columns, values, into = lists.columns, lists.values, pairs.columns
    for i in range(len(starts) - 1):
        k0, end0 = lists.starts[order[2 * i]], lists.starts[order[2 * i] + 1]
        k1 = end1 = 0
        if 2 * i + 1 < len(order):
            k1, end1 = lists.starts[order[2 * i + 1]], lists.starts[order[2 * i + 1] + 1]
        chunk = 0
        for k in range(starts[i], starts[i + 1]):
            first = k1 == end1 or (k0 < end0 and at(columns, k0) <= at(columns, k1))
            second = k0 == end0 or (k1 < end1 and at(columns, k1) <= at(columns, k0))
            into[k] = at(columns, k0) if first else at(columns, k1)
            if first:
                pairs.values[2 * k] = values[k0]
                k0 += 1
            if second:
                pairs.values[2 * k + 1] = values[k1]
                k1 += 1
            while chunk * CHUNK <= into[k]:
                pairs.marks[i, chunk] = k
                chunk += 1
        pairs.marks[i, chunk:] = starts[i + 1]


@jit
def pairs_forward(tiles, pairs, begin, end):
    """What the first layer's units give for pairs `begin` to `end`, 32 at most: each weight is loaded once for two
    images."""
    count, pixels, _ = tiles.W.shape
    W, Z, columns, values = tiles.W.ravel(), tiles.Z, pairs.columns, pairs.values
    width = count * LANES
    for place in range(0, 2 * (end - begin) * width, LANES):
        store(Z, place, load(tiles.constant, place % width))
    for chunk in range(pairs.marks.shape[1] - 1):
        for t in range(count):
            for part in range(0, LANES, TWICE):
                base = t * pixels * LANES + part
                for i in range(begin, end):
                    place0 = 2 * (i - begin) * width + t * LANES + part
                    place1 = place0 + width
                    z0, z1 = load_twice(Z, place0), load_twice(Z, place1)
                    for k in range(pairs.marks[i, chunk], pairs.marks[i, chunk + 1]):
                        weights = load_twice(W, base + at(columns, k) * LANES)
                        z0 = fma_twice(at(values, 2 * k), weights, z0)
                        z1 = fma_twice(at(values, 2 * k + 1), weights, z1)
                    store_twice(Z, place0, z0)
                    store_twice(Z, place1, z1)
    for i in range(0, 2 * (end - begin) * width, LANES):
        store(Z, i, relu(load(Z, i)))


@jit
def inner_forward(net, tiles, inner, count):
    """Rows of the second layer's units for `count` images, over the units of the first that are not 0."""
    inner_tiles, inputs, _ = inner.W.shape
    W, X, Z = inner.W.ravel(), tiles.Z, inner.Z
    for t in range(inner_tiles):
        for j in range(count):
            store(Z, j * LANES, load(inner.bias, t * LANES))
        for part in range(0, inputs, LANES):
            for j in range(count):
                acc = load(Z, j * LANES)
                bits = active(load(X, j * inputs + part))
                while bits != 0:
                    u = part + lowest(bits)
                    acc = fma(at(X, j * inputs + u), load(W, (t * inputs + u) * LANES), acc)
                    bits = rest(bits)
                store(Z, j * LANES, acc)
        inner_rows(net, inner, t, count)


@jit
def inner_pairs(net, tiles, inner, pairs):
    """The same for so many pairs of images, over the units that are not 0 for one of them: each weight is loaded
    once for two."""
    inner_tiles, inputs, _ = inner.W.shape
    W, X, Z = inner.W.ravel(), tiles.Z, inner.Z
    for t in range(inner_tiles):
        for j in range(2 * pairs):
            store(Z, j * LANES, load(inner.bias, t * LANES))
        for part in range(0, inputs, LANES):
            for j in range(0, 2 * pairs, 2):
                x0, x1 = j * inputs, (j + 1) * inputs
                either = active(load(X, x0 + part)) | active(load(X, x1 + part))
                for lane in range(0, LANES, TWICE):
                    place = j * LANES + lane
                    z0, z1 = load_twice(Z, place), load_twice(Z, place + LANES)
                    bits = either
                    while bits != 0:
                        u = part + lowest(bits)
                        weights = load_twice(W, (t * inputs + u) * LANES + lane)
                        z0 = fma_twice(at(X, x0 + u), weights, z0)
                        z1 = fma_twice(at(X, x1 + u), weights, z1)
                        bits = rest(bits)
                    store_twice(Z, place, z0)
                    store_twice(Z, place + LANES, z1)
        inner_rows(net, inner, t, 2 * pairs)


@jit
def inner_rows(net, inner, t, count):
    """What one tile of the second layer gives for `count` images, in rows."""
    for j in range(count):
        store(inner.Z, j * LANES, relu(load(inner.Z, j * LANES)))
    first = net.shape[3] + t * LANES
    turn(inner.Z, 0, LANES, net.A, first * LANES, LANES, LANES, min(LANES, net.shape[3] + net.shape[4] - first))


@jit
def inner_backward(net, inner):
    """Deltas of the first layer's units from those of the second's, four units at a time."""
    inputs = inner.W.shape[1]
    W, D = inner.W.ravel(), net.D
    begin, width = net.shape[3], net.shape[4]
    for u in range(0, begin, 4):
        for part in range(0, LANES, PART):
            z0 = z1 = z2 = z3 = splat_part(np.float32(0))
            for out in range(0, width, LANES):
                base = (out // LANES * inputs + u) * LANES
                for o in range(min(LANES, width - out)):
                    d = load_part(D, (begin + out + o) * LANES + part)
                    z0 = fma_part(at(W, base + o), d, z0)
                    z1 = fma_part(at(W, base + LANES + o), d, z1)
                    z2 = fma_part(at(W, base + 2 * LANES + o), d, z2)
                    z3 = fma_part(at(W, base + 3 * LANES + o), d, z3)
            store_part(D, u * LANES + part, z0)  # units come in fours but for the last: the next layer's come later
            if u + 1 < begin:
                store_part(D, (u + 1) * LANES + part, z1)
            if u + 2 < begin:
                store_part(D, (u + 2) * LANES + part, z2)
            if u + 3 < begin:
                store_part(D, (u + 3) * LANES + part, z3)
    for r in range(0, begin * LANES, LANES):
        store(D, r, where_positive(load(net.A, r), load(D, r)))


@jit
def inner_update(net, inner, count, add, last, use_adam, constants, momentum):
    """Gradient of the second layer's weights, over those of `count` images for which the input is not 0; added to what
    is there if `add`. The optimizer's step as well, if this is the batch's `last` block."""
    tiles, inputs, _ = inner.W.shape
    begin, width, into = net.shape[3], net.shape[4], inner.D
    turn(net.D, begin * LANES, LANES, into, 0, tiles * LANES, width, LANES)
    W, M, V, G, mask = inner.W.ravel(), inner.M.ravel(), inner.V.ravel(), inner.G.ravel(), inner.mask.ravel()
    A, most = net.A, (1 << count) - 1 if count < LANES else -1
    for t in range(tiles):
        for u in range(inputs):
            place = (t * inputs + u) * LANES
            g = load(G, place) if add else splat(np.float32(0))
            bits = active(load(A, u * LANES)) & most if u < begin else 0
            while bits != 0:
                j = lowest(bits)
                g = fma(at(A, u * LANES + j), load(into, (j * tiles + t) * LANES), g)
                bits = rest(bits)
            g = keep(at(mask, t * inputs + u), g)
            if not last:
                store(G, place, g)
            elif use_adam:
                adam(W, M, V, place, g, constants)
            else:
                sgd(W, M, place, g, constants[5], momentum, constants[0])


@jit
def tiles_deltas(net, tiles, begin):
    """Deltas of the first layer's units, from rows to images, from `begin` on in the batch."""
    width = tiles.D.shape[1]
    turn(net.D, 0, LANES, tiles.D.ravel(), begin * width, width, net.shape[3], LANES)


@jit
def tiles_update(net, tiles, lists, background, use_adam, constants, momentum, backwards):
    """Gradient and step of the tiles in one pass over them, so that no gradient is ever stored. Every other step goes
    the other way: it begins with what the cache still has. Neighbouring pixels, which mostly the same images have,
    are taken two at a time: each image's deltas are loaded once for both."""
    count, pixels, _ = tiles.W.shape
    W, M, V, mask = tiles.W.ravel(), tiles.M.ravel(), tiles.V.ravel(), tiles.mask.ravel()
    D, gb, scratch, width = tiles.D.ravel(), tiles.gb, net.scratch, tiles.D.shape[1]
    blocks, room = net.codes.shape
    codes, values, table, coded = net.codes.ravel(), tiles.values.ravel(), lists.table, lists.coded
    gb[: net.shape[3]] = net.gb[: net.shape[3]]
    nothing = splat_twice(np.float32(0))
    for i in range(count):
        t = count - 1 - i if backwards else i
        sums = splat(np.float32(0))
        for p in range(0, pixels, 2):
            for lane in range(0, LANES, TWICE):
                g0 = g1 = fma_twice(background, load_twice(gb, t * LANES + lane), nothing)
                for block in range(blocks):
                    row0 = block * room + p * LANES
                    row1 = row0 + LANES
                    bits = marked(codes, row0) | marked(codes, row1)
                    while bits != 0:
                        j = lowest(bits)
                        deltas = load_twice(D, (block * LANES + j) * width + t * LANES + lane)
                        x0 = at(table, at(codes, row0 + j)) if coded else at(values, row0 + j)
                        x1 = at(table, at(codes, row1 + j)) if coded else at(values, row1 + j)
                        g0, g1 = fma_twice(x0, deltas, g0), fma_twice(x1, deltas, g1)
                        bits = rest(bits)
                store_twice(scratch, lane, g0)
                store_twice(scratch, LANES + lane, g1)
            for which in range(min(2, pixels - p)):
                place, g = (t * pixels + p + which) * LANES, load(scratch, which * LANES)
                g = keep(at(mask, t * pixels + p + which), g)
                if use_adam:
                    new = adam(W, M, V, place, g, constants)
                else:
                    new = sgd(W, M, place, g, constants[5], momentum, constants[0])
                sums = fma(np.float32(1), new, sums)
        store(tiles.sums, t * LANES, sums)


@jit
def tiles_constant(net, tiles, background):
    """What the bias and an image of nothing but background give."""
    for u in range(net.shape[3]):
        tiles.constant[u] = net.bias[u] + background * tiles.sums[u]


@jit
def inner_bias(net, inner):
    """The second layer's biases, padded."""
    inner.bias[: net.shape[4]] = net.bias[net.shape[3] : net.shape[3] + net.shape[4]]


@jit
def fetch(lists, images, as_lists):
    """Asks for images, which come from all over the memory, before they are needed."""
    codes, width = lists.codes.ravel(), lists.codes.shape[1]
    for image in images:
        for k in range(image * width, (image + 1) * width, 64):
            prefetch(codes, k)
        begin, end = lists.starts[image], lists.starts[image + 1]
        for k in range(begin, end if as_lists else begin, 16):
            prefetch(lists.columns, k)
            prefetch(lists.values, k)


@jit
def train(net, tiles, inner, lists, background, order, ends, step, use_adam, rates, momentum, decay, losses):
    """len(losses) iterations, behind which are `step` of the optimizer's steps. Batch i is
    order[ends[i] : ends[i + 1]], its learning rate rates[i]; its mean loss before the step goes to losses[i]."""
    before = control()
    set_control(before | np.uint32(FLUSH))
    dense, both = len(tiles.W) > 0, len(inner.W) > 0
    begin_rows = net.shape[3] + net.shape[4]
    momentum = np.float32(momentum)
    for i in range(len(losses)):
        batch = order[ends[i] : ends[i + 1]]
        following = order[ends[i + 1] : ends[min(i + 2, len(losses))]]  # none after the last
        fetch(lists, following, dense or not lists.coded)
        lay_out(net, lists, batch)
        constants = step_constants(use_adam, rates[i], decay, step + i + 1)
        loss = 0.0
        if dense:
            tiles_constant(net, tiles, background)
        for begin in range(0, len(batch), LANES):
            images = batch[begin : begin + LANES]
            if dense:
                tiles_forward(tiles, lists, images)
                tiles_rows(net, tiles)
            else:
                fill_rows(net, lists, images, background, begin // LANES)
            if both:
                inner_bias(net, inner)
                inner_forward(net, tiles, inner, len(images))
            forward(net, begin_rows)
            loss += softmax(net, lists.labels, images, len(batch))
            backward(net, net.shape[3] if both else 0)
            if both:
                inner_backward(net, inner)
                last = begin + LANES >= len(batch)
                inner_update(net, inner, len(images), begin > 0, last, use_adam, constants, momentum)
            gradients(net, begin > 0)
            if dense:
                tiles_deltas(net, tiles, begin)
        losses[i] = loss / len(batch)
        if dense:
            if not lists.coded:
                tiles.values[:] = 0
                for begin in range(0, len(batch), LANES):
                    block = begin // LANES
                    put_values(net, lists, batch[begin : begin + LANES], np.float32(0), tiles.values[block])
            tiles_update(net, tiles, lists, background, use_adam, constants, momentum, i % 2 == 0)
        update(net.w, net.m, net.v, net.g, use_adam, constants, momentum)
        update(net.bias, net.mb, net.vb, net.gb, use_adam, constants, momentum)
    set_control(before)


@jit
def by_column(net, background, scale, columns):
    """Fills `columns` from the first layer's weights."""
    starts, width = columns.starts, len(columns.constant)
    starts[:] = 0
    for k in range(net.ptr[width]):
        starts[net.source[k] + 2] += 1
    for p in range(2, len(starts)):
        starts[p] += starts[p - 1]
    for u in range(width):
        total_weight = np.float32(0)
        for k in range(net.ptr[u], net.ptr[u + 1]):
            p = net.source[k] + 1
            columns.places[starts[p]] = u * GROUP
            columns.weights[starts[p]] = scale * net.w[k]
            starts[p] += 1
            total_weight += net.w[k]
        columns.constant[u] = net.bias[u] + background * total_weight


@jit
def columns_rows(net, columns, groups, pixels, begin, end):
    """Rows of the first layer's units for groups `begin` to `end`, from its weights by pixel. pixels: the groups' codes
    or values."""
    first, _, hidden, _, _ = net.shape
    starts, places, weights, constant, Z = columns
    width = len(constant)
    for group in range(begin, end):
        for u in range(width):
            store_group(Z, u * GROUP, splat_group(constant[u]))
        for i in range(groups.starts[group], groups.starts[group + 1]):
            row = at(groups.rows, i)
            x = load_group(pixels, i * GROUP)
            k, end = at(starts, row), at(starts, row + 1)
            while k + 3 < end:  # a pixel's weights lead to different units, so the four don't wait for each other
                u0, u1, u2, u3 = at(places, k), at(places, k + 1), at(places, k + 2), at(places, k + 3)
                z0 = fma_group(at(weights, k), x, load_group(Z, u0))
                z1 = fma_group(at(weights, k + 1), x, load_group(Z, u1))
                z2 = fma_group(at(weights, k + 2), x, load_group(Z, u2))
                z3 = fma_group(at(weights, k + 3), x, load_group(Z, u3))
                store_group(Z, u0, z0)
                store_group(Z, u1, z1)
                store_group(Z, u2, z2)
                store_group(Z, u3, z3)
                k += 4
            while k < end:
                u0 = at(places, k)
                store_group(Z, u0, fma_group(at(weights, k), x, load_group(Z, u0)))
                k += 1
        for u in range(width):
            z = load_group(Z, u * GROUP)
            store_group(net.A, (first + u) * LANES + (group - begin) * GROUP, relu_group(z) if hidden else z)


@jit
def evaluate_pairs(net, tiles, inner, pairs, background):
    """Sum of the cross-entropies of the images in `pairs`, and how many are classified correctly, where the first layer
    is in tiles."""
    before = control()
    set_control(before | np.uint32(FLUSH))
    tiles_constant(net, tiles, background)
    inner_bias(net, inner)
    everything = np.arange(len(pairs.labels))
    loss, correct = 0.0, 0
    for begin in range(0, len(everything), LANES):
        images = everything[begin : begin + LANES]
        end = begin + len(images) + 1
        pairs_forward(tiles, pairs, begin // 2, end // 2)
        if len(inner.W):
            inner_pairs(net, tiles, inner, end // 2 - begin // 2)
        else:
            tiles_rows(net, tiles)
        forward(net, net.shape[3] + net.shape[4])
        found = score(net, pairs.labels, images)
        loss += found[0]
        correct += found[1]
    set_control(before)
    return loss, correct


@jit
def evaluate_groups(net, groups, background, columns):
    """The same of the images in `groups`, where the first layer is computed by rows."""
    before = control()
    set_control(before | np.uint32(FLUSH))
    by_column(net, background, groups.scale, columns)
    everything = np.arange(len(groups.labels))
    loss, correct = 0.0, 0
    for begin in range(0, len(everything), LANES):
        images = everything[begin : begin + LANES]
        first, end = begin // GROUP, (begin + len(images) + GROUP - 1) // GROUP
        if groups.coded:
            columns_rows(net, columns, groups, groups.codes, first, end)
        else:
            columns_rows(net, columns, groups, groups.values, first, end)
        forward(net, len(columns.constant))
        found = score(net, groups.labels, images)
        loss += found[0]
        correct += found[1]
    set_control(before)
    return loss, correct


FEW = 4
"""Examples from which on it is faster to predict `SLICE` together than each alone."""


@jit
def predict_one(net, x, i, A, logits):
    """Logits of example i, SLICE units at a time. A: float32 [rows], working memory."""
    hidden, features, ptr, source, w, bias, _ = net
    A[:features] = x[i * features : (i + 1) * features]
    A[features] = 0
    first = features + 1
    for s in range(len(ptr) - 1):
        z = load_slice(bias, s * SLICE)
        for k in range(ptr[s], ptr[s + 1], SLICE):
            z = fma_slices(load_slice(w, k), gather_slice(A, source, k), z)
        store_slice(A, first + s * SLICE, relu_slice(z) if s < hidden else z)
    first += hidden * SLICE
    logits[i] = A[first : first + logits.shape[1]]


@jit
def predict_block(net, x, begin, count, A, logits):
    """Logits of `count` examples, SLICE at most, from `begin` on: four units at a time, whose sums don't wait for each
    other. A: float32 [rows * SLICE], working memory."""
    hidden, features, ptr, source, w, bias, used = net
    for p in used:
        turn(x, begin * features + p, features, A, p * SLICE, SLICE, count, min(SLICE, features - p))
    A[features * SLICE : (features + 1) * SLICE] = 0
    first = features + 1
    for u in range(0, len(bias), 4):
        s, unit = u // SLICE, u % SLICE
        z0, z1 = splat_slice(at(bias, u)), splat_slice(at(bias, u + 1))
        z2, z3 = splat_slice(at(bias, u + 2)), splat_slice(at(bias, u + 3))
        for k in range(ptr[s] + unit, ptr[s + 1] + unit, SLICE):
            z0 = fma_slice(at(w, k), load_slice(A, at(source, k) * SLICE), z0)
            z1 = fma_slice(at(w, k + 1), load_slice(A, at(source, k + 1) * SLICE), z1)
            z2 = fma_slice(at(w, k + 2), load_slice(A, at(source, k + 2) * SLICE), z2)
            z3 = fma_slice(at(w, k + 3), load_slice(A, at(source, k + 3) * SLICE), z3)
        if s < hidden:
            z0, z1, z2, z3 = relu_slice(z0), relu_slice(z1), relu_slice(z2), relu_slice(z3)
        row = (first + u) * SLICE
        store_slice(A, row, z0)
        store_slice(A, row + SLICE, z1)
        store_slice(A, row + 2 * SLICE, z2)
        store_slice(A, row + 3 * SLICE, z3)
    first += hidden * SLICE
    for j in range(count):
        for c in range(logits.shape[1]):
            logits[begin + j, c] = at(A, (first + c) * SLICE + j)


@jit
def predict(hidden, features, ptr, source, w, bias, used, examples, logits):
    """Logits [n, outputs] of examples [n, features], to the bit the same for an example alone and among others.

    The first arguments are those of `Slices`, which numba takes a microsecond longer to take apart. Working memory is
    the call's own: threads may share them."""
    net = Slices(hidden, features, ptr, source, w, bias, used)
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
