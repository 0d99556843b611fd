"""Binds a spec to data, model, loop, engine and store: the only place where they meet."""

import os
import platform
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lottery import criteria, engines, history, masks, models, runners, store
from lottery.data import DATASETS, SCALINGS, Raw, load, split
from lottery.errors import LotteryError, known
from lottery.loop import Level, levels
from lottery.seeds import stream
from lottery.spec import Spec
from lottery.starts import STARTS, Start, Trunk
from lottery.store import Run, SavedLevel


@dataclass(frozen=True)
class Progress:
    """What `run` tells while it works: after every evaluation, and when a level is on disk."""

    branch: str
    replicate: int
    level: int
    draw: int
    iteration: int
    test_accuracy: float
    """Fraction."""
    row: store.Row | None = None
    """The level's row in levels.csv, once it is on disk."""
    note: str = ""
    """What keeps the first iteration waiting."""


def check(spec: Spec) -> models.Layout:
    """The network's layout. Raises LotteryError for a name that no registry has or a pattern that matches nothing."""
    named: list[tuple[str, str, Collection[str]]] = [
        ("data set", spec.data.name, DATASETS),
        ("data.scaling", spec.data.scaling, SCALINGS),
        ("model.init", spec.model.init, models.INITS),
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
    if spec.data.validation >= (images := DATASETS[spec.data.name].train):
        raise LotteryError(f"data.validation = {spec.data.validation}: {spec.data.name} has {images} training images")
    spec.check_types()
    recipe, left = spec.recipe, images - spec.data.validation
    if recipe.drop_last and recipe.batch_size > left:
        raise LotteryError(f"recipe.batch_size = {recipe.batch_size}: with drop_last, {left} images make no batch")
    layout = models.mlp(sizes(spec))
    criteria.rates(spec.pruning, (name for name, tensor in layout.items() if tensor.prunable))
    return layout


def sizes(spec: Spec) -> tuple[int, ...]:
    """Units per layer of the spec's network."""
    data = DATASETS[spec.data.name]
    return models.sizes(spec.model, int(np.prod(data.shape)), data.classes)


def run(
    spec: Spec,
    *,
    runs_dir: Path | str = "runs",
    data_dir: Path | str | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Runs what is missing of an experiment and returns its run directory, `runs_dir`/`spec.uid`.

    Interrupted at any moment and called again, it continues; the finished run has the same bytes as one that was never
    interrupted, but for the seconds it took. With `jobs` > 1, replicates train in as many processes, and so do the
    branches of those that are trained (a script then needs the usual `if __name__ == "__main__":`).

    Raises LotteryError, before any work is done, for bad settings, missing data, or a run directory that is in use or
    was begun with other settings; and LotteryError naming replicate, level and iteration if a loss is not finite.
    """
    check(spec)
    if jobs < 1:
        raise LotteryError(f"jobs = {jobs}: must be at least 1")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise LotteryError(f"data-dir = {str(data_dir)!r}: there is no such folder")
    device = engines.resolve_device(device)
    engine = engines.resolve(engine, device)
    path = Path(runs_dir) / spec.uid
    with store.lock(path):
        raw = load(spec.data.name, Path(data_dir) if data_dir else None)
        binding = {"engine": engine, "device": device, "data": raw.sha256}
        result = Run.begin(path, spec, binding, _session())
        result.clean()
        unfinished = result.unfinished(spec)
        tasks = [
            runners.Task(
                train_branch,
                (path, *task, spec.levels, raw, engine, device),
                after=unfinished.index(trunk) if task != trunk and trunk in unfinished else None,
            )
            for task in unfinished
            for trunk in [(spec.start, task[1], 0)]
        ]
        result.write_table()

        def emit(event: Progress) -> None:
            if event.row:
                result.write_table()
            if progress:
                progress(event)

        if jobs == 1 or len(tasks) == 1:
            runners.here(tasks, emit)
        else:
            runners.processes(tasks, emit, jobs)
        result.write_table()
    return result


def train_branch(
    path: Path,
    branch: str,
    replicate: int,
    draw: int,
    count: int,
    raw: Raw,
    engine: str,
    device: str,
    emit: runners.Emit,
) -> None:
    """One branch (or the trunk) of one replicate up to level `count`: what is on disk is read and verified, the rest
    trained and saved. A branch needs the trunk's levels, and repeats none of their training."""
    result = Run(path)
    spec = result.spec
    key = (spec.seed, replicate)
    layout = check(spec)
    data = split(raw, spec.data.scaling, spec.data.validation, stream(*key, "split"))
    if note := engines.slow_start(engine):
        emit(Progress(branch, replicate, 0, draw, 0, float("nan"), note=note))
    train_engine = engines.engine(engine, device)

    def fresh(rng: np.random.Generator) -> masks.Weights:
        return models.initial_weights(layout, spec.model.init, rng, spec.model.std)

    def train(branch: str, draw: int, level: int, start: Start) -> masks.Weights:
        where = branch, replicate, level, draw
        name = f"{branch}, replicate {replicate}, level {level}" + (f", draw {draw}" if draw else "")
        if result.has(*where):
            saved = result.load(*where)
            _check_same_start(saved, start, result.level_path(*where))
            return saved.trained

        def report(iteration: int, test_accuracy: float) -> None:
            emit(Progress(*where, iteration, test_accuracy))

        try:
            trained = train_engine(sizes(spec), data, start, spec.recipe, report)
        except engines.LossNotFinite as error:
            raise LotteryError(f"{name}: {error}; what was finished is kept") from None
        for tensor, weight in trained.weights.items():
            if not np.isfinite(weight).all():
                raise LotteryError(f"{name}: trained {tensor} is not finite; nothing saved")
        row = _row(*where, spec.recipe.iterations, start, trained)
        result.save(
            branch,
            replicate,
            level,
            SavedLevel(start.weights, start.masks, trained.weights, trained.history, row),
            draw,
        )
        emit(Progress(*where, spec.recipe.iterations, row["test_accuracy"], row))
        return trained.weights

    def prune(level: Level) -> masks.Masks:
        rng = stream(*key, "criterion", level.number)
        evidence = criteria.Evidence(level.start.weights, level.trained, level.start.masks, rng)
        return criteria.prune(evidence, spec.pruning)

    def chain(rule: str) -> Iterator[Level]:
        """The level loop under that rule. The dense network is always the trunk's."""
        prunable = [name for name, tensor in layout.items() if tensor.prunable]

        def train_level(level: int, start: Start) -> masks.Weights:
            return train(rule if level else spec.start, 0, level, start)

        initial = fresh(stream(*key, "weights"))
        return levels(initial, prunable, count, STARTS[rule].start, train_level, prune, key, fresh)

    if branch == spec.start or STARTS[branch].own_trunk:
        for _ in chain(branch):
            pass
        return
    dense: Level | None = None
    before: Level | None = None
    for level in chain(spec.start):
        if dense and before:
            state = Trunk(
                key, level.number, dense.start.weights, level.start.masks, dense.trained, before.trained, fresh, draw
            )
            train(branch, draw, level.number, STARTS[branch].start(state))
        dense, before = dense or level, level


def _check_same_start(saved: SavedLevel, start: Start, path: Path) -> None:
    for kind, ours, theirs in (("weights", start.weights, saved.start), ("mask", start.masks, saved.masks)):
        for name, array in ours.items():
            if name not in theirs or array.tobytes() != theirs[name].tobytes():
                raise LotteryError(
                    f"{path}: its ticket's {kind} of {name} are not what this version makes from the levels before; "
                    "delete the folder and those of later levels, or use another --runs-dir"
                )


def _row(
    branch: str, replicate: int, level: int, draw: int, iterations: int, start: Start, trained: engines.Trained
) -> dict[str, Any]:
    columns, best = trained.history, history.early_stop(trained.history)
    density = masks.density(start.masks)
    early: list[Any] = [None, None, None]
    if best is not None:
        early = [columns[c][best].item() for c in ("iteration", "test_accuracy", "validation_loss")]
    return {
        "branch": branch,
        "replicate": replicate,
        "level": level,
        "density": density,
        "sparsity": 1 - density,
        "iterations": iterations,
        "early_stop_iteration": early[0],
        "test_accuracy_early_stop": early[1],
        "test_accuracy": columns["test_accuracy"][-1].item(),
        "validation_loss_min": early[2],
        "seconds": round(trained.seconds, 3),
        "train_accuracy": trained.train_accuracy,
        "engine": trained.engine,
        "draw": draw,
        **{f"density:{name}": masks.density({name: mask}) for name, mask in start.masks.items()},
    }


def _session() -> dict[str, Any]:
    libraries = ("lottery", "torch", "numpy", "numba", "safetensors")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
