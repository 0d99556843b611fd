"""Kills at random moments inside levels, with every way to begin one: the finished run is that of one that was left
alone.

LOTTERY_KILLS_SEED says which moments.
"""

import os
from itertools import product
from pathlib import Path

import pytest
from test_checkpoints import RUNS, killed_inside_levels

SEED = int(os.environ.get("LOTTERY_KILLS_SEED", 0))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "engine", "jobs"), [*product(RUNS, ("sparse", "torch"), (1, 2))])
def test_no_kill_inside_a_level_harms_a_run(name: str, engine: str, jobs: int, tmp_path: Path) -> None:
    killed_inside_levels(RUNS[name], engine, jobs, tmp_path, seed=SEED, kills=3 * 3)
