"""Whole experiments on real digits: identities, not accuracies. Same spec, same bits, however it was run or stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lottery
from lottery import history, masks, models
from lottery.errors import LotteryError
from lottery.experiment import Progress, check
from lottery.seeds import stream
from lottery.spec import PRESETS, Data, Pruning, Recipe, Spec
from lottery.store import COLUMNS

LOTTERY = str(Path(sys.executable).with_name("lottery"))


def contents(run: lottery.Run) -> dict[str, bytes]:
    """Everything that must be the same: all artefacts, and the table without the seconds it took."""
    files = {p for name in ("*.safetensors", "history.csv", "spec.toml") for p in run.path.rglob(name)}
    found = {str(p.relative_to(run.path)): p.read_bytes() for p in files}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.rows()]
    return found | {"rows": repr(rows).encode()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    spec = Spec(
        data=Data(name="mnist-5k", validation=500),
        model=lottery.Model(name="mlp", hidden=(20, 10)),
        recipe=Recipe(iterations=60, evaluate_every=20),
        pruning=Pruning(rate=0.5, layer_rates={"fc3.weight": 0.25}),
        levels=3,
        replicates=2,
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
    assert len(undisturbed.rows()) == 8
    for row in undisturbed.rows():
        saved = undisturbed.load("rewind", row["replicate"], row["level"])
        at = int(np.argmin(saved.history["validation_loss"]))
        assert row["early_stop_iteration"] == saved.history["iteration"][at]
        assert row["test_accuracy_early_stop"] == saved.history["test_accuracy"][at]
        assert row["test_accuracy"] == saved.history["test_accuracy"][-1]
        assert row["validation_loss_min"] == saved.history["validation_loss"].min()
        assert row["density"] == masks.density(saved.masks)
        assert row["density"] + row["sparsity"] == 1
        assert row["density:fc1.weight"] == saved.masks["fc1.weight"].mean()
        assert 0 < row["test_accuracy"] <= 1
        assert 0 < row["train_accuracy"] <= 1
        assert row["iterations"] == saved.history["iteration"][-1] == 60
        assert row["seconds"] > 0
        assert list(row)[: len(COLUMNS)] == list(COLUMNS)


def test_a_ticket_trains_to_its_recorded_result(undisturbed: lottery.Run, tmp_path: Path) -> None:
    """What is on disk as the ticket is what was trained, not what came out: train it again by hand."""
    from lottery import data, engines
    from lottery.starts import Start

    run, spec = undisturbed, undisturbed.spec
    saved = run.load("rewind", 1, 2)
    parts = data.split(data.load("mnist-5k"), spec.data.scaling, spec.data.validation, stream(0, 1, "split"))
    start = Start(saved.start, saved.masks, (0, 1, "order", 2))
    again = engines.engine("auto", "cpu")((784, 20, 10, 10), parts, start, spec.recipe, lambda i, a: None)
    assert all(again.weights[n].tobytes() == saved.trained[n].tobytes() for n in saved.trained)
    assert history.to_csv(again.history) == history.to_csv(saved.history)


def test_replicates_differ(undisturbed: lottery.Run) -> None:
    a, b = (undisturbed.load("rewind", r, 0) for r in (0, 1))
    assert (a.start["fc1.weight"] != b.start["fc1.weight"]).all()


def test_same_bits_in_parallel_processes(undisturbed: lottery.Run, tmp_path: Path) -> None:
    assert contents(lottery.run(undisturbed.spec, runs_dir=tmp_path, jobs=2)) == contents(undisturbed)


def test_same_bits_when_extended_in_pieces(undisturbed: lottery.Run, tmp_path: Path) -> None:
    lottery.run(replace(undisturbed.spec, replicates=1, levels=1), runs_dir=tmp_path)
    lottery.run(replace(undisturbed.spec, replicates=2, levels=0), runs_dir=tmp_path)
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
    with pytest.raises(LotteryError, match="was begun with engine 'sparse', now it is 'dense'"):
        lottery.run(tiny, runs_dir=tmp_path, device="cpu", engine="dense")


@pytest.fixture(scope="module")
def long(undisturbed: lottery.Run, tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    """Long enough to be killed five times."""
    spec = replace(undisturbed.spec, levels=7, recipe=Recipe(iterations=1500, evaluate_every=10))
    return lottery.run(spec, runs_dir=tmp_path_factory.mktemp("long"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_same_bits_after_five_kills(long: lottery.Run, tmp_path: Path, jobs: int) -> None:
    """kill -9 of the parent alone, at moments spread over the run; workers must die with it."""
    (tmp_path / "spec.toml").write_text(long.spec.to_toml())
    command = [LOTTERY, "run", "spec.toml", "--jobs", str(jobs)]
    moments = random.Random(jobs)
    killed = 0
    for wait_for in ("run:", *4 * [""]):  # while it starts up; then some time after the next level is on disk
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(wait_for or "rewind"):
                break
        time.sleep(moments.uniform(0, 2.0 if wait_for else 0.2))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert killed >= 3
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=os.environ | {"COLUMNS": "200"})
    (path,) = (tmp_path / "runs").iterdir()
    assert contents(lottery.Run(path)) == contents(long)
    assert not list(path.rglob(".unfinished-*"))


def test_a_damaged_level_stops_the_run_and_nothing_is_lost(tiny: Spec, tmp_path: Path) -> None:
    run = lottery.run(tiny, runs_dir=tmp_path)
    whole = contents(run)
    path = run.level_path("rewind", 0, 1) / "trained.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    lottery.run(replace(tiny, levels=2), runs_dir=tmp_path)  # complete: nothing is read
    with pytest.raises(LotteryError, match=r"level-01/trained\.safetensors is damaged.*delete the folder"):
        lottery.run(replace(tiny, levels=3), runs_dir=tmp_path)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    assert {
        k: v for k, v in contents(lottery.run(tiny, runs_dir=tmp_path)).items() if k in whole and "level-03" not in k
    }
    again = contents(lottery.run(tiny, runs_dir=tmp_path))
    assert all(again[k] == whole[k] for k in whole if k not in ("rows", "spec.toml"))


def test_a_loss_that_is_not_finite_names_replicate_and_level(tiny: Spec, tmp_path: Path) -> None:
    bad = replace(tiny, recipe=Recipe("sgd", learning_rate=1e25, iterations=30, evaluate_every=10), replicates=2)
    for jobs in (1, 2):
        with pytest.raises(
            LotteryError, match=r"replicate [01], level 0: training loss \S+ at iteration \d+"
        ) as caught:
            lottery.run(bad, runs_dir=tmp_path, jobs=jobs)
        assert "what was finished is kept" in str(caught.value)


def test_global_scope_and_random_criterion_run(tiny: Spec, tmp_path: Path) -> None:
    run = lottery.run(replace(tiny, pruning=Pruning("random", scope="global", rate=0.5)), runs_dir=tmp_path)
    total = run.load("rewind", 0, 0).masks
    size = sum(m.size for m in total.values())
    assert sum(int(m.sum()) for m in run.load("rewind", 0, 1).masks.values()) == size - round(0.5 * size)


def test_without_validation_there_is_no_early_stop(tiny: Spec, tmp_path: Path) -> None:
    run = lottery.run(replace(tiny, data=replace(tiny.data, validation=0), levels=0), runs_dir=tmp_path)
    (row,) = run.rows()
    assert row["early_stop_iteration"] is None
    assert row["test_accuracy_early_stop"] is None
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
