"""Runs beside each other: names and notes, which no result depends on, and the list that tells runs apart."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import lottery
from lottery.analysis import listing
from lottery.cli import main
from lottery.engines import history
from lottery.errors import LotteryError
from lottery.models.mlp import stack
from lottery.runs import store
from lottery.runs.rows import Row, wanted
from lottery.runs.store import Run, SavedLevel
from lottery.runs.verify import verify
from lottery.seeds import stream
from lottery.spec import Data, Recipe, Spec
from lottery.views import report, terminal

NETWORK = stack((5, 3))
SPEC = Spec(levels=1, replicates=2, recipe=Recipe(iterations=10_000))


def made(path: Path, spec: Spec = SPEC, day: int = 1, levels: int = 4, name: str = "") -> Run:
    """A run at `path`, begun on that day of March, with so many of its levels."""
    path.mkdir(parents=True, exist_ok=True)
    images = {"train": 60_000, "test": 100}
    binding = {"engine": "torch", "device": "cpu", "data": {}, "images": images, "network": NETWORK.to_json()}
    run = Run.begin(path, spec, binding, {"started": f"2026-03-{day:02}T10:00:00+00:00"}, name)
    for place in list(wanted(spec))[:levels]:
        weights = {"fc1.weight": np.ones((3, 5), np.float32), "fc1.bias": np.zeros(3, np.float32)}
        masks = {"fc1.weight": stream(place.level).random((3, 5)) < 0.8**place.level}
        evaluations = history.from_rows([(10, 0.5, 0.4, 0.9, 0.4, 0.9)])
        row = Row(place, 0.8**place.level, 10, 10, 0.9, 0.4, 0.9, 0.9, 1.0, "torch", densities={"fc1.weight": 1.0})
        run.save(SavedLevel(weights, masks, weights, evaluations, row))
    run.write_table()
    return lottery.open_run(path)


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Another process holds the run's lock meanwhile."""
    code = f"from lottery.runs.store import lock\nfrom pathlib import Path\nwith lock(Path({str(path)!r})):\n"
    code += " print('held', flush=True)\n input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate(b"\n")
    assert process.returncode == 0


# --- names and notes


def test_a_run_is_found_by_the_name_that_it_was_given(tmp_path: Path) -> None:
    made(tmp_path / "mnist-1", name="half the rate")
    made(tmp_path / "mnist-2", name="mnist")
    made(tmp_path / "kmnist-3")
    for name, folder in (("half the rate", "mnist-1"), ("half", "mnist-1"), ("mnist", "mnist-2"), ("k", "kmnist-3")):
        assert lottery.open_run(name, tmp_path).path.name == folder
    assert lottery.open_run("mnist-1", tmp_path).name == "half the rate"
    with pytest.raises(
        LotteryError, match=r"several runs begin with 'm' .*: mnist-1 \(half the rate\), mnist-2 \(mnist"
    ):
        lottery.open_run("m", tmp_path)
    with pytest.raises(LotteryError, match=r"no run 'x' .*; there are: kmnist-3, mnist-1 \(half the rate\), mnist-2"):
        lottery.open_run("x", tmp_path)


def test_names_and_notes_are_sealed_and_change_nothing_else(tmp_path: Path) -> None:
    run = made(tmp_path / "a")
    before = (run.path / "run.json").read_bytes()
    assert b'"name": ""' not in before  # a run without them says nothing of them, as it always did
    noted = run.annotate("to be looked at")
    assert (noted.note, noted.name, noted.identity) == ("to be looked at", "", run.identity)
    assert not verify(run.path).wrong
    data = (run.path / "run.json").read_bytes()
    (run.path / "run.json").write_bytes(data.replace(b"looked", b"locked"))
    with pytest.raises(LotteryError, match="is damaged: its SHA-256"):
        Run(run.path)
    (run.path / "run.json").write_bytes(data)
    assert run.annotate("").note == ""
    assert (run.path / "run.json").read_bytes() == before


def test_names_and_notes_outlive_a_run_that_goes_on(tmp_path: Path) -> None:
    made(tmp_path / "a", name="mine").annotate("kept")
    again = made(tmp_path / "a", replace(SPEC, levels=2), levels=0)
    assert (again.name, again.note, again.spec.levels) == ("mine", "kept", 2)
    assert made(tmp_path / "a", levels=0, name="yours").name == "yours"  # called otherwise from now on


@pytest.mark.parametrize("name", ["a/b", " a", "a ", "-a", "two\nlines", "\x1b[31m", "x" * 201, "\udcff"])
def test_what_is_no_name(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is written."""
    with pytest.raises(LotteryError, match="name = "):
        lottery.run("quickstart", runs_dir=tmp_path, name=name)
    assert main(["run", "quickstart", "--runs-dir", str(tmp_path), f"--name={name}"]) == 2
    assert capsys.readouterr().err.startswith("lottery: error: name = ")
    assert not list(tmp_path.iterdir())


def test_no_two_runs_have_one_name(tmp_path: Path) -> None:
    made(tmp_path / "a", name="mine")
    for name in ("mine", "a"):
        with pytest.raises(LotteryError, match=f"name = '{name}': .*/a is called so already: choose another"):
            lottery.run("quickstart", runs_dir=tmp_path, name=name)
    store.check_name("mine", tmp_path / "a")  # its own
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_keeps_its_name(tmp_path: Path, tiny: Spec) -> None:
    run = lottery.run(replace(tiny, levels=0), runs_dir=tmp_path, name="by hand", progress=False)
    assert lottery.open_run("by hand", tmp_path).name == run.name == "by hand"
    assert run.path.name == tiny.uid  # as without one


def test_a_note_waits_for_who_works_on_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "a")
    with at_work(run.path):
        assert main(["note", "a", "now", "--runs-dir", str(tmp_path)]) == 2
        assert "another process is working on" in capsys.readouterr().err
    assert main(["note", "a", "two\nlines", "--runs-dir", str(tmp_path)]) == 2
    assert Run(run.path).note == ""
    assert main(["note", "a", "now", "--runs-dir", str(tmp_path)]) == 0
    assert Run(run.path).note == "now"


def test_every_view_has_name_and_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "a", name="<mine>").annotate("note & more")
    assert main(["show", "a", "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("<mine>\nnote & more\n")
    page = report.page([run])
    assert "&lt;mine&gt;" in page
    assert "note &amp; more" in page
    assert "&lt;mine&gt;" in run._repr_html_()


# --- the list


def family(folder: Path) -> None:
    slow = replace(SPEC, recipe=replace(SPEC.recipe, learning_rate=6e-4))
    made(folder / "third", slow, day=3, levels=1, name="slow").annotate("[red]half the rate[/red]")
    made(folder / "first", SPEC, day=1)
    made(folder / "second", replace(SPEC, data=Data(name="kmnist")), day=2, levels=0)
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text("{")


def listed(folder: Path, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(*terminal.run_list(listing.entries(folder)), sep="\n")
    return out.getvalue()


def test_entries_say_when_how_far_and_what_differs(tmp_path: Path) -> None:
    family(tmp_path)
    first, second, third, broken = listing.entries(tmp_path)
    assert [e.path.name for e in (first, second, third, broken)] == ["first", "second", "third", "broken"]
    assert [e.begun[:10] for e in (first, second, third)] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert [(e.state, e.done, e.wanted) for e in (first, second, third, broken)] == [
        *(("finished", 4, 4), ("stopped", 0, 4), ("stopped", 1, 4), ("damaged", 0, 0)),
    ]
    assert first.differs == {"recipe.learning_rate": 1.2e-3}
    assert third.differs == {"recipe.learning_rate": 6e-4}
    assert second.differs == {}  # other data: another family
    assert (first.answer, second.answer, third.answer) == ("matching down to 80 %", "", "")
    assert "run.json is damaged" in broken.error


def test_the_lock_tells_whether_a_run_goes_on(tmp_path: Path) -> None:
    path = made(tmp_path / "a", levels=1).path
    assert [e.state for e in listing.entries(tmp_path)] == ["stopped"]
    with at_work(path):
        assert [e.state for e in listing.entries(tmp_path)] == ["running"]
    assert [e.state for e in listing.entries(tmp_path)] == ["stopped"]
    with store.lock(path):
        assert store.worked_on(path)


def test_who_asks_keeps_nobody_from_beginning(tmp_path: Path) -> None:
    """Asking takes the lock for a moment: whoever begins then waits that long."""
    made(tmp_path / "a")
    code = "from lottery.runs.store import worked_on\nfrom pathlib import Path\nprint(flush=True)\n"
    code += f"while True: worked_on(Path({str(tmp_path / 'a')!r}))"
    with store.lock(tmp_path / "a"):
        pass
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        try:
            for _ in range(1000):
                with store.lock(tmp_path / "a"):
                    pass
        finally:
            asking.kill()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_list_loses_nothing(tmp_path: Path, width: int) -> None:
    family(tmp_path)
    text = listed(tmp_path, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    whole = " ".join(text.split())
    for part in (
        *("finished 4 of 4 matching down to 80 %", "first", "learning rate 1.2e-3"),
        *("stopped 1 of 4", "slow third", "learning rate 6e-4", "[red]half the rate[/red]", "stopped 0 of 4"),
        *("damaged", "broken"),
    ):
        assert part in whole
    assert "run.jsonisdamaged" in "".join(text.split())


def test_a_list_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family(tmp_path)
    assert main(["list", "--json", "--runs-dir", str(tmp_path)]) == 0
    first, _, third, broken = json.loads(capsys.readouterr().out)
    assert first["path"] == os.fspath(tmp_path / "first")
    assert first["spec"]["recipe"]["learning_rate"] == 1.2e-3
    assert (third["name"], third["state"], third["done"], third["wanted"]) == ("slow", "stopped", 1, 4)
    assert third["differs"] == {"recipe.learning_rate": 6e-4}
    assert (broken["state"], broken["spec"]) == ("damaged", None)
    assert main(["list", "--json", "--runs-dir", str(tmp_path / "none")]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_newest_is_last_whatever_it_is_called(tmp_path: Path) -> None:
    made(tmp_path / "b", day=1, levels=0)
    made(tmp_path / "a", replace(SPEC, seed=1), day=2, levels=0)
    assert [entry.path.name for entry in listing.entries(tmp_path)] == ["b", "a"]
