"""Workers that die, and what they are sent and find: nobody waits for ever, and nothing is lost in silence."""

import os
import pickle
import shutil
import signal
import time
from dataclasses import replace
from multiprocessing import util
from pathlib import Path

import pytest

import lottery
from lottery.errors import LotteryError
from lottery.runs import files, runners
from lottery.runs.experiment import Progress
from lottery.runs.replicate import train_branch
from lottery.runs.rows import Place
from lottery.spec import Spec


def test_a_folder_that_goes_away_is_noticed_at_the_next_level(tiny: Spec, tmp_path: Path) -> None:
    heard: list[int] = []

    def lose(event: Progress) -> None:
        if event.row:
            heard.append(event.place.level)
            shutil.rmtree(tmp_path / tiny.uid)

    with pytest.raises(LotteryError, match=f"{tiny.uid} was deleted or moved while it was worked on: run again"):
        lottery.run(tiny, runs_dir=tmp_path, progress=lose)
    assert heard == [0]


def test_a_level_that_goes_away_is_an_error(tiny: Spec, tmp_path: Path) -> None:
    path = tmp_path / tiny.uid

    def lose(event: Progress) -> None:
        if event.row and event.place.level == 1:
            shutil.rmtree(path / "rewind/replicate-0/level-00")

    with pytest.raises(LotteryError, match=r"level-00 was deleted or moved while .* was worked on: run again"):
        lottery.run(tiny, runs_dir=tmp_path, progress=lose)
    assert len(lottery.run(tiny, runs_dir=tmp_path).rows()) == 3


def test_a_worker_is_sent_little_and_loads_its_own_data(
    tiny: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than a pipe holds, or who writes to a worker that is killed waits for ever."""
    sizes: list[int] = []

    def measured(tasks: list[runners.Task], jobs: int) -> None:
        sizes.extend(len(pickle.dumps((task.function, task.arguments, task.late()))) for task in tasks)
        runners.here(tasks)

    monkeypatch.setattr(runners, "processes", measured)
    lottery.run(replace(tiny, replicates=2, levels=0), runs_dir=tmp_path, jobs=2)
    assert len(sizes) == 2
    assert max(sizes) < 4096


def test_a_worker_refuses_other_data_than_the_runs(tiny: Spec, tmp_path: Path) -> None:
    run = lottery.run(replace(tiny, levels=0), runs_dir=tmp_path)
    info = run.info | {"data": dict.fromkeys(run.info["data"], "0" * 64)}
    (run.path / "run.json").write_bytes(files.seal(info))
    with pytest.raises(LotteryError, match="was begun with data "):
        train_branch(run.path, Place("rewind", 0, 1), 1, None, "sparse", "cpu", lambda event: None)
    assert len(run.rows()) == 1


def say(word: object, emit: runners.Emit) -> None:
    emit(word)


def say_whether_ctrl_c_is_held(emit: runners.Emit) -> None:
    emit(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def sleep(emit: runners.Emit) -> None:
    time.sleep(600)


def fall(number: int, emit: runners.Emit) -> None:
    os.kill(os.getpid(), number)


def fall_speaking(size: int, emit: runners.Emit) -> None:
    """In the middle of a word, longer than a pipe holds."""
    emit(os.getpid())
    emit(bytes(size))


def fall_late(emit: runners.Emit) -> None:
    """When all is done and said."""
    util.Finalize(None, os.kill, (os.getpid(), signal.SIGKILL), exitpriority=1)


def test_workers_leave_ctrl_c_to_the_parent_from_their_first_moment_on() -> None:
    """What a process begins with, it had before its first instruction. The first worker is not alone: multiprocessing
    starts a helper with it."""
    heard: list[bool] = []
    runners.processes([runners.Task(say_whether_ctrl_c_is_held, (), heard.append)] * 2, 1)
    assert heard == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_worker_that_dies_ends_those_beside_it() -> None:
    """Before the first word; the other one would go on for ever."""
    began = time.monotonic()
    for number, word in ((signal.SIGKILL, "Killed"), (signal.SIGTERM, "Terminated")):
        tasks = [runners.Task(fall, (number,), print), runners.Task(sleep, (), print)]
        with pytest.raises(LotteryError, match=rf"ended by signal {number:d} \({word}\): finished levels are kept"):
            runners.processes(tasks, 2)
    assert time.monotonic() - began < 60


def test_a_worker_that_dies_in_the_middle_of_a_word_is_noticed() -> None:
    def heard(word: object) -> None:
        assert isinstance(word, int)
        time.sleep(0.3)  # the next word fills the pipe
        os.kill(word, signal.SIGKILL)

    with pytest.raises(LotteryError, match="ended by signal 9"):
        runners.processes([runners.Task(fall_speaking, (1 << 20,), heard)], 2)


def test_a_worker_that_dies_when_all_is_said_has_done_its_work() -> None:
    heard: list[int] = []
    runners.processes([runners.Task(fall_late, (), heard.append), runners.Task(say, (1,), heard.append, after=0)], 2)
    assert heard == [1]
