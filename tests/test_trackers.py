"""Trackers are told every evaluation as it happens, once and in order, and no failure of theirs reaches the run."""

import importlib.util
import math
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

import lottery
from lottery import cli
from lottery.engines import history
from lottery.errors import LotteryError
from lottery.runs import checkpoints, trackers
from lottery.runs.experiment import Progress
from lottery.runs.rows import Place, Row
from lottery.runs.store import Run
from lottery.spec import Model, Recipe, Spec, flatten

Curve = list[tuple[int, dict[str, float]]]


class Notes:
    """A tracker of one's own: keeps what it is told."""

    def __init__(self) -> None:
        self.curves: dict[str, Curve] = defaultdict(list)
        self.levels: dict[str, list[tuple[int, Row]]] = defaultdict(list)
        self.live: list[tuple[Place, int]] = []
        """Evaluations of levels that were not on disk."""
        self.closed = 0

    def begin(self, run: Run) -> "Notes":
        self.run = run
        return self

    def evaluation(self, place: Place, step: int, values: Mapping[str, float]) -> None:
        self.curves[trackers.chain_folder(place)].append((step, dict(values)))
        if not self.run.has(place):
            self.live.append((place, step))

    def level(self, row: Row, step: int) -> None:
        self.levels[trackers.chain_folder(row.place)].append((step, row))

    def close(self) -> None:
        self.closed += 1


SPEC = Spec(
    data=lottery.Data(name="mnist-5k", validation=500),
    model=Model(name="mlp", hidden=(8, 6)),
    recipe=Recipe(iterations=30, evaluate_every=10),
    pruning=lottery.Pruning(rate=0.5),
    levels=2,
    replicates=2,
    rewind_to=10,
    branches=("reinit:2", "finetune"),
)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Notes]:
    notes = Notes()
    folder = tmp_path_factory.mktemp("runs")
    return lottery.run(SPEC, runs_dir=folder, progress=False, log=["tensorboard", notes]), notes


def expected(run: Run) -> dict[str, Curve]:
    """Chain -> its evaluations, from the histories on disk: level l ends at step 30 (l + 1)."""
    curves: dict[str, Curve] = defaultdict(list)
    for place in run.places():
        columns = run.read(place).history
        for i, iteration in enumerate(columns["iteration"]):
            step = 30 * (place.level + 1) - int(columns["iteration"][-1] - iteration)
            values = {name: columns[name][i].item() for name in history.COLUMNS[1:]}
            curves[trackers.chain_folder(place)].append((step, values))
    return curves


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tag -> (step, value) in the event files of a chain, by TensorBoard's own reader; and the hyperparameters."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hyperparameters = HParamsPluginData.FromString(content).session_start_info.hparams
    plain = {name: getattr(value, value.WhichOneof("kind")) for name, value in hyperparameters.items()}
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}, plain


def assert_shown(run: Run) -> None:
    """TensorBoard has each evaluation and level of the run once, in order."""
    for chain, curve in expected(run).items():
        tags, settings = read(run.path / "tensorboard" / chain)
        for name in history.COLUMNS[1:]:
            wanted = [(step, pytest.approx(values[name], rel=1e-6)) for step, values in curve]
            assert tags[f"evaluation/{name}"] == wanted
        rows = [row for row in run.rows() if trackers.chain_folder(row.place) == chain]
        for tag, value in trackers.numbers(rows[-1]).items():
            assert tags[tag][-1] == (rows[-1].place.level, pytest.approx(value, rel=1e-6))
            assert [level for level, _ in tags[tag]] == [row.place.level for row in rows]
        flat = flatten(run.spec)
        assert set(settings) == {*flat, "branch"}
        assert (settings["recipe.learning_rate"], settings["model.hidden"]) == (flat["recipe.learning_rate"], "[8, 6]")
        assert settings["branch"] == chain.partition("/")[0]


def test_every_evaluation_is_told_as_it_happens_with_steps_that_grow(logged: tuple[Run, Notes]) -> None:
    run, notes = logged
    assert notes.curves == expected(run)
    assert len(notes.live) == sum(map(len, notes.curves.values())) > 30
    for curve in notes.curves.values():
        assert [step for step, _ in curve] == sorted({step for step, _ in curve})
    assert [step for step, _ in notes.curves["rewind/replicate-0"]] == [10, 20, 30, 50, 60, 80, 90]
    assert [step for step, _ in notes.curves["reinit/replicate-1-draw-1"]] == [40, 50, 60, 70, 80, 90]
    assert [step for step, _ in notes.curves["finetune/replicate-1"]] == [50, 60, 80, 90]
    assert sorted(row.place for rows in notes.levels.values() for _, row in rows) == sorted(run.places())
    assert [(step, row.place.level) for step, row in notes.levels["finetune/replicate-0"]] == [(60, 1), (90, 2)]
    assert notes.closed == 1


def test_tensorboard_shows_them_in_a_folder_for_each_chain(logged: tuple[Run, Notes]) -> None:
    run, _ = logged
    assert_shown(run)
    tags, _ = read(run.path / "tensorboard" / "rewind" / "replicate-0")
    row, named = run.rows()[0], ("density", "test_accuracy", "early_stop_iteration", "validation_loss_min")
    assert [tags[f"level/{name}"][0] for name in named] == [
        (0, pytest.approx(getattr(row, name), rel=1e-6)) for name in named
    ]
    assert tags["density/fc1.weight"] == [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert not {name for name in tags if name.startswith("level/") and name.removeprefix("level/") in vars(row.place)}


def test_a_finished_run_is_told_whole(logged: tuple[Run, Notes]) -> None:
    run, told = logged
    notes = Notes()
    lottery.run(SPEC, runs_dir=run.path.parent, progress=False, log=[notes, "tensorboard"])
    assert (notes.curves, notes.live, notes.closed) == (told.curves, [], 1)
    assert len(list(run.path.glob("tensorboard/**/events.*"))) == len(told.curves)
    assert_shown(run)


def test_nothing_held_out_is_left_out(tmp_path: Path) -> None:
    notes, spec = Notes(), replace(SPEC, data=lottery.Data(name="mnist-5k", validation=0), replicates=1, branches=())
    lottery.run(replace(spec, levels=0), runs_dir=tmp_path, progress=False, log=notes)
    ((_, values), *_) = notes.curves["rewind/replicate-0"]
    assert set(values) == {"train_loss", "test_loss", "test_accuracy"}
    assert not any(map(math.isnan, trackers.numbers(notes.levels["rewind/replicate-0"][0][1]).values()))


def test_a_run_that_was_interrupted_continues_its_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a level, which goes on from a checkpoint; and between two, when its event had not come."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    spec = replace(SPEC, replicates=1, branches=())
    events: list[Progress] = []

    def stop_at(level: int, iteration: int, finished: bool) -> Any:
        def progress(event: Progress) -> None:
            events.append(event)
            if (event.place.level, event.iteration, event.row is not None) == (level, iteration, finished):
                raise KeyboardInterrupt

        return progress

    for stop in ((0, 20, False), (1, 30, False), (1, 30, True)):
        notes = Notes()
        with pytest.raises(KeyboardInterrupt):
            lottery.run(spec, runs_dir=tmp_path, log=["tensorboard", notes], progress=stop_at(*stop))
        assert notes.closed == 1
    events.clear()
    notes = Notes()
    run = lottery.run(spec, runs_dir=tmp_path, log=["tensorboard", notes], progress=events.append)
    assert events[0].place.level == 2
    assert notes.curves == expected(run)
    assert len(list(run.path.glob("tensorboard/**/events.*"))) == 1
    assert_shown(run)


def test_a_level_that_goes_on_tells_what_came_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    spec = replace(SPEC, replicates=1, branches=(), levels=0)
    told: list[Progress] = []

    def stop(event: Progress) -> None:
        if event.iteration == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lottery.run(spec, runs_dir=tmp_path, progress=stop)
    run = lottery.run(spec, runs_dir=tmp_path, progress=told.append)
    assert [[row[0] for row in event.evaluations] for event in told] == [[10, 20, 30], []]
    columns = run.read(Place("rewind", 0, 0)).history
    assert [list(row) for row in zip(*told[0].evaluations, strict=True)] == [columns[n].tolist() for n in columns]


class Failing(Notes):
    """Fails at one call, and counts those that come after."""

    def __init__(self, at: str, error: BaseException):
        super().__init__()
        self.at, self.error, self.after = at, error, -1

    def __getattribute__(self, name: str) -> Any:
        if name in ("begin", "evaluation", "level", "close") and (name == self.at or self.after >= 0):
            self.after += 1
            raise self.error
        return super().__getattribute__(name)


def failing(name: str, at: str, error: BaseException) -> Failing:
    made: Failing = type(name, (Failing,), {})(at, error)
    return made


def test_a_tracker_that_fails_is_one_line_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At any call; a disk that is full, or here a file where TensorBoard's folder should be, too."""
    bad = [
        failing("Evaluation", "evaluation", RuntimeError("service\ndown")),
        failing("Level", "level", SystemExit(3)),
        failing("Close", "close", OSError(28, "No space left on device")),
    ]
    last, spec = Notes(), replace(SPEC, replicates=1, branches=(), levels=1)
    (tmp_path / spec.uid).mkdir()
    (tmp_path / spec.uid / "tensorboard").write_text("")

    class Begin(Notes):
        def begin(self, run: Run) -> "Notes":
            raise LotteryError("not logged in")

    log: list[str | lottery.Tracker] = [Begin(), *bad, "tensorboard", last]
    run = lottery.run(spec, runs_dir=tmp_path, progress=False, log=log)
    assert (len(run.rows()), last.closed) == (2, 1)
    assert last.curves == expected(run)
    assert [tracker.after for tracker in bad] == [0, 0, 0]
    warnings = capsys.readouterr().err.splitlines()
    assert [line.partition(" without ")[2].partition(":")[0] for line in warnings] == [
        *("Begin", "Evaluation", "tensorboard", "Level", "Close")
    ]
    assert warnings[0] == "lottery: warning: the run goes on without Begin: not logged in"
    assert warnings[1].endswith(r"without Evaluation: RuntimeError: service\ndown")


def test_several_and_several_runs_at_once(logged: tuple[Run, Notes]) -> None:
    """Nothing is shared: two runs, each with its trackers, two of them of one kind."""
    run, told = logged
    one, other, alone = Notes(), Notes(), Notes()
    with trackers.Logs([one, other], run.path), trackers.Logs(alone, run.path):
        pass
    assert one.curves == other.curves == alone.curves == told.curves


def event_of(run: Run, place: Place) -> Progress:
    """All that is told of a level, at once."""
    saved = run.read(place)
    rows = tuple(zip(*(saved.history[name].tolist() for name in history.COLUMNS), strict=True))
    return Progress(place, 30, rows[-1][-1], saved.row, evaluations=rows, last=saved.row.iterations)


def test_what_is_on_disk_before_its_event_comes_is_told_once(logged: tuple[Run, Notes]) -> None:
    """A worker's last words, which have waited in its pipe."""
    run, told = logged
    notes = Notes()
    with trackers.Logs(notes, run.path) as logs:
        for place in run.places():
            logs(event_of(run, place))
    assert (notes.curves, notes.levels) == (told.curves, told.levels)


def test_a_level_that_is_trained_anew_between_others_has_its_place(logged: tuple[Run, Notes], tmp_path: Path) -> None:
    """As after `lottery verify` has had it moved away."""
    whole, told = logged
    run = Run(shutil.copytree(whole.path, tmp_path / whole.path.name))
    again = [Place("rewind", 0, 0), Place("rewind", 0, 2), Place("finetune", 1, 1)]
    for place in again:
        shutil.rmtree(run.folder(place))
    notes = Notes()
    with trackers.Logs(notes, run.path) as logs:
        for place in again:
            logs(event_of(whole, place))
    assert (notes.curves, notes.levels) == (told.curves, told.levels)


# --- the command line

WORDS = ("run", "quickstart", "--branches", "", "--replicates", "2", "--levels", "1", "--iterations", "20")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleSpec | None]:
    """Module -> what is found in its place."""
    find, missing = importlib.util.find_spec, dict[str, ModuleSpec | None]()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: missing[name] if name in missing else find(name))
    return missing


def test_the_command_says_where_to_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--jobs", "1", "--recipe.evaluate-every", "10", "--runs-dir", str(tmp_path)]
    assert cli.main([*words, "--log", "tensorboard"]) == 0
    (path,) = tmp_path.iterdir()
    assert f"log:     {path / 'tensorboard'}\n" in capsys.readouterr().out
    tags, _ = read(path / "tensorboard" / "rewind" / "replicate-1")
    assert [step for step, _ in tags["evaluation/test_accuracy"]] == [10, 20, 30, 40]


@pytest.mark.parametrize("spec", [None, ModuleSpec("wandb", None)], ids=["nothing", "a folder of that name"])
def test_without_its_tool_nothing_begins(
    spec: ModuleSpec | None,
    tmp_path: Path,
    without: dict[str, ModuleSpec | None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    without["wandb"] = spec
    assert cli.main([*WORDS, "--runs-dir", str(tmp_path), "--log", "tensorboard", "--log", "wandb"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--log wandb: wandb is not installed; pip install 'lottery[wandb]'" in error
    assert not list(tmp_path.iterdir())


def test_an_unknown_tool_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*WORDS, "--runs-dir", str(tmp_path), "--log", "neptune"]) == 2
    assert "invalid choice 'neptune'" in capsys.readouterr().err
    capsys.readouterr()
    assert cli.main(["--complete", "run", "quickstart", "--log", ""]) == 0
    assert capsys.readouterr().out.split() == ["tensorboard", "wandb", "mlflow"]
