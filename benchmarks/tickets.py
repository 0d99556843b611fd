"""Real tickets to time the training of: the masks of a short run of our own level loop, kept in the user's cache.

Real masks have structure that random ones lack (dead pixels, hidden units that lost everything), and kernels that skip
what is pruned feel it. A short run's masks have less of it than a full one's: see --ticket-iterations.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pooch

from lottery.masks import density
from lottery.runs import experiment
from lottery.runs.store import Run
from lottery.spec import PRESETS, Spec
from lottery.starts import Start, Trunk, rewind

LEVELS = 20
"""Times that the paper's schedule prunes."""

SPEC = PRESETS["lenet-mnist"]


def make(iterations: int, data_dir: Path | None, progress: Callable[[experiment.Progress], None]) -> Run:
    """The run with the tickets of all levels; trained if the cache hasn't got it, `iterations` per level."""
    recipe = replace(SPEC.recipe, iterations=iterations, evaluate_every=iterations)
    spec = replace(SPEC, recipe=recipe, levels=LEVELS)
    runs_dir = Path(pooch.os_cache("lottery")) / "benchmarks"
    return experiment.run(spec, runs_dir=runs_dir, data_dir=data_dir, device="cpu", progress=progress)


def start(run: Run, level: int) -> Start:
    """Where that level's training begins."""
    initial = run.load(run.spec.start, 0, 0).start
    masks = run.load(run.spec.start, 0, level).masks
    return rewind(Trunk(key(run.spec), level, initial, masks))


def densities(run: Run) -> list[float]:
    """Fraction of the weights that is kept, by level."""
    return [density(run.load(run.spec.start, 0, level).masks) for level in range(LEVELS + 1)]


def key(spec: Spec) -> tuple[int, int]:
    return spec.seed, 0
