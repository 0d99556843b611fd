"""Find, study and use winning lottery tickets: sparse subnetworks that train from their own initial weights."""

from typing import TYPE_CHECKING, Any

from lottery.errors import LotteryError
from lottery.experiment import run
from lottery.spec import PRESETS, Data, Model, Pruning, Recipe, Spec
from lottery.store import Run

if TYPE_CHECKING:
    from lottery.analysis import open_run

__all__ = ["PRESETS", "Data", "LotteryError", "Model", "Pruning", "Recipe", "Run", "Spec", "open_run", "run"]


def _show(run: Run) -> str:
    from lottery.plots import notebook_html

    return notebook_html(run)


setattr(Run, "_repr_html_", _show)  # noqa: B010  (here: the store imports no figures, and mypy no new methods)


def __getattr__(name: str) -> Any:
    """`open_run` is imported when it is first used: pandas takes half a second, which `lottery --help` should not."""
    if name == "open_run":
        from lottery.analysis import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
