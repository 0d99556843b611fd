"""Runs of any network that nothing trained: levels with masks of random weights, saved as a run saves them; and times
that nothing took."""

from pathlib import Path

import numpy as np

from lottery import masks, models
from lottery.data import DATASETS
from lottery.engines import history
from lottery.models import Network
from lottery.runs.rows import Place, Row, wanted
from lottery.runs.store import Run, SavedLevel
from lottery.runs.timings import Cost, Latency, Measured, Spread, record
from lottery.seeds import stream
from lottery.spec import Spec


def saved_run(path: Path, spec: Spec, network: Network | None = None) -> Run:
    """Every level that the spec asks for. Masks are drawn anew for each replicate, the same in every branch."""
    data = DATASETS[spec.data.name]
    network = network or models.network(spec.model, data.shape, data.classes)
    binding = {"engine": "torch", "device": "cpu", "data": {}, "images": {"train": 4500, "test": 500}}
    path.mkdir(parents=True)
    run = Run.begin(path, spec, binding | {"network": network.to_json()}, {})
    for place in wanted(spec):
        rng = stream(0, place.replicate)
        start = models.initial_weights(network, spec.model.init, rng)
        kept = {name: np.ones(start[name].shape, bool) for name in network.prunable}
        for _ in range(place.level):
            scores = {name: rng.random(mask.shape) for name, mask in kept.items()}
            kept = masks.select(scores, kept, dict.fromkeys(kept, spec.pruning.rate), spec.pruning.scope)
        noise = {n: 0.5 * w + 0.1 * rng.standard_normal(w.shape) for n, w in start.items()}
        trained = {n: (w + noise[n]).astype(w.dtype) for n, w in start.items()}
        accuracy = 0.9 - 0.01 * place.level - 0.001 * place.replicate
        row = Row(
            place,
            density=masks.density(kept),
            iterations=20,
            early_stop_iteration=10,
            test_accuracy_early_stop=accuracy,
            validation_loss_min=0.4,
            test_accuracy=accuracy,
            train_accuracy=accuracy,
            seconds=1.0,
            engine="torch",
            densities={name: masks.density({name: mask}) for name, mask in kept.items()},
        )
        seen = history.from_rows([(i, 0.5, 0.4 + i / 100, 0.41, 0.9, accuracy) for i in (10, 20)])
        run.save(SavedLevel(masks.apply(start, kept), kept, masks.apply(trained, kept), seen, row))
    run.write_table()
    return run


def timed(run: Run) -> Run:
    """As `lottery bench` would leave it, for every level of the trunk's first replicate, with made-up numbers."""
    for row in run.rows():
        if (row.place.branch, row.place.replicate) == (run.spec.start, 0):
            record(run, made_up(row.place, row.density))
    return run


def made_up(place: Place, density: float) -> Measured:
    """Dense PyTorch takes 1 ms at batch 1 and 8 ms at batch 32, CSR 0.5 + 2 × density times that; ONNX is missing."""

    def cost(method: str, size: float, slowness: float) -> Cost:
        latencies = (Latency(1, *spreads(1e-3, slowness), rounds=9), Latency(32, *spreads(8e-3, slowness), rounds=9))
        return Cost(method, int(size), int(size) - 100, latencies)

    def spreads(seconds: float, slowness: float) -> tuple[Spread, Spread]:
        middle, speed = seconds * slowness, 1 / slowness
        return Spread(middle, 0.9 * middle, 1.2 * middle), Spread(speed, 0.95 * speed, 1.03 * speed)

    machine = {"started": "2026-01-02T03:04:05+00:00", "processor": "Abacus 9", "platform": "Linux", "python": "3.11"}
    costs = (cost("dense", 5e6, 1.0), cost("csr", 1e7 * density, 0.5 + 2 * density), Cost("onnx", missing="no beads"))
    return Measured(place, density, machine | {"versions": {"torch": "2.6"}}, 1.0, costs)
