"""Find, study and use winning lottery tickets: sparse subnetworks that train from their own initial weights."""

from importlib.metadata import version

from lottery import export
from lottery.api import hold, load_ticket, open_run, report, run, sweep, tickets
from lottery.errors import LotteryError
from lottery.fields import describe
from lottery.runs.cluster import Ray
from lottery.runs.store import Run
from lottery.runs.sweep import Sweep
from lottery.runs.ticket import Ticket
from lottery.runs.trackers import Tracker
from lottery.spec import PRESETS, Data, Model, Pruning, Recipe, Spec

__all__ = [
    "PRESETS",
    "Data",
    "LotteryError",
    "Model",
    "Pruning",
    "Ray",
    "Recipe",
    "Run",
    "Spec",
    "Sweep",
    "Ticket",
    "Tracker",
    "export",
    "hold",
    "load_ticket",
    "open_run",
    "report",
    "run",
    "sweep",
    "tickets",
]

__version__ = version("lottery")
"""Of the installed package: pyproject.toml says it."""

describe(Data, Model, Pruning, Recipe, Spec)


def __dir__() -> list[str]:
    """The public names, without the modules that were imported for them."""
    return list(__all__)
