"""What experiments will take, before they are begun."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lottery.errors import LotteryError
from lottery.runs import experiment, store
from lottery.runs.rows import Place, wanted
from lottery.runs.store import Run
from lottery.spec import Spec


@dataclass(frozen=True)
class Cost:
    """Seconds of one core."""

    total: float
    missing: float
    """Of the levels that are not on disk."""
    measured: bool
    """Scaled by what levels on disk took here; else by what they take on the machine of benchmarks/RESULTS.md."""


MEASURED = "what finished levels took here"
REFERENCE = "what levels take on the machine of benchmarks/RESULTS.md"
"""Where an estimate is from, in words."""


COST = {0.0: 0.08, 0.012: 0.1, 0.036: 0.17, 0.07: 0.26, 0.211: 0.57, 0.513: 0.93, 1.0: 0.86}
"""Density -> ms per iteration, evaluations included, of the sparse engine for LeNet-300-100 on one core of the
machine of benchmarks/RESULTS.md. Other networks are taken to cost in proportion to their weights, which is rough."""


def cost(chosen: Iterable[Spec], runs_dir: Path, like: Run | None = None) -> Cost:
    """What these runs take, together: an estimate.

    Args:
        chosen: the experiments; those of one run count once.
        runs_dir: where their runs are, or will be.
        like: another run, whose levels say how fast this machine is.
    """
    spent = expected = missing = total = 0.0
    for spec in {spec.uid: spec for spec in chosen}.values():
        path = runs_dir / spec.uid
        seconds = _seconds(Run(path)) if (path / "run.json").is_file() else {}
        for place, estimate in _estimates(spec).items():
            if place in seconds:
                spent, expected = spent + seconds[place], expected + estimate
                total += seconds[place]
            else:
                missing += estimate
    if like and not expected:
        with suppress(LotteryError):  # a damaged run is no reason not to begin another one
            seconds, estimates = _seconds(like), _estimates(like.spec)
            spent, expected = sum(seconds.values()), sum(estimates.get(place, 0.0) for place in seconds)
    missing *= spent / expected if expected else 1.0
    return Cost(total + missing, missing, expected > 0)


def _seconds(run: Run) -> dict[Place, float]:
    return {row.place: row.seconds or 0.0 for row in run.rows()}


def _estimates(spec: Spec) -> dict[Place, float]:
    """Place -> seconds, on the machine of benchmarks/RESULTS.md."""
    factor = experiment.check(spec).weights / 266_200 * spec.recipe.iterations / 1000
    return {
        place: factor * float(np.interp((1 - spec.pruning.rate) ** place.level, list(COST), list(COST.values())))
        for place in wanted(spec)
    }


def alike(spec: Spec, runs_dir: Path) -> Run | None:
    """The newest run of a folder that trains the same network on the same data; None if there is none."""
    found: list[Run] = []
    for name in store.names(runs_dir):
        with suppress(LotteryError):
            run = Run(runs_dir / name)
            if not run.spec.use and (run.spec.data, run.spec.model) == (spec.data, spec.model):
                found.append(run)
    return max(found, key=lambda run: str(run.info["sessions"][0].get("started", "")), default=None)
