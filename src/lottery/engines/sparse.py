"""The sparse engine: one CPU core, and a cost that follows the density. Stacks of linear layers with ReLU.

It keeps the surviving weights alone, as a list for each unit, and computes 64 images at a time; a first layer that is
still dense is computed image by image instead, over the pixels that differ from the background. See `kernels`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock

from lottery import history
from lottery.data import Images, Splits, batches
from lottery.engines import LossNotFinite, Report, Trained, kernels
from lottery.engines.kernels import Groups, Lists, Net, Tiles
from lottery.engines.vectors import GROUP, LANES
from lottery.masks import Weights
from lottery.seeds import stream
from lottery.spec import Recipe
from lottery.starts import Start

TILES_ABOVE = 0.3
"""Density of the first layer from which it is computed by tiles: measured, see benchmarks/LOG.md."""


def train(sizes: tuple[int, ...], data: Splits, start: Start, recipe: Recipe, report: Report) -> Trained:
    """Trains `start` on data.train; see `lottery.engines.Train`. On one thread."""
    began = time.perf_counter()
    prepared = _prepare(data)
    background = prepared.background
    tiled = len(sizes) > 2 and start.masks["fc1.weight"].mean() > TILES_ABOVE  # tiles are of hidden units
    net = _net(sizes, start, tiled)
    tiles = _tiles(sizes, start, recipe.batch_size, tiled)
    full = bool(start.masks["fc1.weight"].all())
    use_adam = recipe.optimizer == "adam"

    def iterate(order: np.ndarray, ends: np.ndarray, done: int, losses: np.ndarray) -> None:
        where = (net, tiles, prepared.train, background, order, ends, done, full, use_adam)
        kernels.train(*where, recipe.learning_rate, recipe.momentum, recipe.weight_decay, losses)

    first_layer = sizes[1]
    weights = 0 if tiled else int(start.masks["fc1.weight"].sum())
    columns = np.zeros(net.shape[0] + 2, np.int64), np.zeros(weights, np.int32), np.zeros(weights, np.float32)

    def evaluate(part: Groups) -> tuple[float, float]:
        count = len(part.labels)
        if not count:
            return float("nan"), float("nan")
        loss, correct = kernels.evaluate(net, tiles, part, background, first_layer, columns)
        return loss / count, correct / count

    _compile(net, tiles, prepared.train, evaluate)
    rows = []
    every = recipe.evaluate_every
    order = batches(start.order, len(data.train.labels), recipe.batch_size, recipe.drop_last, recipe.iterations)
    for done in range(0, recipe.iterations, every):
        steps = [index for _, index in zip(range(min(every, recipe.iterations - done)), order, strict=False)]
        losses = np.zeros(len(steps))
        iterate(np.concatenate(steps), np.cumsum([0, *map(len, steps)]), done, losses)
        if (bad := np.flatnonzero(~np.isfinite(losses))).size:
            raise LossNotFinite(done + 1 + int(bad[0]), float(losses[bad[0]]))
        rows.append((done + len(steps), losses.mean(), *evaluate(prepared.validation), *evaluate(prepared.test)))
        report(done + len(steps), rows[-1][-1])
    train_accuracy = evaluate(_train_groups(data))[1]
    weights = _weights(sizes, start, net, tiles)
    return Trained(weights, history.from_rows(rows), train_accuracy, time.perf_counter() - began, "sparse")


def must_compile() -> bool:
    """Whether the kernels will be compiled, which takes a while, before the first iteration."""
    return not any(_cache().glob("kernels.train-*.nbi"))


def _cache() -> Path:
    return Path(kernels.train._cache.cache_path)  # type: ignore[attr-defined]  # numba tells it nowhere else


def _compile(net: Net, tiles: Tiles, lists: Lists, evaluate: Callable[[Groups], object]) -> None:
    """Compiles the kernels or loads them; what one process compiles, those beside it wait for and load."""
    nothing = Lists(lists.starts[:1], lists.columns[:0], lists.values[:0], lists.labels[:0])
    _cache().mkdir(parents=True, exist_ok=True)
    with FileLock(_cache() / "lottery.lock"):
        order, ends, losses, zero = np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0), np.float32(0)
        kernels.train(net, tiles, nothing, zero, order, ends, 0, True, True, 0.0, 0.0, 0.0, losses)
        evaluate(_groups(nothing, zero, order, len(net.row_of)))


@dataclass(frozen=True)
class _Data:
    """What the kernels read of a data set."""

    background: np.float32
    """The value that most pixels have."""
    train: Lists
    validation: Groups
    test: Groups


@lru_cache(maxsize=1)  # one data set serves all levels of a replicate
def _prepare(data: Splits) -> _Data:
    sample = data.train.images[:1000].ravel()
    background = max((np.float32(0), sample.min()), key=lambda value: np.count_nonzero(sample == value))
    features = data.train.images.shape[1]

    def groups(part: Images) -> Groups:
        return _groups(_lists(part, background), background, _alike(part.images), features)

    return _Data(background, _lists(data.train, background), groups(data.validation), groups(data.test))


@lru_cache(maxsize=1)
def _train_groups(data: Splits) -> Groups:
    """The training images for evaluation, as they come: they are evaluated once per level."""
    prepared = _prepare(data)
    order = np.arange(len(data.train.labels))
    return _groups(prepared.train, prepared.background, order, data.train.images.shape[1])


def _lists(part: Images, background: np.float32) -> Lists:
    count, features = part.images.shape
    starts = np.zeros(count + 1, np.int64)
    kernels.count_pixels(part.images, background, starts)
    columns = np.empty(starts[-1], np.uint16 if features <= 1 << 16 else np.int32)
    values = np.empty(starts[-1], np.float32)
    kernels.list_pixels(part.images, background, starts, columns, values)
    return Lists(starts, columns, values, part.labels)


def _groups(lists: Lists, background: np.float32, order: np.ndarray, features: int) -> Groups:
    starts = np.zeros(-(-len(order) // GROUP) + 1, np.int64)
    kernels.count_groups(lists, order, features, starts)
    pixels, values = np.zeros(starts[-1], lists.columns.dtype), np.zeros(starts[-1] * GROUP, np.float32)
    groups = Groups(starts, pixels, values, lists.labels[order])
    kernels.fill_groups(lists, background, order, features, groups)
    return groups


def _alike(images: np.ndarray) -> np.ndarray:
    """An order in which images that are alike are neighbours, so that a group of them has few pixels in all.

    Halves the images along the direction in which they vary most, again and again; in few dimensions, because those
    directions need not be exact. It changes how fast evaluation is, and nothing else.
    """
    rng = stream("alike")
    points = images @ rng.standard_normal((images.shape[1], 32)).astype(np.float32)

    def halve(index: np.ndarray) -> list[np.ndarray]:
        if len(index) <= GROUP:
            return [index]
        centred = points[index] - points[index].mean(axis=0)
        direction = np.ones(points.shape[1], np.float32)
        for _ in range(3):
            direction = centred.T @ (centred @ direction)
            direction /= np.linalg.norm(direction) or 1
        ordered = index[np.argsort(centred @ direction, kind="stable")]
        middle = -(-len(index) // 2 // GROUP) * GROUP or GROUP
        return halve(ordered[:middle]) + halve(ordered[middle:])

    return np.concatenate(halve(np.arange(len(images)))) if len(images) else np.zeros(0, np.int64)


def _padded(array: np.ndarray) -> np.ndarray:
    out = np.zeros(-(-array.size // LANES) * LANES, np.float32)
    out[: array.size] = array
    return out


def _net(sizes: tuple[int, ...], start: Start, tiled: bool) -> Net:
    pixels, *widths = sizes
    units, hidden = sum(widths), sum(widths[:-1])
    masks = [start.masks[f"fc{i}.weight"] for i in range(1, len(sizes))]
    connected = np.zeros(0, np.int64) if tiled else np.flatnonzero(masks[0].any(axis=0))
    first = 0 if tiled else len(connected) + 1
    row_of = np.full(pixels, first - 1, np.int32)
    row_of[connected] = np.arange(len(connected))

    rows = [row_of, *np.split(first + np.arange(units, dtype=np.int32), np.cumsum(widths)[:-1])]
    counts, sources, values = [], [], []
    back_counts, targets, positions = [], [], []
    placed = 0
    for i, mask in enumerate(masks):
        if tiled and i == 0:
            counts.append(np.zeros(widths[0], np.int64))
            continue
        counts.append(mask.sum(axis=1))
        sources.append(rows[i][np.nonzero(mask)[1]])
        values.append(start.weights[f"fc{i + 1}.weight"][mask])
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

    w = _padded(joined(values, np.float32))
    bias = _padded(joined([start.weights[f"fc{i}.bias"] for i in range(1, len(sizes))], np.float32))
    return Net(
        shape=np.array([first, units, hidden, widths[0] if tiled else 0]),
        ptr=starts(counts),
        source=joined(sources, np.int32),
        tptr=starts(back_counts),
        target=joined(targets, np.int32),
        position=joined(positions, np.int32),
        row_of=row_of,
        **dict(w=w, m=np.zeros_like(w), v=np.zeros_like(w), g=np.zeros_like(w)),
        **dict(bias=bias, mb=np.zeros_like(bias), vb=np.zeros_like(bias), gb=np.zeros_like(bias)),
        A=np.zeros((first + units) * LANES, np.float32),
        D=np.zeros((first + units) * LANES, np.float32),
        scratch=np.zeros(2 * LANES, np.float32),
    )


def _tiles(sizes: tuple[int, ...], start: Start, batch_size: int, tiled: bool) -> Tiles:
    pixels, width = sizes[:2]
    count = -(-width // LANES) if tiled else 0

    def cut(array: np.ndarray) -> np.ndarray:
        """[outputs, pixels] to [tiles, pixels, 64], padded with zeros."""
        out = np.zeros((count * LANES, pixels), array.dtype)
        out[:width] = array
        return np.ascontiguousarray(out.reshape(count, LANES, pixels).transpose(0, 2, 1))

    shape = (count, pixels, LANES)
    w = cut(start.weights["fc1.weight"]) if tiled else np.zeros(shape, np.float32)
    mask = cut(start.masks["fc1.weight"].view(np.uint8)) if tiled else np.zeros(shape, np.uint8)
    most = batch_size * pixels if tiled else 0
    return Tiles(
        **dict(W=w, M=np.zeros_like(w), V=np.zeros_like(w), mask=mask),
        constant=np.zeros(count * LANES, np.float32),
        sums=w.sum(axis=1, dtype=np.float32).ravel(),
        gb=np.zeros(count * LANES, np.float32),
        Z=np.zeros((LANES, count * LANES), np.float32),
        D=np.zeros((batch_size if tiled else 0, count * LANES), np.float32),
        pstarts=np.zeros(pixels + 2, np.int64),
        pimages=np.zeros(most, np.int32),
        pvalues=np.zeros(most, np.float32),
    )


def _weights(sizes: tuple[int, ...], start: Start, net: Net, tiles: Tiles) -> Weights:
    """What was trained, in the dense form that everything else has."""
    weights: Weights = {}
    tiled = len(tiles.W) > 0
    placed = unit = 0
    for i, width in enumerate(sizes[1:], start=1):
        mask = start.masks[f"fc{i}.weight"]
        out = np.zeros(mask.shape, np.float32)
        if tiled and i == 1:
            whole = tiles.W.transpose(0, 2, 1).reshape(-1, sizes[0])[:width]
            out[mask] = whole[mask]
        else:
            out[mask] = net.w[placed : placed + mask.sum()]
            placed += int(mask.sum())
        weights[f"fc{i}.weight"] = out
        weights[f"fc{i}.bias"] = net.bias[unit : unit + width].copy()
        unit += width
    return weights
