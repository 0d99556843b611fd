"""Carries out experiments: binds a spec to its data, network, engine and run directory, and makes tasks of what is
missing."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lottery import criteria, engines, models
from lottery.data import DATASETS, SCALINGS, Raw, dataset, load
from lottery.errors import LotteryError, check_type, known, shown
from lottery.models import Network
from lottery.runs import away, checkpoints, code, files, rows, runners, store
from lottery.runs.cluster import Ray, connect
from lottery.runs.machine import this_session
from lottery.runs.replicate import Progress as Progress
from lottery.runs.replicate import train_branch
from lottery.runs.rows import Place
from lottery.runs.store import Run
from lottery.spec import OwnLoop, Spec
from lottery.spec import load as load_spec
from lottery.starts import STARTS


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
    keep: str = "all",
    name: str = "",
    progress: Callable[[Progress], None] | None = None,
    cluster: Ray | None = None,
) -> Run:
    """Runs what is missing of an experiment, and returns its run directory, `runs_dir`/`spec.uid`.

    The experiment is a spec, or the preset or TOML file of that name. `name` is what people call it: it is kept in
    run.json, whatever opens a run finds it by it, and no result depends on it.

    Interrupted at any moment and called again, it continues; the finished run has the same bytes as one that was never
    interrupted, but for the seconds it took. What is there already is read and verified, all of it. With `jobs` > 1,
    replicates train in as many processes, and so do the branches of those that are trained (a script then needs the
    usual `if __name__ == "__main__":`); with `cluster`, they train there.

    `keep` is what stays of a replicate once all its levels are finished: all; tickets, without the trained weights; or
    rows, with the histories alone. It cannot be had back, and such a replicate has no more levels or branches.

    Raises LotteryError, before any work is done, for bad settings, missing data, or a run directory that is in use, is
    damaged, or was begun with other settings; and LotteryError naming replicate, level and iteration if a loss is not
    finite.
    """
    if isinstance(spec, str | Path):
        spec = load_spec(spec)
    check_type("spec", spec, Spec)
    check_type("runs_dir", runs_dir, Path)
    wanted = Wanted(spec, Path(runs_dir) / spec.uid, name, progress)
    return run_all([wanted], data_dir=data_dir, engine=engine, device=device, jobs=jobs, keep=keep, cluster=cluster)[0]


def run_all(
    experiments: Sequence[Wanted],
    *,
    data_dir: Path | str | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int = 1,
    keep: str = "all",
    cluster: Ray | None = None,
) -> list[Run]:
    """Runs what is missing of several experiments at once, as `run` does of one, and returns their run directories.

    All are checked, locked and verified before any work is done. Chains of all of them train side by side, longest
    first; one that fails stops no other.

    Args:
        experiments: what is wanted; no two in one directory.
        data_dir: as the others, see `run`.
        engine: what trains.
        device: where.
        jobs: chains at once, in processes here.
        keep: as in `run`, of each.
        cluster: where they train instead: as many at once as it has room for.

    Raises:
        LotteryError: as `run`, for the first that it is true of; and as `cluster.connect`.
    """
    if data_dir is not None:
        check_type("data_dir", data_dir, Path)
    for argument, value, kind in (("engine", engine, str), ("device", device, str), ("jobs", jobs, int)):
        check_type(argument, value, kind)
    check_type("keep", keep, str)
    if keep not in store.KEEP:
        raise LotteryError(known("keep", keep, store.KEEP))
    if not 1 <= jobs <= 10_000:
        raise LotteryError(f"jobs = {shown(jobs)}: must be at least 1, and at most 10,000")
    if cluster is not None:
        check_type("cluster", cluster, Ray)
    if data_dir is not None and not os.path.isdir(data_dir):
        raise LotteryError(f"data-dir = {str(data_dir)!r}: there is no such folder")
    device = _device_there(cluster, device) if cluster else engines.resolve_device(device)
    checked = [_check_wanted(wanted, engine, device, workers=jobs > 1 or cluster is not None) for wanted in experiments]
    raws: dict[Images, Raw] = {}
    with ExitStack() as locks:
        there = locks.enter_context(connect(cluster)) if cluster else None
        begun = []
        for ready in checked:
            store.check_name(ready.wanted.name, ready.wanted.path)
            locks.enter_context(store.lock(ready.wanted.path))
            if ready.images not in raws:
                code.load(ready.used)  # which may have a data set of that name
                raws[ready.images] = load(ready.wanted.spec.data.name, Path(data_dir) if data_dir else None)
            begun.append(ready.begin(raws[ready.images], there.room() if there else jobs, keep))
        chains = [(work, place) for work in begun for place in work.unfinished]
        if there:
            shared = {images: there.share(raw) for images, raw in raws.items()}
            there.carry_out(_tasks(chains, lambda work, place: work.away(place, shared[work.images])))
        elif jobs == 1 or len(chains) == 1:
            runners.here(_tasks(chains, lambda work, place: work.local(place, raws[work.images])))
        else:
            raws.clear()  # each worker loads its own
            runners.processes(_tasks(chains, lambda work, place: work.local(place, data_dir)), jobs)
        for work in begun:
            work.finish()
    return [work.run for work in begun]


Images = tuple[str, frozenset[tuple[str, str]]]
"""What says which images: the name of the data set, and the code that may have made it."""


@dataclass(frozen=True)
class _Checked:
    """An experiment that can be carried out, as far as can be told without its data and its directory."""

    wanted: Wanted
    network: Network
    used: code.Code
    engine: str
    device: str

    @property
    def images(self) -> Images:
        """Which images it trains on."""
        return self.wanted.spec.data.name, frozenset(self.used.sums.items())

    def begin(self, raw: Raw, jobs: int, keep: str) -> "_Begun":
        """Begins or opens the run, whose lock is held, reads all that is there, and drops what is not to be kept."""
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
            run.check(place)  # all of it, first: nothing is built upon damage, nor called complete
        for place in run.places(ending=files.PARTIAL):
            checkpoints.reached(run, place)
        run.write_table()
        left: dict[int, set[Place]] = defaultdict(set)
        for place in rows.wanted(run.spec):
            if not run.has(place):
                left[place.replicate].add(place)
        for replicate in range(run.spec.replicates):
            if replicate not in left and (keep != "all" or run.dropped(replicate)):
                run.drop(replicate, keep)
        return _Begun(wanted, run, spec, self.images, self.engine, self.device, keep, run.unfinished(spec), left)


def _check_wanted(wanted: Wanted, engine: str, device: str, workers: bool) -> _Checked:
    spec = wanted.spec
    used = code.read(spec.use)
    used.check_same(wanted.path)  # before it is imported
    code.load(used)
    network = check(spec)
    if not (wanted.progress is None or callable(wanted.progress)):
        raise LotteryError(f"progress = {shown(wanted.progress)}: must be a function of one Progress, or None")
    if workers:
        code.check_workers(spec)
    return _Checked(wanted, network, used, engines.choose(engine, network, spec.recipe, device), device)


def _device_there(cluster: Ray, device: str) -> str:
    """What chains train on at a cluster, which may have what this machine has not."""
    if device not in ("auto", "cuda" if cluster.gpus else "cpu"):
        raise LotteryError(
            f"device = {shown(device)}: on a cluster, chains that are given GPUs train on cuda, others on cpu; "
            + ("leave --device out" if cluster.gpus else "use --gpus 1, or a fraction")
        )
    return "cuda" if cluster.gpus else "cpu"


@dataclass(frozen=True)
class _Begun:
    """A run that is locked and verified."""

    wanted: Wanted
    run: Run
    spec: Spec
    images: Images
    engine: str
    device: str
    keep: str
    """Of `store.KEEP`."""
    unfinished: list[Place]
    """Where its chains go on."""
    left: dict[int, set[Place]]
    """Replicate -> the levels that it lacks, of all that the run was ever to have."""

    def heard(self, event: Progress) -> None:
        """Notes what was finished, and tells who listens."""
        path = self.run.path
        if event.row:
            if not (path / "run.json").is_file():  # to save a level is to make its folders
                raise LotteryError(f"{path} was deleted or moved while it was worked on: run again to make it anew")
            if event.place in (left := self.left.get(event.place.replicate, set())):  # else it was told before
                left.remove(event.place)
                self.run.append(event.row)
            if self.keep != "all" and not left:
                self.run.drop(event.place.replicate, self.keep)
            if not left and self.left.pop(event.place.replicate, None) is not None and not self.left:
                self.run.write_table()  # in order: others that are begun with it may take long, or fail
        if self.wanted.progress:
            self.wanted.progress(event)

    def local(self, place: Place, source: Raw | Path | str | None) -> runners.Task:
        """The chain from there on, where the run's folder is.

        source: the images, or the folder that a worker loads them from.
        """
        arguments = (self.run.path, place, self.spec.levels, source, self.engine, self.device)
        return runners.Task(train_branch, arguments, self.heard)

    def away(self, place: Place, images: Any) -> runners.Task:
        """The same where it is not.

        images: what stands for them.
        """
        arguments = (self.run.path.name, place, self.spec.levels, images, self.engine, self.device)
        return runners.Task(
            away.train,
            arguments,
            heard=partial(away.take, self.run, self.heard),
            late=lambda: (away.pack(self.run, place),),
            again=lambda why: self.heard(Progress(place, 0, float("nan"), note=why)),
        )

    def finish(self) -> None:
        """Drops what is left to drop. Raises LotteryError for levels that have vanished."""
        if gone := self.run.unfinished(self.spec):
            folder, path = self.run.folder(gone[0]), self.run.path
            raise LotteryError(f"{folder} was deleted or moved while {path} was worked on: run again to make it anew")
        for replicate, left in self.left.items():
            if self.keep != "all" and left and all(map(self.run.has, left)):  # its worker died before it told
                self.run.drop(replicate, self.keep)
        self.run.write_table()


def _tasks(chains: list[tuple[_Begun, Place]], make: Callable[[_Begun, Place], runners.Task]) -> list[runners.Task]:
    """A task for each chain, given as its run and where in it it goes on: the trunks first, longest first, then what
    waits for them."""

    def order(chain: tuple[_Begun, Place]) -> tuple[bool, int]:
        work, place = chain
        return place.branch != work.spec.start, -(work.spec.levels + 1 - place.level) * work.spec.recipe.iterations

    tasks: list[runners.Task] = []
    trunks: dict[tuple[Path, int], int] = {}
    for work, place in sorted(chains, key=order):
        trunk = work.run.path, place.replicate
        if place.branch == work.spec.start:
            trunks[trunk] = len(tasks)
            tasks.append(make(work, place))
        else:
            tasks.append(replace(make(work, place), after=trunks.get(trunk)))
    return tasks
