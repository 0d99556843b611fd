"""The run directory: complete or absent, checksummed, bound to its spec."""

import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery.analysis.frames import curve
from lottery.engines import history
from lottery.errors import LotteryError
from lottery.models.mlp import stack
from lottery.runs import store
from lottery.runs.rows import COLUMNS, Place, Row, wanted
from lottery.seeds import stream
from lottery.spec import Spec

NETWORK = stack((5, 3))
BINDING = {
    "engine": "torch",
    "device": "cpu",
    "data": {"x": "abc"},
    "images": {"train": 20, "test": 10},
    "network": NETWORK.to_json(),
}


@pytest.fixture
def run(tmp_path: Path) -> store.Run:
    return store.Run.begin(made(tmp_path), Spec(levels=1), BINDING, {"command": "first"})


def made(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "a"
    path.mkdir(parents=True, exist_ok=True)
    return path


def level(number: int = 0, branch: str = "rewind", draw: int = 0, replicate: int = 0) -> store.SavedLevel:
    rng = stream(number)
    weights = {"fc1.weight": rng.standard_normal((3, 5)).astype(np.float32), "fc1.bias": np.zeros(3, np.float32)}
    rows = [(10, 0.5, 0.4, 0.9, 0.41, float("nan"))]
    row = Row(Place(branch, replicate, number, draw), density=1 / 3, iterations=10, densities={"fc1.weight": 1 / 3})
    return store.SavedLevel(weights, {"fc1.weight": rng.random((3, 5)) < 0.5}, weights, history.from_rows(rows), row)


def test_a_level_comes_back_to_the_bit(run: store.Run) -> None:
    before = level()
    run.save(before)
    after = store.Run(run.path).load("rewind", 0, 0)
    for ours, theirs in ((before.start, after.start), (before.masks, after.masks), (before.trained, after.trained)):
        assert set(ours) == set(theirs)
        assert all(ours[n].tobytes() == theirs[n].tobytes() and ours[n].dtype == theirs[n].dtype for n in ours)
    assert all(before.history[c].tobytes() == after.history[c].tobytes() for c in before.history)
    assert before.row == after.row


def test_same_level_same_bytes(run: store.Run, tmp_path: Path) -> None:
    for replicate in (0, 1):
        run.save(level(replicate=replicate))
    a, b = (run.folder(Place("rewind", r, 0)) for r in (0, 1))
    assert {p.name for p in a.iterdir()} == {*store.FILES, "level.json"}
    assert all((a / name).read_bytes() == (b / name).read_bytes() for name in store.FILES)
    ours, theirs = (json.loads((folder / "level.json").read_text()) for folder in (a, b))
    ours["row"]["replicate"], ours["sha256"]["row"] = 1, theirs["sha256"]["row"]  # its address is in it
    assert ours == theirs
    again = store.Run.begin(made(tmp_path / "again"), Spec(levels=1), BINDING, {})
    again.save(level())
    for name in (*store.FILES, "level.json"):
        assert (again.folder(Place("rewind", 0, 0)) / name).read_bytes() == (a / name).read_bytes()


@pytest.mark.parametrize("name", [*store.FILES, "level.json"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_damage_is_named(run: store.Run, name: str, how: str) -> None:
    run.save(level())
    path = run.folder(Place("rewind", 0, 0)) / name
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        at = data.index(b"0.333") + 3 if name == "level.json" else len(data) // 2
        data[at] ^= 1
        path.write_bytes(data)
    with pytest.raises(LotteryError, match="is damaged") as caught:
        run.load("rewind", 0, 0)
    assert str(path) in str(caught.value)
    assert "run again" in str(caught.value)


def test_what_was_half_written_is_not_there_and_is_cleaned(run: store.Run) -> None:
    run.save(level())
    half = run.path / "rewind" / "replicate-0" / f"{store.TEMPORARY}x"
    half.mkdir()
    (half / "ticket.safetensors").write_bytes(b"half")
    (run.path / f"{store.TEMPORARY}spec").write_bytes(b"half")
    assert not run.has(Place("rewind", 0, 1))
    assert len(run.rows()) == 1
    run.clean()
    assert not half.exists()
    assert not (run.path / f"{store.TEMPORARY}spec").exists()
    assert run.has(Place("rewind", 0, 0))


def test_unfinished_until_every_level_is_there(run: store.Run) -> None:
    assert run.unfinished(run.spec) == [Place("rewind", 0, 0)]
    run.save(level(0))
    assert run.unfinished(run.spec) == [Place("rewind", 0, 1)]  # the first that is missing
    assert run.unfinished(replace(run.spec, levels=0)) == []
    run.save(level(1))
    assert run.unfinished(run.spec) == []
    assert run.unfinished(replace(run.spec, replicates=3)) == [Place("rewind", 1, 0), Place("rewind", 2, 0)]


def test_branches_are_unfinished_until_every_draw_of_every_level_but_0_is_there(run: store.Run) -> None:
    spec = replace(run.spec, branches=("reinit:2", "one_shot"))
    for number in (0, 1):
        run.save(level(number))
    assert run.unfinished(run.spec) == []
    assert run.unfinished(spec) == [Place("reinit", 0, 1), Place("reinit", 0, 1, 1), Place("one_shot", 0, 1)]
    run.save(level(1, "reinit", 1))
    run.save(level(1, "one_shot"))
    assert run.unfinished(spec) == [Place("reinit", 0, 1)]
    run.save(level(1, "reinit"))
    assert run.unfinished(spec) == []
    assert sorted(p.name for p in (run.path / "reinit" / "replicate-0").iterdir()) == ["level-01", "level-01-draw-1"]
    assert run.load("reinit", 0, 1, draw=1).row.place.draw == 1
    rows = [(row.place.branch, row.place.level, row.place.draw) for row in run.rows()]
    assert rows == [("rewind", 0, 0), ("rewind", 1, 0), ("one_shot", 1, 0), ("reinit", 1, 0), ("reinit", 1, 1)]


def test_a_branchs_curve_begins_with_the_trunks_dense_network(run: store.Run) -> None:
    for number, density in ((0, 1.0), (1, 0.5)):
        run.save(replace(saved := level(number), row=replace(saved.row, density=density)))
    run.save(replace(saved := level(1, "reinit"), row=replace(saved.row, density=0.4)))
    found = {branch: curve(run.levels(), "density", branch).to_dict("records") for branch in ("rewind", "reinit")}
    assert found == {"rewind": [{0: 1.0, 1: 0.5}], "reinit": [{0: 1.0, 1: 0.4}]}


def test_a_row_is_one_of_levels_csv_and_comes_back() -> None:
    row = Row(
        Place("reinit", 2, 3, 1),
        density=0.25,
        iterations=60,
        early_stop_iteration=40,
        test_accuracy_early_stop=0.9,
        validation_loss_min=0.1,
        test_accuracy=0.8,
        train_accuracy=1.0,
        seconds=0.5,
        engine="sparse",
        steady_stop_iteration=30,
        densities={"fc2.weight": 0.5, "fc1.weight": 0.2},
        recorded={"sharpness": 3.5},
    )
    value = row.to_json()
    assert list(value) == [*COLUMNS, "density:fc2.weight", "density:fc1.weight", "sharpness"]
    assert value | {"sparsity": 0.75, "branch": "reinit", "replicate": 2, "level": 3, "draw": 1} == value
    for made in (row, Row(Place("rewind", 0, 0), density=1.0, iterations=1)):  # with nothing held out, too
        read = Row.from_json(json.loads(json.dumps(made.to_json())))
        assert read == made
        assert list(read.densities) == list(made.densities)


def test_a_place_says_where_it_is() -> None:
    assert Place("reinit", 2, 3, 1).folder == "reinit/replicate-2/level-03-draw-1"
    assert Place("rewind", 0, 12).folder == "rewind/replicate-0/level-12"
    assert str(Place("reinit", 2, 3, 1)) == "reinit, replicate 2, level 3, draw 1"
    assert str(Place("rewind", 0, 12)) == "rewind, replicate 0, level 12"
    assert list(wanted(Spec(levels=1, replicates=2, branches=("reinit:2",)))) == [
        *(Place("rewind", replicate, level) for replicate in (0, 1) for level in (0, 1)),
        *(Place("reinit", replicate, 1, draw) for draw in (0, 1) for replicate in (0, 1)),
    ]


def test_runs_from_before_there_were_draws_are_read_on(run: store.Run) -> None:
    run.save(level())
    run.save(level(1))
    expected = run.load("rewind", 0, 0).row
    path = run.folder(Place("rewind", 0, 0)) / "level.json"
    record = json.loads(path.read_text())
    del record["row"]["draw"]
    record["sha256"]["row"] = hashlib.sha256(json.dumps(record["row"], indent=1).encode()).hexdigest()
    path.write_text(json.dumps(record, indent=1))
    assert run.load("rewind", 0, 0).row == expected
    assert [row.place.draw for row in run.rows()] == [0, 0]
    assert run.levels()["draw"].tolist() == [0, 0]
    assert run.write_table().read_text().splitlines()[0] == ",".join([*COLUMNS, "density:fc1.weight"])


def test_beginning_again_extends_and_never_shrinks(run: store.Run, tmp_path: Path) -> None:
    again = store.Run.begin(run.path, Spec(levels=5, replicates=2), BINDING, {"command": "second"})
    assert (again.spec.levels, again.spec.replicates) == (5, 2)
    again = store.Run.begin(run.path, Spec(levels=1), BINDING, {"command": "third"})
    assert (again.spec.levels, again.spec.replicates) == (5, 2)
    assert [s["command"] for s in again.info["sessions"]] == ["first", "second", "third"]


def test_another_spec_or_binding_is_refused_and_nothing_changes(run: store.Run) -> None:
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(LotteryError, match="was made with seed = 0, not 1"):
        store.Run.begin(run.path, Spec(seed=1), BINDING, {})
    with pytest.raises(LotteryError, match="was begun with engine 'torch', now it is 'other'"):
        store.Run.begin(run.path, Spec(), BINDING | {"engine": "other"}, {})
    with pytest.raises(LotteryError, match="was begun with device 'cpu', now it is 'cuda'"):
        store.Run.begin(run.path, Spec(), BINDING | {"device": "cuda"}, {})
    with pytest.raises(LotteryError, match=r"was begun with data {'x': 'abc'}, now it is {'x': 'abd'}"):
        store.Run.begin(run.path, Spec(), BINDING | {"data": {"x": "abd"}}, {})
    with pytest.raises(LotteryError, match=r"was begun with images {'train': 20, 'test': 10}, now it is {'train': 21"):
        store.Run.begin(run.path, Spec(), BINDING | {"images": {"train": 21, "test": 10}}, {})
    with pytest.raises(LotteryError, match="was begun with network "):
        store.Run.begin(run.path, Spec(), BINDING | {"network": stack((5, 4)).to_json()}, {})
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


def test_the_table_has_the_promised_columns(run: store.Run) -> None:
    run.save(level())
    header, line = run.write_table().read_text().splitlines()
    assert header.startswith(
        "branch,replicate,level,density,sparsity,iterations,early_stop_iteration,test_accuracy_early_stop,"
        "test_accuracy,validation_loss_min,seconds"
    )
    assert line.startswith("rewind,0,0,0.3333333333333333,")


def test_an_empty_run_has_an_empty_table(run: store.Run) -> None:
    assert run.write_table().read_text() == ",".join(COLUMNS) + "\n"


def test_a_second_process_is_told(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from lottery.runs import store\nwith store.lock(Path({str(tmp_path)!r})): pass"
    with store.lock(tmp_path):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is working on" in result.stderr
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_runs_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LotteryError, match="cannot write to the runs folder"), store.lock(tmp_path / "file" / "run"):
        pass


def test_finding_runs(run: store.Run, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("b-1", "b-2"):
        (runs / name).mkdir()
        store.Run.begin(runs / name, replace(Spec(), seed=3), BINDING, {})
    assert store.find(str(run.path), Path("elsewhere")).path == run.path
    assert store.find("a", runs).path.name == "a"
    assert store.find("b-2", runs).path.name == "b-2"
    with pytest.raises(LotteryError, match=r"several runs begin with 'b'.* b-1, b-2"):
        store.find("b", runs)
    with pytest.raises(LotteryError, match=r"no run 'c' in .* a, b-1, b-2"):
        store.find("c", runs)
    with pytest.raises(LotteryError, match="none yet"):
        store.find("c", tmp_path / "nowhere")


class Killed(BaseException):
    """No handler of errors runs, as none does after kill -9."""


def kill_at(patch: pytest.MonkeyPatch, name: str, call: int = 0) -> None:
    """os.`name` ends the process, so to speak, at that of its calls, before it does anything."""
    real, calls = getattr(os, name), itertools.count()

    def last(*arguments: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return real(*arguments)

    patch.setattr(os, name, last)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_file_stays_whole_when_its_writer_is_killed(
    run: store.Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.write_table().read_bytes()
    run.save(level())
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        kill_at(patch, name)
        run.write_table()
    assert (run.path / "levels.csv").read_bytes() == before
    assert run.write_table().read_text() == run.table() != before.decode()
    run.clean()
    assert sorted(p.name for p in run.path.iterdir()) == ["levels.csv", "rewind", "run.json", "spec.toml"]


@pytest.mark.parametrize("call", [0, 1])
def test_a_run_exists_whole_or_not_at_all(tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it begins, between its files too; begun again, it is as if nothing had been."""
    path = made(tmp_path)
    with monkeypatch.context() as patch:
        kill_at(patch, "replace", call)
        with pytest.raises(Killed):
            store.Run.begin(path, Spec(levels=1), BINDING, {"command": "killed"})
    assert store.names(path.parent) == []
    with pytest.raises(LotteryError, match="is not a run directory"):
        store.Run(path)
    run = store.Run.begin(path, Spec(levels=2), BINDING, {"command": "again"})
    assert store.names(path.parent) == ["a"]
    assert (run.spec, run.info["sessions"]) == (Spec(levels=2), [{"command": "again"}])
    run.clean()
    assert sorted(p.name for p in path.iterdir()) == ["run.json", "spec.toml"]


def test_a_disk_error_leaves_nothing_behind(run: store.Run) -> None:
    """A folder where the level should be, not empty: renaming fails as it would on a broken disk."""
    in_the_way = run.folder(Place("rewind", 0, 0))
    in_the_way.mkdir(parents=True)
    (in_the_way / "x").write_text("")
    with pytest.raises(OSError, match="not empty"):
        run.save(level())
    assert [p.name for p in in_the_way.parent.iterdir()] == ["level-00"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("run.json", b"{}"),
        ("run.json", json.dumps(BINDING).encode()),
        ("run.json", json.dumps({**BINDING, "sessions": [], "network": {"inputs": [5]}}).encode()),
        ("spec.toml", b"\xff\xfe"),
        ("run.json", b"["),
    ],
)
def test_a_damaged_run_is_named_and_nobody_is_told_to_delete_it(run: store.Run, name: str, data: bytes) -> None:
    (run.path / name).write_bytes(data)
    with pytest.raises(LotteryError) as caught:
        store.Run(run.path)
    assert str(run.path / name) in str(caught.value)
    assert "delete" not in str(caught.value)
