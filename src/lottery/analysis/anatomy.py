"""What the tickets of a level are made of, in numbers that fit on a page. Needs no torch.

Axes: u units that a layer leads to, i inputs that it comes from; a convolution's units are its filters, its inputs
channels. A hidden unit is dead if nothing leads to it or nothing leads on from it; an output if nothing leads to it.
Which units are dead is known where the order of the layers is.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from lottery.masks import Masks
from lottery.models import Network
from lottery.runs.rows import Place
from lottery.runs.store import Run, SavedLevel


@dataclass(frozen=True)
class Histogram:
    """Values of a layer's survivors, all replicates together, in bins of one width."""

    edges: np.ndarray
    """[bins + 1], from the 0.1 % smallest to the 0.1 % largest: a few far away would leave the others one bin."""
    counts: np.ndarray
    """[bins]"""
    rms: float
    """Root mean square of all values."""

    @property
    def middles(self) -> np.ndarray:
        middles: np.ndarray = (self.edges[1:] + self.edges[:-1]) / 2
        return middles


@dataclass(frozen=True)
class Layer:
    """A layer at one level: means over replicates."""

    name: str
    shape: tuple[int, ...]
    """Of its weights: two axes for a linear layer, more for a convolution."""
    kept: float
    """Weights."""
    total: int
    units: int
    fed: float
    """Units that something leads to."""
    inputs: int
    read: float
    """Inputs that something comes from."""
    dead: float | None
    """Units; None where it is unknown what follows."""
    into: np.ndarray
    """Weights that lead to each unit, most connected first [u]."""
    start: Histogram
    """Of what the survivors train from."""
    trained: Histogram
    """Of what they become."""

    @property
    def density(self) -> float:
        """Fraction."""
        return self.kept / self.total

    @property
    def left(self) -> float:
        """Units that are not dead; where those are unknown, units that something leads to."""
        return self.fed if self.dead is None else self.units - self.dead


@dataclass(frozen=True)
class Kernels:
    """What a convolution looks for in an image: the weights of one replicate [filters, channels, h, w], NaN where they
    are pruned."""

    name: str
    replicate: int
    start: np.ndarray
    """What they train from."""
    trained: np.ndarray
    """What they become."""


@dataclass(frozen=True)
class Overlap:
    """Of two replicates' tickets, the share of the weights of one that the other keeps too; fractions."""

    mean: float
    min: float
    max: float
    chance: float
    """What random masks with as many weights in each layer would share."""
    pairs: int


@dataclass(frozen=True)
class Anatomy:
    """The trunk's tickets of one level, of all replicates that have it and have dropped nothing."""

    level: int
    replicates: int
    layers: list[Layer]
    pixels: np.ndarray | None
    """Connections of each input pixel [h, w], of all its colours, the mean over replicates; None where the first layer
    is not known to read pixels one by one."""
    kernels: Kernels | None
    """Of the convolution that reads images, in the first replicate that has the level: the first layer, or where the
    order of layers is unknown, the module's first convolution of as many channels as images have. None where there is
    no such."""
    overlap: Overlap | None
    """None with one replicate."""

    @property
    def linear(self) -> bool:
        """Whether it is a stack of linear layers alone."""
        return all(len(layer.shape) == 2 and layer.dead is not None for layer in self.layers)


def anatomy(run: Run, level: int) -> Anatomy:
    """Of one level of the trunk. Raises LotteryError if no replicate has it, or a file is damaged; Dropped if --keep
    has dropped it in all of them."""
    return _anatomy(run, level, [place for place in _trunk(run) if place.level == level])


def _anatomy(run: Run, level: int, places: Sequence[Place]) -> Anatomy:
    saved = [run.read(place) for place in places]
    if not saved:
        saved = [run.load(run.spec.start, 0, level)]  # which says that it is missing, or dropped
    network = run.network
    between = {name: _between(network, saved, name) for name in network.prunable}
    dead = {
        layer.weight: _dead(between[layer.weight], between[after.weight] if after else None)
        for layer, after in zip_longest(network.layers, network.layers[1:])
    }
    return Anatomy(
        level,
        len(saved),
        [_layer(saved, name, weights, dead.get(name)) for name, weights in between.items()],
        _pixels(network, between),
        _kernels(network, saved[0]),
        overlap([s.masks for s in saved]),
    )


def _trunk(run: Run) -> list[Place]:
    """The trunk's levels that are whole."""
    return [r.row.place for r in run.records() if r.row.place.branch == run.spec.start and not r.dropped]


def anatomies(run: Run) -> Iterator[Anatomy]:
    """Of every level of the trunk, one after the other: the weights of all of them together may not fit in memory. Of a
    level that --keep has dropped in all replicates there is none."""
    by_level: dict[int, list[Place]] = defaultdict(list)
    for place in _trunk(run):
        by_level[place.level].append(place)
    return (_anatomy(run, level, by_level[level]) for level in sorted(by_level))


def _between(network: Network, saved: Sequence[SavedLevel], name: str) -> np.ndarray:
    """Weights left between each input and each unit of a layer [replicate, u, i]: more than one in a convolution."""
    unit, source = network.tensors[name].ends()
    weights = np.zeros((len(saved), unit.max() + 1, source.max() + 1), np.int32)
    for r, s in enumerate(saved):
        weights[r, unit, source] = s.masks[name].reshape(*unit.shape, -1).sum(axis=2)
    return weights


def _dead(weights: np.ndarray, following: np.ndarray | None) -> float:
    """Dead units, the mean over replicates; both as `_between` gives them, None for the last layer."""
    alive = weights.any(axis=2)
    if following is not None:  # behind convolutions a linear layer has as many inputs in a row as a channel has pixels
        alive &= following.reshape(*following.shape[:2], alive.shape[1], -1).any(axis=(1, 3))
    return float((~alive).sum(axis=1).mean())


def _layer(saved: Sequence[SavedLevel], name: str, weights: np.ndarray, dead: float | None) -> Layer:
    into = weights.sum(axis=2)
    return Layer(
        name,
        shape=saved[0].masks[name].shape,
        kept=float(into.sum(axis=1).mean()),
        total=saved[0].masks[name].size,
        units=weights.shape[1],
        fed=float((into > 0).sum(axis=1).mean()),
        inputs=weights.shape[2],
        read=float(weights.any(axis=1).sum(axis=1).mean()),
        dead=dead,
        into=np.sort(into, axis=1)[:, ::-1].mean(axis=0),
        start=histogram(np.concatenate([s.start[name][s.masks[name]] for s in saved])),
        trained=histogram(np.concatenate([s.trained[name][s.masks[name]] for s in saved])),
    )


def histogram(values: np.ndarray) -> Histogram:
    """Of any number of values, none included."""
    if not len(values):
        return Histogram(np.zeros(1), np.zeros(0, int), 0.0)
    low, high = np.quantile(values, [0.001, 0.999])
    counts, edges = np.histogram(values, bins=min(60, 10 + len(values) // 20), range=(low, high))
    return Histogram(edges, counts, float(np.sqrt(np.mean(np.square(values, dtype=float)))))


def _pixels(network: Network, between: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Connections of each pixel; None unless the first layer reads them one by one."""
    if not network.linear or len(network.inputs) not in (2, 3):
        return None
    each = between[network.layers[0].weight].sum(axis=1).mean(axis=0)
    mean: np.ndarray = each.reshape(-1, *network.inputs[-2:]).sum(axis=0)
    return mean


def _kernels(network: Network, saved: SavedLevel) -> Kernels | None:
    """Of the convolution that reads images, if it is known which."""
    names = [layer.weight for layer in network.layers[:1]] or network.prunable
    reads = (name for name in names if len(network.inputs) == 3 and _reads(network.tensors[name].shape, network.inputs))
    if (name := next(reads, None)) is None:
        return None
    start, trained = (np.where(saved.masks[name], w[name], np.nan) for w in (saved.start, saved.trained))
    return Kernels(name, saved.row.place.replicate, start, trained)


def _reads(shape: Sequence[int], inputs: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[1] == inputs[0]


def overlap(masks: Sequence[Masks]) -> Overlap | None:
    """Over all pairs of these masks; None where there is no pair."""
    bits = {name: np.array([np.packbits(each[name]) for each in masks]) for name in masks[0]} if masks else {}
    counts = {name: np.array([int(each[name].sum()) for each in masks]) for name in bits}
    kept = sum(counts.values(), np.zeros(len(masks), int))
    shares: list[float] = []
    chances: list[float] = []
    for i in range(len(masks)):  # against all that follow
        weights = (kept[i] + kept[i + 1 :]) / 2
        some = weights > 0
        none = np.zeros(len(weights))
        shared = sum((np.bitwise_count(each[i] & each[i + 1 :]).sum(axis=1) for each in bits.values()), none)
        chance = sum((n[i] * n[i + 1 :] / masks[0][name].size for name, n in counts.items()), none)
        shares += (shared[some] / weights[some]).tolist()
        chances += (chance[some] / weights[some]).tolist()
    if not shares:
        return None
    return Overlap(float(np.mean(shares)), min(shares), max(shares), float(np.mean(chances)), len(shares))
