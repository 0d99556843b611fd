"""Runs of any network that nothing trained: levels with masks of random weights, saved as a run saves them."""

from pathlib import Path

import numpy as np

from lottery import masks, models
from lottery.data import DATASETS
from lottery.engines import history
from lottery.models import Network
from lottery.runs.rows import Row, wanted
from lottery.runs.store import Run, SavedLevel
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
