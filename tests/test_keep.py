"""What finishing a level costs, and what stays of it: levels.csv row by row, and `--keep`."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.disk import Killed
from test_store import BINDING, level

import lottery
from lottery import export
from lottery.analysis import anatomy
from lottery.analysis.progress import state_of
from lottery.cli import CurrentReport, main
from lottery.data import load
from lottery.errors import LotteryError
from lottery.runs import experiment, files, store
from lottery.runs.rows import Place, wanted
from lottery.runs.verify import verify
from lottery.spec import Data, Model, Recipe, Spec
from lottery.views.report import document as report

SPEC = Spec(
    data=Data(name="mnist-5k", validation=500),
    model=Model(name="mlp", hidden=(5,)),
    recipe=Recipe(iterations=20, evaluate_every=10),
    levels=1,
    replicates=2,
    branches=("reinit",),
    rewind_to=4,
)


@pytest.fixture(scope="module", autouse=True)
def data() -> Iterator[None]:
    """The images, unpacked once."""
    raw = load(SPEC.data.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "load", lambda name, folder: raw)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    return again(tmp_path_factory.mktemp("runs") / "any")


@pytest.fixture
def run(whole: lottery.Run, tmp_path: Path) -> lottery.Run:
    """A copy, to be dropped from."""
    return lottery.Run(shutil.copytree(whole.path, tmp_path / whole.path.name))


def again(run: lottery.Run | Path, spec: Spec = SPEC, **settings: Any) -> lottery.Run:
    """Carries it out where that run is, or that path."""
    folder = (run if isinstance(run, Path) else run.path).parent
    settings = dict[str, Any](device="cpu", engine="torch", progress=False) | settings
    return lottery.run(spec, runs_dir=folder, **settings)


def artefacts(run: lottery.Run) -> dict[str, bytes]:
    """All of it but the sessions."""
    return {
        str(file.relative_to(run.path)): file.read_bytes()
        for file in sorted(run.path.rglob("*"))
        if file.is_file() and file.name not in (store.RECORD, store.LOCK)
    }


def without(whole: lottery.Run, *names: str) -> set[str]:
    return {name for name in artefacts(whole) if Path(name).name not in names}


# --- levels.csv while a run goes on ---------------------------------------------------------------------------------


@pytest.fixture
def going(tmp_path: Path) -> store.Run:
    """Begun, with no level yet."""
    (tmp_path / "runs" / "a").mkdir(parents=True)
    return store.Run.begin(tmp_path / "runs" / "a", Spec(levels=40), BINDING, {"command": "first"})


def test_finishing_a_level_costs_the_same_however_many_there_are(
    going: store.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = going.spec
    begun = experiment._Begun(
        experiment.Wanted(spec, going.path),
        going,
        spec,
        ("mnist", frozenset()),
        "torch",
        "cpu",
        "all",
        [],
        {0: set(wanted(spec))},
    )
    going.write_table()
    read: list[str] = []
    written: list[int] = []

    def noted(real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            note(*arguments)
            return real(*arguments, **more)

        return call

    costs = {}
    for number in range(31):
        saved = level(number)
        going.save(saved)
        event = experiment.Progress(saved.row.place, 10, 0.5, saved.row)
        with monkeypatch.context() as patch:
            for name in ("open", "listdir", "scandir", "lstat"):
                patch.setattr(os, name, noted(getattr(os, name), lambda path, *_: read.append(str(path))))
            for name in ("append", "write"):
                patch.setattr(files, name, noted(getattr(files, name), lambda _, data: written.append(len(data))))
            patch.setattr(store, "write", files.write)
            begun.heard(event)
        costs[number] = len(read), sum(written)
        read.clear()
        written.clear()
    assert costs[3][0] == costs[30][0] <= 2
    assert 0 < costs[3][1] <= costs[30][1] <= costs[3][1] + 20  # more digits
    assert (going.path / store.TABLE).read_text() == going.table()


def test_a_row_that_the_table_has_already_is_not_added_again(going: store.Run) -> None:
    """Two workers may have saved their levels before the first is told of: its row makes the table, with both."""
    for number in (0, 1):
        going.save(level(number))
    for number in (0, 1):
        going.append(level(number).row)
    assert (going.path / store.TABLE).read_text() == going.table()


def test_the_table_is_in_order_once_all_is_there_whatever_else_goes_on(going: store.Run) -> None:
    """The run may be one of a sweep, of which another one takes days, or fails."""
    saved = [level(number) for number in (1, 0)]
    left = {0: {row.row.place for row in saved}}
    wanted_here = experiment.Wanted(going.spec, going.path)
    images = ("mnist", frozenset[tuple[str, str]]())
    begun = experiment._Begun(wanted_here, going, going.spec, images, "torch", "cpu", "all", [], left)
    going.write_table()
    for each in saved:
        going.save(each)
        begun.heard(experiment.Progress(each.row.place, 10, 0.5, each.row))
    assert (going.path / store.TABLE).read_text() == going.table()


def test_a_table_that_rows_were_added_to_is_no_damage_and_is_brought_into_order(going: store.Run) -> None:
    table = going.write_table()
    for number in (1, 0, 2):
        going.save(level(number))
        going.append(level(number).row)
    whole, columns = table.read_bytes(), len(going.table().splitlines()[0].split(","))
    assert [line.split(",")[2] for line in whole.decode().splitlines()] == ["level", "1", "0", "2"]
    for bad in (whole.replace(b"0.33", b"0.34", 1), whole + b",".join([b"1"] * columns) + b"\n", b"", b"torn"):
        table.write_bytes(bad)
        assert "levels.csv is not what" in str(verify(going.path).wrong), bad
    for torn in (whole, whole[:-9], whole[: whole.rindex(b"\n", 0, -1) + 1]):  # and without a row
        table.write_bytes(torn)
        found = verify(going.path)
        assert not found.wrong
        assert "levels.csv is brought into order when the run ends, or goes on" in found.notes
    assert going.write_table().read_text() == going.table()


def test_a_row_with_a_column_of_its_own_makes_the_table_anew(going: store.Run) -> None:
    going.write_table()
    for number, recorded in ((1, {}), (0, {"bleu": 31.2}), (2, {})):
        saved = level(number)
        saved = replace(saved, row=replace(saved.row, recorded=recorded))
        going.save(saved)
        going.append(saved.row)
    lines = (going.path / store.TABLE).read_text().splitlines()
    assert [line.split(",")[2] for line in lines] == ["level", "0", "1", "2"]
    assert [line.rpartition(",")[2] for line in lines] == ["bleu", "31.2", "", ""]
    os.unlink(going.path / store.TABLE)
    going.append(level(2).row)
    assert (going.path / store.TABLE).read_text() == going.table()


# --- --keep ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "names"), [("all", ()), *((k, store.KEEP[k]) for k in ("tickets", "rows"))])
def test_what_is_kept_is_as_it_was_and_the_rest_is_gone_on_purpose(
    whole: lottery.Run, run: lottery.Run, keep: str, names: tuple[str, ...]
) -> None:
    before = artefacts(whole)
    kept = artefacts(again(run, keep=keep))
    assert set(kept) == without(whole, *names)
    assert {n: b for n, b in kept.items() if not n.endswith(store.LEVEL)} == {
        n: b for n, b in before.items() if n in kept and not n.endswith(store.LEVEL)
    }
    assert lottery.Run(run.path).rows() == whole.rows()
    found = verify(run.path)
    assert not found.wrong
    assert ("dropped by --keep" in str(found.notes)) == bool(names)
    assert artefacts(again(run, keep=keep)) == kept
    assert artefacts(again(run)) == kept  # nothing is brought back, and nothing is missed
    if names:
        file = run.path / "rewind/replicate-0/level-01/history.csv"
        file.write_bytes(file.read_bytes() + b"\n")
        with pytest.raises(LotteryError, match="is damaged"):
            again(run)


@pytest.mark.parametrize("more", [{"levels": 2}, {"branches": ("reinit", "random_mask")}])
def test_a_replicate_that_has_dropped_files_cannot_go_on(run: lottery.Run, more: dict[str, Any]) -> None:
    before = artefacts(again(run, keep="tickets")), (run.path / store.RECORD).read_bytes()
    with pytest.raises(LotteryError, match=r"cannot be trained, since --keep has dropped trained.safetensors of its"):
        again(run, replace(SPEC, **more))
    assert (artefacts(run), (run.path / store.RECORD).read_bytes()) == before


def test_replicates_are_dropped_once_nothing_begins_from_them(run: lottery.Run) -> None:
    """More replicates can be asked for, and of each all is there until its last branch is trained."""
    again(run, keep="tickets")
    seen = []
    trained = run.folder(Place("rewind", 2, 0)) / store.TRAINED

    def progress(event: experiment.Progress) -> None:
        if event.row:
            seen.append((event.place.branch, trained.exists()))

    more = again(run, replace(SPEC, replicates=3), keep="rows", progress=progress)
    assert seen == [("rewind", True), ("rewind", True), ("reinit", False)]
    assert {more.dropped(number) for number in range(3)} == {store.KEEP["rows"]}
    assert not verify(run.path).wrong


def test_a_level_of_which_nobody_told_is_dropped_at_the_end(run: lottery.Run) -> None:
    """Its worker died after it was saved, and another one went on from there."""
    left = {1: {Place("rewind", 1, 1)}}
    experiment._Begun(
        experiment.Wanted(SPEC, run.path), run, SPEC, ("mnist-5k", frozenset()), "torch", "cpu", "rows", [], left
    ).finish()
    assert [bool(run.dropped(number)) for number in (0, 1)] == [False, True]


@pytest.mark.parametrize(("name", "call"), [("replace", 0), ("replace", 4), ("unlink", 1), ("unlink", 9)])
def test_a_kill_while_files_are_dropped_does_no_harm(
    run: lottery.Run, tmp_path: Path, name: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = lottery.Run(shutil.copytree(run.path, tmp_path / "other" / run.path.name))
    for number in (0, 1):
        undisturbed.drop(number, "rows")
    real, calls = getattr(os, name), iter(range(100))

    def kill(*arguments: Any) -> None:
        if next(calls) == call:
            raise Killed
        real(*arguments)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(os, name, kill)
        for number in (0, 1):
            run.drop(number, "rows")
    assert not verify(run.path).wrong
    assert len(lottery.Run(run.path).rows()) == len(list(wanted(SPEC)))
    assert len(artefacts(run)) > len(artefacts(undisturbed))
    assert artefacts(again(run, keep="rows")) == artefacts(undisturbed)


def test_rows_alone_are_shown_and_what_is_missing_is_said(run: lottery.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):
        run.drop(number, "rows")
    words = [str(run.path), "--runs-dir", str(run.path.parent)]
    assert main(["figures", *words, "--format", "svg", "--only", "training,weights,overlap"]) == 0
    out = capsys.readouterr().out
    assert [file.name for file in run.path.glob("figures/*")] == ["training.svg"]
    assert "dropped: ticket.safetensors, trained.safetensors, early.safetensors of 2 replicates" in out
    page = report.page([run.now()])
    assert "Anatomy of a ticket" not in page
    assert "early.safetensors of 2 replicates, by --keep" in page
    assert main(["export", *words, "--level", "1"]) == 2
    assert "level 1 is without ticket.safetensors, trained.safetensors, dropped by --keep" in capsys.readouterr().err
    dropped = lottery.Run(run.path)
    assert len(dropped.history()) == 2 * len(list(wanted(SPEC)))
    for view in (dropped.ticket, dropped.weights):
        with pytest.raises(store.Dropped, match="dropped by --keep"):
            view(1)


def test_tickets_alone_can_be_taken_away(whole: lottery.Run, run: lottery.Run, tmp_path: Path) -> None:
    again(run, keep="tickets")
    dropped = lottery.Run(run.path)
    ticket, before = dropped.ticket(1), whole.ticket(1)
    assert ticket.trained is None
    assert {n: a.tobytes() for n, a in ticket.weights("start").items()} == {
        n: a.tobytes() for n, a in before.weights("start").items()
    }
    export.write(ticket, tmp_path / "t.safetensors", "safetensors", weights="start")
    with pytest.raises(LotteryError, match="this ticket has no trained weights"):
        export.write(ticket, tmp_path / "t.safetensors", "safetensors")


def test_anatomy_is_of_the_replicates_that_are_whole(whole: lottery.Run, run: lottery.Run) -> None:
    assert anatomy.anatomy(whole, 1).replicates == 2
    run.drop(0, "tickets")
    assert [a.replicates for a in anatomy.anatomies(run.now())] == [1, 1]
    run.drop(1, "tickets")
    assert not list(anatomy.anatomies(run.now()))
    with pytest.raises(store.Dropped):
        anatomy.anatomy(run, 1)


def test_what_is_to_be_kept_is_one_of_three(run: lottery.Run) -> None:
    with pytest.raises(LotteryError, match="unknown keep 'masks': choose from all, tickets, rows"):
        again(run, keep="masks")


def test_a_finished_run_leaves_a_report_that_shows_it_as_it_is(run: lottery.Run) -> None:
    current = CurrentReport(run.path, None)
    page = run.path / "report.html"
    assert current.kept(run.now()) == str(page)  # for want of one
    written = page.read_bytes()
    page.write_bytes(written[:2000])
    assert current.kept(run.now()) == str(page)
    assert len(page.read_bytes()) == 2000
    run.drop(0, "tickets")
    assert current.kept(run.now()) == str(page)
    assert len(page.read_bytes()) > 100_000
    assert state_of([run.now()], None) != state_of([run.now()], 1.0)
