"""The run directory: complete or absent, checksummed, bound to its spec."""

import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import disk
from faults.disk import Disk, Killed
from safetensors.numpy import save as save_tensors

import lottery
from lottery.analysis.frames import curve
from lottery.engines import history
from lottery.errors import LotteryError
from lottery.models.mlp import stack
from lottery.runs import files, store
from lottery.runs.rows import COLUMNS, Place, Row, wanted
from lottery.runs.verify import verify
from lottery.seeds import stream
from lottery.spec import Spec
from lottery.starts import Moment

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
    ours["row"]["replicate"], ours["checksum"] = 1, theirs["checksum"]  # its address is in it
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
    assert "delete" not in str(caught.value)


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
    run = store.Run.begin(run.path, spec, BINDING, {})
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
    run = store.Run.begin(run.path, replace(run.spec, branches=("reinit",)), BINDING, {})
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


def test_a_table_that_is_right_already_is_left_alone(run: store.Run) -> None:
    written = run.write_table().stat()
    again = run.write_table().stat()
    assert (again.st_ino, again.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


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
    """Killed while it begins, before run.json or after it; begun again, it is as if that had not happened."""
    path = made(tmp_path)
    with monkeypatch.context() as patch:
        kill_at(patch, "replace", call)
        with pytest.raises(Killed):
            store.Run.begin(path, Spec(levels=1), BINDING, {"command": "killed"})
    assert store.names(path.parent) == ["a"] * call
    if call:
        assert store.Run(path).spec == Spec(levels=1)  # which needs no spec.toml
    else:
        with pytest.raises(LotteryError, match="is not a run directory"):
            store.Run(path)
    run = store.Run.begin(path, Spec(levels=2), BINDING, {"command": "again"})
    assert store.names(path.parent) == ["a"]
    assert run.spec == Spec(levels=2)
    assert run.info["sessions"] == [{"command": command} for command in ["killed"] * call + ["again"]]
    assert (path / "spec.toml").read_text() == run.spec.to_toml()
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


NO_NETWORKS: list[Any] = [
    *({"inputs": [5]}, [], None),
    *({"tensors": [], "inputs": 1, "layers": []}, {"tensors": {"a": 1}}),
]


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[",
        b"[" * 100_000,
        json.dumps(BINDING).encode(),
        files.seal({"format": 1, "spec": {}, **BINDING}),
        files.seal({"format": 1, "spec": {}, **BINDING, "sessions": [1]}),
        files.seal({"format": 1, "spec": {}, **BINDING, "sessions": 1}),
        files.seal({"format": 1, "spec": [], **BINDING, "sessions": []}),
        files.seal({"format": 1, "spec": {"seed": None}, **BINDING, "sessions": []}),
        files.seal({"format": 1, "spec": {"seed": -1}, **BINDING, "sessions": []}),
        *(
            files.seal({"format": 1, "spec": {}, **BINDING, "sessions": [], "network": network})
            for network in NO_NETWORKS
        ),
        files.seal({"format": 2}),
    ],
)
def test_a_damaged_run_is_named_and_nobody_is_told_to_delete_it(run: store.Run, data: bytes) -> None:
    (run.path / "run.json").write_bytes(data)
    with pytest.raises(LotteryError) as caught:
        store.Run(run.path)
    assert str(run.path / "run.json") in str(caught.value)
    assert "delete" not in str(caught.value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    """Two replicates of two levels, and a branch: all that is asked for."""
    spec = Spec(levels=1, replicates=2, branches=("reinit",))
    run = store.Run.begin(made(tmp_path_factory.mktemp("two")), spec, BINDING, {"command": "first"})
    for place in wanted(spec):
        run.save(level(place.level, place.branch, replicate=place.replicate))
    run.write_table()
    return run


@pytest.fixture
def two(built: store.Run, tmp_path: Path) -> store.Run:
    """A copy, to be spoilt."""
    run = store.Run(Path(shutil.copytree(built.path, tmp_path / "runs" / "two")))
    assert verify(run.path).wrong == []
    return run


def refusal(run: store.Run) -> str:
    """What reading the rows says, and `verify` too, and what no advice may be."""
    with pytest.raises(LotteryError) as caught:
        store.Run(run.path).rows()
    assert str(caught.value) in verify(run.path).wrong
    assert "delete" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "rewind/replicate-0/level-01-backup",
        "rewind/replicate-0/level-1",
        "rewind/replicate-0/level-001",
        "rewind/replicate-0/level-01-draw-0",
        "rewind/replicate-0/Level-01",
        "rewind/replicate-00/level-01",
        "rewind/replicate-0-old/level-01",
        "rewind-backup/replicate-0/level-01",
    ],
)
def test_a_copy_beside_a_level_is_not_counted_twice(two: store.Run, name: str) -> None:
    rows = two.rows()
    shutil.copytree(two.folder(Place("rewind", 0, 1)), two.path / name)
    assert two.rows() == rows
    assert verify(two.path).wrong == []
    assert verify(two.path).notes == [f"{name} is no level of this run by its name: it is not counted"]


@pytest.mark.parametrize(
    "other", [Place("rewind", 0, 0), Place("rewind", 1, 1), Place("reinit", 0, 1)], ids=["level", "replicate", "branch"]
)
@pytest.mark.parametrize("name", ["", "level.json"], ids=["folder", "record"])
def test_a_level_of_another_place_is_refused(two: store.Run, other: Place, name: str) -> None:
    """All of its folder, or its level.json alone: exit 0 and a wrong table, before."""
    place = Place("rewind", 0, 1)
    files_there = [name] if name else [*store.FILES, "level.json"]
    for file in files_there:
        shutil.copy(two.folder(other) / file, two.folder(place) / file)
    message = refusal(two)
    assert f"{two.folder(place) / 'level.json'} belongs elsewhere: it is {other}; move the folder" in message
    with pytest.raises(LotteryError, match="belongs elsewhere"):
        two.read(place)


@pytest.mark.parametrize(
    ("spec", "binding"),
    [
        (Spec(seed=1), {}),
        (Spec(), {"engine": "sparse"}),
        (Spec(), {"device": "cuda"}),
        (Spec(), {"data": {"x": "abd"}}),
    ],
    ids=["seed", "engine", "device", "data"],
)
def test_a_level_of_another_run_is_refused(run: store.Run, tmp_path: Path, spec: Spec, binding: dict[str, Any]) -> None:
    other = store.Run.begin(made(tmp_path / "other"), spec, BINDING | binding, {})
    other.save(level())
    shutil.copytree(other.path / "rewind", run.path / "rewind")
    assert "level.json belongs to another run, made otherwise; move the folder" in refusal(run)


def test_a_run_from_before_there_was_a_format_is_refused_in_one_line(run: store.Run) -> None:
    old = {k: v for k, v in run.info.items() if k not in ("format", "spec", "checksum")}
    (run.path / "run.json").write_text(json.dumps(old, indent=1))
    with pytest.raises(LotteryError, match=r"was begun by an older version.*: use another --runs-dir") as caught:
        store.Run.begin(run.path, run.spec, BINDING, {})
    assert "\n" not in str(caught.value)
    assert verify(run.path).wrong == [str(caught.value)]


def test_settings_are_read_from_run_json_and_an_edited_spec_is_refused(two: store.Run) -> None:
    """An edited seed, a rate, or an empty file gave pages with false settings."""
    path, good = two.path / "spec.toml", (two.path / "spec.toml").read_text()
    for text, says in [
        (good.replace("seed = 0", "seed = 1"), r"spec\.toml says seed = 1, but the run was made with 0"),
        (good.replace("rate = 0.2", "rate = 0.3"), r"spec\.toml says pruning\.rate = 0\.3"),
        (good.replace("levels = 1", "levels = 9"), r"spec\.toml says levels = 9"),
        (good.replace("seed = 0", "sead = 0"), r"spec\.toml is damaged: .*sead.*; move this file away"),
        ("", r"spec\.toml says branches = \(\)"),
    ]:
        path.write_text(text)
        assert store.Run(two.path).spec == two.spec
        assert any(str(path) in line for line in verify(two.path).wrong)
        with pytest.raises(LotteryError, match=says):
            store.Run.begin(two.path, two.spec, BINDING, {})
        assert path.read_text() == text
    for left in (good.replace("levels = 1", "levels = 0"), ""):  # killed before it was written
        path.write_text(left) if left else path.unlink()
        assert store.Run.begin(two.path, two.spec, BINDING, {}).spec == two.spec
        assert path.read_text() == good


def test_levels_without_run_json_are_not_built_upon(two: store.Run) -> None:
    """Their engine was then whatever the command line said."""
    (two.path / "run.json").unlink()
    before = {path: path.read_bytes() for path in two.path.rglob("*") if path.is_file()}
    with pytest.raises(
        LotteryError, match=r"run\.json is missing, and nothing else says what made \S*level-0.*restore"
    ):
        store.Run.begin(two.path, two.spec, BINDING | {"engine": "sparse"}, {})
    assert before == {path: path.read_bytes() for path in two.path.rglob("*") if path.is_file()}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A folder or file that may not be read, by whoever runs this; root may read all, so it is nobody meanwhile."""
    mode, root = stat.S_IMODE(path.stat().st_mode), os.geteuid() == 0
    parents = [parent for parent in path.parents if root and parent.stat().st_uid == 0 and parent != Path("/")]
    modes = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in parents}
    for parent in parents:
        parent.chmod(modes[parent] | 0o055)
    path.chmod(0)
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)
        for parent in parents:
            parent.chmod(modes[parent])


@pytest.mark.parametrize(
    "name",
    [
        "rewind",
        "rewind/replicate-1",
        "rewind/replicate-1/level-00",
        "rewind/replicate-1/level-00/level.json",
        "run.json",
    ],
)
def test_what_may_not_be_read_is_no_damage_and_does_not_vanish(two: store.Run, name: str) -> None:
    with locked(two.path / name):
        message = refusal(two)
        assert two.has(Place("rewind", 1, 0))
    assert message.startswith(f"cannot read {two.path / name}")
    assert "Permission denied; that says nothing against what is in it" in message
    assert "damage" not in message
    assert "move" not in message
    assert len(two.rows()) == 6


def test_what_links_to_nothing_does_not_vanish(two: store.Run) -> None:
    """A disk that is not mounted."""
    for name in ("rewind", "reinit/replicate-0"):
        with disk.aside(two.path / name):
            (two.path / name).symlink_to("/nowhere")
            assert f"cannot read {two.path / name}: what it links to is not there" in refusal(two)


@pytest.mark.parametrize("name", ["rewind/replicate-0/level-01", "rewind/replicate-0", "rewind", "reinit"])
@pytest.mark.parametrize("what", ["a file", "a pipe", "an empty folder"])
def test_something_else_in_a_folders_place_is_no_absence(two: store.Run, name: str, what: str) -> None:
    """It would be trained again, only to find that it cannot be saved."""
    with disk.aside(two.path / name):
        if what == "an empty folder":
            (two.path / name).mkdir()
        else:
            (two.path / name).write_bytes(b"") if what == "a file" else os.mkfifo(two.path / name)
        if what == "an empty folder" and "level" not in name:  # as while a run begins
            assert verify(two.path).notes[0].endswith("levels are not there yet: run again to continue")
        else:
            assert str(two.path / name) in refusal(two)


def test_a_draw_that_is_spelt_out_is_no_other_spec(tmp_path: Path) -> None:
    spec = Spec(levels=1, branches=("reinit:1",))
    for _ in range(3):
        again = store.Run.begin(made(tmp_path), spec, BINDING, {})
    assert again.spec.draws == {"reinit": 1}


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"row": None, "run": ""},
        {"row": []},
        {"row": {"branch": [], "replicate": {}, "level": None}},
        {"sha256": None},
        {"sha256": ["ticket.safetensors"]},
        {"row": {"branch": "rewind", "replicate": 0, "level": 0}},
        {"row": {"branch": "rewind", "replicate": 0, "level": 0, "density": "1", "iterations": 1}},
        {"row": {"branch": "rewind", "replicate": 0, "level": 0, "density": 1.0, "iterations": None}},
    ],
    ids=str,
)
def test_a_record_of_another_shape_is_named(run: store.Run, record: dict[str, Any]) -> None:
    run.save(level())
    path = run.folder(Place("rewind", 0, 0)) / "level.json"
    good = json.loads(path.read_text())
    path.write_bytes(files.seal({k: v for k, v in (good | record if record else {"a": 1}).items() if k != "checksum"}))
    assert f"{path} is damaged: " in refusal(run)


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(
            (name, data)
            for name in ("ticket.safetensors", "trained.safetensors")
            for data in (
                b"",
                b"\xff" * 8,
                header(b"[]"),
                header(b"{}"),
                header(b"{" * 1000),
                header(b'{"fc1.weight":{"dtype":"F32","shape":[3,5],"data_offsets":[0,1152921504606846976]}}'),
                header(b'{"fc1.weight":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
                header(b'{"fc1.weight":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}') + b"0",
                save_tensors({"fc1.weight": np.zeros((3, 5), np.float32)}),
                save_tensors({"fc1.weight": np.zeros((5, 3), np.float32), "fc1.bias": np.zeros(3, np.float32)}),
                save_tensors({"mask:fc1.weight": np.zeros(2, np.uint8)}),
            )
        ),
        (
            "ticket.safetensors",
            save_tensors({"fc1.weight": np.zeros((3, 5), np.float32), "mask:fc1.weight": np.zeros(2, np.uint8)}),
        ),
        *(
            ("ticket.safetensors", save_tensors(level().start | masks))
            for masks in (
                {},
                {"mask:fc1.weight": np.zeros(3, np.uint8)},
                {"mask:fc1.weight": np.zeros(2, np.float32)},
                {"mask:fc1.weight": np.zeros(2, np.uint8), "mask:fc1.bias": np.zeros(1, np.uint8)},
                {"mask:fc1.weight": np.zeros(2, np.uint8), "mask:fc9.weight": np.zeros(1, np.uint8)},
            )
        ),
        *(("history.csv", text) for text in (b"", b"a,b\n", b"\xff", ",".join(history.COLUMNS).encode() + b"\n1,2\n")),
        ("history.csv", ",".join(history.COLUMNS).encode() + b"\n1,x,0,0,0,0\n"),
    ],
)
def test_files_that_no_level_has_are_named_though_their_checksum_is_right(
    run: store.Run, name: str, data: bytes
) -> None:
    run.save(level())
    folder = run.folder(Place("rewind", 0, 0))
    record = json.loads((folder / "level.json").read_text())
    record["sha256"][name] = hashlib.sha256(data).hexdigest()
    (folder / "level.json").write_bytes(files.seal({k: v for k, v in record.items() if k != "checksum"}))
    (folder / name).write_bytes(data)
    with pytest.raises(LotteryError) as caught:
        run.load("rewind", 0, 0)
    assert f"{folder / name} is damaged: " in str(caught.value)


def test_a_run_as_it_is_now_stays_so(run: store.Run) -> None:
    run.save(level(0))
    now = run.now()
    run.save(level(1))
    assert [row.place.level for row in now.rows()] == [0]
    assert len(now.levels()) == len(now.history()) == now.table().count("\n") - 1 == 1
    assert len(run.rows()) == 2


def test_a_system_that_opens_no_folder_writes_all_the_same(run: store.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows: there, every first level ended in PermissionError."""
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.delattr(os, "O_NONBLOCK")
    run.save(level())
    assert run.write_table().read_text().count("\n") == 2
    assert run.load("rewind", 0, 0).row == level().row


def test_a_level_with_a_flipped_bit_is_refused(two: store.Run) -> None:
    """A sample of what `make faults` does to every bit."""
    good, rng = disk.state(two.path), random.Random(0)
    for name in ("run.json", "spec.toml", "rewind/replicate-0/level-01/level.json"):
        bits = rng.sample(range(8 * (two.path / name).stat().st_size), 60)
        counts = disk.flips(two.path / name, good, two.path, bits)
        assert counts == ({"refused": 0, "the same": 60} if name == "spec.toml" else {"refused": 60, "the same": 0})


@pytest.mark.parametrize("name", ["run.json", "spec.toml", "levels.csv", *store.FILES, "level.json"])
def test_something_else_in_a_files_place_is_refused(two: store.Run, name: str) -> None:
    """At once: a pipe that nobody writes to must not be waited for, nor a device read."""
    path = two.path / name if (two.path / name).exists() else two.folder(Place("rewind", 0, 1)) / name
    good = disk.state(two.path)
    for what in disk.INSTEAD.values():
        with disk.aside(path) as kept:
            what(path, kept)
            found = disk.outcome(two.path, good, name)
            assert found == ("the same" if name in ("spec.toml", "levels.csv") else "refused")
    with disk.aside(path) as kept:
        path.symlink_to(kept)  # its own bytes, kept elsewhere
        assert verify(two.path).wrong == []
    assert disk.state(two.path) == good


def story(path: Path) -> None:
    """All that the store writes: a run begun, extended, two levels and their table."""
    store.Run.begin(path, Spec(levels=0), BINDING, {})
    run = store.Run.begin(path, Spec(levels=1), BINDING, {})
    run.clean()
    for number in (0, 1):
        if not run.has(Place("rewind", 0, number)):
            run.save(level(number))
        run.write_table()


@pytest.mark.parametrize("fault", disk.FAULTS)
def test_a_disk_that_fails_loses_nothing_that_was_finished(tmp_path: Path, fault: str) -> None:
    def contents(path: Path) -> dict[str, bytes]:
        there = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        return {name: data for name, data in there.items() if name != "run.json"}  # it counts the sessions

    story(made(tmp_path / "good"))
    good = contents(made(tmp_path / "good"))
    with pytest.MonkeyPatch.context() as patch:
        moments = Disk(patch).moments
        story(made(tmp_path / "counted"))
    for at in range(list(disk.FAULTS).index(fault), len(moments), 6):  # `make faults` tries each with each
        path = made(tmp_path / str(at))
        caught = disk.strike(lambda path=path: story(path), at, fault)  # type: ignore[misc]
        if fault != "killed":
            assert str(path) in str(caught)  # which file, though a full disk names none
            assert not list(path.rglob(f"{store.TEMPORARY}*"))
        if files.there(path / "run.json"):
            disk.state(path)
        story(path)
        assert contents(path) == good
        assert verify(path).wrong == []


@pytest.mark.parametrize("arguments", [(3, 0, 1), ("rewind", "0", 1), ("rewind", 0, None), ("rewind", 0, 1, 1.5)])
def test_an_address_of_another_type_is_named(arguments: tuple[Any, ...], tiny: Spec, tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match="path = 3: must be a path"):
        store.Run(3)  # type: ignore[arg-type]  # which is the mistake
    run = lottery.run(replace(tiny, levels=0), runs_dir=tmp_path)
    assert store.Run(str(run.path)).rows() == run.rows()
    with pytest.raises(LotteryError, match=r"^(branch|replicate|level|draw) = .*: must be "):
        run.load(*arguments)


# --- the moment to which tickets are rewound --------------------------------------------------------------------------


LATE = Spec(levels=1, rewind_to=5)


def dense(iteration: int = 5, **change: Any) -> store.SavedLevel:
    """A dense level with what it was at iteration 5."""
    saved = level()
    slots = {f"{slot}:{n}": w + 1 for slot in ("exp_avg", "exp_avg_sq") for n, w in saved.start.items()}
    moment = Moment(iteration, {n: w + 2 for n, w in saved.start.items()}, {"step": np.array(5, np.int64)} | slots)
    return replace(saved, early=replace(moment, **change))


@pytest.fixture
def late(tmp_path: Path) -> store.Run:
    run = store.Run.begin(made(tmp_path), LATE, BINDING, {})
    run.save(dense())
    run.save(level(1))
    run.write_table()
    return run


def test_the_dense_level_alone_keeps_the_moment_to_which_tickets_are_rewound(late: store.Run) -> None:
    saved, expected = late.load("rewind", 0, 0).early, dense().early
    assert saved
    assert expected
    assert saved.iteration == 5
    for kind in ("weights", "optimizer"):
        ours, theirs = getattr(saved, kind), getattr(expected, kind)
        assert set(ours) == set(theirs)
        assert all(
            (a.dtype, a.shape, a.tobytes()) == (t.dtype, t.shape, t.tobytes())
            for a, t in zip((ours[n] for n in sorted(ours)), (theirs[n] for n in sorted(theirs)), strict=True)
        )
    assert late.load("rewind", 0, 1).early is None
    names = [{p.name for p in late.folder(Place("rewind", 0, number)).iterdir()} for number in (0, 1)]
    assert names == [{*store.FILES, "early.safetensors", "level.json"}, {*store.FILES, "level.json"}]
    assert verify(late.path).wrong == []


def test_something_else_in_the_place_of_that_moment_is_refused(late: store.Run) -> None:
    path = late.folder(Place("rewind", 0, 0)) / store.EARLY
    good = disk.state(late.path)
    for what in disk.INSTEAD.values():
        with disk.aside(path) as kept:
            what(path, kept)
            assert disk.outcome(late.path, good, store.EARLY) == "refused"
    with disk.aside(path) as kept:
        shutil.copy(path.with_name(store.TRAINED), path)  # a level's, but not this
        assert disk.outcome(late.path, good, store.EARLY) == "refused"
    bits = random.Random(0).sample(range(8 * path.stat().st_size), 60)
    assert disk.flips(path, good, late.path, bits) == {"refused": 60, "the same": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {}},
        {"weights": {"fc1.weight": np.zeros((3, 5), np.float32), "fc1.bias": np.zeros(4, np.float32)}},
        {"optimizer": {}},
        {"optimizer": {"step": np.array(5)}},
        {"optimizer": {"step": np.array(5), "momentum_buffer:fc1.weight": np.zeros((3, 5), np.float32)}},
    ],
)
def test_a_moment_that_the_network_cannot_have_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    """Under a right checksum: the engines would fail, later and in other words."""
    run = store.Run.begin(made(tmp_path), LATE, BINDING, {})
    run.save(dense(**change))
    with pytest.raises(LotteryError, match=r"early\.safetensors is damaged: ValueError: tensors .* move the folder"):
        run.load("rewind", 0, 0)


def test_a_dense_level_without_that_moment_is_damaged(tmp_path: Path) -> None:
    run = store.Run.begin(made(tmp_path), LATE, BINDING, {})
    run.save(level())
    with pytest.raises(LotteryError, match=r"level\.json is damaged: KeyError: 'early\.safetensors'"):
        run.load("rewind", 0, 0)


def test_runs_that_rewind_to_the_start_are_those_from_before_there_was_a_choice(run: store.Run) -> None:
    assert run.identity == "c0f0e7371b6ca0b1e78b3ce28ba58bfa7a51910f071acefc155adc69a1ffea92"
    run.save(level())
    assert not (run.folder(Place("rewind", 0, 0)) / store.EARLY).exists()
    info = {k: v for k, v in run.info.items() if k != "checksum"}
    info["spec"] = {k: v for k, v in info["spec"].items() if k not in ("rewind_to", "optimizer_state", "data_order")}
    (run.path / "run.json").write_bytes(files.seal(info))
    assert store.Run(run.path).identity == run.identity
    assert store.Run(run.path).load("rewind", 0, 0).row == level().row
