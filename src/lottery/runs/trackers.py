"""Histories for tools that people have open already: TensorBoard, if it is installed. Nothing here is read back."""

import importlib.util
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lottery.engines import history
from lottery.errors import LotteryError, check_type, known
from lottery.runs.store import TEMPORARY, Run


def tensorboard(run: Run) -> Path:
    """Writes the history of each finished level that has none there yet, and returns the folder <run>/tensorboard.

    A folder per level, named as the run's own; one scalar per column of the history, its step is the iteration.

    Raises LotteryError, as `check` does, where TensorBoard is not installed.
    """
    check("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for row in run.rows():
        folder = run.path / "tensorboard" / row.place.folder
        if folder.is_dir():
            continue
        columns = run.read(row.place).history
        written = run.folder(row.place).stat().st_mtime
        unfinished = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=run.path))
        try:
            writer = EventFileWriter(str(unfinished))
            for i, iteration in enumerate(columns["iteration"]):
                values = {name: float(columns[name][i]) for name in history.COLUMNS[1:]}
                scalars = [Summary.Value(tag=n, simple_value=v) for n, v in values.items() if not math.isnan(v)]
                writer.add_event(Event(wall_time=written, step=int(iteration), summary=Summary(value=scalars)))
            writer.close()
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return run.path / "tensorboard"


LOGS: dict[str, Callable[[Run], Path]] = {"tensorboard": tensorboard}
"""Tool -> what writes for it; also the name of the module that it needs."""


def check(tool: str) -> None:
    """Raises LotteryError for an unknown tool, or one that is not installed."""
    check_type("log", tool, str)
    if tool not in LOGS:
        raise LotteryError(known("log", tool, LOGS))
    if importlib.util.find_spec(tool) is None:
        raise LotteryError(f"--log {tool}: {tool} is not installed; pip install 'lottery[{tool}]', or leave --log out")
