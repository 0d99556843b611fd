"""Find, study and use winning lottery tickets: sparse subnetworks that train from their own initial weights."""

from lottery.errors import LotteryError
from lottery.experiment import run
from lottery.spec import PRESETS, Data, Model, Pruning, Recipe, Spec
from lottery.store import Run

__all__ = ["PRESETS", "Data", "LotteryError", "Model", "Pruning", "Recipe", "Run", "Spec", "run"]
