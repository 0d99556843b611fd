"""Every moment at which the disk may fail or the process be killed, every bit that may flip, every file that may be
something else: of real runs, exhaustively. Counts are printed."""

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import lottery
from faults import disk
from lottery import data
from lottery.runs import experiment, files, store
from lottery.runs.rows import Place, wanted
from lottery.runs.verify import verify
from lottery.spec import Data, Model, Recipe, Spec

SPEC = Spec(
    data=Data(name="mnist-5k", validation=500),
    model=Model(name="mlp", hidden=(5,)),
    recipe=Recipe(iterations=2, evaluate_every=1),
    levels=1,
    branches=("reinit",),
)
"""Three levels of two iterations: what is tried is how they are kept."""


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of all these runs are the same."""
    raw = data.load("mnist-5k")
    monkeypatch.setattr(experiment, "load", lambda name, folder: raw)


def run(runs_dir: Path, spec: Spec = SPEC) -> lottery.Run:
    return lottery.run(spec, runs_dir=runs_dir, device="cpu")


def kept(path: Path) -> dict[str, bytes]:
    """All that must come out the same: every file but those that know the time."""
    files_there = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name not in ("run.json", ".lock")]
    found = {str(p.relative_to(path)): p.read_bytes() for p in files_there if p.suffix in (".safetensors", ".toml")}
    found |= {str(p.relative_to(path)): p.read_bytes() for p in files_there if p.name == "history.csv"}
    rows = [{k: v for k, v in row.to_json().items() if k != "seconds"} for row in store.Run(path).rows()]
    return found | {"rows": repr(rows).encode()}


def begin(runs_dir: Path) -> None:
    """A run of the dense network, then extended: run.json is written twice."""
    run(runs_dir, replace(SPEC, levels=0, branches=()))
    run(runs_dir)


@pytest.mark.parametrize("fault", disk.FAULTS)
def test_a_run_that_is_stopped_at_any_moment_continues_to_the_same_bytes(tmp_path: Path, fault: str) -> None:
    begin(tmp_path / "good")
    good = kept(tmp_path / "good" / SPEC.uid)
    with pytest.MonkeyPatch.context() as patch:
        moments = disk.Disk(patch).moments
        begin(tmp_path / "counted")
    counts: Counter[str] = Counter()
    for at, moment in enumerate(moments):
        path = tmp_path / str(at) / SPEC.uid
        disk.strike(lambda at=at: begin(tmp_path / str(at)), at, fault)  # type: ignore[misc]
        counts[f"at {moment}"] += 1
        finished: set[Place] = set()
        if files.there(path / "run.json"):
            stopped = store.Run(path)
            finished = {place for place in wanted(SPEC) if stopped.has(place)}
            for place in finished:
                assert stopped.read(place).row.place == place  # whole
        counts["finished levels"] += len(finished)
        times = {place: (path / place.folder).stat().st_mtime_ns for place in finished}
        run(tmp_path / str(at))
        counts["levels lost"] += sum(times[p] != (path / p.folder).stat().st_mtime_ns for p in finished)
        assert kept(path) == good
        assert verify(path).wrong == []
        assert not list(path.rglob(f"{store.TEMPORARY}*"))
        counts["resumed to the same bytes"] += 1
        shutil.rmtree(tmp_path / str(at))
    print(f"\n{fault}: {len(moments)} moments tried, {dict(counts)}")
    assert not counts["levels lost"]
    assert counts["resumed to the same bytes"] == len(moments) > 60


@pytest.mark.parametrize("name", ["run.json", "spec.toml", "rewind/replicate-0/level-01/level.json"])
def test_every_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    path = run(tmp_path, replace(SPEC, branches=())).path
    good = disk.state(path)
    bits = list(range(8 * (path / name).stat().st_size))
    counts = disk.flips(path / name, good, path, bits)
    print(f"\n{name}: {len(bits)} bits flipped, {counts}; verify named it each time")
    assert counts == (
        {"refused": 0, "the same": len(bits)} if name == "spec.toml" else {"refused": len(bits), "the same": 0}
    )


def test_every_file_may_be_something_else(tmp_path: Path) -> None:
    path = run(tmp_path).path
    good, counts = disk.state(path), Counter[str]()
    for file in [p for p in sorted(path.rglob("*")) if p.is_file() and p.name != ".lock"]:
        for what in disk.INSTEAD.values():
            with disk.aside(file) as whole:
                what(file, whole)
                counts[disk.outcome(path, good, file.name)] += 1
    print(f"\nsomething else instead of a file: {sum(counts.values())} tried, {dict(counts)}")


def test_every_file_and_folder_may_be_anothers(tmp_path: Path) -> None:
    """Of each level, by that of each other level, of this run and of one with another seed."""
    path, counts = run(tmp_path).path, Counter[str]()
    other = run(tmp_path, replace(SPEC, seed=1)).path
    good, places = disk.state(path), list(wanted(SPEC))
    for place in places:
        for theirs in [path / p.folder for p in places if p != place] + [other / p.folder for p in places]:
            with disk.aside(path / place.folder):
                shutil.copytree(theirs, path / place.folder)
                counts[f"folder {disk.outcome(path, good, 'level.json')}"] += 1
            for name in (*store.FILES, "level.json"):
                mine = path / place.folder / name
                if mine.read_bytes() == (theirs / name).read_bytes():
                    continue
                with disk.aside(mine):
                    shutil.copy(theirs / name, mine)
                    wrong = verify(path).wrong
                    assert len(wrong) >= 1
                    assert os.fspath(path / place.folder) in wrong[0]
                    counts[f"{name} refused"] += 1
    print(f"\nanother's: {dict(counts)}")
    assert not [name for name in counts if not name.endswith("refused")]
