"""What the sparse engine does around its kernels: prepares data and weights, runs the loop, reads the results.

It keeps the surviving weights alone, as a list for each unit, and computes 64 images at a time; a first layer that is
still dense is computed image by image instead, over the pixels that differ from the background. See `kernels`.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from filelock import FileLock

from lottery.data import Images, Splits, batches
from lottery.engines import NEVER, Checkpoint, LossNotFinite, Partial, Report, Trained, history
from lottery.engines.optimizers import learning_rate, state_slots, weight_decays
from lottery.engines.sparse import kernels
from lottery.engines.sparse.kernels import Columns, Groups, Inner, Lists, Net, Pairs, Tiles
from lottery.engines.sparse.vectors import GROUP, JIT, LANES
from lottery.masks import Masks, Weights
from lottery.models import Network
from lottery.models.mlp import stack
from lottery.seeds import stream
from lottery.spec import Recipe
from lottery.starts import Moment, Start

TILES_ABOVE = (0.3, 0.45)
"""Density of the first layer, and of the second, from which they are computed by tiles: measured, see
benchmarks/LOG.md."""

WORK = 100_000_000_000
"""Kept weights times images, at most, between two moments at which a checkpoint may be written: a few seconds."""


@dataclass(frozen=True)
class _Stack:
    """A start's layers, from the first to the output."""

    weights: list[np.ndarray]
    """float32 [out, in] of each layer."""
    masks: list[np.ndarray]
    """bool [out, in] of each layer: what is trained."""
    biases: list[np.ndarray]
    """float32 [out] of each layer."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer, the input's first."""
        return (self.masks[0].shape[1], *(len(mask) for mask in self.masks))


def _stack(network: Network, weights: Weights, masks: Masks) -> _Stack:
    return _Stack(
        weights=[weights[layer.weight] for layer in network.layers],
        masks=[masks[layer.weight] for layer in network.layers],
        biases=[weights[layer.bias] for layer in network.layers],
    )


def train(
    network: Network,
    data: Splits,
    start: Start,
    recipe: Recipe,
    report: Report,
    keep: int = 0,
    checkpoint: Checkpoint = NEVER,
) -> Trained:
    """Trains `start` on data.train; see `lottery.engines.Train`. On one thread."""
    compile_kernels()
    began = time.perf_counter()
    prepared = _prepare(data)
    partial = checkpoint.read() or Partial(
        Moment(start.first, start.weights, start.optimizer), [], np.zeros(0), seconds=0.0
    )
    moment, rows, losses, early = partial.moment, list(partial.rows), partial.losses, partial.early
    whole = _stack(network, moment.weights, start.masks)
    (decay,) = set(weight_decays(network, recipe).values())  # the kernels know one for all tensors
    by_gradient_alone = not decay and not start.optimizer
    trained = replace(whole, masks=leading_on(whole.masks)) if by_gradient_alone else whole
    batch_size = min(recipe.batch_size, len(data.train.labels))
    chunk = max(1, WORK // (batch_size * max(1, sum(int(mask.sum()) for mask in trained.masks))))
    tiled = _tiled(trained)
    net, inner = _net(trained, tiled, batch_size), _inner(trained, tiled)
    tiles = _tiles(trained, tiled, batch_size, prepared.train.coded)
    columns = _columns(net, 0 if tiled else trained.sizes[1])
    of_slots = (net.m, net.mb, tiles.M, inner.M), (net.v, net.vb, tiles.V, inner.V)
    slots = dict(zip(state_slots(recipe), of_slots, strict=False))
    for slot, arrays in slots.items():
        if moment.optimizer:
            dense = {name: moment.optimizer[f"{slot}:{name}"] for name in network.tensors}
            _scatter(network, dense, trained.masks, arrays)
    taken = int(moment.optimizer.get("step", 0)) - moment.iteration  # the optimizer's steps, beside the iterations

    def arrange(part: Lists, order: np.ndarray) -> Pairs | Groups:
        return _pairs(part, order) if tiled else _groups(part, order, net)

    def evaluate(images: Pairs | Groups) -> tuple[float, float]:
        if not len(images.labels):
            return float("nan"), float("nan")
        if tiled:
            loss, correct = kernels.evaluate_pairs(net, tiles, inner, images, prepared.background)
        else:
            loss, correct = kernels.evaluate_groups(net, images, prepared.background, columns)
        return loss / len(images.labels), correct / len(images.labels)

    def weights() -> Weights:
        return _gather(network, whole, trained.masks, (net.w, net.bias, tiles.W, inner.W))

    def now() -> Moment:
        nothing = replace(whole, weights=[np.zeros_like(w) for w in whole.weights])
        optimizer = {"step": np.array(taken + done, np.int64)}
        for slot, arrays in slots.items():
            dense = _gather(network, nothing, trained.masks, arrays)
            optimizer |= {f"{slot}:{name}": array for name, array in dense.items()}
        return Moment(done, weights(), optimizer)

    def seconds() -> float:
        return partial.seconds + time.perf_counter() - began

    evaluated = [arrange(*part) for part in prepared.evaluated]
    done, last, every = moment.iteration, recipe.iterations if start.last is None else start.last, recipe.evaluate_every
    order = batches(start.order, len(data.train.labels), recipe.batch_size, recipe.drop_last, last, done)
    while done < last:
        end = min(done - done % every + every, last, done + chunk, keep if done < keep else last)
        steps = list(islice(order, end - done))
        losses = np.append(losses, np.zeros(len(steps)))
        new = losses[len(losses) - len(steps) :]
        rates = np.array([learning_rate(recipe, iteration) for iteration in range(done + 1, end + 1)])
        images, ends = np.concatenate(steps), np.cumsum([0, *map(len, steps)])
        what = (net, tiles, inner, prepared.train, prepared.background, images, ends, taken + done)
        kernels.train(*what, recipe.optimizer == "adam", rates, recipe.momentum, decay, new)
        if (bad := np.flatnonzero(~np.isfinite(new))).size:
            raise LossNotFinite(done + 1 + int(bad[0]), float(new[bad[0]]))
        done = end
        if done % every == 0 or done == last:
            scores = [score for part in evaluated for score in evaluate(part)]
            rows.append((done, losses.mean(), *scores))
            losses = np.zeros(0)
            report(rows[-1])
        if done == keep:
            early = now()
        if checkpoint.due():
            checkpoint.write(Partial(now(), rows, losses, seconds(), early))
    as_they_come = np.arange(len(data.train.labels))  # no better order is worth its cost: only once
    train_accuracy = evaluate(arrange(prepared.train, as_they_come))[1]
    return Trained(weights(), history.from_rows(rows), train_accuracy, seconds(), "sparse", early)


def must_compile() -> bool:
    """Whether the kernels will be compiled, which takes half a minute, before the first iteration."""
    if not cached():
        return JIT
    return not kernels.train._cache._cache_file._load_index()  # empty if it is of other sources, or damaged, too


def cached() -> bool:
    """Whether what was compiled is kept: not where numba finds no folder that it may write to."""
    return JIT and _cache() is not None


@lru_cache(maxsize=1)
def compile_kernels() -> None:
    """Compiles the kernels, or loads them: what one process compiles, those beside it wait for and load."""
    if not JIT:
        return
    with alone():
        network = stack((2, 2, 2))
        weights = {name: np.zeros(tensor.shape, np.float32) for name, tensor in network.tensors.items()}
        masks = {name: np.ones((2, 2), bool) for name in network.prunable}
        small = _stack(network, weights, masks)
        net, tiles, inner = _net(small, 0, 1), _tiles(small, 0, 1, True), _inner(small, 0)
        background, none = np.float32(0), np.zeros(0, np.int64)
        empty = Images(np.zeros((0, 2), np.float32), none)
        nothing = _prepare(Splits(empty, empty, empty))
        what = (net, tiles, inner, nothing.train, background, none, np.zeros(1, np.int64), 0, True)
        kernels.train(*what, np.zeros(0), 0.0, 0.0, np.zeros(0))
        kernels.evaluate_pairs(net, tiles, inner, _pairs(*nothing.evaluated[0]), background)
        kernels.evaluate_groups(net, _groups(*nothing.evaluated[0], net), background, _columns(net, 2))


@contextmanager
def alone() -> Iterator[None]:
    """Makes other processes that compile wait. Where nothing can be kept, each compiles for itself."""
    with ExitStack() as stack:
        if (folder := _cache()) is not None:
            with suppress(OSError):  # a folder that became read-only, another user's lock
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / "lottery.lock"))
        yield


def _cache() -> Path | None:
    path = kernels.train._cache.cache_path  # numba tells it nowhere else
    return path and Path(path)


@dataclass(frozen=True, eq=False)
class _Data:
    """What the kernels read of a data set."""

    background: np.float32
    """The value that most pixels have."""
    features: int
    train: Lists
    evaluated: tuple[tuple[Lists, np.ndarray], ...]
    """Validation and test, each with an order in which alike images are neighbours."""


@lru_cache(maxsize=1)  # one data set serves all levels of a replicate
def _prepare(data: Splits) -> _Data:
    sample = data.train.images[:1000].ravel()
    background = max((np.float32(0), sample.min(initial=0)), key=lambda value: np.count_nonzero(sample == value))
    low, high = (np.float32(f(data.train.images, initial=background)) - background for f in (np.min, np.max))
    scale = (high if high > -low else low) / np.float32(255) or np.float32(1)
    lists = [_lists(part, background, scale) for part in (data.train, data.validation, data.test)]
    orders = [_alike(part.images != background) for part in (data.validation, data.test)]
    evaluated = tuple(zip(lists[1:], orders, strict=True))
    return _Data(background, data.train.images.shape[1], lists[0], evaluated)


def _lists(part: Images, background: np.float32, scale: np.float32) -> Lists:
    """Coded where every pixel is `background` plus 0 to 255 times `scale`, to float32's precision."""
    count, features = part.images.shape
    starts = np.zeros(count + 1, np.int64)
    kernels.count_pixels(part.images, background, starts)
    columns = np.empty(starts[-1], np.uint16 if features <= 1 << 16 else np.int32)
    marks = np.zeros((count, -(-features // kernels.CHUNK) + 1), np.int64)
    values, codes = np.empty(starts[-1], np.float32), np.zeros((count + 1, _room(features)), np.uint8)
    coded = kernels.list_pixels(part.images, background, scale, starts, marks, columns, values, codes)
    scale = scale if coded else np.float32(1)
    table = scale * np.arange(256, dtype=np.float32)
    return Lists(starts, marks, columns, values, codes, coded, scale, table, part.labels)


def _room(features: int) -> int:
    """Bytes for an image's codes, which are moved by 16."""
    return -(-features // 16) * 16


def _columns(net: Net, width: int) -> Columns:
    """For a first layer of so many units."""
    return Columns(
        starts=np.zeros(net.shape[0] + 2, np.int64),
        places=np.zeros(net.ptr[width], np.int32),
        weights=np.zeros(net.ptr[width], np.float32),
        constant=np.zeros(width, np.float32),
        Z=_zeros(width * GROUP),
    )


def _pairs(lists: Lists, order: np.ndarray) -> Pairs:
    starts = np.zeros(-(-len(order) // 2) + 1, np.int64)
    kernels.count_pairs(lists, order, starts)
    pairs = Pairs(
        marks=np.zeros((len(starts) - 1, lists.marks.shape[1]), np.int64),
        columns=np.zeros(starts[-1], lists.columns.dtype),
        values=_zeros(2 * starts[-1]),
        labels=lists.labels[order],
    )
    kernels.fill_pairs(lists, order, starts, pairs)
    return pairs


def _groups(lists: Lists, order: np.ndarray, net: Net) -> Groups:
    place = np.zeros(net.shape[0], np.int64)
    count = kernels.count_groups(net, lists, order, place)
    groups = Groups(
        starts=np.zeros(-(-len(order) // GROUP) + 1, np.int64),
        rows=np.zeros(count, np.int32),
        codes=_zeros(count * GROUP if lists.coded else 0, dtype=np.uint8),
        values=_zeros(0 if lists.coded else count * GROUP),
        coded=lists.coded,
        scale=lists.scale,
        labels=lists.labels[order],
    )
    kernels.fill_groups(net, lists, order, place, groups)
    return groups


def _alike(having: np.ndarray) -> np.ndarray:
    """An order in which images that are alike are neighbours, so that a group of them has few pixels in all, and a pair
    fewer. having: bool [n, features], whether an image has a pixel.

    Halves the images along the direction in which they vary most, again and again; in few dimensions, because those
    directions need not be exact. It changes how fast evaluation is, and nothing else.
    """
    rng = stream("alike")
    signs = 2 * rng.integers(0, 2, (having.shape[1], 64)) - 1
    points = (having.astype(np.float32) @ signs.astype(np.float32)).astype(float)  # whole numbers: exact

    def halve(index: np.ndarray) -> list[np.ndarray]:
        if len(index) <= GROUP:
            return [index]
        centred = points[index] - points[index].mean(axis=0)
        direction = np.ones(points.shape[1])
        for _ in range(4):
            direction = centred.T @ (centred @ direction)
            direction /= np.linalg.norm(direction) or 1
        place = np.round(centred @ direction, 6)  # whatever the last bits: they depend on NumPy's threads
        ordered = index[np.argsort(place, kind="stable")]
        middle = -(-len(index) // 2 // GROUP) * GROUP or GROUP
        return halve(ordered[:middle]) + halve(ordered[middle:])

    return _paired(having, np.concatenate(halve(np.arange(len(having))))) if len(having) else np.zeros(0, np.int64)


def _paired(having: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The order with those two neighbours in each whole group that share most pixels, then the two of the rest."""
    groups = order[: len(order) // GROUP * GROUP].reshape(-1, GROUP)
    of_group = having[groups].astype(np.float32)
    shared = of_group @ of_group.transpose(0, 2, 1)
    each, pairs = np.arange(len(groups)), []
    shared[:, np.arange(GROUP), np.arange(GROUP)] = -1
    for _ in range(GROUP // 2):
        first, second = np.divmod(shared.reshape(len(groups), GROUP * GROUP).argmax(axis=1), GROUP)
        pairs += [groups[each, first], groups[each, second]]
        for taken in (first, second):
            shared[each, taken, :] = shared[each, :, taken] = -1
    return np.concatenate([np.stack(pairs, axis=1).ravel(), order[groups.size :]])


def _zeros(*shape: int, dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
    """Zeros that begin with a cache line: a vector that straddles two costs twice."""
    size = int(np.prod(shape))
    room = np.zeros(size + 64, dtype)
    begin = -room.ctypes.data % 64 // room.itemsize
    return room[begin : begin + size].reshape(shape)


def _padded(array: np.ndarray) -> np.ndarray:
    out = _zeros(-(-array.size // LANES) * LANES)
    out[: array.size] = array
    return out


def leading_on(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Without weights that lead to dead ends: hidden units none of whose ways on reach an output. These have gradients
    of exactly 0, so that only weight decay could move them."""
    leading: list[np.ndarray] = []
    on: np.ndarray = np.ones(1, bool)
    for mask in reversed(masks):
        leading.insert(0, mask & on[:, None])
        on = np.any(leading[0], axis=0)
    return leading


def _tiled(trained: _Stack) -> int:
    """How many layers, from the first, are computed by tiles: hidden ones, two at most."""
    hidden = zip(trained.masks[:-1], TILES_ABOVE, strict=False)
    return [*(mask.mean() > above for mask, above in hidden), False].index(False)


def _net(trained: _Stack, tiled: int, batch_size: int) -> Net:
    pixels, *widths = trained.sizes
    units, hidden, blocks = sum(widths), sum(widths[:-1]), -(-batch_size // LANES)
    masks = trained.masks
    weights_of = masks[0].sum(axis=0)
    connected = np.zeros(0, np.int64) if tiled else np.argsort(-weights_of, kind="stable")[: (weights_of > 0).sum()]
    first = 0 if tiled else len(connected) + 1
    row_of = np.full(pixels, first - 1, np.int32)
    row_of[connected] = np.arange(len(connected))
    if tiled:
        row_of[:] = np.arange(pixels)

    rows = [row_of, *np.split(first + np.arange(units, dtype=np.int32), np.cumsum(widths)[:-1])]
    counts, sources, values = [], [], []
    back_counts, targets, positions = [], [], []
    placed = 0
    for i, mask in enumerate(masks):
        if i < tiled:
            counts.append(np.zeros(widths[i], np.int64))
            back_counts.append(np.zeros(mask.shape[1] if i else 0, np.int64))
            continue
        counts.append(mask.sum(axis=1))
        sources.append(rows[i][np.nonzero(mask)[1]])
        values.append(trained.weights[i][mask])
        if i > 0:
            place = np.zeros(mask.shape, np.int32)
            place[mask] = placed + np.arange(mask.sum())
            back_counts.append(mask.sum(axis=0))
            targets.append(rows[i + 1][np.nonzero(mask.T)[1]])
            positions.append(place.T[mask.T])
        placed += int(mask.sum())

    def joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)

    def starts(parts: list[np.ndarray]) -> np.ndarray:
        return np.cumsum(joined([np.zeros(1, np.int64), *parts], np.int64))

    def alike(ptr: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Whether a unit and the next three lead to the same rows; in fours that don't overlap, from each layer's end
        backwards or from its beginning, as the kernels go."""
        lists = np.split(ends, ptr[1:-1]) if len(ptr) > 1 else []
        return np.array(
            [
                i + 3 < len(lists) and len(a) > 0 and all(np.array_equal(a, b) for b in lists[i + 1 : i + 4])
                for i, a in enumerate(lists)
            ],
            bool,
        )

    w = _padded(joined(values, np.float32))
    bias = _padded(joined(trained.biases, np.float32))
    return Net(
        shape=np.array([first, units, hidden, widths[0] if tiled else 0, widths[1] if tiled == 2 else 0]),
        ptr=(ptr := starts(counts)),
        source=(source := joined(sources, np.int32)),
        tptr=(tptr := starts(back_counts)),
        target=(target := joined(targets, np.int32)),
        position=joined(positions, np.int32),
        alike=alike(ptr, source),
        back_alike=alike(tptr, target),
        row_of=row_of,
        places=np.zeros(blocks * LANES, np.int64),
        codes=_zeros(blocks, _room(pixels) * LANES, dtype=np.uint8),
        **dict(w=w, m=_zeros(w.size), v=_zeros(w.size), g=_zeros(w.size)),
        **dict(bias=bias, mb=_zeros(bias.size), vb=_zeros(bias.size), gb=_zeros(bias.size)),
        A=_zeros((first + units) * LANES),
        D=_zeros((first + units) * LANES),
        scratch=_zeros(2 * LANES),
    )


def _cut(array: np.ndarray, tiles: int, inputs: int) -> np.ndarray:
    """[outputs, inputs] to [tiles, inputs, 64], padded with zeros to so many tiles and inputs."""
    out = np.zeros((tiles * LANES, inputs), array.dtype)
    if tiles:
        out[: array.shape[0], : array.shape[1]] = array
    return np.ascontiguousarray(out.reshape(tiles, LANES, inputs).transpose(0, 2, 1))


def _bits(mask: np.ndarray, tiles: int, inputs: int) -> np.ndarray:
    """A mask cut in the same way: int64 [tiles, inputs], bit i for output i."""
    return np.packbits(_cut(mask, tiles, inputs), axis=2, bitorder="little").view(np.int64).reshape(tiles, inputs)


def _whole(tiles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `_cut`."""
    return tiles.transpose(0, 2, 1).reshape(-1, tiles.shape[1])[: shape[0], : shape[1]]


def _tiles(trained: _Stack, tiled: int, batch_size: int, coded: bool) -> Tiles:
    pixels, width = trained.sizes[:2]
    count = -(-width // LANES) if tiled else 0
    shape = (count, pixels, LANES)
    w = _zeros(*shape)
    w[:] = _cut(trained.weights[0], count, pixels)
    mask = _bits(trained.masks[0], count, pixels)
    blocks = -(-batch_size // LANES) if tiled else 0
    return Tiles(
        **dict(W=w, M=_zeros(*shape), V=_zeros(*shape), mask=mask),
        constant=_zeros(count * LANES),
        sums=w.sum(axis=1, dtype=np.float32).ravel(),
        gb=_zeros(count * LANES),
        Z=_zeros(LANES * count * LANES),
        D=_zeros(blocks * LANES, count * LANES),
        values=_zeros(0 if coded else blocks, _room(pixels) * LANES),
    )


def _inner(trained: _Stack, tiled: int) -> Inner:
    inputs, outputs = trained.sizes[1:3] if tiled == 2 else (0, 0)
    inputs, count = -(-inputs // LANES) * LANES, -(-outputs // LANES)
    shape = (count, inputs, LANES)
    w, mask = _zeros(*shape), np.zeros((count, inputs), np.int64)
    if tiled == 2:
        w[:] = _cut(trained.weights[1], count, inputs)
        mask = _bits(trained.masks[1], count, inputs)
    return Inner(
        **dict(W=w, M=_zeros(*shape), V=_zeros(*shape), G=_zeros(*shape), mask=mask),
        bias=_zeros(count * LANES),
        Z=_zeros(LANES * LANES),
        D=_zeros(LANES * count * LANES),
    )


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Where the kernels have the weights, or one of the optimizer's slots for them: in lists, of biases, in the first
layer's tiles, in the second's."""


def _gather(network: Network, whole: _Stack, trained: list[np.ndarray], arrays: Arrays) -> Weights:
    """What `whole` has, in the masks `trained` replaced by what the kernels have: in the dense form that all else
    has."""
    values, biases, *in_tiles = arrays
    gathered: Weights = {}
    placed = unit = 0
    for i, (layer, start, kept, mask) in enumerate(
        zip(network.layers, whole.weights, whole.masks, trained, strict=True)
    ):
        out = np.where(kept, start, np.float32(0))
        if i < len(in_tiles) and len(in_tiles[i]):
            out[mask] = _whole(in_tiles[i], mask.shape)[mask]
        else:
            out[mask] = values[placed : placed + mask.sum()]
            placed += int(mask.sum())
        gathered[layer.weight] = out
        gathered[layer.bias] = biases[unit : unit + len(mask)].copy()
        unit += len(mask)
    return gathered


def _scatter(network: Network, tensors: Weights, trained: list[np.ndarray], arrays: Arrays) -> None:
    """The inverse of `_gather`: gives the kernels what is in the masks `trained`."""
    values, biases, *in_tiles = arrays
    placed = unit = 0
    for i, (layer, mask) in enumerate(zip(network.layers, trained, strict=True)):
        if i < len(in_tiles) and len(in_tiles[i]):
            in_tiles[i][:] = _cut(np.where(mask, tensors[layer.weight], np.float32(0)), *in_tiles[i].shape[:2])
        else:
            values[placed : placed + mask.sum()] = tensors[layer.weight][mask]
            placed += int(mask.sum())
        biases[unit : unit + len(mask)] = tensors[layer.bias]
        unit += len(mask)
