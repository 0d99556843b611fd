"""TensorBoard's own reader finds the histories in what is written for it."""

import importlib.util
from pathlib import Path

import pytest

from lottery import cli
from lottery.engines import history
from lottery.runs import trackers
from lottery.runs.store import Run

QUICK = ("run", "quickstart", "--branches", "", "--replicates", "2", "--levels", "1", "--jobs", "1")
WORDS = (*QUICK, "--iterations", "20", "--recipe.evaluate-every", "10")


def test_histories_are_there_for_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = [*WORDS, "--runs-dir", str(tmp_path), "--log", "tensorboard"]
    assert cli.main([*words, "--replicates", "1"]) == 0
    (path,) = tmp_path.iterdir()
    assert f"log:     {path / 'tensorboard'}" in capsys.readouterr().out
    before = {file: file.stat().st_mtime_ns for file in path.glob("tensorboard/**/events.*")}
    assert len(before) == 2
    assert cli.main([*words, "--replicates", "2"]) == 0  # what is written already is left alone
    assert before.items() <= {file: file.stat().st_mtime_ns for file in path.glob("tensorboard/**/events.*")}.items()
    run = Run(path)
    assert len(run.rows()) == 4
    for row in run.rows():
        where = run.folder(row.place).relative_to(path)
        found = reader.EventAccumulator(str(path / "tensorboard" / where))
        found.Reload()
        columns = run.read(row.place).history
        assert set(found.Tags()["scalars"]) == set(history.COLUMNS[1:])
        for name in history.COLUMNS[1:]:
            events = found.Scalars(name)
            assert [event.step for event in events] == columns["iteration"].tolist()
            assert [event.value for event in events] == pytest.approx(columns[name].tolist(), rel=1e-6)
    assert not list(path.glob(".unfinished-*"))


def test_without_tensorboard_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    assert cli.main([*WORDS, "--runs-dir", str(tmp_path), "--log", "tensorboard"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'lottery[tensorboard]'" in error
    assert not list(tmp_path.iterdir())
    assert set(trackers.LOGS) == {"tensorboard"}


def test_an_unknown_tool_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*WORDS, "--runs-dir", str(tmp_path), "--log", "wandb"]) == 2
    assert "invalid choice 'wandb'" in capsys.readouterr().err
