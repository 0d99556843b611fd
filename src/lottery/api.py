"""What Python users call: binds runs, analysis and views, as `lottery.cli` does for the shell."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lottery.errors import LotteryError, check_type, shown
from lottery.runs import store
from lottery.runs.experiment import run
from lottery.runs.store import Run

if TYPE_CHECKING:  # two seconds
    from torch import Tensor, nn

    from lottery.engines.hold import Held

__all__ = ["hold", "open_run", "report", "run"]


def hold(module: "nn.Module", masks: "Mapping[str, np.ndarray | Tensor]") -> AbstractContextManager["Held"]:
    """Keeps pruned weights pruned while a `with` block trains the module, in any loop, with any torch optimizer.

        with lottery.hold(model, masks) as held:
            train(model)

    On entering and after every optimizer step, pruned weights are +0.0. Their gradients are 0 before anything reads
    them, so the norm for clipping and the optimizer's state are those of the kept weights; the state of an optimizer
    that was used before is masked at its first step. The module stays plain: its `state_dict`, copies and pickles have
    nothing more in them, and after the block nothing is left behind. Weights that the block itself copies in
    (`load_state_dict`) are masked at the next step.

    Args:
        module: trains in the block, as itself or wrapped (DistributedDataParallel, torch.compile), and not as a copy.
        masks: name -> boolean array or tensor of the parameter's shape, True = kept, for any of the module's
            parameters, of float64, float32, bfloat16 or float16. Tied tensors have one mask, under any of their names.

    Returns:
        A context manager. It gives a `Held`, which counts the optimizer's `steps` and names the tensors that are still
        `untrained`.

    Raises:
        LotteryError: on entering, for a mask that is not boolean, has another shape or no parameter, or for tied
            tensors with two different masks.
    """
    from lottery.engines import hold as engine

    return engine.hold(module, masks)


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
