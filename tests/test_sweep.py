"""Sweeps: which experiments a grid is, in which folder they lie, what is said of them, and what a kill costs."""

import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from test_experiment import contents
from test_list import SPEC, made

import lottery
from lottery import cli
from lottery.analysis import listing
from lottery.analysis.cost import alike, cost
from lottery.cli import main
from lottery.errors import LotteryError
from lottery.runs import store, sweep
from lottery.runs.experiment import Progress
from lottery.runs.rows import Place, Row
from lottery.runs.verify import verify
from lottery.spec import Data, Model, Pruning, Recipe, Spec, combinations, load, load_all
from lottery.views import report, terminal
from lottery.views.measures import COLOURS, LETTERS, run_colour
from lottery.views.report import document

TINY = Spec(
    data=Data(name="mnist-5k", validation=500),
    model=Model(name="mlp", hidden=(8,)),
    recipe=Recipe(iterations=20, evaluate_every=10),
    pruning=Pruning(rate=0.5),
    levels=1,
    replicates=2,
)
GRID = {"recipe.learning_rate": [1e-3, 1e-2]}


def asked(line: str) -> list[Spec]:
    commands = [*cli._parse_all(line.split())]
    assert all(isinstance(command, cli.SweepCommand) for command in commands)
    return [command.spec for command in commands if isinstance(command, cli.SweepCommand)]


# --- which experiments


def test_a_flag_with_several_values_is_a_run_for_each() -> None:
    """What each would be by itself; a setting that takes a list has one value for all."""
    line = "sweep quickstart --data mnist-5k kmnist --branches reinit random_mask --seed=3 4 --iterations 9"
    each = [
        f"run quickstart --data {name} --branches reinit random_mask --seed {seed} --iterations 9"
        for name in ("mnist-5k", "kmnist")
        for seed in (3, 4)
    ]
    alone = [cli._parse(words.split()) for words in each]
    assert asked(line) == [command.spec for command in alone if isinstance(command, cli.RunCommand)]


TOML = """
levels = 2
model.name = "mlp"
[recipe]
iterations = 50
[sweep]
model.hidden = [[8], [8, 4]]
"pruning.layer_rates" = [{}, {"fc1*" = 0.1}]
"""


def test_a_table_of_a_file_sweeps_anything(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(TOML)
    specs = load_all(tmp_path / "grid.toml")
    assert [(s.model.hidden, s.pruning.layer_rates) for s in specs] == [
        (hidden, rates) for hidden in [(8,), (8, 4)] for rates in ({}, {"fc1*": 0.1})
    ]
    assert {(s.levels, s.recipe.iterations, s.model.name) for s in specs} == {(2, 50, "mlp")}
    flags = asked(f"sweep {tmp_path / 'grid.toml'} --levels 3")
    assert flags == [replace(spec, levels=3) for spec in specs]
    with pytest.raises(LotteryError, match=r"grid\.toml: \[sweep\] is for several experiments: lottery sweep takes it"):
        load(tmp_path / "grid.toml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "quickstart --branches reinit one_shot",
            "nothing has several values: give two or more of a setting, such as --seed 0 1",
        ),
        ("quickstart --seed 0 x", "'x': must be a whole number"),
        ("quickstart --sed 0 1", "Unrecognized options: --sed, 0, 1; Perhaps you meant: --seed"),
        ("nope --seed 0 1", "unknown preset 'nope'"),
        ("quickstart --seed 0 1 --engine nope", "unknown engine 'nope'"),
        ("one.toml", "seed = .0.: give a list of two values or more"),
        ("wrong.toml", "unknown setting 'recipe.lr'"),
        ("text.toml", "sweep = 3: must be a table"),
    ],
)
def test_what_is_no_sweep(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("one", "[sweep]\nseed = [0]"), ("wrong", "[sweep]\nrecipe.lr = [1, 2]"), ("text", "sweep = 3")):
        (tmp_path / f"{name}.toml").write_text(text)
    assert main(["sweep", *words.split(), "--runs-dir", "made/runs"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lottery: error: ")
    assert re.search(message, line)
    assert not list(tmp_path.rglob("sweep*"))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"seed": [1, 2, 1]}, "2 combinations are the same experiment, mnist-5k-mlp.*: give each value once"),
        ({"recipe.learning_rate": [1, 1.0]}, "2 combinations are the same experiment"),
        ({"rewind_to": [2, "10%"]}, "2 combinations are the same experiment"),
        ({"branches": [["reinit"], []]}, "that differ only in branches are one run, .*: ask for the most of it"),
        ({"data.name": ["mnist-5k", "nope"]}, "unknown data set 'nope'"),
        ({"seed": [0, "x"]}, "seed = 'x': must be a whole number"),
    ],
)
def test_combinations_that_are_no_sweep(grid: dict[str, list[Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match=message):
        lottery.sweep(TINY, grid, runs_dir=tmp_path, progress=False)
    with pytest.raises(LotteryError, match="name = 'a/b': a name has no slash"):
        lottery.sweep(TINY, GRID, runs_dir=tmp_path, name="a/b", progress=False)
    assert not list(tmp_path.iterdir())


def test_too_many_runs_are_refused_before_they_are_made() -> None:
    with pytest.raises(LotteryError, match="sweep = '1,000,000 combinations': at most 500"):
        combinations({}, {"seed": [*range(1000)], "recipe.batch_size": [*range(1, 1001)]})
    with pytest.raises(LotteryError, match="at most 500"):
        [*cli._parse_all(["sweep", "quickstart", "--seed", *map(str, range(501))])]


# --- what is on disk


class Stopped(Exception):
    """In the place of a kill."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> lottery.Sweep:
    """A sweep that was stopped after its third level, and asked for again."""
    runs = tmp_path_factory.mktemp("runs")
    done: list[Place] = []

    def stop(spec: Spec, event: Progress) -> None:
        done.extend([event.place] if event.row else [])
        if len(done) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        lottery.sweep(TINY, GRID, runs_dir=runs, name="lr", progress=stop)
    begun = sweep.Sweep.open(runs / "sweep-lr")
    assert sum(len(run.rows()) for run in begun.runs) == 3
    assert not begun.table()["finished"].all()
    return lottery.sweep(TINY, GRID, runs_dir=runs, name="lr", progress=False)


def test_runs_have_the_bytes_that_each_has_by_itself(trained: lottery.Sweep, tmp_path: Path) -> None:
    assert [run.path for run in trained.runs] == [
        trained.path / spec.uid for spec in combinations(TINY.to_table(), GRID)
    ]
    for run in trained.runs:
        alone = lottery.run(run.spec, runs_dir=tmp_path, progress=False)
        assert contents(run) == contents(alone)
        assert (run.path / "spec.toml").read_bytes() == (trained.path / "specs" / f"{run.path.name}.toml").read_bytes()


MINE = """\
import numpy as np
from lottery.data import DATASETS

def mine():
    x = np.random.default_rng({seed}).normal(size=(60, 6)).astype("float32")
    y = (x[:, 0] > x[:, 1]).astype(int)
    return x[:40], y[:40], x[40:], y[40:]

DATASETS["mine"] = mine
"""


def test_each_run_has_the_data_of_its_own_code(tmp_path: Path) -> None:
    """Of two data sets of one name, which two files register."""
    specs = []
    for seed in (0, 1):
        (tmp_path / f"file{seed}.py").write_text(MINE.format(seed=seed))
        use = (str(tmp_path / f"file{seed}.py"),)
        data, recipe = Data(name="mine", validation=10), Recipe(iterations=3, evaluate_every=3, batch_size=10)
        specs.append(replace(TINY, data=data, recipe=recipe, levels=0, replicates=1, seed=seed, use=use))
    runs = lottery.sweep(specs, name="two", runs_dir=tmp_path / "runs", progress=False).runs
    alone = [lottery.run(spec, runs_dir=tmp_path / "alone", progress=False) for spec in specs]
    assert [run.info["data"] for run in runs] == [run.info["data"] for run in alone]
    assert [contents(run) for run in runs] == [contents(run) for run in alone]
    assert runs[0].info["data"] != runs[1].info["data"]


def test_one_that_fails_stops_no_other_and_the_tables_are_there(tmp_path: Path) -> None:
    grid = {"recipe.learning_rate": [1e30, 1e-3]}
    with pytest.raises(LotteryError, match=r"rewind, replicate 0, level 0: training loss"):
        lottery.sweep(TINY, grid, name="one", runs_dir=tmp_path, progress=False)
    failed, other = sweep.Sweep.open(tmp_path / "sweep-one").runs
    assert not failed.rows()
    assert len(other.rows()) == TINY.replicates * (TINY.levels + 1)
    assert not verify(other.path).wrong
    assert not verify(other.path).notes
    assert list(pd.read_csv(tmp_path / "sweep-one" / "runs.csv")["finished"]) == [False, True]


def test_the_folder_says_what_was_asked_and_what_came_out(trained: lottery.Sweep) -> None:
    assert {path.name for path in trained.path.iterdir()} == {
        *("sweep.toml", "specs", "runs.csv", "levels.csv", "report.html"),
        *(run.path.name for run in trained.runs),
    }
    assert sweep.Sweep.open(trained.path) == trained
    assert trained.settings == ["recipe.learning_rate"]
    table = pd.read_csv(trained.path / "runs.csv")
    assert list(table["run"]) == [run.path.name for run in trained.runs]
    assert list(table["recipe.learning_rate"]) == [1e-3, 1e-2]
    for row, run in zip(table.to_dict("records"), trained.runs, strict=True):
        levels = run.levels()
        assert row["finished"]
        assert row["dense_accuracy"] == pytest.approx(
            levels.loc[levels["level"] == 0, "test_accuracy_early_stop"].mean()
        )
        assert row["seconds"] == pytest.approx(levels["seconds"].sum())
        assert row["answer"].startswith(listing.in_words(run)[:7])
    whole = pd.read_csv(trained.path / "levels.csv")
    assert len(whole) == 8
    assert list(whole.columns[:3]) == ["run", "recipe.learning_rate", "branch"]
    page = (trained.path / "report.html").read_text()
    assert "2 runs compared" in page
    assert "A learning rate 1e-3" in page


def test_a_named_sweep_takes_more_values_and_no_others(trained: lottery.Sweep) -> None:
    runs = trained.path.parent
    more = sweep.plan([*trained.specs, replace(TINY, seed=1)], runs, "lr")
    assert more.path == sweep.plan(trained.specs, runs, "sweep-lr").path == trained.path
    with pytest.raises(LotteryError, match="sweep-lr holds other runs too, such as mnist-5k-mlp-20it-seed0"):
        sweep.plan([replace(TINY, seed=1), replace(TINY, seed=2)], runs, "lr")
    unnamed = sweep.plan(trained.specs, runs).path
    assert unnamed == sweep.plan(trained.specs[::-1], runs).path != trained.path


def test_a_damaged_sweep_says_what_to_do(trained: lottery.Sweep, tmp_path: Path) -> None:
    swept = sweep.Sweep(tmp_path / "sweep-x", trained.specs)
    swept.write()
    assert swept.runs == []
    for file, text in (
        (next((swept.path / "specs").iterdir()), "levels = -1"),
        (swept.path / "sweep.toml", "runs = 3"),
    ):
        file.write_text(text)
        with pytest.raises(LotteryError, match=f"{file.name} is damaged: .*move this file away, and `lottery sweep`"):
            sweep.Sweep.open(swept.path)


# --- what is said of it


def test_a_sweep_asked_for_again_trains_nothing(
    trained: lottery.Sweep, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = tmp_path / "tiny.toml"
    spec.write_text(TINY.to_toml())
    words = ["--recipe.learning-rate", "1e-3", "1e-2", "--runs-dir", str(trained.path.parent), "--name", "lr"]
    before = (trained.path / "runs.csv").read_bytes()
    assert main(["sweep", str(spec), *words]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^A  1e-3 +\d+\.\d\d  \w", printed, re.MULTILINE)
    assert "complete already: nothing was left to train" in printed
    assert str(trained.path / "report.html") in printed
    assert (trained.path / "runs.csv").read_bytes() == before
    assert main(["show", "lr", "--runs-dir", str(trained.path.parent)]) == 0
    assert capsys.readouterr().out.splitlines()[3].startswith("A  1e-3")
    assert main(["verify", "sweep-lr", "--runs-dir", str(trained.path.parent)]) == 0
    assert capsys.readouterr().out.count("sound:") == 2


def test_tasks_are_commands_that_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lottery.views.plots.save", lambda run, names: [])  # pictures have tests of their own
    monkeypatch.setattr("lottery.api.report", lambda runs, path, margin: path)
    (tmp_path / "tiny.toml").write_text(replace(TINY, levels=0, replicates=1).to_toml())
    line = [
        "sweep",
        str(tmp_path / "tiny.toml"),
        "--seed",
        "0",
        "1",
        "--runs-dir",
        str(tmp_path),
        "--name",
        "two words",
    ]
    assert main([*line, "--print-tasks", "--engine", "torch"]) == 0
    tasks = [shlex.split(task) for task in capsys.readouterr().out.splitlines()]
    swept = sweep.find("two words", tmp_path)
    assert swept
    assert swept.runs == []
    folder = str(tmp_path / "sweep-two words")
    assert [task[:2] + task[3:] for task in tasks] == [
        ["lottery", "run", "--runs-dir", folder, "--jobs", "1", "--engine", "torch"]
    ] * 2
    for _ in range(2):  # a second time nothing is left to do
        assert main(tasks[1][1:]) == 0
    (run,) = swept.runs
    assert run.spec.seed == 1
    with store.lock(run.path):  # as another task has it
        assert main(tasks[1][1:]) == 2
    assert "another process is working on" in capsys.readouterr().err


def test_runs_of_a_sweep_are_listed_below_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = combinations(SPEC.to_table(), {"seed": [5, 2, 9], "recipe.learning_rate": [1e-3, 2e-3]})
    swept = sweep.plan(specs, tmp_path, "grid")
    swept.write()
    made(tmp_path / "newest", day=9)
    for i, spec in enumerate(specs[:3]):
        made(swept.path / spec.uid, spec, day=4 - i, levels=i)
    made(tmp_path / "oldest", day=1)
    found = listing.entries(tmp_path)
    folders = [spec.uid for spec in specs[:3]]  # in the order in which they were asked for
    assert [entry.path.name for entry in found] == ["oldest", *folders, "newest"]
    assert [entry.sweep for entry in found] == ["", "sweep-grid", "sweep-grid", "sweep-grid", ""]
    assert found[1].differs == {"recipe.learning_rate": 1e-3, "seed": 5}
    assert found[0].differs == {}  # as without the sweep
    out = io.StringIO()
    Console(file=out, width=80).print(*terminal.run_list(found), sep="\n")
    text = out.getvalue()
    assert text.count("sweep-grid  6 runs\n") == 1
    assert "\n        learning rate 2e-3, seed 5" in text
    assert main(["list", "--json", "--runs-dir", str(tmp_path)]) == 0
    assert [entry["sweep"] for entry in json.loads(capsys.readouterr().out)] == [entry.sweep for entry in found]


def test_runs_of_a_sweep_are_found_where_no_other_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = combinations(SPEC.to_table(), {"seed": [5, 6]})
    swept = sweep.plan(specs, tmp_path, "grid")
    swept.write()
    inside = [made(swept.path / spec.uid, spec, levels=0).path for spec in specs]
    above = made(tmp_path / SPEC.uid, levels=0).path
    for name in (f"sweep-grid/{specs[1].uid}", str(inside[1]), specs[1].uid, specs[1].uid[:-1]):
        assert store.locate(name, tmp_path) == inside[1]
    assert store.locate("mnist-lenet", tmp_path) == above
    with pytest.raises(LotteryError, match=r"several runs begin with 'sweep-grid' .*; there are: sweep-grid/mnist"):
        store.locate("sweep-grid", tmp_path)
    assert main(["--complete", "show", "--runs-dir", str(tmp_path), "sw"]) == 0
    assert set(capsys.readouterr().out.split()) == {"sweep-grid", *(f"sweep-grid/{spec.uid}" for spec in specs)}


def test_a_page_of_many_runs_compares_and_leaves_the_rest_to_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "FEW", 2)  # many more would take seconds
    spec = replace(SPEC, replicates=1, branches=("reinit",))
    specs = combinations(spec.to_table(), {"seed": [0, 1, 2]})
    page = report.page([made(tmp_path / spec.uid, spec, levels=3 if spec.seed else 2) for spec in specs])
    table = page[page.index('<section id="differences">') : page.index("</table>")]
    assert re.findall(r"<td>(\d)</td>", table) == ["0", "1", "2"]
    assert table.count("not finished") == 1
    assert table.count("no verdict") == 2
    assert "What each run shows" in page
    assert 'id="anatomyA"' not in page
    assert 'id="controlsB"' not in page
    data = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0])
    assert data["hidden"] == ["B reinit", "C reinit"]


def test_runs_can_be_told_apart() -> None:
    for count in (2, len(COLOURS), 9, len(LETTERS)):
        colours = [run_colour(i, count) for i in range(count)]
        assert len(set(colours)) == count
        assert all(re.fullmatch("#[0-9a-fA-F]{6}", colour) for colour in colours)


@pytest.mark.parametrize(("branch", "name"), [("reinit", "learning rate 1e-3"), ("random_mask_reinit", "run A")])
def test_bars_of_several_runs(branch: str, name: str) -> None:
    """One for the whole, and one for each chain at work, which says of which run it is, as far as there is room."""
    swept = sweep.plan(combinations(replace(TINY, branches=(f"{branch}:12",)).to_table(), GRID))
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    with terminal.SweepDisplay(swept, console, "begun") as display:
        first, second = swept.specs
        display(first, Progress(Place("rewind", 0, 1), 10, 0.9, done=0.5))
        display(first, Progress(Place("rewind", 1, 1), 20, 0.9, made_row(), done=1.0))
        display(second, Progress(Place(branch, 1, 1, 11), 10, 0.9))
        tasks = {str(task.description) for task in display.bars.tasks if task.visible}
    assert tasks == {"total", f"{name}  rewind 0", f"{display.names[second.uid]}  {branch} 1 draw 11"}
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("total") and "1 of 56 levels" in line for line in lines)
    assert any(line.startswith(f"{name}  rewind 0") and "level 1/1 90.0 %" in line for line in lines)


def made_row() -> Row:
    return Row(Place("rewind", 1, 1), density=0.5, iterations=20)


def test_what_it_will_take_is_what_runs_alike_took(trained: lottery.Sweep) -> None:
    runs = trained.path.parent
    beside = [replace(TINY, seed=1), replace(TINY, seed=2)]
    like = alike(beside[0], runs)
    assert like
    assert like.path.parent == trained.path
    assert alike(SPEC, runs) is None
    blind, informed = cost(beside, runs), cost(beside, runs, like)
    assert (blind.measured, informed.measured) == (False, True)
    assert informed.missing == informed.total == pytest.approx(2 * sum(row.seconds or 0 for row in like.rows()))
