"""Binds a spec to data, network, loop, engine and store: the only place where they meet."""

import os
import platform
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lottery import criteria, engines, masks, models
from lottery.data import DATASETS, SCALINGS, Raw, Splits, dataset, load, split
from lottery.engines import history
from lottery.errors import LotteryError, check_type, known, shown
from lottery.loop import Level, levels
from lottery.models import Network
from lottery.runs import checkpoints, code, files, runners, store
from lottery.runs.checkpoints import LevelCheckpoint
from lottery.runs.rows import Place, Row
from lottery.runs.store import Run, SavedLevel
from lottery.seeds import Key, stream
from lottery.spec import OwnLoop, Spec
from lottery.spec import load as load_spec
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


def check(spec: Spec) -> Network:
    """The spec's network. Raises LotteryError for a name that no registry has or a pattern that matches nothing."""
    check_type("spec", spec, Spec)
    if isinstance(spec, OwnLoop):
        raise LotteryError(f"spec is of {spec.title}: only its own script can train it, with lottery.tickets")
    named: list[tuple[str, str, Collection[str]]] = [
        ("data set", spec.data.name, DATASETS),
        ("data.scaling", spec.data.scaling, SCALINGS),
        ("model.init", spec.model.init, models.INITS),
    ]
    for setting, name, registry in named:
        if name not in registry:
            raise LotteryError(known(setting, name, registry))
    check_method(spec)
    data = dataset(spec.data.name)
    if data.dtype != "uint8" and spec.data.scaling != "standardize":
        remedy = f"is for images of bytes, and those of {data.name} are {data.dtype}: use standardize"
        raise LotteryError(f"data.scaling = {spec.data.scaling!r}: {remedy}")
    if spec.data.validation >= data.train:
        raise LotteryError(f"data.validation = {spec.data.validation}: {data.name} has {data.train} training images")
    recipe, left = spec.recipe, data.train - spec.data.validation
    if recipe.drop_last and recipe.batch_size > left:
        raise LotteryError(f"recipe.batch_size = {recipe.batch_size}: with drop_last, {left} images make no batch")
    network = models.network(spec.model, data.shape, data.classes)
    criteria.rates(spec.pruning, network.prunable)
    return network


def check_method(spec: Spec) -> None:
    """Raises LotteryError for a criterion or a start rule that no registry has, or draws of one that draws nothing."""
    named: list[tuple[str, str, Collection[str]]] = [
        ("pruning.criterion", spec.pruning.criterion, criteria.CRITERIA),
        ("start", spec.start, STARTS),
        *(("branch", name, STARTS) for name in spec.draws),
    ]
    for setting, name, registry in named:
        if name not in registry:
            raise LotteryError(known(setting, name, registry))
    for name, draws in spec.draws.items():
        if draws > 1 and not STARTS[name].random:
            raise LotteryError(f"branches = '{name}:{draws}': {name} draws nothing at random, so give {name} alone")


@dataclass(frozen=True)
class Wanted:
    """An experiment that is to be carried out."""

    spec: Spec
    path: Path
    """Its run directory."""
    name: str = ""
    """What people call it: kept in run.json; no result depends on it."""
    progress: Callable[[Progress], None] | None = None
    """Called with what it tells while it is worked on."""


def run(
    spec: Spec | str | Path,
    *,
    runs_dir: Path | str = "runs",
    data_dir: Path | str | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int = 1,
    name: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Runs what is missing of an experiment, and returns its run directory, `runs_dir`/`spec.uid`.

    The experiment is a spec, or the preset or TOML file of that name. `name` is what people call it: it is kept in
    run.json, whatever opens a run finds it by it, and no result depends on it.

    Interrupted at any moment and called again, it continues; the finished run has the same bytes as one that was never
    interrupted, but for the seconds it took. What is there already is read and verified, all of it. With `jobs` > 1,
    replicates train in as many processes, and so do the branches of those that are trained (a script then needs the
    usual `if __name__ == "__main__":`).

    Raises LotteryError, before any work is done, for bad settings, missing data, or a run directory that is in use, is
    damaged, or was begun with other settings; and LotteryError naming replicate, level and iteration if a loss is not
    finite.
    """
    if isinstance(spec, str | Path):
        spec = load_spec(spec)
    check_type("spec", spec, Spec)
    check_type("runs_dir", runs_dir, Path)
    wanted = Wanted(spec, Path(runs_dir) / spec.uid, name, progress)
    return run_all([wanted], data_dir=data_dir, engine=engine, device=device, jobs=jobs)[0]


def run_all(
    experiments: Sequence[Wanted],
    *,
    data_dir: Path | str | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int = 1,
) -> list[Run]:
    """Runs what is missing of several experiments at once, as `run` does of one, and returns their run directories.

    All are checked, locked and verified before any work is done. Chains of all of them train side by side, longest
    first; one that fails stops no other.

    Args:
        experiments: what is wanted; no two in one directory.
        data_dir: as the others, see `run`.
        engine: what trains.
        device: where.
        jobs: chains at once.

    Raises:
        LotteryError: as `run`, for the first that it is true of.
    """
    if data_dir is not None:
        check_type("data_dir", data_dir, Path)
    for argument, value, kind in (("engine", engine, str), ("device", device, str), ("jobs", jobs, int)):
        check_type(argument, value, kind)
    if not 1 <= jobs <= 10_000:
        raise LotteryError(f"jobs = {shown(jobs)}: must be at least 1, and at most 10,000")
    if data_dir is not None and not os.path.isdir(data_dir):
        raise LotteryError(f"data-dir = {str(data_dir)!r}: there is no such folder")
    checked = [_check_wanted(wanted, engine, device, jobs) for wanted in experiments]
    raws: dict[str, Raw] = {}
    with ExitStack() as locks:
        begun = []
        for ready in checked:
            store.check_name(ready.wanted.name, ready.wanted.path)
            locks.enter_context(store.lock(ready.wanted.path))
            data = ready.wanted.spec.data.name
            if data not in raws:
                raws[data] = load(data, Path(data_dir) if data_dir else None)
            begun.append(ready.begin(raws[data], jobs))
        chains = [(work, place) for work in begun for place in work.unfinished]
        alone = jobs == 1 or len(chains) == 1
        tasks = _tasks(chains, raws if alone else data_dir)
        raws.clear()
        if alone:
            runners.here(tasks)
        else:
            runners.processes(tasks, jobs)
        for work in begun:
            work.finish()
    return [work.run for work in begun]


@dataclass(frozen=True)
class _Checked:
    """An experiment that can be carried out, as far as can be told without its data and its directory."""

    wanted: Wanted
    network: Network
    used: code.Code
    engine: str
    device: str

    def begin(self, raw: Raw, jobs: int) -> "_Begun":
        """Begins or opens the run, whose lock is held, and reads all that is there."""
        wanted, used = self.wanted, self.used
        images = {"train": len(raw.train_labels), "test": len(raw.test_labels)}
        binding = {"engine": self.engine, "device": self.device, "data": raw.sha256, "images": images}
        binding |= {"network": self.network.to_json()}
        session, spec = this_session(jobs), replace(wanted.spec, use=used.copies)
        used.keep(wanted.path)
        if used.sources:
            binding["code"], session["use"] = used.sums, dict(used.origins)
        run = Run.begin(wanted.path, spec, binding, session, wanted.name)
        run.clean()
        for place in run.places():
            run.read(place)  # all of it, first: nothing is built upon damage, nor called complete
        for place in run.places(ending=files.PARTIAL):
            checkpoints.reached(run, place)
        run.write_table()
        return _Begun(wanted, run, spec, self.engine, self.device, run.unfinished(spec))


def _check_wanted(wanted: Wanted, engine: str, device: str, jobs: int) -> _Checked:
    spec = wanted.spec
    used = code.read(spec.use)
    used.check_same(wanted.path)  # before it is imported
    code.load(used)
    network = check(spec)
    if not (wanted.progress is None or callable(wanted.progress)):
        raise LotteryError(f"progress = {shown(wanted.progress)}: must be a function of one Progress, or None")
    if jobs > 1:
        code.check_workers(spec)
    device = engines.resolve_device(device)
    return _Checked(wanted, network, used, engines.choose(engine, network, spec.recipe, device), device)


@dataclass(frozen=True)
class _Begun:
    """A run that is locked and verified."""

    wanted: Wanted
    run: Run
    spec: Spec
    engine: str
    device: str
    unfinished: list[Place]
    """Where its chains go on."""

    def heard(self, event: Progress) -> None:
        """Notes what was finished, and tells who listens."""
        path = self.run.path
        if event.row:
            if not (path / "run.json").is_file():  # to save a level is to make its folders
                raise LotteryError(f"{path} was deleted or moved while it was worked on: run again to make it anew")
            self.run.write_table()
        if self.wanted.progress:
            self.wanted.progress(event)

    def finish(self) -> None:
        """Raises LotteryError for levels that have vanished."""
        if gone := self.run.unfinished(self.spec):
            folder, path = self.run.folder(gone[0]), self.run.path
            raise LotteryError(f"{folder} was deleted or moved while {path} was worked on: run again to make it anew")
        self.run.write_table()


def _tasks(chains: list[tuple[_Begun, Place]], source: Mapping[str, Raw] | Path | str | None) -> list[runners.Task]:
    """A task for each chain: the trunks first, longest first, then what waits for them.

    Args:
        chains: runs, and where in them a chain goes on.
        source: the images by the name of the data set, or the folder that a worker loads them from.
    """

    def order(chain: tuple[_Begun, Place]) -> tuple[bool, int]:
        work, place = chain
        return place.branch != work.spec.start, -(work.spec.levels + 1 - place.level) * work.spec.recipe.iterations

    tasks: list[runners.Task] = []
    trunks: dict[tuple[Path, int], int] = {}
    for work, place in sorted(chains, key=order):
        images = source[work.spec.data.name] if isinstance(source, Mapping) else source
        trunk = place.branch == work.spec.start
        after = None if trunk else trunks.get((work.run.path, place.replicate))
        if trunk:
            trunks[work.run.path, place.replicate] = len(tasks)
        arguments = (work.run.path, place, work.spec.levels, images, work.engine, work.device)
        tasks.append(runners.Task(train_branch, arguments, work.heard, after=after))
    return tasks


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
    replicate = Replicate(run, check(run.spec), first.replicate, raw, engines.trainer(engine, device), emit)
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

        def report(iteration: int, test_accuracy: float) -> None:
            done = (iteration - start.first) / (last - start.first)
            self.emit(Progress(place, iteration, test_accuracy, done=done))

        try:
            trained = self.engine(self.network, self.data, start, recipe, report, keep, checkpoint)
        except engines.LossNotFinite as error:
            raise LotteryError(f"{place}: {error}; what was finished is kept") from None
        for tensor, weight in trained.weights.items():
            if not np.isfinite(weight).all():
                raise LotteryError(f"{place}: trained {tensor} is not finite; nothing saved")
        row = to_row(place, last, start, trained)
        self.run.save(SavedLevel(start.weights, start.masks, trained.weights, trained.history, row, trained.early))
        checkpoint.remove()
        self.emit(Progress(place, last, trained.history["test_accuracy"][-1].item(), row, done=1.0))
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


def this_session(jobs: int) -> dict[str, Any]:
    """Provenance of what is made now: versions, machine, command."""
    libraries = ("lottery", "torch", "numpy", "numba", "safetensors")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "jobs": jobs,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
