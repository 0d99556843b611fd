"""What stops a run, at any moment: signals, dead workers, a folder that goes away. One line, nothing left behind."""

import os
import random
import re
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Process
from test_experiment import contents

import lottery
from lottery.spec import Recipe, Spec

ROOT = Path(__file__).parent.parent


def test_the_shell_starts_what_is_tested_here() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {
        "lottery": "lottery_command:main"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    """Long enough that a signal finds it working."""
    spec = Spec(
        data=lottery.Data(name="mnist-5k", validation=500),
        model=lottery.Model(name="mlp", hidden=(20, 10)),
        recipe=Recipe(iterations=1000, evaluate_every=10),
        levels=2,
        replicates=2,
        branches=("reinit",),
    )
    return lottery.run(spec, runs_dir=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def arguments(whole: lottery.Run, tmp_path: Path) -> list[str]:
    """Of the command that makes that run again."""
    (tmp_path / "spec.toml").write_text(whole.spec.to_toml())
    return ["run", "spec.toml", "--jobs"]


DIED = (
    r"lottery: error: a worker process was ended by signal 9 \(Killed\): finished levels are kept; run again to "
    r"continue, with fewer --jobs if memory is short\n"
)


def test_a_killed_worker_ends_the_run_in_one_line_and_costs_nothing_finished(
    whole: lottery.Run, arguments: list[str], tmp_path: Path
) -> None:
    """kill -9, as where memory is short, of a worker that is hardly there, that imports, that trains."""
    path = tmp_path / "runs" / whole.path.name
    for level, delay in ((None, 0), (None, 0.15), (0, 0.02)):
        process = Process(*arguments, "2", cwd=tmp_path)
        process.until(process.workers)
        (first, *_) = process.workers()
        if level is not None:
            process.until((path / f"rewind/replicate-0/level-{level:02}").exists)
        time.sleep(delay)
        os.kill(first, signal.SIGKILL)
        errors = process.ended()
        assert process.returncode == 2, errors
        assert re.fullmatch(DIED, errors)
    assert lottery.Run(path).rows()
    assert contents(lottery.run(whole.spec, runs_dir=tmp_path / "runs")) == contents(whole)


MOMENTS: dict[str, Callable[[Process, Path], object]] = {
    "importing": lambda process, path: process.listens(),
    "starting workers": lambda process, path: process.workers() or list(path.glob("*/*/level-*")),
    "training": lambda process, path: list(path.glob("rewind/*/level-*")),
}


@pytest.mark.parametrize(
    ("moment", "number", "code", "to_all"),
    [
        ("importing", signal.SIGINT, 130, True),
        ("importing", signal.SIGTERM, 143, False),
        ("starting workers", signal.SIGINT, 130, True),
        ("starting workers", signal.SIGINT, 130, False),
        ("starting workers", signal.SIGTERM, 143, True),
        ("starting workers", signal.SIGTERM, 143, False),
        ("training", signal.SIGINT, 130, True),
        ("training", signal.SIGTERM, 143, False),
    ],
)
def test_a_signal_ends_everything_in_one_line(
    whole: lottery.Run, arguments: list[str], tmp_path: Path, moment: str, number: int, code: int, to_all: bool
) -> None:
    """Ctrl-C in a terminal is a signal to the workers too; `kill` and a machine that goes down know the parent only."""
    jobs = "2" if to_all or moment == "starting workers" else "1"
    process = Process(*arguments, jobs, cwd=tmp_path)
    path = tmp_path / "runs" / whole.path.name
    process.until(lambda: process.listens() and MOMENTS[moment](process, path))
    time.sleep(random.uniform(0, 0.2))
    (os.killpg if to_all else os.kill)(process.pid, number)
    errors = process.ended()
    line = f"stopped; finished levels are kept. To continue: lottery run spec.toml --jobs {jobs}\n"
    assert errors in (line, "stopped\n")
    assert process.returncode == code
    if moment == "training":
        assert lottery.Run(path).rows()


STUBBORN = {
    "swallows it": "try:\n  wait()\n except BaseException: main()",
    "makes another error of it": "try:\n  wait()\n except BaseException: raise ImportError('broken off')",
    "is made by exec": "exec('wait()')",
    "is a destructor": "type('T', (), {'__del__': lambda self: wait()})(); time.sleep(60)",
}
"""What code may make of an interruption."""


@pytest.mark.parametrize("what", STUBBORN)
def test_code_that_keeps_an_interruption_to_itself_is_ended_too(tmp_path: Path, what: str) -> None:
    script = f"""
import sys, time, types
def wait():
 print("waiting", flush=True)
 for _ in range(6000):  # a signal just before a long sleep would be heard after it
  time.sleep(0.01)
def main():
 {STUBBORN[what]}
package, cli = types.ModuleType("lottery"), types.ModuleType("lottery.cli")
cli.main = main
sys.modules |= {{"lottery": package, "lottery.cli": cli}}
import lottery_command
sys.exit(lottery_command.main())
"""
    (tmp_path / "stubborn.py").write_text(script)
    process = Process(command=[sys.executable, "-m", "stubborn"], cwd=tmp_path)
    assert process.stdout is not None
    for _ in range(2 if what == "swallows it" else 1):
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
    assert process.ended(10) == "stopped; finished levels are kept. To continue: lottery\n"
    assert process.returncode == 143


def test_a_folder_that_goes_away_is_an_error(whole: lottery.Run, arguments: list[str], tmp_path: Path) -> None:
    """Saving makes a level's folders: without a look, the run would end well, with what came after."""
    path = tmp_path / "runs" / whole.path.name
    process = Process(*arguments, "2", cwd=tmp_path)
    process.until((path / "rewind/replicate-0/level-00").exists)
    path.rename(tmp_path / "elsewhere")
    errors = process.ended()
    assert process.returncode == 2
    assert re.fullmatch(rf"lottery: error: .*{whole.path.name}.*\n", errors)
    assert list(tmp_path.glob("elsewhere/rewind/*/level-*"))
