"""What tickets are made of, counted in another way than the code counts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lottery
from lottery.analysis import anatomy
from lottery.runs.store import Run
from lottery.spec import Spec


@pytest.fixture
def run(tiny: Spec, tmp_path: Path) -> Run:
    return lottery.run(replace(tiny, replicates=2, levels=5), runs_dir=tmp_path)


def test_layers_pixels_and_dead_units(run: Run) -> None:
    found = anatomy.anatomy(run, 5)
    saved = [run.load("rewind", replicate, 5) for replicate in (0, 1)]
    assert (found.level, found.replicates) == (5, 2)
    assert [layer.name for layer in found.layers] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert [layer.units for layer in found.layers] == [20, 10, 10]
    for layer in found.layers:
        assert layer.kept == np.mean([s.masks[layer.name].sum() for s in saved])
        assert layer.density == saved[0].row.densities[layer.name]
    dead = 0
    for s in saved:
        for unit in range(20):
            dead += not (any(s.masks["fc1.weight"][unit]) and any(s.masks["fc2.weight"][:, unit]))
    assert found.layers[0].dead == dead / 2
    assert found.pixels is not None
    assert found.pixels[14, 10] == np.mean([s.masks["fc1.weight"][:, 14 * 28 + 10].sum() for s in saved])
    assert found.pixels.sum() == found.layers[0].kept
    into = np.mean([sorted(s.masks["fc2.weight"].sum(axis=1), reverse=True) for s in saved], axis=0)
    assert found.layers[1].into.tolist() == into.tolist()


def test_a_unit_that_leads_nowhere_is_dead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two made by hand: one that nothing leads to, one that leads nowhere."""
    saved = run.load("rewind", 0, 0)
    saved.masks["fc1.weight"][3] = False
    saved.masks["fc2.weight"][:, 7] = False
    monkeypatch.setattr(run, "read", lambda place: saved)
    assert [layer.dead for layer in anatomy.anatomy(run, 0).layers] == [2, 0, 0]


def test_overlap_against_chance() -> None:
    one = {"a": np.array([[True, True, False, False]]), "b": np.array([[True, False, False, False]])}
    two = {"a": np.array([[True, False, True, False]]), "b": np.array([[True, False, False, False]])}
    found = anatomy.overlap([one, two])
    assert found is not None
    assert found.mean == pytest.approx(2 / 3)  # two of three
    assert found.pairs == 1
    assert found.chance == pytest.approx((2 * 2 / 4 + 1 * 1 / 4) / 3)
    assert anatomy.overlap([one]) is None
    assert anatomy.overlap([{"a": np.zeros((2, 2), bool)}] * 2) is None


def test_random_masks_overlap_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    masks = [{"a": rng.random((100, 100)) < 0.3, "b": rng.random((50, 50)) < 0.6} for _ in range(4)]
    found = anatomy.overlap(masks)
    assert found is not None
    assert found.mean == pytest.approx(found.chance, rel=0.03)
    assert found.min < found.mean < found.max
    assert found.pairs == 6


def test_histograms_hold_all_but_the_outermost() -> None:
    values = np.random.default_rng(0).standard_normal(10_000)
    found = anatomy.histogram(np.append(values, 1000.0))
    assert found.counts.sum() >= 0.997 * len(values)
    assert found.edges[-1] < 5
    assert len(found.middles) == len(found.counts)
    assert abs(found.middles @ found.counts / found.counts.sum()) < 0.05
    assert len(anatomy.histogram(np.zeros(0)).middles) == 0
