"""One replicate of a run: its chains of levels, trained one after the other or read where they are on disk."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from lottery import criteria, engines, masks, models
from lottery.data import Raw, Splits, dataset, load, split
from lottery.engines import history
from lottery.errors import LotteryError
from lottery.loop import Level, levels
from lottery.models import Network
from lottery.runs import code, runners
from lottery.runs.checkpoints import LevelCheckpoint
from lottery.runs.rows import Place, Row
from lottery.runs.store import Run, SavedLevel
from lottery.seeds import Key, stream
from lottery.starts import STARTS, Moment, Rewinding, Start, Trunk, begin


@dataclass(frozen=True)
class Progress:
    """What `run` tells while it works: after every evaluation, and when a level is on disk."""

    place: Place
    iteration: int
    test_accuracy: float
    """Fraction."""
    row: Row | None = None
    """The level's row in levels.csv, once it is on disk."""
    note: str = ""
    """What keeps the first iteration waiting."""
    done: float = 0.0
    """Fraction of the level's iterations that lie behind it, those before an interruption too."""
    evaluations: tuple[tuple[float, ...], ...] = ()
    """Rows of the history (columns: `lottery.engines.history.COLUMNS`) that no event had before: this evaluation's; and
    first those from before an interruption, when the level goes on."""
    last: int = 0
    """The iteration that the level ends with."""


def train_branch(
    path: Path,
    first: Place,
    count: int,
    source: Raw | Path | str | None,
    engine: str,
    device: str,
    emit: runners.Emit,
) -> None:
    """The branch (or the trunk), replicate and draw of `first`, from there up to level `count`.

    What is on disk is read and verified, the rest trained and saved. A branch needs the trunk's levels, and repeats
    none of their training.

    Args:
        path: the run's folder.
        first: where to begin.
        count: the last level.
        source: the images; or the folder of data sets, as in `run`, for a worker to load them from.
        engine: name of a chosen engine.
        device: cpu or cuda.
        emit: called with each Progress.

    Raises:
        LotteryError: for images that are not those with which the run was begun, and as `run` does.
    """
    run = Run(path)
    code.load(code.of_run(run))
    raw = source if isinstance(source, Raw) else load(run.spec.data.name, Path(source) if source else None)
    if raw.sha256 != run.info["data"]:
        raise LotteryError(f"{path} was begun with data {run.info['data']!r}, now it is {raw.sha256!r}")
    if note := engines.slow_start(engine):
        emit(Progress(first, 0, float("nan"), note=note))
    data = dataset(run.spec.data.name)
    network = models.network(run.spec.model, data.shape, data.classes)
    replicate = Replicate(run, network, first.replicate, raw, engines.trainer(engine, device), emit)
    if first.branch == run.spec.start or STARTS[first.branch].own_trunk:
        for _ in replicate.chain(first.branch, count):
            pass
    else:
        replicate.follow(first.branch, first.draw, count)


@dataclass(frozen=True)
class Replicate:
    """One replicate of a run: trains its levels, or reads those that are on disk."""

    run: Run
    network: Network
    number: int
    raw: Raw
    engine: engines.Train
    emit: runners.Emit

    @property
    def key(self) -> Key:
        """The head of every random stream's name."""
        return self.run.spec.seed, self.number

    @cached_property
    def data(self) -> Splits:
        """The replicate's own split of the images."""
        data = self.run.spec.data
        return split(self.raw, data.scaling, data.validation, stream(*self.key, "split"))

    def chain(self, rule: str, count: int) -> Iterator[Level]:
        """The level loop under that rule. The dense network is always the trunk's."""
        trunk = self.run.spec.start

        def train(level: int, start: Start) -> masks.Weights:
            return self.train(Place(rule if level else trunk, self.number, level), start)

        initial = self.fresh(stream(*self.key, "weights"))
        what = (initial, self.network.prunable, count, partial(begin, rule), train, self.prune)
        return levels(*what, self.key, self.fresh, lambda: self.early, self.rewinding)

    @cached_property
    def early(self) -> Moment | None:
        """The dense network at the iteration to which tickets are rewound; None for 0."""
        spec = self.run.spec
        return self.run.read(Place(spec.start, self.number, 0)).early if spec.rewound else None

    @property
    def rewinding(self) -> Rewinding:
        """The settings that start rules follow."""
        return Rewinding.of(self.run.spec)

    def follow(self, branch: str, draw: int, count: int) -> None:
        """A branch whose levels start from the trunk's masks."""
        dense: Level | None = None
        before: Level | None = None
        for level in self.chain(self.run.spec.start, count):
            if dense and before:
                theta, kept = dense.start.weights, level.start.masks
                what = (self.key, level.number, theta, kept, dense.trained, before.trained, self.fresh, draw)
                start = begin(branch, Trunk(*what, self.early, self.rewinding))
                self.train(Place(branch, self.number, level.number, draw), start)
            dense, before = dense or level, level

    def train(self, place: Place, start: Start) -> masks.Weights:
        """The trained weights of the level at that place: read and verified if it is on disk, else trained and saved.

        Raises LotteryError, naming the place, for a loss or weights that are not finite.
        """
        if self.run.has(place):
            saved = self.run.read(place)
            check_same_start(saved, start, self.run.folder(place))
            return saved.trained
        recipe, keep = self.run.spec.recipe, 0 if place.level else self.run.spec.rewound
        checkpoint = LevelCheckpoint(self.run, place, start)
        last = recipe.iterations if start.last is None else start.last
        listened = 0.0

        def untold(*rows: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
            told, checkpoint.rows = (*checkpoint.rows, *rows), []
            return tuple(tuple(map(float, row)) for row in told)

        def report(row: tuple[float, ...]) -> None:
            nonlocal listened
            began = time.perf_counter()
            iteration, done = int(row[0]), (row[0] - start.first) / (last - start.first)
            self.emit(Progress(place, iteration, float(row[-1]), done=done, evaluations=untold(row), last=last))
            listened += time.perf_counter() - began

        try:
            trained = self.engine(self.network, self.data, start, recipe, report, keep, checkpoint)
        except engines.LossNotFinite as error:
            raise LotteryError(f"{place}: {error}; what was finished is kept") from None
        for tensor, weight in trained.weights.items():
            if not np.isfinite(weight).all():
                raise LotteryError(f"{place}: trained {tensor} is not finite; nothing saved")
        trained = replace(trained, seconds=trained.seconds - listened)  # a tracker may take longer than the training
        row = to_row(place, last, start, trained)
        self.run.save(SavedLevel(start.weights, start.masks, trained.weights, trained.history, row, trained.early))
        checkpoint.remove()
        accuracy = trained.history["test_accuracy"][-1].item()
        self.emit(Progress(place, last, accuracy, row, done=1.0, evaluations=untold(), last=last))
        return trained.weights

    def prune(self, level: Level) -> masks.Masks:
        """The masks of the level after that one."""
        rng = stream(*self.key, "criterion", level.number)
        evidence = criteria.Evidence(level.start.weights, level.trained, level.start.masks, rng)
        return criteria.prune(evidence, self.run.spec.pruning)

    def fresh(self, rng: np.random.Generator) -> masks.Weights:
        """A draw of every tensor from the spec's initialisation."""
        model = self.run.spec.model
        return models.initial_weights(self.network, model.init, rng, model.std)


def check_same_start(saved: SavedLevel, start: Start, path: Path) -> None:
    """Raises LotteryError, naming the path, for a saved level that did not begin with that start."""
    for kind, ours, theirs in (("weights", start.weights, saved.start), ("mask", start.masks, saved.masks)):
        for name, array in ours.items():
            if name not in theirs or array.tobytes() != theirs[name].tobytes():
                raise LotteryError(
                    f"{path}: its ticket's {kind} of {name} are not what this version makes from the levels before; "
                    "move the folder and those of later levels out of the run directory, or use another --runs-dir"
                )


def to_row(place: Place, iterations: int, start: Start, trained: engines.Trained) -> Row:
    """What levels.csv says of a level that was trained up to that iteration."""
    columns, best, steady = trained.history, history.early_stop(trained.history), history.steady_stop(trained.history)
    stop: dict[str, Any] = {}
    if best is not None:
        stop = {
            "early_stop_iteration": columns["iteration"][best].item(),
            "test_accuracy_early_stop": columns["test_accuracy"][best].item(),
            "validation_loss_min": columns["validation_loss"][best].item(),
        }
    return Row(
        place,
        density=masks.density(start.masks),
        iterations=iterations,
        **stop,
        test_accuracy=columns["test_accuracy"][-1].item(),
        train_accuracy=trained.train_accuracy,
        seconds=round(trained.seconds, 3),
        engine=trained.engine,
        steady_stop_iteration=None if steady is None else columns["iteration"][steady].item(),
        densities={name: masks.density({name: mask}) for name, mask in start.masks.items()},
    )
