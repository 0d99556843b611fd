"""What the tickets of a level are made of, in numbers that fit on a page. Needs no torch.

Axes: u units that a layer leads to, i inputs that it comes from; a layer's weights are [u, i]. A hidden unit is dead
if nothing leads to it or nothing leads on from it; an output if nothing leads to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

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
    kept: float
    """Weights."""
    total: int
    units: int
    dead: float
    """Units."""
    into: np.ndarray
    """Connections that lead to each unit, most connected first [u]."""
    start: Histogram
    """Of what the survivors train from."""
    trained: Histogram
    """Of what they become."""

    @property
    def density(self) -> float:
        """Fraction."""
        return self.kept / self.total


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
    """The trunk's tickets of one level, of all replicates that have it."""

    level: int
    replicates: int
    layers: list[Layer]
    pixels: np.ndarray | None
    """Connections of each input pixel [h, w], the mean over replicates; None where inputs are no images."""
    overlap: Overlap | None
    """None with one replicate."""


def anatomy(run: Run, level: int) -> Anatomy:
    """Of one level of the trunk. Raises LotteryError if no replicate has it, or a file is damaged."""
    saved = [run.read(place) for place in _trunk(run) if place.level == level]
    if not saved:
        saved = [run.load(run.spec.start, 0, level)]  # which says that it is missing
    names = run.network.prunable
    following = {layer.weight: after.weight for layer, after in pairwise(run.network.layers)}
    return Anatomy(
        level,
        len(saved),
        [_layer(saved, name, following.get(name)) for name in names],
        _pixels(run.network, [s.masks[names[0]] for s in saved]),
        overlap([s.masks for s in saved]),
    )


def _trunk(run: Run) -> list[Place]:
    return [row.place for row in run.rows() if row.place.branch == run.spec.start]


def anatomies(run: Run) -> Iterator[Anatomy]:
    """Of every level of the trunk, one after the other: the weights of all of them together may not fit in memory."""
    levels = sorted({place.level for place in _trunk(run)})
    return (anatomy(run, level) for level in levels)


def _layer(saved: Sequence[SavedLevel], name: str, following: str | None) -> Layer:
    masks = [s.masks[name].reshape(len(s.masks[name]), -1) for s in saved]
    into = np.array([mask.sum(axis=1) for mask in masks])  # [replicate, u]
    alive = into > 0
    if following:
        alive &= np.array([s.masks[following].any(axis=0) for s in saved])
    return Layer(
        name,
        kept=float(into.sum(axis=1).mean()),
        total=masks[0].size,
        units=len(masks[0]),
        dead=float((~alive).sum(axis=1).mean()),
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


def _pixels(network: Network, masks: Sequence[np.ndarray]) -> np.ndarray | None:
    """Connections of each input; None unless the first layer reads the pixels of one channel."""
    if not network.linear or len(network.inputs) != 2:
        return None
    mean: np.ndarray = np.mean([mask.sum(axis=0) for mask in masks], axis=0).reshape(network.inputs)
    return mean


def overlap(masks: Sequence[Masks]) -> Overlap | None:
    """Over all pairs of these masks; None where there is no pair."""
    shares, chances = [], []
    for a, b in combinations(masks, 2):
        weights = sum(int(a[name].sum()) + int(b[name].sum()) for name in a) / 2
        if not weights:
            continue
        shares.append(sum(int((a[name] & b[name]).sum()) for name in a) / weights)
        chances.append(sum(int(a[name].sum()) * int(b[name].sum()) / a[name].size for name in a) / weights)
    if not shares:
        return None
    return Overlap(float(np.mean(shares)), min(shares), max(shares), float(np.mean(chances)), len(shares))
