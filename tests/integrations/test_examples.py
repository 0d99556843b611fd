"""Each example trains to its end, keeps its masks exactly, and ends in the same bytes after a kill at any step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lottery
from lottery.masks import apply

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

KILLED = """
import os, runpy, sys
from itertools import count
from torch.optim.optimizer import register_optimizer_step_post_hook

folder, last, script = sys.argv[1], int(sys.argv[2]), sys.argv[3]
steps = count(1)
register_optimizer_step_post_hook(lambda *_: next(steps) == last and os.kill(os.getpid(), 9))
sys.argv[1:] = [folder]
runpy.run_path(script, run_name="__main__")
"""
"""Runs a script until that step of an optimizer, and kills itself there."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def content(path: Path) -> dict[str, bytes]:
    """Name -> bytes of the files of all levels; without the seconds, which differ."""
    found = {}
    for file in sorted(path.glob("*/replicate-*/level-*/*")):
        found[name := str(file.relative_to(path))] = file.read_bytes()
        if file.name == "level.json":
            record = json.loads(found[name])
            del record["row"]["seconds"], record["checksum"]
            found[name] = json.dumps(record).encode()
    return found


@pytest.mark.parametrize(
    ("name", "kills", "inside"),
    [
        ("plain_loop", (30, 300 + 130), True),
        ("data_loader", (45, 100 - 30 + 45), True),
        ("hugging_face", (40 + 13,), False),
        ("with_lightning", (60 + 25,), False),
    ],
)
def test_masks_are_exact_and_a_kill_changes_no_byte(
    name: str, kills: tuple[int, ...], inside: bool, tmp_path: Path
) -> None:
    if name == "hugging_face":
        pytest.importorskip("transformers")
    if name == "with_lightning":
        pytest.importorskip("lightning")
    script = str(EXAMPLES / f"{name}.py")

    def call(*words: str) -> int:
        return subprocess.run([sys.executable, *words], env=ENVIRONMENT, cwd=tmp_path, check=False).returncode

    for step in kills:
        assert call("-c", KILLED, str(tmp_path / "killed"), str(step), script) == -9
    assert bool([*tmp_path.glob("killed/*/*/*.partial")]) == inside
    assert [*tmp_path.glob("killed/*/*/level-00")], "one of the kills came later"
    for folder in ("killed", "whole"):
        assert call(script, str(tmp_path / folder)) == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole") != {}
    run = lottery.open_run(tmp_path / "killed")
    assert not run.unfinished(run.spec)
    for place in run.places():
        saved = run.read(place)
        assert saved.row.density == pytest.approx(0.5**place.level, abs=0.01)
        for weights in (saved.start, saved.trained):
            assert all(apply(weights, saved.masks)[n].tobytes() == w.tobytes() for n, w in weights.items())
