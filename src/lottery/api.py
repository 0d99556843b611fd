"""What Python users call: binds runs, analysis and views, as `lottery.cli` does for the shell."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lottery.errors import LotteryError, check_type, shown
from lottery.runs import experiment, store, ticket
from lottery.runs import sweep as sweeps
from lottery.runs.cluster import Ray
from lottery.runs.store import Run
from lottery.runs.sweep import Sweep
from lottery.runs.ticket import Ticket
from lottery.runs.trackers import Logs, Tracker
from lottery.spec import Spec, combinations, load, load_all

if TYPE_CHECKING:  # two seconds
    from torch import Tensor, nn

    from lottery.engines.hold import Held
    from lottery.runs.own import Level

__all__ = ["hold", "load_ticket", "open_run", "report", "run", "sweep", "tickets"]


def hold(module: "nn.Module", masks: "Mapping[str, np.ndarray | Tensor]") -> AbstractContextManager["Held"]:
    """Keeps pruned weights pruned while a `with` block trains the module, in any loop, with any torch optimizer.

        with lottery.hold(model, masks) as held:
            train(model)

    On entering and after every optimizer step, pruned weights are +0.0. Their gradients are 0 before anything reads
    them, so the norm for clipping and the optimizer's state are those of the kept weights; the state of an optimizer
    that was used before is masked at its first step. The module stays plain: its `state_dict`, copies and pickles have
    nothing more in them, and after the block nothing is left behind. Weights that the block itself copies in
    (`load_state_dict`) are masked at the next step.

    Args:
        module: trains in the block, as itself or wrapped (DistributedDataParallel, torch.compile), and not as a copy.
        masks: name -> boolean array or tensor of the parameter's shape, True = kept, for any of the module's
            parameters, of float64, float32, bfloat16 or float16. Tied tensors have one mask, under any of their names.

    Returns:
        A context manager. It gives a `Held`, which counts the optimizer's `steps` and names the tensors that are still
        `untrained`.

    Raises:
        LotteryError: on entering, for a mask that is not boolean, has another shape or no parameter, or for tied
            tensors with two different masks.
    """
    from lottery.engines import hold as engine

    return engine.hold(module, masks)


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
    log: str | Tracker | Sequence[str | Tracker] | None = None,
    progress: bool | Callable[[experiment.Progress], None] = True,
    cluster: Ray | None = None,
) -> Run:
    """Runs what is missing of an experiment, and returns its run directory, `runs_dir`/`spec.uid`.

    Interrupted at any moment and called again, it continues; the finished run has the same bytes as one that was never
    interrupted, but for the seconds it took. What is there already is read and verified, all of it.

    Args:
        spec: the experiment, or the name of a preset, or the path of a spec in TOML.
        runs_dir: where the run's folder is made.
        data_dir: where data sets are looked for first, in folders of their names; then $LOTTERY_DATA, cache, network.
        engine: what trains: sparse, torch, or auto, the first of these that can.
        device: cpu, cuda, or auto.
        jobs: replicates and branches trained at once, each in a process of its own (a script then needs the usual
            `if __name__ == "__main__":`).
        name: what you call the run; `open_run` finds it by that too.
        log: "tensorboard", "wandb", "mlflow", a tracker of your own, or a list of them: told every evaluation and every
            level as it happens, and first what is finished already. One that fails is left out with a warning.
        progress: whether bars are shown, in a terminal or a notebook (plain lines on stderr elsewhere); or a function
            that is called with each event instead.
        cluster: where replicates and branches train instead of here, such as lottery.Ray("auto"): as many at once as it
            has room for, on machines that need no folder in common.

    Raises:
        LotteryError: before any work is done, for bad settings, missing data, no such cluster, more of a replicate
            whose files were dropped, or a run directory that is in use, is damaged, or was begun with other settings;
            and naming replicate, level and iteration for a loss that is not finite.
    """
    if not (isinstance(progress, bool) or callable(progress)):
        raise LotteryError(f"progress = {shown(progress)}: must be True, False, or a function of one Progress")
    spec = load(spec) if isinstance(spec, str | Path) else spec
    check_type("spec", spec, Spec)
    check_type("runs_dir", runs_dir, Path)
    path = Path(runs_dir) / spec.uid
    logs = Logs(log, path)
    with ExitStack() as stack:
        show = progress if callable(progress) else None
        if progress is True:
            from rich.console import Console  # a tenth of a second

            from lottery.views.terminal import Display

            show = stack.enter_context(Display(spec, Console(stderr=True), path))

        stack.enter_context(logs)

        def tell(event: experiment.Progress) -> None:
            if show:
                show(event)
            logs(event)

        return experiment.run(
            spec,
            runs_dir=runs_dir,
            data_dir=data_dir,
            engine=engine,
            device=device,
            jobs=jobs,
            keep=keep,
            name=name,
            progress=tell,
            cluster=cluster,
        )


def sweep(
    specs: Spec | str | Path | Sequence[Spec],
    grid: Mapping[str, Sequence[object]] | None = None,
    *,
    name: str = "",
    runs_dir: Path | str = "runs",
    data_dir: Path | str | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int = 1,
    keep: str = "all",
    cluster: Ray | None = None,
    margin: float | None = None,
    log: str | Tracker | Sequence[str | Tracker] | None = None,
    progress: bool | Callable[[Spec, experiment.Progress], None] = True,
) -> Sweep:
    """Runs what is missing of several experiments in one folder, `runs_dir`/sweep-`name`, and compares them.

        sweep = lottery.sweep("quickstart", {"recipe.learning_rate": [6e-4, 1.2e-3, 2.4e-3], "seed": [0, 1]}, name="lr")
        sweep.table()

    Interrupted at any moment and called again, it goes on; asked for with more values under the same name, it trains
    those. Each run has the same bytes as if `run` had made it. When all are trained, runs.csv (a row per run),
    levels.csv and report.html (which compares them) are written beside them.

    Args:
        specs: an experiment, the name of a preset, the path of a spec in TOML (which may have a table [sweep]), or
            several specs.
        grid: dotted name of a setting -> its values, two or more; every combination is run, of each spec.
        name: what you call it; a hash of what it holds if empty.
        runs_dir: where the sweep's folder is made.
        data_dir: as in `run`, like engine and device.
        engine: what trains.
        device: cpu, cuda, or auto.
        jobs: chains of levels trained at once, of all runs, those that take the longest first.
        keep: what stays of a replicate, as in `run`.
        cluster: where they train instead, as in `run`.
        margin: percentage points that a matching ticket may be less accurate than the dense network; one standard error
            of each run's dense accuracy if None.
        log: trackers of each run, as in `run`.
        progress: whether bars are shown; or a function that is called with each event and the spec that it is of.

    Raises:
        LotteryError: as `run`, for the first that it is true of; and for two combinations that are one experiment.
    """
    if not (isinstance(progress, bool) or callable(progress)):
        raise LotteryError(f"progress = {shown(progress)}: must be True, False, or a function of a Spec and a Progress")
    given = load_all(specs) if isinstance(specs, str | Path) else [specs] if isinstance(specs, Spec) else [*specs]
    for spec in given:
        check_type("specs", spec, Spec)
    if grid:
        given = [made for spec in given for made in combinations(spec.to_table(), grid)]
    planned = sweeps.plan(given, runs_dir, name)
    logs = {spec.uid: Logs(log, planned.path / spec.uid) for spec in planned.specs}
    with ExitStack() as stack:
        show = progress if callable(progress) else None
        if progress is True:
            from rich.console import Console  # a tenth of a second

            from lottery.views.terminal import SweepDisplay

            show = stack.enter_context(SweepDisplay(planned, Console(stderr=True)))

        for each in logs.values():
            stack.enter_context(each)

        def tell(spec: Spec, event: experiment.Progress) -> None:
            if show:
                show(spec, event)
            logs[spec.uid](event)

        how = {"data_dir": data_dir, "engine": engine, "device": device, "jobs": jobs, "keep": keep, "cluster": cluster}
        try:
            sweeps.run(planned, tell, **how)
        except LotteryError:
            if planned.runs:
                with suppress(LotteryError):  # the first error is the one to be told
                    _write_results(planned, margin)
            raise
    _write_results(planned, margin)
    return planned


def _write_results(sweep: Sweep, margin: float | None) -> None:
    """The tables of a sweep, and the page that compares its runs unless they are too many for one."""
    from lottery.analysis.outcomes import levels_of_all  # with pandas and plotly, two seconds
    from lottery.views.measures import LETTERS

    runs = sweep.runs
    for file, frame in ((sweeps.TABLE, sweep.table(margin)), (sweeps.LEVELS, levels_of_all(runs, sweep.settings))):
        store.write(sweep.path / file, frame.to_csv(index=False, lineterminator="\n").encode())
    if len(runs) <= len(LETTERS):
        report(runs, sweep.path / sweeps.REPORT, margin)


def tickets(
    factory: "Callable[[], nn.Module]",
    path: Path | str,
    *,
    rate: float = 0.2,
    levels: int,
    layer_rates: Mapping[str, float] | None = None,
    scope: str = "layer",
    criterion: str = "magnitude",
    prunable: Sequence[str] | None = None,
    replicates: int = 1,
    branches: Sequence[str] = (),
    rewind_to: int = 0,
    optimizer_state: str = "fresh",
    seed: int = 0,
) -> "Iterator[Level]":
    """Winning tickets in a training loop of your own: gives each network to train, and keeps the run at `path`.

        for level in lottery.tickets(Net, "runs/mine", levels=10):
            train(level.model)
            level.record(test_accuracy=evaluate(level.model))

    Level 0 is dense; then `levels` times the lowest-scored weights are pruned, the rest rewound, and that is given to
    train again. While the loop's body runs, pruned weights are +0.0, see `hold`. torch, NumPy and `random` are seeded
    before it, from seed, replicate and level alone. After it the level is checked and saved, whole or not at all:
    called again after an interruption, finished levels are read, verified, and not given again. To go on inside a
    level, and for `rewind_to`, train through `level.steps`.

    Args:
        factory: makes a new network each time, such as a class without arguments, or a lambda around one with
            arguments. It draws its initial weights with torch's own random numbers.
        path: of the run's folder, which `open_run`, `report` and the command line read as any other.
        rate: fraction of the surviving weights that leave after each level.
        levels: times that the network is pruned and trained again.
        layer_rates: name pattern -> another rate.
        scope: layer (weights compete within their layer) or global (across the network).
        criterion: magnitude, random, or another of `lottery.criteria`.
        prunable: name patterns of the tensors that masks cover; the weights of linear layers and of convolutions if
            None.
        replicates: times that all of it is run, each from its own random streams.
        branches: other start rules for each pruned level, such as "reinit" or "reinit:3" (three draws); given after the
            levels of the trunk.
        rewind_to: iteration of the dense training to whose weights tickets are rewound; 0 for the initial weights.
        optimizer_state: what the optimizer of a rewound level begins with: fresh (nothing) or saved (what it had then).
        seed: of every random stream.

    Returns:
        An iterator of levels, each with `model`, `masks`, `number`, `branch`, `replicate`, `draw`, `density`.

    Raises:
        LotteryError: for bad settings at once; then for a run in use, damaged, or begun with other settings, and for a
            level that should not be saved: never trained, a copy trained instead, or not finite. What was finished is
            kept.
    """
    from lottery.runs import own

    return own.tickets(
        factory,
        path,
        rate=rate,
        levels=levels,
        layer_rates=layer_rates,
        scope=scope,
        criterion=criterion,
        prunable=prunable,
        replicates=replicates,
        branches=branches,
        rewind_to=rewind_to,
        optimizer_state=optimizer_state,
        seed=seed,
    )


def open_run(name: Path | str, runs_dir: Path | str = "runs") -> Run:
    """The run of that path, of that name in `runs_dir`, or of the only name there that begins so.

    Raises:
        LotteryError: where there is none, or several.
    """
    check_type("name", name, Path)
    check_type("runs_dir", runs_dir, Path)
    return store.find(str(name), Path(runs_dir))


def load_ticket(path: Path | str) -> Ticket:
    """Reads a ticket from the file that `Ticket.save` or `lottery export` wrote. It runs no code.

    Raises:
        LotteryError: for a file that is missing, no ticket, of a later version, or damaged.
    """
    return ticket.load(path)


def report(runs: Sequence[Run], path: Path | str, margin: float | None = None) -> Path:
    """Writes one HTML page that shows these runs, and returns its path.

    Of a run that is going on, it shows what is finished when this is called.

    Args:
        runs: one, or several to be compared.
        path: of the page.
        margin: percentage points that a matching ticket may be less accurate than the dense network; one standard error
            of an accuracy if None.

    Raises:
        LotteryError: for a folder that is not there, a run given twice, too many runs, or a damaged run.
    """
    if isinstance(runs, Run) or not all(isinstance(run, Run) for run in runs):
        raise LotteryError(f"runs = {shown(runs)}: must be a list of runs, such as [lottery.open_run(name)]")
    check_type("path", path, Path)
    from lottery.studies import claims_of  # with pandas and plotly, two seconds
    from lottery.views.report import write_report

    return write_report([run.now() for run in runs], Path(path), partial(claims_of, margin=margin), margin)
