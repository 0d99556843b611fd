"""Levels for a training loop of one's own: it trains each network that it is given, and the run is kept as any other.

The level loop, its masks, the files and the checkpoints are those of all runs; only training is the caller's.
"""

import itertools
import random
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import isfinite, isnan
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lottery import criteria
from lottery.engines import Partial, history
from lottery.engines.history import History
from lottery.engines.hold import Held, hold
from lottery.errors import LotteryError, check_type, shown
from lottery.loop import Level as Finished
from lottery.loop import rounds
from lottery.masks import Masks, Weights, check_applied, density
from lottery.models import Network
from lottery.models.torch import Build, built, described, get_weights, set_weights
from lottery.runs import files, states, store
from lottery.runs.checkpoints import LevelCheckpoint
from lottery.runs.experiment import check_method
from lottery.runs.machine import this_session
from lottery.runs.replicate import check_same_start
from lottery.runs.rows import COLUMNS, DENSITY, Place, Row
from lottery.runs.store import Run, SavedLevel
from lottery.seeds import Key, stream
from lottery.spec import OwnLoop, Pruning
from lottery.starts import STARTS, TO_START, Moment, Rewinding, Start, Trunk
from lottery.starts import begin as begin_by

OURS = ("test_accuracy", "train_accuracy")
"""Columns of levels.csv that a loop may record, as fractions."""


def tickets(factory: Build, path: Path | str, **settings: Any) -> Iterator["Level"]:
    """The levels that `lottery.tickets` gives; the settings are its. All of them are checked here."""
    check_type("path", path, Path)
    if isinstance(factory, nn.Module):
        raise LotteryError(
            f"factory is a network, of class {type(factory).__name__}: give the function that makes it, since each "
            f"replicate draws its own, such as lambda: {type(factory).__name__}(...)"
        )
    pruning = Pruning(
        settings.pop("criterion"), settings.pop("scope"), settings.pop("rate"), settings.pop("layer_rates") or {}
    )
    for name in ("branches", "prunable"):
        settings[name] = tuple(value) if isinstance(value := settings[name] or (), list) else value
    name = getattr(factory, "__qualname__", type(factory).__name__)
    spec = OwnLoop(factory=name, pruning=pruning, **settings)
    check_method(spec)
    try:
        network = described(factory, (), spec.prunable)
    except LotteryError as error:
        raise LotteryError(str(error).replace("build = ", "factory = ", 1)) from error
    criteria.rates(spec.pruning, network.prunable)
    return _levels(spec, network, factory, Path(path))


def _levels(spec: OwnLoop, network: Network, factory: Build, path: Path) -> Iterator["Level"]:
    with store.lock(path):
        run = begin(path, spec, network)
        for place in run.places():
            run.read(place)  # all of it, first: nothing is built upon damage
        run.write_table()
        for number in range(spec.replicates):
            replicate = _Replicate(run, network, factory, number)
            yield from replicate.chain(spec.start)
            for branch, draws in spec.draws.items():
                if STARTS[branch].own_trunk:
                    yield from replicate.chain(branch)
                else:
                    for draw in range(draws):
                        yield from replicate.follow(branch, draw)
        run.write_table()


def begin(path: Path, spec: OwnLoop, network: Network) -> Run:
    """Begins the run at `path`, or opens it to go on. The caller holds its lock.

    Raises:
        LotteryError: if it was begun with other settings, by `lottery run`, or for a network of another shape.
    """
    if files.there(path / store.RECORD) and not isinstance(Run(path).spec, OwnLoop):
        raise LotteryError(f"{path} is a run of `lottery run`, trained by a recipe: give another path")
    absent: dict[str, Any] = {"engine": "", "device": "", "data": {}, "images": {}}
    run = Run.begin(path, spec, absent | {"network": network.to_json()}, this_session(jobs=1))
    run.clean()
    return run


class Level:
    """One network to train, in any way: as itself, and not as a copy, from where it is."""

    def __init__(self, run: Run, place: Place, start: Start, model: nn.Module, early: Moment | None):
        self.model = model
        """With the weights that the level starts from; pruned ones are +0.0 and stay so while the loop's body runs."""
        self.masks: Masks = {name: mask.copy() for name, mask in start.masks.items()}
        """Name -> boolean array, True = kept."""
        self.number = place.level
        """0 is the dense network."""
        self.branch, self.replicate, self.draw = place.branch, place.replicate, place.draw
        self.density = density(start.masks)
        """Kept / total over the prunable weights, in [0, 1]."""
        self.first = start.first
        """Iterations that lie behind it: 0, or `rewind_to`."""
        self._run, self._place, self._start, self._early = run, place, start, early
        self._recorded: dict[str, float] = {}
        self._logged: dict[int, dict[str, float]] = {}
        self._held = Held()
        self._began, self._before = time.perf_counter(), 0.0
        self._reached: int | None = None

    def __repr__(self) -> str:
        return f"<Level {self._place}: {100 * self.density:.3g} % of the weights>"

    def record(self, **columns: Any) -> None:
        """Columns of levels.csv for this level: finite numbers. A later value replaces an earlier one.

        Views know `test_accuracy` and `train_accuracy`, fractions; any other name is a column of your own.

        Raises:
            LotteryError: for what is no number, an accuracy in percent, or the name of a column that is kept anyway.
        """
        checked = {}
        for name, value in columns.items():
            if (name in COLUMNS and name not in OURS) or name.startswith(DENSITY):
                remedy = "early stops follow from log(iteration, validation_loss=...)" if "stop" in name else ""
                remedy = remedy or "choose another name"
                raise LotteryError(f"record({name}={shown(value)}): levels.csv has that column anyway; {remedy}")
            checked[name] = number = _number(f"record({name}={{}})", value)
            if not isfinite(number):
                raise LotteryError(f"record({name}={number}): must be a finite number")
            _check_fraction("record", name, number)
        self._recorded |= checked

    def log(self, iteration: int, **columns: Any) -> None:
        """An evaluation while it trains: a row of its history.

        Charts know train_loss, validation_loss, test_loss (nats), validation_accuracy and test_accuracy (fractions);
        where validation_loss is logged, the early stop follows from it. Any other name is a column of your own.

        Args:
            iteration: optimizer steps done, 0 or more; not fewer than in the call before, whose row it adds to if they
                are the same.
            columns: numbers.

        Raises:
            LotteryError: for anything else.
        """
        at = _whole("log", "iteration", iteration, 0)
        if self._logged and at < (last := max(self._logged)):
            raise LotteryError(f"log({at}, ...) after log({last}, ...): iterations cannot go back")
        checked = {}
        for name, value in columns.items():
            if name in ("branch", "replicate", "draw", "level", "density"):
                raise LotteryError(f"log({name}={shown(value)}): a history has that column anyway; choose another name")
            checked[name] = _number(f"log({name}={{}})", value)
            _check_fraction("log", name, checked[name])
        self._logged.setdefault(at, {}).update(checked)

    def steps(self, total: int, *stateful: Any, save_every: int | None = None) -> Iterator[int]:
        """Iterations of the training loop, as `range(total)`: each is one optimizer step. What was interrupted goes on.

        A level that was killed goes on from where it was last kept: model, random numbers, what was logged and
        recorded, and what takes part. A level that is rewound to iteration k begins at k.

        Args:
            total: iterations of a whole training run, the k before a rewinding point among them.
            stateful: whatever else training depends on, always in one order: optimizer, scheduler, scaler, averages of
                weights, a loader. Each has `state_dict()` and `load_state_dict()`.
            save_every: iterations after which it is kept each time; every half a minute if None.

        Returns:
            An iterator of iteration numbers, those that lie behind: 0 before the first step.

        Raises:
            LotteryError: for a state that cannot be kept, or another than was kept.
        """
        if self._reached is not None:
            raise LotteryError("steps was called twice: a level has one training loop")
        total = _whole("steps", "total", total, 1)
        if save_every is not None:
            save_every = _whole("steps", "save_every", save_every, 1)
        point = self._run.spec.rewound
        if total <= max(point, self.first):
            raise LotteryError(f"steps({total}): must be more than rewind_to = {point}, where tickets begin")
        for i, each in enumerate(stateful):
            if not all(callable(getattr(each, name, None)) for name in ("state_dict", "load_state_dict")):
                kind = type(each).__name__
                raise LotteryError(f"steps: argument {i + 2} is a {kind}, without state_dict and load_state_dict")
        self._states(stateful)  # what cannot be kept is told before anything is trained
        checkpoint = LevelCheckpoint(self._run, self._place, self._start)
        begin, numbers = self.first, None
        if kept := checkpoint.read():
            begin, numbers = kept.moment.iteration, self._resume(kept, stateful, checkpoint.path)
            if begin >= total:
                raise LotteryError(f"steps({total}): {checkpoint.path} was kept at iteration {begin}; give more")
        elif self.first and self._early:
            self._rewind(states.decode(self._early.optimizer), stateful)
        self._reached = begin
        return self._iterate(begin, total, stateful, checkpoint, save_every, numbers)

    def _iterate(
        self,
        i: int,
        total: int,
        stateful: tuple[Any, ...],
        checkpoint: LevelCheckpoint,
        every: int | None,
        numbers: dict[str, Any] | None,
    ) -> Iterator[int]:
        keep = 0 if self.number else self._run.spec.rewound
        if numbers:
            _set_random(numbers)  # only now: what the loop prepared, such as a loader, has drawn some
        while i < total:
            self._reached = i + 1
            yield i
            i += 1
            if i == keep:
                self._early = Moment(i, get_weights(self.model), self._states(stateful))
            if i < total and (checkpoint.due() if every is None else i % every == 0):
                kept: dict[str, Any] = {
                    "stateful": self._state_dicts(stateful),
                    "random": _random(),
                    "types": _types(stateful),
                }
                kept |= {"logged": self._logged, "recorded": self._recorded, "steps": self._held.steps}
                moment = Moment(i, get_weights(self.model), states.encode(kept, "level"))
                early = None if self.number else self._early
                checkpoint.write(Partial(moment, [], np.zeros(0), self._seconds(), early))

    def _resume(self, partial: Partial, stateful: tuple[Any, ...], path: Path) -> dict[str, Any]:
        """Takes up what was kept; returns the random states."""
        kept = states.decode(partial.moment.optimizer)
        if kept["types"] != (types := _types(stateful)):
            raise LotteryError(
                f"steps was given {', '.join(types) or 'nothing'}, but {path} was kept with "
                f"{', '.join(kept['types']) or 'nothing'}: give the same, or move that file away"
            )
        set_weights(self.model, partial.moment.weights)
        for each, state in zip(stateful, kept["stateful"], strict=True):
            _load(each, state)
        self._logged, self._recorded = kept["logged"], kept["recorded"]
        self._held.steps += kept["steps"]
        self._before, self._early = partial.seconds, self._early or partial.early
        return dict(kept["random"])

    def _rewind(self, captured: list[Any], stateful: tuple[Any, ...]) -> None:
        """What takes part, as it was at the rewinding point; a fresh optimizer has its learning rate of then."""
        if len(captured) != len(stateful):
            raise LotteryError(
                f"steps was given {len(stateful)} objects, but {len(captured)} in the dense run: give the same"
            )
        for each, state in zip(stateful, captured, strict=True):
            fresh = isinstance(each, torch.optim.Optimizer) and self._run.spec.optimizer_state == "fresh"
            _load(each, state | {"state": {}} if fresh else state)
            if isinstance(each, nn.Module):  # averages of the dense network's weights
                for name, parameter in each.named_parameters():
                    for of, mask in self.masks.items():
                        if f".{name}".endswith(f".{of}") and parameter.shape == mask.shape:
                            parameter.data[torch.from_numpy(~mask).to(parameter.device)] = 0.0

    def _state_dicts(self, stateful: tuple[Any, ...]) -> list[Any]:
        return [each.state_dict() for each in stateful]

    def _states(self, stateful: tuple[Any, ...]) -> Weights:
        whole: list[Any] = []
        for each, state in zip(stateful, self._state_dicts(stateful), strict=True):
            states.encode(state, f"state_dict of {type(each).__name__}: it")  # names it, if it cannot be
            whole.append(state)
        return states.encode(whole, "state")

    def _seconds(self) -> float:
        return self._before + time.perf_counter() - self._began

    def _end(self) -> SavedLevel:
        """The level as it is to be saved. Raises LotteryError, naming the place, for one that should not be."""
        place = self._place
        if not self._held.steps:
            raise LotteryError(
                f"{place}: no optimizer stepped level.model, so nothing was saved: train it, and not a copy, with an "
                "optimizer of torch.optim over level.model.parameters()"
            )
        if self._held.untrained >= set(self.masks):
            raise LotteryError(
                f"{place}: no gradient reached level.model, so nothing was saved: a copy of it was trained"
            )
        try:
            trained = get_weights(self.model)
        except TypeError as error:
            raise LotteryError(f"{place}: a tensor of level.model is no array now ({error}); nothing saved") from None
        there, here = ({n: (a.shape, a.dtype) for n, a in w.items()} for w in (self._start.weights, trained))
        if changed := [name for name in there | here if there.get(name) != here.get(name)]:
            raise LotteryError(f"{place}: {changed[0]} of level.model has changed its name or shape; nothing was saved")
        for name, array in trained.items():
            if not np.isfinite(array).all():
                raise LotteryError(f"{place}: trained {name} is not finite; nothing was saved")
        try:
            check_applied(trained, self._start.masks)
        except LotteryError as error:
            raise LotteryError(f"{place}: {error}; nothing was saved") from None
        point = self._run.spec.rewound
        if point and not self.number and self._early is None:
            raise LotteryError(
                f"{place}: rewind_to = {point}, but the dense network was not trained through "
                f"level.steps(total, optimizer) to iteration {point}; nothing was saved"
            )
        names = list(dict.fromkeys([*history.COLUMNS, *(n for row in self._logged.values() for n in row)]))
        rows = [(at, *(row.get(n, float("nan")) for n in names[1:])) for at, row in sorted(self._logged.items())]
        found = history.from_rows(rows, names)
        reached = self._reached if self._reached is not None else max(self._logged, default=self._held.steps)
        row = to_row(place, reached, self._start.masks, found, self._recorded, self._seconds())
        early = self._early if not self.number else None
        return SavedLevel(self._start.weights, self._start.masks, trained, found, row, early)


def to_row(
    place: Place, iterations: int, masks: Masks, found: History, recorded: Mapping[str, float], seconds: float | None
) -> Row:
    """What levels.csv says of a level that somebody else trained.

    Args:
        place: of the level.
        iterations: optimizer steps.
        masks: what it keeps.
        found: what was logged of it. Where validation losses were, it stops early.
        recorded: columns; a test accuracy that is not among them is the last one logged.
        seconds: of wall time; None where they are not known.
    """
    best, steady = history.early_stop(found), history.steady_stop(found)
    own = {name: value for name, value in recorded.items() if name not in OURS}
    known: dict[str, Any] = {name: recorded[name] for name in OURS if name in recorded}
    if (accuracies := found["test_accuracy"]).size and not isnan(accuracies[-1]):
        known.setdefault("test_accuracy", accuracies[-1].item())
    if best is not None:
        known["early_stop_iteration"] = found["iteration"][best].item()
        known["validation_loss_min"] = found["validation_loss"][best].item()
        if not isnan(accuracies[best]):
            known["test_accuracy_early_stop"] = accuracies[best].item()
    return Row(
        place,
        density=density(masks),
        iterations=iterations,
        seconds=None if seconds is None else round(seconds, 3),
        steady_stop_iteration=None if steady is None else found["iteration"][steady].item(),
        densities={name: density({name: mask}) for name, mask in masks.items()},
        recorded=own,
        **known,
    )


@dataclass(frozen=True)
class _Replicate:
    """One replicate of a run: gives its levels to whoever trains them, or reads those that are on disk."""

    run: Run
    network: Network
    factory: Build
    number: int
    rewinding: Rewinding = field(default=TO_START)

    @property
    def key(self) -> Key:
        """The head of every random stream's name."""
        return self.run.spec.seed, self.number

    @cached_property
    def early(self) -> Moment | None:
        """The dense network at the iteration to which tickets are rewound; None for 0."""
        spec = self.run.spec
        return self.run.read(Place(spec.start, self.number, 0)).early if spec.rewound else None

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Another draw of every tensor, by the factory."""
        assert self.network.draw
        return self.network.draw(rng)

    def prune(self, level: Finished) -> Masks:
        """The masks of the level after that one."""
        rng = stream(*self.key, "criterion", level.number)
        evidence = criteria.Evidence(level.start.weights, level.trained, level.start.masks, rng)
        return criteria.prune(evidence, self.run.spec.pruning)

    def chain(self, rule: str) -> Generator[Level, None, None]:
        """The level loop under that rule. The dense network is always the trunk's."""
        yield from self._chain(rule, [])

    def _chain(self, rule: str, finished: list[Finished]) -> Generator[Level, None, None]:
        """As `chain`; what is finished is put into the list."""
        spec, initial = self.run.spec, self.fresh(stream(*self.key, "weights"))
        what = (initial, self.network.prunable, spec.levels, partial(begin_by, rule), self.prune)
        for begun in rounds(*what, self.key, self.fresh, lambda: self.early, self.rewinding):
            place = Place(rule if begun.number else spec.start, self.number, begun.number)
            trained = yield from self.train(place, begun.given)
            finished.append(begun.finish(trained))

    def follow(self, branch: str, draw: int) -> Generator[Level, None, None]:
        """A branch whose levels start from the trunk's masks. The trunk's levels are on disk."""
        trunk: list[Finished] = []
        assert not list(self._chain(self.run.spec.start, trunk))
        dense = trunk[0]
        for before, level in itertools.pairwise(trunk):
            theta, kept = dense.start.weights, level.start.masks
            what = (self.key, level.number, theta, kept, dense.trained, before.trained, self.fresh, draw)
            start = begin_by(branch, Trunk(*what, self.early, self.rewinding))
            yield from self.train(Place(branch, self.number, level.number, draw), start)

    def train(self, place: Place, start: Start) -> Generator[Level, None, Weights]:
        """The trained weights of the level at that place: read and verified if it is on disk, else given and saved."""
        if self.run.has(place):
            saved = self.run.read(place)
            check_same_start(saved, start, self.run.folder(place))
            return saved.trained
        # the trunk's and its branches' levels draw the same numbers, so that they can be compared in pairs
        seed = int(stream(*self.key, "loop", place.level).integers(2**63))
        model = built(self.factory, seed)
        set_weights(model, start.weights)
        level = Level(self.run, place, start, model, self.early if start.first else None)
        with hold(model, start.masks) as level._held:
            _seed(seed)
            yield level
            saved = level._end()
        if not files.there(self.run.path / store.RECORD):  # to save a level is to make its folders
            raise LotteryError(
                f"{self.run.path} was deleted or moved while it was worked on: run again to make it anew"
            )
        self.run.save(saved)
        LevelCheckpoint(self.run, place, start).remove()
        self.run.append(saved.row)
        return saved.trained


def _number(what: str, value: Any) -> float:
    """A number, also one in a tensor or an array. Raises LotteryError for anything else, with `what` around it."""
    item = getattr(value, "item", None)
    try:
        number = item() if callable(item) else value
    except (RuntimeError, ValueError, TypeError):  # more than one
        number = value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise LotteryError(f"{what.format(shown(value))}: must be a number")
    return number


def _check_fraction(call: str, name: str, value: float) -> None:
    if name.endswith("_accuracy") and name in (*OURS, *history.COLUMNS) and not (0 <= value <= 1 or isnan(value)):
        raise LotteryError(f"{call}({name}={value:g}): must be a fraction in [0, 1], such as 0.98 for 98 %")


def _whole(call: str, name: str, value: Any, least: int) -> int:
    try:
        whole = index(value)
    except TypeError:
        whole = least - 1
    if whole < least or isinstance(value, bool):
        raise LotteryError(f"{call}: {name} = {shown(value)}: must be a whole number, at least {least}")
    return whole


def _types(stateful: tuple[Any, ...]) -> list[str]:
    return [type(each).__name__ for each in stateful]


def _load(each: Any, state: Any) -> None:
    try:
        each.load_state_dict(state)
    except Exception as error:
        raise LotteryError(
            f"steps: {type(each).__name__} does not take the state that it had ({type(error).__name__}: {error}): make "
            "it as it was made before"
        ) from error


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global one is what loops of one's own draw from
    random.seed(seed)


def _random() -> dict[str, Any]:
    """The states of the global random numbers."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy, "random": random.getstate()}


def _set_random(kept: dict[str, Any]) -> None:
    torch.set_rng_state(kept["torch"])
    if kept["cuda"]:
        torch.cuda.set_rng_state_all(kept["cuda"])
    np.random.set_state(kept["numpy"])  # noqa: NPY002
    random.setstate(kept["random"])
