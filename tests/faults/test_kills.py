"""A hundred kills at random moments, of parent, worker or all: minutes, so only `make faults` runs it.

LOTTERY_KILLS sets how many, LOTTERY_KILLS_SEED which.
"""

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from processes import Process
from test_experiment import contents

import lottery

KILLS, SEED = int(os.environ.get("LOTTERY_KILLS", 100)), int(os.environ.get("LOTTERY_KILLS_SEED", 0))
SIZE = ("--levels", "2", "--iterations", "60", "--replicates", "2", "--branches", "reinit")
ARGUMENTS = ("run", "quickstart", *SIZE, "--jobs")
CODES = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
DIED = r"lottery: error: a worker process was ended by signal \d+ \(\w+\): finished levels are kept; .*\n"
STOPPED = r"(stopped; finished levels are kept. To continue: lottery run .*|stopped)\n"


def run_of(folder: Path) -> lottery.Run:
    (path,) = (folder / "runs").iterdir()
    return lottery.Run(path)


@pytest.mark.timeout(3600)
def test_no_kill_harms_a_run(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    seconds = {}
    for jobs in ("1", "2"):
        folder = whole / jobs
        folder.mkdir(parents=True)
        began = time.monotonic()
        assert not Process(*ARGUMENTS, jobs, cwd=folder).ended(300)
        seconds[jobs] = time.monotonic() - began
    expected = contents(run_of(whole / "1"))
    assert contents(run_of(whole / "2")) == expected
    moments = random.Random(SEED)
    outcomes: Counter[tuple[str, str, str, int | None]] = Counter()
    folder, folders = tmp_path / "0", 1
    folder.mkdir()
    while outcomes.total() < KILLS:
        jobs, target = moments.choice(
            [("1", "parent"), ("1", "group"), *(("2", t) for t in ("parent", "worker", "group"))]
        )
        number = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        moment = moments.uniform(0, seconds[jobs])
        process = Process(*ARGUMENTS, jobs, cwd=folder)
        process.until(process.listens)
        time.sleep(moment)
        if target == "worker":
            number = signal.SIGKILL
            process.until(process.workers)
        said = f"kill {outcomes.total()}: {number} to {target}, jobs {jobs}, after {moment:.3f} s: "
        killed = time.monotonic()
        try:
            if target == "group":
                os.killpg(process.pid, number)
            else:
                os.kill(moments.choice(process.workers()) if target == "worker" else process.pid, number)
        except (ProcessLookupError, IndexError):
            pass  # it was done before
        errors = process.ended()
        said += f"exit code {process.returncode}, {errors!r}"
        if process.returncode == 0:  # done before, or so far that nothing was left to stop
            assert errors == "", said
            assert time.monotonic() - killed < 3, said  # it did not go on as if it had not heard
        elif target == "worker":
            assert process.returncode == 2, said
            assert re.fullmatch(DIED, errors), said
        else:
            assert process.returncode == CODES[number], said
            assert re.fullmatch("" if number == signal.SIGKILL else STOPPED, errors), said
        outcomes[jobs, target, number.name, process.returncode] += process.returncode != 0
        if process.returncode == 0:
            assert contents(run_of(folder)) == expected, said
            folder, folders = tmp_path / str(folders), folders + 1
            folder.mkdir()
    assert not Process(*ARGUMENTS, "2", cwd=folder).ended(300)
    assert contents(run_of(folder)) == expected
    print(f"{outcomes.total()} kills, {folders} runs of the same bytes")
    for (jobs, target, name, code), count in sorted(outcomes.items(), key=str):
        print(f"jobs {jobs}  {target:6}  {name:7}  exit code {code}: {count}")
