"""Times the commands on a run of 10,000 levels: CPU seconds and memory of each, as a whole process.

    python -m benchmarks.scale                                     the table
    python -m benchmarks.scale --output benchmarks/RESULTS.md      writes it there

The run is a made-up one: a network of 784, 16 and 10 units, 200 times pruned by 3 %, 50 replicates. Nothing is trained,
but all is bound, saved and sealed by the store itself, so that the commands read and verify it as any other. It takes a
gigabyte, in a temporary folder or in the one that is named.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import numpy as np
import tyro

from benchmarks.results import rewrite
from lottery import engines
from lottery.data import load
from lottery.engines import Trained, history
from lottery.masks import Masks, Weights
from lottery.runs import experiment
from lottery.runs.machine import this_session
from lottery.runs.replicate import to_row
from lottery.runs.rows import Place
from lottery.runs.store import Run, SavedLevel, lock
from lottery.spec import Data, Model, Pruning, Recipe, Spec
from lottery.starts import Start

COMMANDS = {
    "list": (["list"], 2),
    "show": (["show", "{run}"], 5),
    "verify": (["verify", "{run}"], None),
    "report": (["report", "{run}"], 20),
    "run (complete already)": (["run", "{spec}", "--jobs", "1"], 10),
}
"""Name -> arguments, and the most CPU seconds that it should take, of 10,000 levels."""


@dataclass(frozen=True)
class Options:
    """Time the commands on a run of very many levels."""

    levels: int = 200
    """Times that the network is pruned."""

    replicates: int = 50
    """Of all of it."""

    branch: bool = False
    """Half the replicates, and `reinit` at each level instead."""

    evaluations: int = 20
    """Of each level."""

    only: tuple[str, ...] = tuple(COMMANDS)
    """Commands to time."""

    folder: Path | None = None
    """Where the run is made, or found if it is there."""

    output: Path | None = None
    """Markdown file to write the table to."""


def spec_of(options: Options) -> Spec:
    """What the run would be of."""
    return Spec(
        Data("mnist-5k", validation=500),
        Model("mlp", hidden=(16,)),
        Recipe(iterations=10 * options.evaluations, evaluate_every=10),
        Pruning(rate=0.03, layer_rates={"fc2.weight": 0.015}),
        levels=options.levels,
        replicates=max(1, options.replicates // (2 if options.branch else 1)),
        branches=("reinit",) if options.branch else (),
    )


def make(spec: Spec, runs_dir: Path) -> Run:
    """The run, every level saved as `lottery run` would."""
    network, raw = experiment.check(spec), load(spec.data.name)
    images = {"train": len(raw.train_labels), "test": len(raw.test_labels)}
    engine = engines.choose("auto", network, spec.recipe, "cpu")
    binding = {"engine": engine, "device": "cpu", "data": raw.sha256, "images": images, "network": network.to_json()}
    path = runs_dir / spec.uid
    with lock(path), mock.patch.object(os, "fsync"):  # what is made here can be made again
        run = Run.begin(path, spec, binding, this_session(jobs=1))
        for saved in _levels(run, engine):
            run.save(saved)
        run.write_table()
    return run


def _levels(run: Run, engine: str) -> Iterator[SavedLevel]:
    """Weights and curves that look like some."""
    spec, shapes = run.spec, {name: tensor.shape for name, tensor in run.network.tensors.items()}
    for replicate in range(spec.replicates):
        rng = np.random.default_rng(replicate)
        theta = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
        ranks = {name: rng.permutation(theta[name].size).reshape(shapes[name]) for name in run.network.prunable}
        for level in range(spec.levels + 1):
            kept = {name: (0.985 if name == "fc2.weight" else 0.97) ** level for name in ranks}
            masks = {name: rank < max(1, round(rank.size * kept[name])) for name, rank in ranks.items()}
            for branch in (spec.start, *spec.draws) if level else [spec.start]:
                yield _level(Place(branch, replicate, level), _start(theta, masks), spec, engine, rng)


def _start(theta: Weights, masks: Masks) -> Start:
    return Start({n: w * masks[n] if n in masks else w for n, w in theta.items()}, masks, ("order",))


def _level(place: Place, start: Start, spec: Spec, engine: str, rng: np.random.Generator) -> SavedLevel:
    moved = {n: np.asarray(w + rng.normal(0, 0.05, w.shape), np.float32) for n, w in start.weights.items()}
    weights = {n: w * start.masks[n] if n in start.masks else w for n, w in moved.items()}
    accuracy = 0.95 - 0.25 * (place.level / 200) ** 4 - 0.02 * (place.branch != spec.start)
    at = np.arange(spec.recipe.evaluate_every, spec.recipe.iterations + 1, spec.recipe.evaluate_every)
    curve = accuracy * (1 - np.exp(-at / 40)) + rng.normal(0, 0.003, len(at))
    columns = [at, 2 * (1 - curve), 2.1 * (1 - curve), curve, 2.1 * (1 - curve), curve]
    found = history.from_rows([tuple(row) for row in zip(*columns, strict=True)])
    trained = Trained(weights, found, min(1.0, accuracy + 0.04), 0.5, engine)
    row = to_row(place, spec.recipe.iterations, start, trained)
    return SavedLevel(start.weights, start.masks, weights, found, row)


WATCH = """
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print("", used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""A small process that starts the command: one that is started by a large one has its peak of memory at once."""


def measure(arguments: list[str]) -> tuple[float, float, str]:
    """CPU seconds of a command, user and system, its peak of memory in MB, and what it printed."""
    command = [sys.executable, "-S", "-c", WATCH, sys.executable, "-m", "lottery", *arguments]
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    text, _, figures = done.stdout.rstrip().rpartition("\n")
    seconds, memory, code = map(float, figures.split())
    if code:
        sys.exit(f"lottery {' '.join(arguments)} failed: {done.stderr}")
    return seconds, memory / 1024, text


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        runs_dir, spec = folder / "runs", spec_of(options)
        (folder / "spec.toml").write_text(spec.to_toml())
        began, load = time.process_time(), os.getloadavg()[0]
        if not (runs_dir / spec.uid / "run.json").is_file():
            make(spec, runs_dir)
        run = Run(runs_dir / spec.uid)
        count = len(run.places())
        print(f"{count:,} levels in {run.path}, made in {time.process_time() - began:.0f} CPU seconds", flush=True)
        rows = []
        for name in options.only:
            arguments, bound = COMMANDS[name]
            words = [word.format(run=run.path, spec=folder / "spec.toml") for word in arguments]
            seconds, memory, text = measure([*words, *(["--runs-dir", str(runs_dir)])])
            rows.append(f"| `lottery {name}` | {seconds:.1f} | {bound or '–'} | {memory:,.0f} |")
            print(rows[-1], f"{len(text):,} characters", flush=True)
        page = run.path / "report.html"
        size = f" The report has {page.stat().st_size / 1e6:.1f} MB." if page.is_file() else ""
    if options.output:
        what = f"{spec.replicates} replicates of {spec.levels + 1} levels" + (" and `reinit`" if options.branch else "")
        section = [
            f"`python -m benchmarks.scale`, {datetime.now(UTC):%Y-%m-%d}. A made-up run of {count:,} levels ({what}, "
            f"784-16-10 units, {options.evaluations} evaluations each), every command a process of one "
            f"thread, at a load average of {load:.1f} on {os.cpu_count()} cores.{size}",
            "| command | CPU seconds | bound | peak of memory, MB |\n| --- | ---: | ---: | ---: |\n" + "\n".join(rows),
        ]
        rewrite(options.output, "scale with branches" if options.branch else "scale", "\n\n".join(section))


if __name__ == "__main__":
    main(tyro.cli(Options))
