"""A sweep: experiments that differ in a few settings, as runs in one folder.

    <sweep>/sweep.toml         what was asked: each run's folder, and its values of the settings in which they differ
    <sweep>/specs/<run>.toml   each run's spec, which `lottery run` reads: a task for a cluster
    <sweep>/<run>/             a run directory, see `lottery.runs.store`
    <sweep>/runs.csv           a row for each run (derived)
    <sweep>/levels.csv         a row for each level of each run (derived)
    <sweep>/report.html        the page that compares them (derived)

The folder is called sweep-<name>, or by a hash of what it holds: asked for again, a sweep goes on.
"""

import hashlib
import os
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from lottery.errors import LotteryError, check_type
from lottery.runs import code, experiment, files, store
from lottery.runs.experiment import Progress, Wanted
from lottery.runs.store import Run
from lottery.spec import EXTENT, Spec, check_count, differing, flatten

if TYPE_CHECKING:
    import pandas as pd

SPECS, TABLE, LEVELS, REPORT = "specs", "runs.csv", "levels.csv", "report.html"

PREFIX = "sweep-"
"""How the name of a sweep's folder begins."""


@dataclass(frozen=True)
class Sweep:
    """Experiments of one folder, trained or not."""

    path: Path
    specs: tuple[Spec, ...]
    """In the order in which they were asked for."""

    @property
    def settings(self) -> list[str]:
        """Dotted names of the settings in which they differ."""
        return differing([flatten(spec) for spec in self.specs])

    @property
    def runs(self) -> list[Run]:
        """Those that are begun, in order. Raises LotteryError for a damaged one."""
        folders = (self.path / spec.uid for spec in self.specs)
        return [Run(folder) for folder in folders if files.there(folder / store.RECORD)]

    def table(self, margin: float | None = None) -> "pd.DataFrame":
        """One row per run that is begun: `run` (its folder), a column per setting by its dotted name, then what came
        out: `finished`, `dense_accuracy`, `verdict`, `level`, `density` and `accuracy` of the sparsest ticket shown to
        win or to match, `seconds`, `answer`.

        Args:
            margin: percentage points that a matching ticket may be less accurate than the dense network; one standard
                error of each run's dense accuracy if None.
        """
        from lottery.analysis.outcomes import outcomes

        return outcomes(self.runs, self.settings, margin)

    def write(self) -> None:
        """Writes what was asked for, each file whole or not at all."""
        names = self.settings
        values = [(spec.uid, flatten(spec)) for spec in self.specs]
        runs = [{"run": uid, **{name: each[name] for name in names}} for uid, each in values]
        (self.path / SPECS).mkdir(parents=True, exist_ok=True)
        for spec in self.specs:
            files.write(self.path / SPECS / f"{spec.uid}.toml", spec.to_toml().encode())
        files.write(self.path / store.SWEEP, (tomli_w.dumps({"runs": runs}).rstrip() + "\n").encode())

    @staticmethod
    def open(path: Path | str) -> "Sweep":
        """The sweep in that folder. Raises LotteryError where there is none, or its files are damaged."""
        check_type("path", path, Path)
        path = Path(path)
        if not files.there(path / store.SWEEP):
            raise LotteryError(f"{path} is no sweep: it has no {store.SWEEP}")
        data = files.read(path / store.SWEEP)
        with files.parsing(path / store.SWEEP):
            names = [str(run["run"]) for run in tomllib.loads(data.decode())["runs"]]
        specs = []
        for file in (path / SPECS / f"{name}.toml" for name in names):
            data = files.read(file)
            with files.parsing(file):
                specs.append(Spec.from_toml(data.decode()))
        return Sweep(path, tuple(specs))


def plan(specs: Sequence[Spec], runs_dir: Path | str = "runs", name: str = "") -> Sweep:
    """The sweep of these experiments; nothing is written.

    Args:
        specs: two or more.
        runs_dir: where its folder is, or will be.
        name: what people call it; a hash of what it holds if empty.

    Raises:
        LotteryError: for fewer experiments or too many, two that would be one run, settings that no registry has, and a
            name of which there is another sweep.
    """
    check_type("runs_dir", runs_dir, Path)
    check_type("name", name, str)
    check_count(len(specs))
    for spec in specs:
        check_type("specs", spec, Spec)
        code.load(code.read(spec.use))
        experiment.check(spec)
    specs = [replace(spec, use=tuple(map(os.path.abspath, spec.use))) for spec in specs]  # specs/ lies elsewhere
    if len(specs) < 2:
        raise LotteryError("nothing has several values: give two or more of a setting, such as --seed 0 1; else: run")
    _check_apart(specs)
    digest = hashlib.sha256("\n".join(sorted(spec.uid for spec in specs)).encode()).hexdigest()[:8]
    path = Path(runs_dir) / f"{PREFIX}{name.removeprefix(PREFIX) or digest}"
    store.check_name(name, path)
    if files.there(path / store.SWEEP):
        ours = {spec.uid for spec in specs}
        others = [run.path.name for run in Sweep.open(path).runs if run.path.name not in ours]
        if others:
            raise LotteryError(
                f"{path} holds other runs too, such as {others[0]}: choose another name, or ask for all of them"
            )
    return Sweep(path, tuple(specs))


def _check_apart(specs: Sequence[Spec]) -> None:
    """Raises LotteryError for two specs that are one run."""
    uid, count = Counter(spec.uid for spec in specs).most_common(1)[0]
    if count == 1:
        return
    one, other, *_ = (spec for spec in specs if spec.uid == uid)
    if more := [name for name in EXTENT if name in one.differences(other)]:
        raise LotteryError(
            f"combinations that differ only in {' and '.join(more)} are one run, {uid}, of which that says how much is "
            "wanted: ask for the most of it"
        )
    raise LotteryError(f"{count} combinations are the same experiment, {uid}: give each value once")


def find(name: str, runs_dir: Path) -> Sweep | None:
    """The sweep of that path, or of that name in `runs_dir`, with or without sweep-; None where there is none."""
    for path in (Path(name), runs_dir / name, runs_dir / f"{PREFIX}{name}"):
        if name and files.there(path / store.SWEEP):
            return Sweep.open(path)
    return None


def run(sweep: Sweep, progress: Callable[[Spec, Progress], None] | None = None, **how: Any) -> None:
    """Trains what is missing of a sweep, all of its chains side by side.

    Args:
        sweep: as `plan` gives it.
        progress: called with each event and the spec that it is of.
        how: data_dir, engine, device, jobs and whatever else `experiment.run_all` takes.

    Raises:
        LotteryError: as `experiment.run_all` does.
    """

    def heard(spec: Spec) -> Callable[[Progress], None] | None:
        return (lambda event: progress(spec, event)) if progress else None

    new = not files.there(sweep.path)
    sweep.write()
    try:
        experiment.run_all([Wanted(spec, sweep.path / spec.uid, progress=heard(spec)) for spec in sweep.specs], **how)
    except LotteryError:
        if new and not sweep.runs:  # refused before any work
            shutil.rmtree(sweep.path)
        raise
