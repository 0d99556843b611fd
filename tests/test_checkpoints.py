"""Checkpoints inside a level: interrupted at any moment it ends in the same bits, and nothing wrong is gone on from."""

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import disk
from faults.disk import Disk
from processes import Process
from rich.console import Console
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from test_experiment import contents
from torch import nn

import lottery
from lottery import engines, masks, models
from lottery.data import Images, Splits
from lottery.engines import Partial, Trained
from lottery.engines.sparse import layout, training
from lottery.errors import LotteryError
from lottery.masks import Masks
from lottery.models import Network
from lottery.models.mlp import stack
from lottery.models.torch import described
from lottery.runs import checkpoints, files, store
from lottery.runs.checkpoints import LevelCheckpoint
from lottery.runs.experiment import Progress
from lottery.runs.rows import Place
from lottery.runs.verify import verify
from lottery.seeds import stream
from lottery.spec import Data, Model, Pruning, Recipe, Spec
from lottery.starts import Rewinding, Start, Trunk, finetune, rewind
from lottery.views import terminal

KEY = (3, 0)
PLACE = Place("rewind", 0, 1)


class Stopped(BaseException):
    """No handler of errors runs, as none does after kill -9."""


class AtEveryMoment(LevelCheckpoint):
    """Written whenever it may be; then the process ends, so to speak."""

    def due(self) -> bool:
        return True

    def write(self, partial: Partial) -> None:
        super().write(partial)
        raise Stopped


@pytest.fixture
def run(tmp_path: Path) -> store.Run:
    return begun(tmp_path)


def begun(folder: Path, spec: Spec | None = None) -> store.Run:
    binding = {"engine": "torch", "device": "cpu", "data": {"x": "abc"}, "images": {"train": 20, "test": 10}}
    path = folder / "runs" / "a"
    path.mkdir(parents=True, exist_ok=True)
    run = store.Run.begin(path, spec or Spec(levels=1), binding | {"network": stack((5, 3)).to_json()}, {})
    run.write_table()
    return run


# --- engines ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A training run."""

    engine: str
    network: Network
    data: Splits
    start: Start
    recipe: Recipe
    keep: int = 0

    def __call__(self, checkpoint: engines.Checkpoint = engines.NEVER, heard: list[int] | None = None) -> Trained:
        def report(row: tuple[float, ...]) -> None:
            if heard is not None:
                heard.append(int(row[0]))

        what = (self.network, self.data, self.start, self.recipe, report, self.keep, checkpoint)
        return engines.trainer(self.engine, "cpu")(*what)


def differing(one: Trained, other: Trained) -> set[str]:
    """What of the results is not the same to the bit."""

    def bits(arrays: dict[str, np.ndarray]) -> list[Any]:
        return [(name, array.dtype, array.shape, array.tobytes()) for name, array in sorted(arrays.items())]

    early = [(m.iteration, bits(m.weights), bits(m.optimizer)) if m else None for m in (one.early, other.early)]
    same = {
        "weights": bits(one.weights) == bits(other.weights),
        "history": bits(one.history) == bits(other.history),
        "accuracy": one.train_accuracy == other.train_accuracy,
        "early": early[0] == early[1],
    }
    return {name for name in same if not same[name]}


def images(shape: tuple[int, ...], *counts: int, background: float = 0.0, in_bytes: bool = False) -> Splits:
    """Images whose first pixels tell their class, most of their pixels the background; 0 to 255 times a number above
    that, as in MNIST, if `in_bytes`."""
    rng = stream(5)

    def part(n: int) -> Images:
        x = rng.standard_normal((n, prod(shape))).astype(np.float32)
        labels = x[:, :4].argmax(1).astype(np.int64)
        if in_bytes:
            x = np.round(255 * np.abs(x) / np.abs(x).max()).astype(np.float32) / 127
        return Images(np.where(rng.random(x.shape) < 0.3, x + background, background).astype(np.float32), labels)

    return Splits(*(part(n) for n in counts))


class Noisy(nn.Module):
    """Convolution, batch norm, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.4))
        self.head = nn.Linear(4 * 36, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x))
        return out


AUGMENTED = Recipe(
    "sgd",
    learning_rate=0.05,
    schedule="milestones",
    milestones=(8,),
    warmup=6,
    momentum=0.9,
    weight_decay=1e-3,
    crop_padding=1,
    flip=True,
    batch_size=16,
    iterations=11,
    evaluate_every=4,
)
SCHEDULED = replace(AUGMENTED, weight_decay=0.0, crop_padding=0, flip=False)
RECIPES = {
    "adam": replace(SCHEDULED, optimizer="adam", learning_rate=0.01, momentum=0.0),
    "adam, decay, cosine": replace(
        SCHEDULED,
        optimizer="adam",
        learning_rate=0.01,
        momentum=0.0,
        weight_decay=0.05,
        schedule="cosine",
        milestones=(),
    ),
    "momentum": SCHEDULED,
    "momentum, decay": replace(SCHEDULED, weight_decay=0.01),
    "sgd": replace(SCHEDULED, momentum=0.0),
}
RULES: dict[str, Callable[[Trunk], Start]] = {
    "fresh": rewind,
    "saved": lambda trunk: rewind(replace(trunk, rewinding=Rewinding(11, saved=True))),
    "finetune": finetune,
}


def drawn(network: Network, *densities: float) -> Masks:
    """Masks of these densities, layer by layer, the last one's for all later ones."""
    each = dict(zip(network.prunable, [*densities, *densities[-1:] * len(network.prunable)], strict=False))
    return {name: stream(2, name).random(network.tensors[name].shape) < density for name, density in each.items()}


def level(engine: str, network: Network, data: Splits, recipe: Recipe, kept: Masks, rule: str) -> Case:
    """The dense level, which keeps its 3rd iteration, or a later one that begins there or after its end."""
    initial = models.initial_weights(network, "glorot_normal", stream(*KEY))
    full = {name: np.ones_like(mask) for name, mask in kept.items()}
    dense = Case(engine, network, data, Start(masks.apply(initial, full), full, (*KEY, "order", 0)), recipe, keep=3)
    if rule == "dense":
        return replace(dense, start=Start(masks.apply(initial, kept), kept, (*KEY, "order", 0)))
    trained = dense()
    before, rewinding = trained.weights, Rewinding(recipe.iterations)
    return replace(
        dense,
        start=RULES[rule](Trunk(KEY, 1, initial, kept, before=before, early=trained.early, rewinding=rewinding)),
        keep=0,
    )


def resnet(rule: str, recipe: Recipe = AUGMENTED) -> Case:
    network = models.network(Model("resnet-8", width=2), (3, 8, 8), 4)
    return level("torch", network, images((3, 8, 8), 40, 12, 12), recipe, drawn(network, 0.5), rule)


def dropout(rule: str) -> Case:
    network = described(Noisy, (3, 8, 8))
    return level("torch", network, images((3, 8, 8), 40, 0, 12), AUGMENTED, drawn(network, 0.5), rule)


def interrupted(case: Case, run: store.Run) -> tuple[Trained, list[int]]:
    """Trained by processes that each come one moment further, and which iterations they evaluated."""
    heard: list[int] = []
    for _ in range(100):
        with contextlib.suppress(Stopped):
            return case(AtEveryMoment(run, PLACE, case.start), heard), heard
    raise AssertionError("it does not get on")


def assert_same_however_often_interrupted(case: Case, run: store.Run) -> None:
    heard: list[int] = []
    whole = case(heard=heard)
    assert (whole.early is not None) == bool(case.keep)
    trained, again = interrupted(case, run)
    assert differing(whole, trained) == set()
    assert again == heard  # nothing was evaluated twice, nothing left out


@pytest.mark.parametrize("rule", ["dense", *RULES])
@pytest.mark.parametrize("network", [resnet, dropout])
def test_interrupted_at_every_iteration_torch_ends_in_the_same_bits(
    run: store.Run, network: Callable[[str], Case], rule: str
) -> None:
    assert_same_however_often_interrupted(network(rule), run)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("rule", ["dense", "saved", "fresh"])
def test_so_it_does_with_the_moments_of_adam(run: store.Run, optimizer: str, rule: str) -> None:
    recipe = replace(AUGMENTED, optimizer=optimizer, momentum=0.0, learning_rate=0.01, decay_biases=False)
    assert_same_however_often_interrupted(resnet(rule, recipe), run)


MODES = {"both tiles": (0.9, 0.9, 0.9), "tiles": (0.6, 0.3, 0.9), "lists": (0.1, 0.3, 0.5)}
"""Densities of three layers, by what the sparse engine keeps them in."""


@pytest.mark.parametrize("rule", ["dense", *RULES])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("mode", MODES)
def test_interrupted_at_every_iteration_the_sparse_engine_ends_in_the_same_bits(
    run: store.Run, mode: str, recipe: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every one, though it is asked only at evaluations and after many iterations: those are made few."""
    network = stack((30, 12, 8, 4))
    data = images((30,), 100, 20, 30, background=-0.4, in_bytes=recipe != "adam")
    case = level("sparse", network, data, replace(RECIPES[recipe], batch_size=70), drawn(network, *MODES[mode]), rule)
    kept = layout.Stack.of(network, case.start.weights, case.start.masks)
    assert layout.mode(kept) == {"both tiles": layout.DENSE, "tiles": layout.MIXED, "lists": layout.SPARSE}[mode]
    whole = case()
    monkeypatch.setattr(training, "WORK", 1)
    trained, heard = interrupted(case, run)
    assert differing(whole, trained) == set()
    assert heard == whole.history["iteration"].tolist()


FORGOTTEN: dict[str, tuple[Callable[[Partial, Case], Partial], set[str]]] = {
    "nothing": (lambda p, case: p, set()),
    "optimizer": (lambda p, case: replace(p, moment=replace(p.moment, optimizer={})), {"weights"}),
    "weights": (lambda p, case: replace(p, moment=replace(p.moment, weights=case.start.weights)), {"weights"}),
    "position": (lambda p, case: replace(p, moment=replace(p.moment, iteration=p.moment.iteration + 1)), {"weights"}),
    "losses": (lambda p, case: replace(p, losses=np.zeros(0)), {"history"}),
    "rows": (lambda p, case: replace(p, rows=[]), {"history"}),
    "early": (lambda p, case: replace(p, early=None), {"early"}),
}
"""What a checkpoint may forget, and what of the results that changes, if nothing else."""


def without_buffers(partial: Partial, case: Case) -> Partial:
    buffers = {n: case.start.weights[n] for n, tensor in case.network.tensors.items() if tensor.buffer}
    assert buffers
    return replace(partial, moment=replace(partial.moment, weights=dict(partial.moment.weights) | buffers))


@pytest.mark.parametrize("engine", ["torch", "sparse"])
@pytest.mark.parametrize("part", [*FORGOTTEN, "buffers"])
def test_nothing_that_is_kept_could_be_left_out(
    run: store.Run, part: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "torch":
        case = resnet("dense")
    elif part != "buffers":
        network = stack((30, 12, 8, 4))
        case = level(engine, network, images((30,), 100, 20, 30), SCHEDULED, drawn(network, 0.5), "dense")
        monkeypatch.setattr(training, "WORK", 1)
    else:
        return
    forget, changed = FORGOTTEN.get(part, (without_buffers, {"weights"}))

    class Once(AtEveryMoment):
        def due(self) -> bool:
            return not files.there(self.path)

        def write(self, partial: Partial) -> None:
            if partial.moment.iteration == 6:
                super().write(partial)

        def read(self) -> Partial | None:
            partial = super().read()
            return partial and forget(partial, case)

    with pytest.raises(Stopped):
        case(Once(run, PLACE, case.start))
    found = differing(case(), case(Once(run, PLACE, case.start)))
    assert changed <= found
    assert changed or not found


def test_the_work_between_two_moments_is_bounded_whatever_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept weights times images, so that a wide network is asked as often as a small one."""

    class Asked(AtEveryMoment):
        def __init__(self) -> None:
            self.times = 0

        def read(self) -> None:
            return None

        def due(self) -> bool:
            self.times += 1
            return False

    network, recipe = stack((30, 12, 8, 4)), replace(SCHEDULED, iterations=40, evaluate_every=40, batch_size=20)
    case = level("sparse", network, images((30,), 100, 20, 30), recipe, drawn(network, 1.0), "dense")
    for iterations in (1, 7, 40):
        monkeypatch.setattr(training, "WORK", iterations * 20 * network.weights)
        asked = Asked()
        replace(case, keep=0)(asked)
        assert asked.times == -(-40 // iterations)


# --- files -----------------------------------------------------------------------------------------------------------


def case_of_files() -> Case:
    network = stack((30, 12, 8, 4))
    return level("torch", network, images((30,), 100, 20, 30), SCHEDULED, drawn(network, 0.5), "dense")


def moments(case: Case, run: store.Run) -> list[Partial]:
    """All that are kept while it trains."""
    found: list[Partial] = []

    class Listed(AtEveryMoment):
        def read(self) -> None:
            return None

        def write(self, partial: Partial) -> None:
            found.append(replace(partial, rows=list(partial.rows)))

    case(Listed(run, PLACE, case.start))
    return found


def flat(partial: Partial | None) -> list[object]:
    assert partial is not None
    arrays = [
        (kind, name, array.dtype, array.shape, array.tobytes())
        for moment in (partial.moment, partial.early)
        if moment
        for kind in ("weights", "optimizer")
        for name, array in sorted(vars(moment)[kind].items())
    ]
    numbers = [partial.moment.iteration, partial.early and partial.early.iteration, partial.seconds]
    return [*arrays, *numbers, np.array(partial.rows).tobytes(), partial.losses.tobytes()]


def test_what_is_kept_comes_back_to_the_bit(run: store.Run) -> None:
    case = case_of_files()
    checkpoint = LevelCheckpoint(run, PLACE, case.start)
    assert checkpoint.read() is None
    for partial in moments(case, run):
        checkpoint.write(partial)
        assert flat(checkpoint.read()) == flat(partial)
        assert checkpoints.reached(run, PLACE) == partial.moment.iteration
    assert partial.early
    assert partial.early.iteration == 3
    assert [path.name for path in run.partial(PLACE).parent.iterdir()] == ["level-01.partial"]
    checkpoint.remove()
    checkpoint.remove()  # one that was never written
    assert checkpoint.read() is None


def test_it_is_due_a_while_after_the_level_began_and_after_the_last_one(
    run: store.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, now = case_of_files(), [100.0]
    (partial, *_) = moments(case, run)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert checkpoints.EVERY <= 60  # a minute is what is promised
    checkpoint = LevelCheckpoint(run, PLACE, case.start)
    assert not checkpoint.due()
    now[0] += checkpoints.EVERY
    assert checkpoint.due()
    checkpoint.write(partial)
    assert not checkpoint.due()


@pytest.mark.parametrize("fault", disk.FAULTS)
def test_stopped_while_it_is_written_what_was_kept_before_is_there_still(run: store.Run, fault: str) -> None:
    case = case_of_files()
    first, second, *_ = moments(case, run)
    checkpoint = LevelCheckpoint(run, PLACE, case.start)
    checkpoint.write(first)
    with pytest.MonkeyPatch.context() as patch:
        steps = Disk(patch).moments
        checkpoint.write(second)
    assert steps[-2:] == ["replace", "fsync"]
    for at, step in enumerate(steps):
        checkpoint.write(first)
        caught = disk.strike(lambda: checkpoint.write(second), at, fault)
        assert fault == "killed" or str(run.partial(PLACE)) in str(caught)
        there = len(steps) - 1 == at  # renamed already
        assert flat(LevelCheckpoint(run, PLACE, case.start).read()) == flat(second if there else first), step
        run.clean()
        assert [path.name for path in run.partial(PLACE).parent.iterdir()] == ["level-01.partial"]
    checkpoint.remove()
    disk.strike(lambda: checkpoint.write(second), 0, fault)  # the first one of all
    assert checkpoint.read() is None


@pytest.fixture
def kept(run: store.Run) -> Path:
    """A checkpoint in the middle of a level."""
    case = case_of_files()
    LevelCheckpoint(run, PLACE, case.start).write(moments(case, run)[5])
    return run.partial(PLACE)


AWAY = "move this file away, and run again: the level is trained from its beginning"


def refused(run: store.Run, start: Start | None = None) -> str:
    """What its reader says, which must be what `verify` says, unless it is the start that is another."""
    with pytest.raises(LotteryError) as caught:
        LevelCheckpoint(run, PLACE, start or case_of_files().start).read()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(
        f"cannot read {run.partial(PLACE)}" if "cannot read" in message else str(run.partial(PLACE))
    )
    if start is None:
        assert verify(run.path).wrong == [message]
    return message


def test_every_sampled_bit_that_flips_is_found(run: store.Run, kept: Path) -> None:
    data, rng = kept.read_bytes(), random.Random(0)
    header = 8 * (8 + int.from_bytes(data[:8], "little"))
    record = 8 * data.index(b'{"run": ')
    bits = [*rng.sample(range(header), 100), *range(record, record + 400), *rng.sample(range(8 * len(data)), 200)]
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        kept.write_bytes(changed)
        with pytest.raises(LotteryError, match="is damaged: ") as caught:
            checkpoints.reached(run, PLACE)
        assert str(caught.value).endswith(AWAY)


def test_something_else_in_its_place_is_refused(run: store.Run, kept: Path) -> None:
    for name, what in disk.INSTEAD.items():
        if name == "nothing":
            continue
        with disk.aside(kept) as whole:
            what(kept, whole)
            message = refused(run)
            assert "is damaged: " in message or "cannot read" in message, name
            assert message.endswith(AWAY) or "cannot read" in message, name
    assert flat(LevelCheckpoint(run, PLACE, case_of_files().start).read())


def test_another_levels_or_runs_is_refused(run: store.Run, kept: Path, tmp_path: Path) -> None:
    case = case_of_files()
    other = begun(tmp_path / "other", Spec(levels=1, seed=1))
    LevelCheckpoint(other, PLACE, case.start).write(moments(case, run)[5])
    elsewhere = Place("rewind", 1, 1)
    LevelCheckpoint(run, elsewhere, case.start).write(moments(case, run)[5])
    for theirs, words in (
        (other.partial(PLACE), "belongs to another run, made otherwise"),
        (run.partial(elsewhere), "belongs elsewhere: it is rewind, replicate 1, level 1"),
    ):
        with disk.aside(kept):
            shutil.copy(theirs, kept)
            assert refused(run) == f"{kept} {words}; {AWAY}"
    for change in (
        {"order": (*KEY, "order", 9)},
        {"first": 1},
        {"last": 9},
        {"weights": case.start.weights | {"fc1.bias": np.ones(12, np.float32)}},
        {"masks": {name: np.ones_like(mask) for name, mask in case.start.masks.items()}},
        {"optimizer": {"step": np.array(1)}},
    ):
        message = refused(run, replace(case.start, **change))
        assert message == f"{kept} began otherwise than this level does now; {AWAY}"
    assert verify(run.path).wrong == []


def test_one_that_says_nonsense_under_a_right_checksum_is_refused(run: store.Run, kept: Path) -> None:
    whole = load_tensors(kept.read_bytes())
    del whole["sha256"]
    for wrong in ({}, {"record": np.zeros(3, np.uint8)}, {"record": np.frombuffer(b"[]", np.uint8)}):
        tensors = (whole | wrong) if wrong else {n: a for n, a in whole.items() if n != "record"}
        checksum = np.frombuffer(bytes.fromhex(files.digest(tensors)), np.uint8)
        kept.write_bytes(save_tensors(tensors | {"sha256": checksum}))
        assert refused(run).endswith(AWAY)
    without = {n: a for n, a in whole.items() if n != "rows"}
    checksum = np.frombuffer(bytes.fromhex(files.digest(without)), np.uint8)
    kept.write_bytes(save_tensors(without | {"sha256": checksum}))
    with pytest.raises(LotteryError, match=r"level-01\.partial is damaged: KeyError: 'rows'; move this file away"):
        LevelCheckpoint(run, PLACE, case_of_files().start).read()


def test_cleaning_spares_what_is_in_progress_and_removes_what_is_finished(run: store.Run, kept: Path) -> None:
    case = case_of_files()
    dense = Place("rewind", 0, 0)
    LevelCheckpoint(run, dense, case.start).write(moments(case, run)[2])
    run.folder(dense).mkdir()
    other = kept.with_name("level-1.partial")  # no level's name
    other.write_bytes(b"x")
    notes = verify(run.path).notes
    assert f"{run.partial(dense)} is left of a level that is finished: `lottery run` removes it" in notes
    assert "rewind, replicate 0, level 1: kept at iteration 6 of its training: run again to go on from there" in notes
    assert "rewind/replicate-0/level-1.partial is no level of this run by its name: it is not counted" in notes
    run.clean()
    assert not run.partial(dense).exists()
    assert kept.exists()
    assert other.exists()
    assert run.places() == [dense]
    run.partial(dense).mkdir()  # nobody knows what is in it
    run.clean()
    assert run.partial(dense).is_dir()


def test_a_run_that_goes_away_is_noticed_and_not_made_anew(run: store.Run) -> None:
    case = case_of_files()
    partial = moments(case, run)[0]
    shutil.rmtree(run.path)
    with pytest.raises(LotteryError, match="was deleted or moved while it was worked on"):
        LevelCheckpoint(run, PLACE, case.start).write(partial)
    assert not run.path.exists()


# --- runs ------------------------------------------------------------------------------------------------------------

LATE = Spec(
    data=Data("mnist-5k", validation=100),
    model=Model("mlp", hidden=(20, 10)),
    recipe=Recipe(iterations=12, evaluate_every=3, batch_size=30),
    pruning=Pruning(rate=0.5),
    levels=2,
)
RUNS = {
    "0": replace(LATE, branches=("finetune", "continue")),
    "4": replace(LATE, rewind_to=4, branches=("lr_rewind", "finetune")),
    "4, saved": replace(LATE, rewind_to=4, optimizer_state="saved", data_order="dense", branches=("reinit",)),
    "finetune": replace(LATE, start="finetune"),
    "lr_rewind": replace(LATE, rewind_to=4, start="lr_rewind", branches=("rewind",)),
}


@pytest.mark.parametrize(
    ("name", "engine"),
    [("0", "sparse"), ("4", "sparse"), ("4, saved", "torch"), ("finetune", "torch"), ("lr_rewind", "sparse")],
)
def test_a_run_that_is_stopped_inside_its_levels_ends_with_the_same_bytes(
    name: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RUNS[name]
    whole = lottery.run(spec, runs_dir=tmp_path / "whole", engine=engine)
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(training, "WORK", 1)
    heard: list[tuple[Place, int]] = []
    stops: list[Place] = []

    def stop(event: Progress) -> None:
        if event.row is None:
            heard.append((event.place, event.iteration))
            if len(heard) % 5 == 0:
                stops.append(event.place)
                raise Stopped

    for _ in range(100):
        with contextlib.suppress(Stopped):
            run = lottery.run(spec, runs_dir=tmp_path / "stopped", engine=engine, progress=stop)
            break
        stopped = store.Run(tmp_path / "stopped" / spec.uid)
        assert checkpoints.reached(stopped, stops[-1]) >= heard[-1][1] - 1  # no more than that iteration is lost
    assert contents(run) == contents(whole)
    assert len(set(stops)) >= 2
    assert not list(run.path.rglob("*.partial"))
    assert verify(run.path).wrong == []
    seen = [pair for pair in heard if pair[1] != 0]
    assert len(seen) == len(set(seen)) + len(stops)  # what was being heard of is heard again, and nothing else


def test_what_is_wrong_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    spec = replace(LATE, replicates=2, levels=0)

    def stop(event: Progress) -> None:
        if event.place.replicate == 1 and event.iteration == 6:
            raise Stopped

    with pytest.raises(Stopped):
        lottery.run(spec, runs_dir=tmp_path, engine="torch", progress=stop)
    path = tmp_path / spec.uid / "rewind/replicate-1/level-00.partial"
    path.write_bytes(path.read_bytes()[:-1])
    worked: list[Progress] = []
    with pytest.raises(LotteryError) as caught:
        lottery.run(spec, runs_dir=tmp_path, engine="torch", progress=worked.append)
    assert str(caught.value).startswith(f"{path} is damaged: ")
    assert str(caught.value).endswith(AWAY)
    assert not worked
    path.rename(tmp_path / "away")
    run = lottery.run(spec, runs_dir=tmp_path, engine="torch")
    assert contents(run) == contents(lottery.run(spec, runs_dir=tmp_path / "whole", engine="torch"))


def test_a_bar_begins_where_its_level_goes_on_and_never_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels that begin at iteration k, others that end after the last one, and one that is gone on with."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    spec = replace(LATE, rewind_to=4, branches=("finetune",))
    begun: list[float] = []
    for iteration in (9, None):
        bars: dict[Place, list[float]] = {}
        with contextlib.suppress(Stopped), terminal.Display(spec, console, tmp_path / spec.uid) as display:

            def show(
                event: Progress,
                display: terminal.Display = display,
                bars: dict[Place, list[float]] = bars,
                last: int | None = iteration,
            ) -> None:
                if event.iteration == last and event.place == Place("rewind", 0, 1):
                    raise Stopped
                display(event)
                key = replace(event.place, level=0)
                bars.setdefault(key, []).append(display.bars.tasks[display.tasks["", key]].completed)

            lottery.run(spec, runs_dir=tmp_path, engine="torch", progress=show)
        assert all(values == sorted(values) for values in bars.values())
        begun.append(next(iter(bars.values()))[0])
    assert begun == [3 / 12, 1 + 5 / 8]  # of iterations 5 to 12 the 9th was heard of anew
    assert {place.branch: values[-1] for place, values in bars.items()} == {"rewind": 3, "finetune": 3}
    assert display.bars.finished


SCRIPT = """
import sys
from pathlib import Path
from lottery.runs import checkpoints
checkpoints.EVERY = 0.01  # in workers too: they import this file

def heard(event):
    if event.row is None and event.iteration:
        with open("heard", "a") as file:
            print(event.place.folder, event.iteration, file=file)

if __name__ == "__main__":
    import lottery
    lottery.run(Path("spec.toml"), engine=sys.argv[1], jobs=int(sys.argv[2]), device="cpu", progress=heard)
"""


def killed_inside_levels(spec: Spec, engine: str, jobs: int, folder: Path, seed: int, kills: int) -> None:
    """Kills it so often at random moments, a third of them inside each of three levels."""
    every = 500 if engine == "sparse" else 20
    recipe = replace(spec.recipe, iterations=30 * every, evaluate_every=every)
    spec = replace(spec, recipe=recipe, rewind_to=10 * every + 7 if spec.rewound else 0)
    whole = lottery.run(spec, runs_dir=folder / "whole", engine=engine, device="cpu")
    (folder / "spec.toml").write_text(spec.to_toml())
    (folder / "script.py").write_text(SCRIPT)
    path, rng = folder / "runs" / spec.uid, random.Random(seed)
    hits: Counter[Place] = Counter()
    before: dict[Place, int] = {}

    def start() -> Process:
        (folder / "heard").write_text("")
        return Process(engine, str(jobs), cwd=folder, command=[sys.executable, str(folder / "script.py")])

    def gone_on() -> list[Place]:
        """Levels that are being trained and have come further than when the process began."""
        if not files.there(path / "run.json"):
            return []
        run = store.Run(path)
        with contextlib.suppress(LotteryError):  # finished while it was read
            found = [place for place in run.places(ending=files.PARTIAL) if not run.has(place)]
            return [place for place in found if checkpoints.reached(run, place) > before.get(place, 0)]
        return []

    for _ in range(10 * kills):
        process = start()
        process.until(lambda: any(hits[place] < kills // 3 for place in gone_on()))
        time.sleep(rng.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        assert process.ended() == ""
        assert process.returncode == -signal.SIGKILL, f"it was done before: {hits}"
        for place, iteration in before.items():  # none began anew
            first = [int(line.split()[1]) for line in heard(folder) if line.startswith(f"{place.folder} ")][:1]
            assert all(iteration < evaluated <= iteration + every for evaluated in first), place
        run = store.Run(path)
        progress = [place for place in run.places(ending=files.PARTIAL) if not run.has(place)]
        before = {place: checkpoints.reached(run, place) for place in progress}
        hits.update(before.keys())
        if hits.total() >= kills and len(hits) >= 3:
            break
    process = start()
    assert process.ended(300) == ""
    run = store.Run(path)
    assert contents(run) == contents(whole)
    assert not list(path.rglob("*.partial"))
    assert verify(path).wrong == []
    print(f"{engine}, {jobs} jobs: killed while {hits.total()} levels were being trained, of {len(hits)}")


def heard(folder: Path) -> list[str]:
    return (folder / "heard").read_text().splitlines()


def test_killed_three_times_inside_three_levels_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Really killed; `make faults` kills every kind of run more often."""
    killed_inside_levels(replace(LATE, rewind_to=4), "sparse", 1, tmp_path, seed=0, kills=3)
