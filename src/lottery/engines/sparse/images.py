"""Images as the kernels read them: lists of the pixels that differ from the background, and bytes.

Four fifths of MNIST's pixels are background. A layer over images is its contribution, one constant for each unit, and
the listed pixels' offsets from it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lottery.data import Images, Splits
from lottery.engines.sparse.doors import jit
from lottery.engines.sparse.layout import zeros
from lottery.engines.sparse.order import alike
from lottery.engines.sparse.simd import fma, get, load_x64, prefetch, put, splat_x64, store, transpose_bytes
from lottery.engines.sparse.vectors import LANES

CHUNK = 196
"""Pixels of a tile that are worked through for all images before the next: 49 KiB of weights, of which those that some
image needs fit the first level of the cache. From the second level a weight takes three times as long."""


class Lists(NamedTuple):
    """Images in CSR, by their pixels' offsets from the background, and as bytes. Image i's pixels are
    indptr[i] .. indptr[i + 1]."""

    indptr: np.ndarray  # int64 [n + 1]
    chunks: np.ndarray  # int64 [n, chunks + 1]: where each chunk's pixels begin, and the end
    indices: np.ndarray  # uint16 or int32 [nonzeros]: which pixel
    values: np.ndarray  # float32 [nonzeros]: its offset from the background
    codes: np.ndarray  # uint8 [n + 1, features, padded to a multiple of 16]: 0 for background; the last image is empty
    coded: bool  # whether values are scale · codes: pixels that were bytes are, and four bytes are not moved for one
    scale: np.float32
    table: np.ndarray  # float32 [256]: scale · code
    labels: np.ndarray  # int64 [n]


class Batch(NamedTuple):
    """Working memory: the images of one batch, pixel by pixel, in blocks of 64. Columns without an image are empty."""

    places: np.ndarray  # int64 [blocks * 64]: where the images' codes begin in `Lists`
    codes: np.ndarray  # uint8 [blocks, features, padded, * 64]
    values: np.ndarray  # float32 [blocks, features, padded, * 64]: offsets, over tiles where not coded; otherwise none


@dataclass(frozen=True, eq=False)
class Data:
    """A data set as the kernels read it."""

    background: np.float32
    """The value that most pixels have."""
    features: int
    train: Lists
    evaluated: tuple[tuple[Lists, np.ndarray], ...]
    """Validation and test, each with an order in which alike images are neighbours."""


@lru_cache(maxsize=1)  # one data set serves all levels of a replicate
def prepare(data: Splits) -> Data:
    """Lists the pixels of all images."""
    sample = data.train.images[:1000].ravel()
    background = max((np.float32(0), sample.min(initial=0)), key=lambda value: np.count_nonzero(sample == value))
    low, high = (np.float32(f(data.train.images, initial=background)) - background for f in (np.min, np.max))
    scale = (high if high > -low else low) / np.float32(255) or np.float32(1)
    lists = [_lists(part, background, scale) for part in (data.train, data.validation, data.test)]
    orders = [alike(part.images != background) for part in (data.validation, data.test)]
    evaluated = tuple(zip(lists[1:], orders, strict=True))
    return Data(background, data.train.images.shape[1], lists[0], evaluated)


def _lists(part: Images, background: np.float32, scale: np.float32) -> Lists:
    """Coded where every pixel is `background` plus 0 to 255 times `scale`, to float32's precision."""
    count, features = part.images.shape
    indptr = np.zeros(count + 1, np.int64)
    count_pixels(part.images, background, indptr)
    indices = np.empty(indptr[-1], np.uint16 if features <= 1 << 16 else np.int32)
    chunks = np.zeros((count, -(-features // CHUNK) + 1), np.int64)
    values, codes = np.empty(indptr[-1], np.float32), np.zeros((count + 1, _padded(features)), np.uint8)
    coded = list_pixels(part.images, background, scale, indptr, chunks, indices, values, codes)
    scale = scale if coded else np.float32(1)
    table = scale * np.arange(256, dtype=np.float32)
    return Lists(indptr, chunks, indices, values, codes, coded, scale, table, part.labels)


def _padded(features: int) -> int:
    """Bytes for an image's codes, which are moved by 16."""
    return -(-features // 16) * 16


def build_batch(features: int, batch_size: int, in_tiles: bool, coded: bool) -> Batch:
    """Room for one batch."""
    blocks = -(-batch_size // LANES)
    return Batch(
        places=np.zeros(blocks * LANES, np.int64),
        codes=zeros(blocks, _padded(features) * LANES, dtype=np.uint8),
        values=zeros(blocks if in_tiles and not coded else 0, _padded(features) * LANES),
    )


@jit
def count_pixels(images, background, indptr):
    """indptr of `Lists`, from images float32 [n, features]."""
    for i in range(len(images)):
        count = 0
        for p in range(images.shape[1]):
            count += images[i, p] != background
        indptr[i + 1] = indptr[i] + count


@jit
def list_pixels(images, background, scale, indptr, chunks, indices, values, codes):
    """chunks, indices, values and codes of `Lists`; returns `coded`."""
    coded = True
    for i in range(len(images)):
        k = indptr[i]
        for p in range(images.shape[1]):
            if p % CHUNK == 0:
                chunks[i, p // CHUNK] = k
            if images[i, p] != background:
                indices[k] = p
                values[k] = images[i, p] - background
                code = np.rint(values[k] / scale)
                fits = 1 <= code <= 255 and abs(scale * code - values[k]) <= 1e-4 * abs(scale)  # float32's rounding
                codes[i, p] = np.uint8(code if fits else 1)
                coded = coded and fits
                k += 1
        chunks[i, -1] = k
    return coded


@jit
def fill_batch(batch, lists, images):
    """The batch's codes, from images to pixels."""
    width, places = lists.codes.shape[1], batch.places
    for j in range(len(places)):
        places[j] = (images[j] if j < len(images) else len(lists.labels)) * width
    for block in range(len(batch.codes)):
        for p in range(0, width, 16):
            for j in range(0, LANES, 16):
                transpose_bytes(lists.codes, places, block * LANES + j, p, batch.codes, (block * width + p) * LANES + j)


@jit
def fill_values(batch, net, lists, images):
    """The batch's values: needed over tiles, where images are not coded."""
    batch.values[:] = 0
    for begin in range(0, len(images), LANES):
        put_values(net, lists, images[begin : begin + LANES], np.float32(0), batch.values[begin // LANES])


@jit
def fill_rows(net, batch, lists, images, background, block):
    """Rows of the pixels for up to 64 images, those of the batch's `block`."""
    A, row_of, codes, empty = net.A, net.row_of, batch.codes[block], splat_x64(background)
    for p in range(len(row_of)):
        store(A, get(row_of, p) * LANES, fma(lists.scale, load_x64(codes, p * LANES), empty))
    if not lists.coded:
        put_values(net, lists, images, background, A)


@jit
def put_values(net, lists, images, background, into):
    """Values of up to 64 images into rows; not those of the background."""
    for j in range(len(images)):
        for k in range(lists.indptr[images[j]], lists.indptr[images[j] + 1]):
            put(into, get(net.row_of, get(lists.indices, k)) * LANES + j, background + get(lists.values, k))


@jit
def fetch(lists, images, as_lists):
    """Asks for images, which come from all over the memory, before they are needed."""
    codes, width = lists.codes.ravel(), lists.codes.shape[1]
    for image in images:
        for k in range(image * width, (image + 1) * width, 64):
            prefetch(codes, k)
        begin, end = lists.indptr[image], lists.indptr[image + 1]
        for k in range(begin, end if as_lists else begin, 16):
            prefetch(lists.indices, k)
            prefetch(lists.values, k)
