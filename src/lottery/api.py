"""What Python users call: binds runs, analysis and views, as `lottery.cli` does for the shell."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lottery.errors import LotteryError, check_type, shown
from lottery.runs import store
from lottery.runs.experiment import run
from lottery.runs.store import Run

__all__ = ["open_run", "report", "run"]


def open_run(name: Path | str, runs_dir: Path | str = "runs") -> Run:
    """The run of that path, of that name in `runs_dir`, or of the only name there that begins so.

    Raises:
        LotteryError: where there is none, or several.
    """
    check_type("name", name, Path)
    check_type("runs_dir", runs_dir, Path)
    return store.find(str(name), Path(runs_dir))


def report(runs: Sequence[Run], path: Path | str, margin: float | None = None) -> Path:
    """Writes one HTML page that shows these runs, and returns its path.

    Of a run that is going on, it shows what is finished when this is called.

    Args:
        runs: one, or several to be compared.
        path: of the page.
        margin: percentage points that a matching ticket may be less accurate than the dense network; one standard error
            of an accuracy if None.

    Raises:
        LotteryError: for a folder that is not there, a run given twice, too many runs, or a damaged run.
    """
    if isinstance(runs, Run) or not all(isinstance(run, Run) for run in runs):
        raise LotteryError(f"runs = {shown(runs)}: must be a list of runs, such as [lottery.open_run(name)]")
    check_type("path", path, Path)
    from lottery.studies import claims_of  # with pandas and plotly, two seconds
    from lottery.views.report import write_report

    return write_report([run.now() for run in runs], Path(path), partial(claims_of, margin=margin), margin)
