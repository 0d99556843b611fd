"""Weights & Biases, offline: what its own files hold of a run, and what becomes of the run when it fails."""

import importlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_trackers import SPEC, expected

import lottery
from lottery.engines import history
from lottery.runs import checkpoints, trackers
from lottery.runs.experiment import Progress
from lottery.runs.rows import Place
from lottery.runs.store import Run
from lottery.spec import flatten

wandb: Any = pytest.importorskip("wandb")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Before wandb is first used: it reads its variables once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_DIR", "WANDB_PROJECT", "WANDB_API_KEY"):
            patch.delenv(name, raising=False)
        for name in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(tmp_path_factory.mktemp(name)))
        patch.setenv("WANDB_MODE", "offline")
        yield


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    return lottery.run(SPEC, runs_dir=folder, progress=False, log=["wandb", "tensorboard"], name="mine")


def records(file: Path) -> Iterator[Any]:
    """The records of a run's file: a log in LevelDB's format, in blocks of 32 KiB, after seven bytes of wandb's own."""
    Record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def read(run: Run) -> dict[str, tuple[Any, list[dict[str, Any]], list[Any]]]:
    """Chain -> the run of wandb, its history and its metrics; each chain has one."""
    found = {}
    for file in run.path.glob("wandb/offline-run-*/run-*.wandb"):
        all_of_it = list(records(file))
        (begun,) = (record.run for record in all_of_it if record.WhichOneof("record_type") == "run")
        rows = [record.history.item for record in all_of_it if record.WhichOneof("record_type") == "history"]
        named = [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]
        metrics = [record.metric for record in all_of_it if record.WhichOneof("record_type") == "metric"]
        assert begun.display_name not in found
        found[begun.display_name] = begun, named, metrics
    return found


def assert_shown(run: Run) -> None:
    """wandb has each evaluation and level of the run once, in order."""
    shown = read(run)
    assert set(shown) == set(expected(run))
    for chain, curve in expected(run).items():
        _, rows, _ = shown[chain]
        evaluations = [(row["_step"], {n: row[f"evaluation/{n}"] for n in history.COLUMNS[1:]}) for row in rows]
        assert evaluations == curve
        levels = {row["level"]: row for row in rows if "level" in row}
        there = {row.place.level: row for row in run.rows() if trackers.chain_folder(row.place) == chain}
        assert list(levels) == list(there)
        for level, row in there.items():
            assert levels[level]["_step"] == 30 * (level + 1)
            assert trackers.numbers(row).items() <= levels[level].items()


def test_a_run_is_a_group_with_a_run_for_each_chain(logged: Run) -> None:
    assert_shown(logged)
    shown = read(logged)
    assert len({begun.run_id for begun, _, _ in shown.values()}) == len(shown) == 8
    for chain, (begun, _, metrics) in shown.items():
        assert (begun.project, begun.run_group, begun.job_type) == ("lottery", "mine", chain.partition("/")[0])
        config = {item.key: json.loads(item.value_json) for item in begun.config.update if item.key != "_wandb"}
        place = {name: config.pop(name) for name in ("branch", "replicate", "draw")}
        assert trackers.chain_folder(Place(**place, level=0)) == chain
        assert config == json.loads(json.dumps(flatten(logged.spec)))
        drawn = {metric.glob_name: metric.step_metric for metric in metrics}
        assert drawn == {"level/*": "level", "density/*": "level"}


def test_a_run_that_was_interrupted_continues_its_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    spec = replace(SPEC, replicates=1, branches=())

    def stop(event: Progress) -> None:
        if (event.place.level, event.iteration) == (1, 30):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lottery.run(spec, runs_dir=tmp_path, progress=stop, log="wandb")
    ((before, rows, _),) = read(Run(tmp_path / spec.uid)).values()
    assert [row["_step"] for row in rows] == [10, 20, 30, 50]
    run = lottery.run(spec, runs_dir=tmp_path, progress=False, log="wandb")
    ((after, _, _),) = read(run).values()
    assert (after.run_id, after.run_group) == (before.run_id, before.run_group)
    assert_shown(run)
    other = lottery.run(spec, runs_dir=tmp_path / "other", progress=False, log="wandb", name="other")
    ((elsewhere, _, _),) = read(other).values()
    started = [run.info["sessions"][0]["started"], other.info["sessions"][0]["started"]]
    assert (elsewhere.run_id == after.run_id) == (started[0] == started[1])


def test_what_a_server_has_is_not_sent_again(logged: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, a run that is continued says at which step it is."""
    sent: list[int] = []

    class Known:
        step, project_url, group = 61, "https://example.org/lottery", "mine"

        def log(self, values: dict[str, float], step: int) -> None:
            sent.append(step)

        def define_metric(self, name: str, step_metric: str) -> None: ...

        def finish(self) -> None: ...

    monkeypatch.setattr(wandb, "init", lambda **_: Known())
    with trackers.Logs("wandb", logged.path) as logs:
        pass
    assert sent
    assert set(sent) == {70, 80, 90}
    assert set(logs.where) == {"wandb"}


def test_two_runs_at_once(logged: Run) -> None:
    """Each has its own, and a run of wandb that its user has in hand is left alone."""
    logs = [trackers.Logs("wandb", logged.path), trackers.Logs(["wandb"], logged.path)]
    with wandb.init(project="own", dir=logged.path.parent) as own:
        own.log({"x": 1})
        with logs[0], logs[1]:
            assert wandb.run is own
        own.log({"x": 2})
    assert [log.where.keys() for log in logs] == [{"wandb"}, {"wandb"}]
    assert_shown(logged)


PROGRAM = """
import os, signal, subprocess, sys
sys.path.insert(0, sys.argv[2])
from dataclasses import replace
import lottery
from test_trackers import SPEC, Notes

def progress(event):
    if "kill" in sys.argv and event.place.level == 1 and event.row is None:
        listing = ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="]
        for child in subprocess.run(listing, capture_output=True, text=True).stdout.splitlines():
            if "wandb-core" in child:
                os.kill(int(child.split()[0]), signal.SIGKILL)

class Counted(Notes):
    def evaluation(self, place, step, values):
        self.curves["all"].append(step)

notes = Counted()
spec = replace(SPEC, replicates=1, branches=(), recipe=replace(SPEC.recipe, iterations=1000))
run = lottery.run(spec, runs_dir=sys.argv[1], log=["wandb", notes], progress=progress)
assert len(notes.curves["all"]) == 298
"""


def program(folder: Path, *words: str, **environment: str) -> list[str]:
    """What a run says on stderr in a process of its own, which has no terminal and no key."""
    ours = ("WANDB_MODE", "WANDB_SERVICE")  # the latter: else it would use this process's
    there = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    there |= {"HOME": str(folder), "NETRC": str(folder / "none"), **environment}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(Path(__file__).parent.parent), *words]
    result = subprocess.run(command, env=there, capture_output=True, text=True, timeout=120, check=True)
    return [line for line in result.stderr.splitlines() if line.startswith("lottery: ")]


def test_nobody_is_asked_to_log_in(tmp_path: Path) -> None:
    (warning,) = program(tmp_path)
    assert "the run goes on without wandb: not logged in; type `wandb login`, or set WANDB_MODE=offline" in warning


def test_a_service_that_dies_stops_no_run(tmp_path: Path) -> None:
    (warning,) = program(tmp_path, "kill", WANDB_MODE="offline")
    assert warning.startswith("lottery: warning: the run goes on without wandb: ")
