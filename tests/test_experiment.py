"""Whole experiments on real digits: identities, not accuracies. Same spec, same bits, however it was run or stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest

import lottery
from lottery import data, engines, masks, models
from lottery.engines import history, reference
from lottery.errors import LotteryError
from lottery.runs import files, runners
from lottery.runs.experiment import Progress, check
from lottery.runs.rows import COLUMNS, Place
from lottery.seeds import stream
from lottery.spec import PRESETS, Data, Pruning, Recipe, Spec
from lottery.starts import STARTS, Start

LOTTERY = str(Path(sys.executable).with_name("lottery"))


def contents(run: lottery.Run) -> dict[str, bytes]:
    """Everything that must be the same: all artefacts, and the table without the seconds it took."""
    files = {p for name in ("*.safetensors", "history.csv", "spec.toml") for p in run.path.rglob(name)}
    found = {str(p.relative_to(run.path)): p.read_bytes() for p in files}
    rows = [{k: v for k, v in row.to_json().items() if k != "seconds"} for row in run.rows()]
    return found | {"rows": repr(rows).encode()}


def splits(spec: Spec, replicate: int) -> data.Splits:
    """The images that a replicate trains on and is judged by."""
    rng = stream(spec.seed, replicate, "split")
    return data.split(data.load(spec.data.name), spec.data.scaling, spec.data.validation, rng)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    spec = Spec(
        data=Data(name="mnist-5k", validation=500),
        model=lottery.Model(name="mlp", hidden=(20, 10)),
        recipe=Recipe(iterations=60, evaluate_every=20),
        pruning=Pruning(rate=0.5, layer_rates={"fc3.weight": 0.25}),
        levels=3,
        replicates=2,
        branches=("reinit:2", "one_shot", "continue"),
    )
    return lottery.run(spec, runs_dir=tmp_path_factory.mktemp("runs"))


def test_levels_start_from_the_initial_weights_and_nest(undisturbed: lottery.Run) -> None:
    run, spec = undisturbed, undisturbed.spec
    for replicate in range(2):
        theta = models.initial_weights(check(spec), spec.model.init, stream(spec.seed, replicate, "weights"))
        before = None
        for level in range(4):
            saved = run.load("rewind", replicate, level)
            for name, weight in masks.apply(theta, saved.masks).items():
                assert saved.start[name].tobytes() == weight.tobytes()
            for name, mask in saved.masks.items():
                assert not saved.trained[name][~mask].any()
                assert (saved.trained[name][mask] != saved.start[name][mask]).any()
                if before:
                    kept, rate = before.masks[name], spec.pruning.layer_rates.get(name, spec.pruning.rate)
                    assert not (mask & ~kept).any()
                    assert mask.sum() == kept.sum() - round(rate * kept.sum())
                    gone = np.abs(before.trained[name][kept & ~mask])
                    assert gone.max() <= np.abs(before.trained[name][mask]).min()
                else:
                    assert mask.all()
            before = saved


def test_rows_say_what_the_histories_say(undisturbed: lottery.Run) -> None:
    assert len(undisturbed.rows()) == 2 * (4 + 4 * 3)
    for row in undisturbed.rows():
        saved = undisturbed.read(row.place)
        at = int(np.argmin(saved.history["validation_loss"]))
        assert row.early_stop_iteration == saved.history["iteration"][at]
        assert row.steady_stop_iteration is None  # three evaluations are too few
        assert row.test_accuracy_early_stop == saved.history["test_accuracy"][at]
        assert row.test_accuracy == saved.history["test_accuracy"][-1]
        assert row.validation_loss_min == saved.history["validation_loss"].min()
        assert row.density == masks.density(saved.masks)
        value = row.to_json()
        assert value["density"] + value["sparsity"] == 1
        assert row.densities == {name: mask.mean() for name, mask in saved.masks.items()}
        assert value["density:fc1.weight"] == saved.masks["fc1.weight"].mean()
        assert row.test_accuracy is not None
        assert 0 < row.test_accuracy <= 1
        assert row.train_accuracy is not None
        assert 0 < row.train_accuracy <= 1
        assert row.iterations == saved.history["iteration"][-1] == 60
        assert row.seconds is not None
        assert row.seconds > 0
        assert row.engine in engines.ENGINES
        assert list(value) == [*COLUMNS, "density:fc1.weight", "density:fc2.weight", "density:fc3.weight"]


def test_a_ticket_trains_to_its_recorded_result(undisturbed: lottery.Run, tmp_path: Path) -> None:
    """What is on disk as the ticket is what was trained, not what came out: train it again by hand."""
    run, spec = undisturbed, undisturbed.spec
    saved = run.load("rewind", 1, 2)
    start = Start(saved.start, saved.masks, (0, 1, "order", 2))
    engine = engines.trainer(run.info["engine"], run.info["device"])
    again = engine(check(spec), splits(spec, 1), start, spec.recipe, lambda row: None)
    assert all(again.weights[n].tobytes() == saved.trained[n].tobytes() for n in saved.trained)
    assert history.to_csv(again.history) == history.to_csv(saved.history)


def test_an_experiment_is_what_float64_makes_of_it(tiny: Spec, tmp_path: Path) -> None:
    """Golden on any machine: every number of a run of the sparse engine, by its twin, from the same saved starts."""
    spec = replace(tiny, recipe=Recipe(iterations=20, evaluate_every=5))
    run, images = lottery.run(spec, runs_dir=tmp_path, device="cpu", engine="sparse"), splits(spec, 0)
    expected = {"fc1.weight": np.ones((20, 784), bool), "fc2.weight": np.ones((10, 20), bool)}
    expected["fc3.weight"] = np.ones((10, 10), bool)
    assert [row.engine for row in run.rows()] == ["sparse"] * 3
    for row in run.rows():
        saved = run.read(row.place)
        start = Start(saved.start, saved.masks, (0, 0, "order", row.place.level))
        twin = reference.train(check(spec), images, start, spec.recipe, lambda row: None)
        assert saved.history["iteration"].tolist() == [5, 10, 15, 20]
        for column in ("train_loss", "validation_loss", "test_loss"):
            np.testing.assert_allclose(saved.history[column], twin.history[column], rtol=1e-5)
        for column in ("validation_accuracy", "test_accuracy"):  # but for a tie that rounding decides
            np.testing.assert_allclose(saved.history[column], twin.history[column], atol=0.0025)
        assert row.train_accuracy == pytest.approx(twin.train_accuracy, abs=0.0015)
        assert row.density == masks.density(expected)
        for name, mask in saved.masks.items():
            assert row.densities[name] == mask.mean() == expected[name].mean()
            swapped = (mask != expected[name]).sum()  # neighbours in magnitude, by rounding
            assert swapped <= max(2, 0.005 * mask.size)
            leaving = round(spec.pruning.layer_rates.get(name, 0.5) * mask.sum())
            order = np.argsort(np.where(mask, np.abs(twin.weights[name]), -1), axis=None)
            expected[name] = np.ones(mask.shape, bool)
            expected[name].flat[order[: (~mask).sum() + leaving]] = False


def test_accuracy_is_that_of_the_last_iteration_not_of_the_best(tiny: Spec, tmp_path: Path) -> None:
    """A network that forgets: weight decay this strong leaves one answer for every image, a tenth of them right."""
    recipe = Recipe("sgd", learning_rate=0.1, weight_decay=1.0, iterations=40, evaluate_every=5)
    run = lottery.run(replace(tiny, recipe=recipe, levels=0), runs_dir=tmp_path)
    (row,) = run.rows()
    accuracy = run.load("rewind", 0, 0).history["test_accuracy"]
    assert row.test_accuracy == accuracy[-1] == 0.1 < accuracy.max()


def test_branches_apply_their_rule_to_each_level_of_the_trunk(undisturbed: lottery.Run) -> None:
    run = undisturbed
    for replicate in range(2):
        dense = run.load("rewind", replicate, 0)
        before = dense
        for level in (1, 2, 3):
            assert not run.has(Place("reinit", replicate, 0))
            trunk = run.load("rewind", replicate, level)
            draws = [run.load("reinit", replicate, level, draw) for draw in (0, 1)]
            at_once = run.load("one_shot", replicate, level)
            continued = run.load("continue", replicate, level)
            for name, mask in trunk.masks.items():
                for drawn in draws:
                    assert drawn.masks[name].tobytes() == mask.tobytes()
                assert (draws[0].start[name] != draws[1].start[name])[mask].mean() > 0.99
                assert (draws[0].start[name] != trunk.start[name])[mask].mean() > 0.99
                assert at_once.masks[name].sum() == continued.masks[name].sum() == mask.sum()
                if name == "fc1.weight":  # in small layers, both may agree
                    assert (at_once.masks[name] != mask).any() == (level > 1)
                kept = at_once.masks[name]
                assert np.abs(dense.trained[name][~kept]).max() <= np.abs(dense.trained[name][kept]).min()
                assert at_once.start[name][kept].tobytes() == dense.start[name][kept].tobytes()
                gone = before.masks[name] & ~continued.masks[name]  # by the branch's own magnitudes
                assert (
                    np.abs(before.trained[name][gone]).max()
                    <= np.abs(before.trained[name][continued.masks[name]]).min()
                )
            for name, weight in masks.apply(before.trained, continued.masks).items():
                assert continued.start[name].tobytes() == weight.tobytes()
            before = continued


def test_a_branch_trains_on_the_trunks_data_order(undisturbed: lottery.Run, tmp_path: Path) -> None:
    """one_shot's level 1 has the trunk's mask and weights: the same order gives the same bits."""
    trunk, branch = (undisturbed.load(name, 1, 1) for name in ("rewind", "one_shot"))
    assert all(trunk.trained[n].tobytes() == branch.trained[n].tobytes() for n in trunk.trained)


def test_a_branchs_levels_on_disk_are_verified(undisturbed: lottery.Run, tmp_path: Path) -> None:
    path = tmp_path / undisturbed.path.name
    shutil.copytree(undisturbed.path, path)
    run = lottery.Run(path)
    for branch, draw, other in (("reinit", 1, "reinit"), ("continue", 0, "rewind")):
        place = Place(branch, 0, 1, draw)
        folder, good = run.folder(place), run.read(place)
        shutil.rmtree(folder)
        theirs = run.load(other, 1, 1)  # whole, but of another start
        run.save(replace(theirs, row=good.row))
        shutil.rmtree(run.folder(replace(place, level=3)))
        with pytest.raises(LotteryError, match=r"not what this version makes from the levels before") as caught:
            lottery.run(run.spec, runs_dir=tmp_path)
        assert str(folder) in str(caught.value)
        shutil.rmtree(folder)
        run.save(good)
        lottery.run(run.spec, runs_dir=tmp_path)
        assert contents(run) == contents(undisturbed)


def test_any_rule_runs_as_the_trunks_and_any_as_its_branch(tiny: Spec, tmp_path: Path) -> None:
    small = replace(tiny, recipe=Recipe(iterations=2, evaluate_every=2))
    for start in STARTS:
        branches = tuple(STARTS)[1:] if start == "rewind" else ("rewind",)
        run = lottery.run(replace(small, start=start, branches=branches, rewind_to=1), runs_dir=tmp_path)
        assert not run.unfinished(run.spec)
        for level in (1, 2):
            assert (run.load(start, 0, level).masks["fc1.weight"].sum()) == 15680 >> level


def test_a_branch_waits_for_its_trunk_and_trains_none_of_it(tiny: Spec, tmp_path: Path) -> None:
    heard: list[Progress] = []
    lottery.run(replace(tiny, branches=("reinit",)), runs_dir=tmp_path, jobs=2, progress=heard.append)
    finished = [(event.place.branch, event.place.level) for event in heard if event.row]
    assert finished == [("rewind", 0), ("rewind", 1), ("rewind", 2), ("reinit", 1), ("reinit", 2)]


def test_gaussian_weights_have_the_specs_deviation_fresh_ones_too(tiny: Spec, tmp_path: Path) -> None:
    model = replace(tiny.model, init="gaussian", std=0.02)
    run = lottery.run(replace(tiny, model=model, levels=1, branches=("reinit",)), runs_dir=tmp_path)
    for branch, level in (("rewind", 0), ("reinit", 1)):
        saved = run.load(branch, 0, level)
        assert saved.start["fc1.weight"][saved.masks["fc1.weight"]].std() == pytest.approx(0.02, rel=0.05)


def fail(number: int, emit: runners.Emit) -> None:
    raise LotteryError(f"task {number}")


def note(number: int, emit: runners.Emit) -> None:
    emit(number)


def test_tasks_begin_after_those_they_need_and_are_dropped_with_them() -> None:
    heard: list[int] = []
    tasks = [
        runners.Task(fail, (0,), heard.append),
        runners.Task(note, (1,), heard.append),
        runners.Task(note, (2,), heard.append, after=0),
        runners.Task(note, (3,), heard.append, after=2),
        runners.Task(note, (), heard.append, late=lambda: (4,), after=1),
    ]
    with pytest.raises(LotteryError, match="task 0"):
        runners.processes(tasks, 2)
    assert heard == [1, 4]
    heard.clear()
    runners.here([replace(task, function=note) for task in tasks])
    assert heard == [0, 1, 2, 3, 4]


def test_a_level_takes_the_time_of_its_training_not_that_of_who_listens(tiny: Spec, tmp_path: Path) -> None:
    spec = replace(tiny, levels=0, recipe=replace(tiny.recipe, evaluate_every=1))
    waited = []

    def slow(event: Progress) -> None:
        began = time.perf_counter()
        time.sleep(0.02)
        waited.append(time.perf_counter() - began)

    began = time.perf_counter()
    (row,) = lottery.run(spec, runs_dir=tmp_path, progress=slow).rows()
    assert len(waited) >= 30
    assert row.seconds is not None
    assert row.seconds < time.perf_counter() - began - sum(waited)


def test_replicates_differ(undisturbed: lottery.Run) -> None:
    a, b = (undisturbed.load("rewind", r, 0) for r in (0, 1))
    assert (a.start["fc1.weight"] != b.start["fc1.weight"]).all()


def test_same_bits_in_parallel_processes(undisturbed: lottery.Run, tmp_path: Path) -> None:
    assert contents(lottery.run(undisturbed.spec, runs_dir=tmp_path, jobs=2)) == contents(undisturbed)


def test_same_bits_when_extended_in_pieces(undisturbed: lottery.Run, tmp_path: Path) -> None:
    lottery.run(replace(undisturbed.spec, replicates=1, levels=1, branches=("reinit",)), runs_dir=tmp_path)
    lottery.run(replace(undisturbed.spec, replicates=2, levels=0, branches=("reinit:2",)), runs_dir=tmp_path)
    lottery.run(replace(undisturbed.spec, replicates=1, branches=()), runs_dir=tmp_path)
    assert contents(lottery.run(undisturbed.spec, runs_dir=tmp_path)) == contents(undisturbed)


def test_a_finished_run_is_not_trained_again(undisturbed: lottery.Run) -> None:
    heard: list[Progress] = []
    before = {p: p.stat().st_mtime_ns for p in undisturbed.path.rglob("*.safetensors")}
    lottery.run(undisturbed.spec, runs_dir=undisturbed.path.parent, progress=heard.append)
    assert not heard
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.path.rglob("*.safetensors")}


def test_a_run_keeps_to_its_engine(tiny: Spec, tmp_path: Path) -> None:
    """auto is the sparse engine on a CPU, by that name too; another would mix bits within one run."""
    lottery.run(replace(tiny, levels=0), runs_dir=tmp_path, device="cpu")
    lottery.run(replace(tiny, levels=1), runs_dir=tmp_path, device="cpu", engine="sparse")
    with pytest.raises(LotteryError, match="was begun with engine 'sparse', now it is 'torch'"):
        lottery.run(tiny, runs_dir=tmp_path, device="cpu", engine="torch")
    before = (tmp_path / tiny.uid / "spec.toml").read_text()
    (tmp_path / tiny.uid / "run.json").unlink()
    with pytest.raises(LotteryError, match=r"run\.json is missing, and nothing else says what made rewind/replicate-0"):
        lottery.run(tiny, runs_dir=tmp_path, device="cpu", engine="torch")
    assert (tmp_path / tiny.uid / "spec.toml").read_text() == before


def test_a_run_keeps_to_its_data(tiny: Spec, tmp_path: Path) -> None:
    """Checksums of the files that it was begun with; with others, not one more level is trained."""
    small = replace(tiny, recipe=Recipe(iterations=2, evaluate_every=2), levels=0)
    path = lottery.run(small, runs_dir=tmp_path).path / "run.json"
    info = json.loads(path.read_text())
    assert info["data"] == data.load("mnist-5k").sha256
    assert all(len(digest) == 64 for digest in info["data"].values())
    assert info["images"] == {"train": 4000, "test": 1000}
    assert info["network"] == check(small).to_json()
    info["data"] = {file: digest[:-1] + "x" for file, digest in info["data"].items()}
    del info["checksum"]
    path.write_bytes(files.seal(info))
    with pytest.raises(LotteryError, match="was begun with data "):
        lottery.run(replace(small, levels=1), runs_dir=tmp_path)
    assert not lottery.Run(path.parent).has(Place("rewind", 0, 1))


@pytest.fixture(scope="module")
def long(undisturbed: lottery.Run, tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    """Long enough to be killed six times."""
    spec = replace(
        undisturbed.spec, levels=4, branches=("reinit", "continue"), recipe=Recipe(iterations=1500, evaluate_every=10)
    )
    return lottery.run(spec, runs_dir=tmp_path_factory.mktemp("long"))


def test_rows_of_long_histories_have_a_steady_stop_too(long: lottery.Run) -> None:
    for row in long.rows():
        columns = long.read(row.place).history
        at = history.steady_stop(columns)
        assert at is not None
        assert row.steady_stop_iteration == columns["iteration"][at]


@pytest.mark.parametrize("jobs", [1, 2])
def test_same_bits_after_six_kills(long: lottery.Run, tmp_path: Path, jobs: int) -> None:
    """kill -9 of the parent alone, at moments spread over the run; workers must die with it."""
    (tmp_path / "spec.toml").write_text(long.spec.to_toml())
    command = [LOTTERY, "run", "spec.toml", "--jobs", str(jobs)]
    path = tmp_path / "runs" / long.path.name
    level = median(row.seconds or 0 for row in long.rows())
    moments = random.Random(jobs)
    killed = 0

    def on_disk(branches: tuple[str, ...]) -> set[Path]:
        return {folder for branch in branches for folder in path.glob(f"{branch}/*/level-*")}

    # while it starts up; then when one more level is on disk, of the trunk and of branches, and the next in the making
    branches = ("rewind", "reinit", "continue")
    for wait_for in ((), branches, branches, branches, branches[1:], branches[2:]):
        before = on_disk(wait_for)
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (on_disk(wait_for) - before if wait_for else (path / "run.json").exists()):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, level if wait_for else 0.5))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 5
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=os.environ | {"COLUMNS": "200"})
    assert [folder.name for folder in path.parent.iterdir()] == [path.name]
    assert contents(lottery.Run(path)) == contents(long)
    assert not list(path.rglob(".unfinished-*"))


def test_a_damaged_level_stops_the_run_and_nothing_is_lost(tiny: Spec, tmp_path: Path) -> None:
    """Called complete, before, over weights that were empty files."""
    run = lottery.run(replace(tiny, branches=("reinit",)), runs_dir=tmp_path)
    whole = contents(run)
    for place in (Place("rewind", 0, 1), Place("reinit", 0, 2)):
        path = run.folder(place) / "trained.safetensors"
        path.write_bytes(b"")
        for levels in (2, 1, 3):  # complete, with more than is asked for, to be continued
            with pytest.raises(
                LotteryError, match=r"trained\.safetensors is damaged: its SHA-256 is e3b0.*; move the f"
            ):
                lottery.run(replace(tiny, levels=levels), runs_dir=tmp_path)
            assert lottery.Run(run.path).spec.levels >= levels
        shutil.move(path.parent, tmp_path / f"moved-{place.branch}")  # as it says
    again = contents(lottery.run(replace(tiny, branches=("reinit",)), runs_dir=tmp_path))
    assert all(again[k] == whole[k] for k in whole if k not in ("rows", "spec.toml"))


def test_a_loss_that_is_not_finite_names_replicate_and_level(tiny: Spec, tmp_path: Path) -> None:
    bad = replace(tiny, recipe=Recipe("sgd", learning_rate=1e25, iterations=30, evaluate_every=10), replicates=2)
    for jobs in (1, 2):
        with pytest.raises(
            LotteryError, match=r"replicate [01], level 0: training loss \S+ at iteration \d+"
        ) as caught:
            lottery.run(bad, runs_dir=tmp_path, jobs=jobs)
        assert "what was finished is kept" in str(caught.value)


def test_trained_weights_that_are_infinite_are_not_saved(tiny: Spec, tmp_path: Path) -> None:
    """The last step makes them so, after the last loss that could show it; none of them is NaN."""
    bad = replace(tiny, recipe=Recipe("sgd", learning_rate=3e38, batch_size=1, iterations=1), levels=0)
    with pytest.raises(LotteryError, match=r"level 0: trained fc\d\.\w+ is not finite; nothing saved"):
        lottery.run(bad, runs_dir=tmp_path)
    assert lottery.Run(tmp_path / bad.uid).rows() == []


def test_replicates_prune_other_weights_at_random(tiny: Spec, tmp_path: Path) -> None:
    """Independent draws agree where chance has them agree: of halves, in one half of the weights."""
    small = replace(tiny, recipe=Recipe(iterations=2, evaluate_every=2), levels=1, replicates=2)
    run = lottery.run(replace(small, pruning=Pruning("random", rate=0.5)), runs_dir=tmp_path)
    a, b = (run.load("rewind", replicate, 1).masks["fc1.weight"] for replicate in (0, 1))
    assert (a == b).mean() == pytest.approx(0.5, abs=0.03)


def test_global_scope_and_random_criterion_run(tiny: Spec, tmp_path: Path) -> None:
    run = lottery.run(replace(tiny, pruning=Pruning("random", scope="global", rate=0.5)), runs_dir=tmp_path)
    total = run.load("rewind", 0, 0).masks
    size = sum(m.size for m in total.values())
    assert sum(int(m.sum()) for m in run.load("rewind", 0, 1).masks.values()) == size - round(0.5 * size)


def test_without_validation_there_is_no_early_stop(tiny: Spec, tmp_path: Path) -> None:
    run = lottery.run(replace(tiny, data=replace(tiny.data, validation=0), levels=0), runs_dir=tmp_path)
    (row,) = run.rows()
    assert row.early_stop_iteration is None
    assert row.test_accuracy_early_stop is None
    assert ",30,,,0." in (run.path / "levels.csv").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": Data(name="mnst")}, "unknown data set 'mnst': choose from mnist, "),
        ({"data": Data(name="mnist-5k", scaling="whiten")}, "unknown data.scaling 'whiten'"),
        ({"data": Data(name="mnist-5k", validation=4000)}, "data.validation = 4000: mnist-5k has 4000 training images"),
        ({"levels": 2.0}, "levels"),
        ({"recipe": Recipe(batch_size=4000, drop_last=True)}, "with drop_last, 3500 images make no batch"),
        ({"start": "rewnd"}, "unknown start 'rewnd': choose from rewind"),
        ({"branches": ("shufle",)}, "unknown branch 'shufle': choose from rewind, reinit, "),
        ({"branches": ("one_shot:2",)}, "branches = 'one_shot:2': one_shot draws nothing at random"),
        ({"branches": ["shuffle"]}, "branches = ['shuffle']: must be a list (in Python a tuple)"),
        ({"pruning": Pruning(criterion="size")}, "unknown pruning.criterion 'size'"),
        ({"pruning": Pruning(layer_rates={"conv*": 0.1})}, "'conv*' matches no layer; there are fc1.weight"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(
    tiny: Spec, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(LotteryError) as caught:
        lottery.run(replace(tiny, **change), runs_dir=tmp_path / "runs")  # type: ignore[arg-type]  # any field
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_jobs_must_be_positive(tiny: Spec, tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match="jobs = 0: must be at least 1"):
        lottery.run(tiny, runs_dir=tmp_path, jobs=0)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_pass_the_check(name: str) -> None:
    check(PRESETS[name])
