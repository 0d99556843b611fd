"""What Python users call: binds runs, analysis and views, as `lottery.cli` does for the shell."""

from collections.abc import Sequence
from pathlib import Path

from lottery.runs import store
from lottery.runs.experiment import run
from lottery.runs.store import Run

__all__ = ["open_run", "report", "run"]


def open_run(name: Path | str, runs_dir: Path | str = "runs") -> Run:
    """The run of that path, of that name in `runs_dir`, or of the only name there that begins so.

    Raises:
        LotteryError: where there is none, or several.
    """
    return store.find(str(name), Path(runs_dir))


def report(runs: Sequence[Run], path: Path | str) -> Path:
    """Writes one HTML page that shows these runs, and returns its path.

    Raises:
        LotteryError: for a folder that is not there, a run given twice, too many runs, or a damaged run.
    """
    from lottery.studies import claims_of  # with pandas and plotly, two seconds
    from lottery.views.report import write_report

    return write_report(runs, Path(path), claims_of)
