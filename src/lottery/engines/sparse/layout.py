"""A level as the kernels hold it: CSR layouts of its surviving weights, tiles of layers that are still dense.

`Net` and `Tiles` hold structure, parameters, the optimizer's state and working memory; `mode` chooses between them;
`gather` and `scatter` lead from them to the dense arrays that all else has, and back. No kernels here.

Axes:
  rows     64 images' values of one pixel or unit, contiguous: A[row * 64 + image]. Pixels with connections come first,
           then a spare row, which stands for all others, then the units: hidden layers, outputs. Unit u's row is
           `offset + u`. In modes MIXED and DENSE no row is a pixel's, and offset is 0
  tiles    w[tile, input, 64 outputs]
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lottery.engines.sparse.vectors import LANES
from lottery.masks import Masks, Weights
from lottery.models import Network

SPARSE, MIXED, DENSE = 0, 1, 2
"""The modes, each the number of layers that it keeps in tiles, from the first; the others are in CSR."""

TILES_ABOVE = (0.3, 0.45)
"""Density of the first layer, and of the second, from which they are computed by tiles: measured, see
benchmarks/LOG.md."""


@dataclass(frozen=True)
class Stack:
    """A start's layers, from the first to the output."""

    weights: list[np.ndarray]
    """float32 [out, in] of each layer."""
    masks: list[np.ndarray]
    """bool [out, in] of each layer: what is trained."""
    biases: list[np.ndarray]
    """float32 [out] of each layer."""

    @staticmethod
    def of(network: Network, weights: Weights, masks: Masks) -> "Stack":
        """The layers of a stack of linear layers."""
        return Stack(
            weights=[weights[layer.weight] for layer in network.layers],
            masks=[masks[layer.weight] for layer in network.layers],
            biases=[weights[layer.bias] for layer in network.layers],
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer, the input's first."""
        return (self.masks[0].shape[1], *(len(mask) for mask in self.masks))


def leading_on(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Masks without the weights of hidden units that have no path to an output: these have gradients of exactly 0, so
    that only weight decay could move them."""
    leading: list[np.ndarray] = []
    on: np.ndarray = np.ones(1, bool)
    for mask in reversed(masks):
        leading.insert(0, mask & on[:, None])
        on = np.any(leading[0], axis=0)
    return leading


def mode(stack: Stack) -> int:
    """SPARSE, MIXED or DENSE, by the densities of the hidden layers."""
    hidden = zip(stack.masks[:-1], TILES_ABOVE, strict=False)
    return [*(mask.mean() > above for mask, above in hidden), False].index(False)


class Net(NamedTuple):
    """A level's structure, parameters and rows.

    The weights in CSR are numbered k, unit after unit. Unit u's are indptr[u] .. indptr[u + 1], each from row
    indices[k]: none for units in tiles. The same in the transposed direction, for the way back: from hidden unit u,
    indptr_t[u] .. indptr_t[u + 1], each to row indices_t[k], by weight perm[k].
    """

    # structure
    offset: int  # the row of unit 0
    units: int
    hidden: int  # units of hidden layers
    indptr: np.ndarray  # int64 [units + 1]
    indices: np.ndarray  # int32 [weights]
    alike: np.ndarray  # bool [units]: this unit and the next three have weights from the same rows
    indptr_t: np.ndarray  # int64 [hidden + 1]
    indices_t: np.ndarray  # int32
    perm: np.ndarray  # int32
    alike_t: np.ndarray  # bool [hidden]: this unit and the next three have weights to the same rows
    row_of: np.ndarray  # int32 [pixels]: the spare row for those without connections; themselves over tiles
    # parameters, their gradients and the optimizer's state: padded with zeros to a multiple of 64
    w: np.ndarray  # float32 [weights]
    w_m: np.ndarray
    w_v: np.ndarray
    w_g: np.ndarray
    bias: np.ndarray  # float32 [units], those of tiles too
    bias_m: np.ndarray
    bias_v: np.ndarray
    bias_g: np.ndarray
    # working memory
    A: np.ndarray  # float32 [rows * 64]: activations of a block
    D: np.ndarray  # float32 [rows * 64]: deltas, dL/d(unit before its ReLU)
    scratch: np.ndarray  # float32 [128]


class Tiles(NamedTuple):
    """A layer that is still dense: parameters, the optimizer's state and working memory. Its biases are in `Net`.

    Inputs and outputs that fill up the tiles have weights of 0, and masks that keep them there. Without tiles
    (units = 0) where the layer is in CSR.
    """

    units: int
    w: np.ndarray  # float32 [tiles, inputs, 64]
    m: np.ndarray  # float32 [tiles, inputs, 64]
    v: np.ndarray  # float32 [tiles, inputs, 64]
    g: np.ndarray  # float32 [tiles, inputs, 64]; none in the first layer, whose gradient is never stored
    mask: np.ndarray  # int64 [tiles, inputs]: bit i is whether output i's weight is kept
    sums: np.ndarray  # float32 [tiles * 64]: of each output's weights; kept up in the first layer alone
    bias: np.ndarray  # float32 [tiles * 64]: the outputs' biases, in the first layer with what the background adds
    z: np.ndarray  # float32 [64 * tiles * 64]: outputs of up to 64 images, image by image
    deltas: np.ndarray  # float32 [images, tiles * 64]: of all the batch in the first layer, of a block in the second


Slots = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Where the kernels have the weights, or one of the optimizer's slots for them: those in CSR, the biases, the first
layer's tiles, the second's."""


def slots(net: Net, first: Tiles, second: Tiles) -> tuple[Slots, Slots, Slots]:
    """Of the weights, and of the optimizer's first and second slot."""
    return (
        (net.w, net.bias, first.w, second.w),
        (net.w_m, net.bias_m, first.m, second.m),
        (net.w_v, net.bias_v, first.v, second.v),
    )


def zeros(*shape: int, dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """Zeros that begin with a cache line: a vector that straddles two costs twice."""
    size = int(np.prod(shape))
    room = np.zeros(size + 64, dtype)
    begin = -room.ctypes.data % 64 // room.itemsize
    return room[begin : begin + size].reshape(shape)


def _padded(parts: list[np.ndarray]) -> np.ndarray:
    """float32: the parts one after the other, filled up with zeros to a multiple of 64."""
    whole = _joined(parts, np.float32)
    out = zeros(-(-whole.size // LANES) * LANES)
    out[: whole.size] = whole
    return out


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _indptr(counts: list[np.ndarray]) -> np.ndarray:
    return np.cumsum(_joined([np.zeros(1, np.int64), *counts], np.int64))


def _alike(indptr: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """bool, for each unit: whether it and the next three have the same indices."""
    lists = np.split(indices, indptr[1:-1]) if len(indptr) > 1 else []
    return np.array(
        [
            i + 3 < len(lists) and len(a) > 0 and all(np.array_equal(a, b) for b in lists[i + 1 : i + 4])
            for i, a in enumerate(lists)
        ],
        bool,
    )


def build_net(stack: Stack, in_tiles: int) -> Net:
    """CSR of all layers but the first `in_tiles`, and the biases of all.

    Pixels' rows are numbered by how many weights they have, the most first: loops over a pixel's weights are then about
    as long as those before them.
    """
    pixels, *widths = stack.sizes
    units, hidden = sum(widths), sum(widths[:-1])
    if in_tiles:
        offset, row_of = 0, np.arange(pixels, dtype=np.int32)
    else:
        count = stack.masks[0].sum(axis=0)
        connected = np.argsort(-count, kind="stable")[: (count > 0).sum()]
        offset, row_of = len(connected) + 1, np.full(pixels, len(connected), np.int32)
        row_of[connected] = np.arange(len(connected))
    rows = [row_of, *np.split(offset + np.arange(units, dtype=np.int32), np.cumsum(widths)[:-1])]

    counts, indices, values = [np.zeros(sum(widths[:in_tiles]), np.int64)], [], []
    counts_t, indices_t, perm = [np.zeros(sum(widths[: in_tiles - 1]) if in_tiles else 0, np.int64)], [], []
    placed = 0
    for i, mask in enumerate(stack.masks[in_tiles:], start=in_tiles):
        counts.append(mask.sum(axis=1))
        indices.append(rows[i][np.nonzero(mask)[1]])
        values.append(stack.weights[i][mask])
        if i > 0:
            number = np.zeros(mask.shape, np.int32)
            number[mask] = placed + np.arange(mask.sum())
            counts_t.append(mask.sum(axis=0))
            indices_t.append(rows[i + 1][np.nonzero(mask.T)[1]])
            perm.append(number.T[mask.T])
        placed += int(mask.sum())

    w, bias = _padded(values), _padded(stack.biases)
    return Net(
        offset=offset,
        units=units,
        hidden=hidden,
        indptr=(indptr := _indptr(counts)),
        indices=(of_rows := _joined(indices, np.int32)),
        alike=_alike(indptr, of_rows),
        indptr_t=(indptr_t := _indptr(counts_t)),
        indices_t=(of_rows_t := _joined(indices_t, np.int32)),
        perm=_joined(perm, np.int32),
        alike_t=_alike(indptr_t, of_rows_t),
        row_of=row_of,
        w=w,
        w_m=zeros(w.size),
        w_v=zeros(w.size),
        w_g=zeros(w.size),
        bias=bias,
        bias_m=zeros(bias.size),
        bias_v=zeros(bias.size),
        bias_g=zeros(bias.size),
        A=zeros((offset + units) * LANES),
        D=zeros((offset + units) * LANES),
        scratch=zeros(2 * LANES),
    )


def _cut(array: np.ndarray, tiles: int, inputs: int) -> np.ndarray:
    """[outputs, inputs] to [tiles, inputs, 64], padded with zeros to so many tiles and inputs."""
    out = np.zeros((tiles * LANES, inputs), array.dtype)
    if tiles:
        out[: array.shape[0], : array.shape[1]] = array
    return np.ascontiguousarray(out.reshape(tiles, LANES, inputs).transpose(0, 2, 1))


def _whole(tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `_cut`."""
    return tiles.transpose(0, 2, 1).reshape(-1, tiles.shape[1])[: shape[0], : shape[1]]


def build_tiles(stack: Stack, in_tiles: int, batch_size: int) -> tuple[Tiles, Tiles]:
    """Tiles of the first layer and of the second, empty for those that are not among the first `in_tiles`."""
    in_blocks = -(-batch_size // LANES) * LANES if in_tiles else 0
    inputs = -(-stack.sizes[1] // LANES) * LANES  # the second layer reads the first's outputs as they are: filled up
    return (
        _tiles(stack, 0, stack.sizes[0], in_blocks, stored_gradient=False) if in_tiles else _NONE,
        _tiles(stack, 1, inputs, LANES, stored_gradient=True) if in_tiles == DENSE else _NONE,
    )


def _tiles(stack: Stack, layer: int, inputs: int, images: int, stored_gradient: bool) -> Tiles:
    units = stack.sizes[layer + 1]
    count = -(-units // LANES)
    shape = (count, inputs, LANES)
    w = zeros(*shape)
    w[:] = _cut(stack.weights[layer], count, inputs)
    bits = np.packbits(_cut(stack.masks[layer], count, inputs), axis=2, bitorder="little")
    return Tiles(
        units=units,
        w=w,
        m=zeros(*shape),
        v=zeros(*shape),
        g=zeros(*shape) if stored_gradient else zeros(0, inputs, LANES),
        mask=bits.view(np.int64).reshape(count, inputs),
        sums=w.sum(axis=1, dtype=np.float32).ravel(),
        bias=zeros(count * LANES),
        z=zeros(LANES * count * LANES),
        deltas=zeros(images, count * LANES),
    )


_NO_W = np.zeros((0, 0, LANES), np.float32)
_NO_UNITS = np.zeros(0, np.float32)
_NONE = Tiles(
    units=0,
    w=_NO_W,
    m=_NO_W,
    v=_NO_W,
    g=_NO_W,
    mask=np.zeros((0, 0), np.int64),
    sums=_NO_UNITS,
    bias=_NO_UNITS,
    z=_NO_UNITS,
    deltas=np.zeros((0, 0), np.float32),
)


def gather(network: Network, whole: Stack, trained: list[np.ndarray], values: Slots) -> Weights:
    """The network's weights and biases in dense form: what `whole` has, in the masks `trained` replaced by what the
    kernels have."""
    in_csr, biases, *in_tiles = values
    gathered: Weights = {}
    placed = unit = 0
    for i, (layer, start, kept, mask) in enumerate(
        zip(network.layers, whole.weights, whole.masks, trained, strict=True)
    ):
        out = np.where(kept, start, np.float32(0))
        if i < len(in_tiles) and len(in_tiles[i]):
            out[mask] = _whole(in_tiles[i], mask.shape)[mask]
        else:
            out[mask] = in_csr[placed : placed + mask.sum()]
            placed += int(mask.sum())
        gathered[layer.weight] = out
        gathered[layer.bias] = biases[unit : unit + len(mask)].copy()
        unit += len(mask)
    return gathered


def scatter(network: Network, tensors: dict[str, Any], trained: list[np.ndarray], values: Slots) -> None:
    """The inverse of `gather`: gives the kernels what the network's tensors have in the masks `trained`."""
    in_csr, biases, *in_tiles = values
    placed = unit = 0
    for i, (layer, mask) in enumerate(zip(network.layers, trained, strict=True)):
        if i < len(in_tiles) and len(in_tiles[i]):
            in_tiles[i][:] = _cut(np.where(mask, tensors[layer.weight], np.float32(0)), *in_tiles[i].shape[:2])
        else:
            in_csr[placed : placed + mask.sum()] = tensors[layer.weight][mask]
            placed += int(mask.sum())
        biases[unit : unit + len(mask)] = tensors[layer.bias]
        unit += len(mask)
