"""HOW IS A START TRAINED? Engines train one start and know nothing of levels, files or the command line.

All compute the same function. An engine is a module with

    train(network, data, start, recipe, report, keep=0, checkpoint=NEVER) -> Trained
    refuses(network, recipe, device) -> str         why it can't train that, or "" if it can

and a row in ENGINES. One that runs on several devices takes `device` too. All that an iteration depends on is the
moment before it and its number, so a run can begin anywhere, and ends in the same bits however often it is interrupted.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from lottery.data import Splits
from lottery.engines.history import History
from lottery.errors import LotteryError, known
from lottery.masks import Weights
from lottery.models import Network
from lottery.spec import Recipe
from lottery.starts import Moment, Start


@dataclass(frozen=True)
class Trained:
    """What comes out of one training run."""

    weights: Weights
    """The state, every parameter and buffer, after the last iteration; pruned weights are exactly 0."""
    history: History
    """Every evaluation, see `lottery.engines.history`."""
    train_accuracy: float
    """Fraction of all training images that the last weights classify correctly."""
    seconds: float
    """Wall time of training, its evaluations included, and what was done before an interruption."""
    engine: str
    """Name of the engine."""
    early: Moment | None = None
    """What it was after iteration `keep`, if that was asked for."""


@dataclass(frozen=True)
class Partial:
    """A training run that is not over: the moment it has come to, and what it has found so far."""

    moment: Moment
    rows: list[tuple[float, ...]]
    """The evaluations, see `history.from_rows`."""
    losses: np.ndarray
    """float64: the loss of each iteration since the last evaluation."""
    seconds: float
    early: Moment | None = None


class Checkpoint(Protocol):
    """Where a training run that takes long is kept while it goes on."""

    def read(self) -> Partial | None:
        """What a run that was interrupted has left; None to begin at the start."""

    def due(self) -> bool:
        """Whether it is time to write; asked often."""

    def write(self, partial: Partial) -> None:
        """Keeps that, in place of what was kept before."""


class _Never:
    def read(self) -> None:
        return None

    def due(self) -> bool:
        return False

    def write(self, partial: Partial) -> None:
        raise AssertionError("never due")


NEVER: Checkpoint = _Never()
"""Keeps nothing."""

Report = Callable[[tuple[float, ...]], None]
"""Called after each evaluation with its row of the history: the columns of `lottery.engines.history.COLUMNS`."""


class Train(Protocol):
    """What an engine does. Raises LossNotFinite."""

    def __call__(
        self,
        network: Network,
        data: Splits,
        start: Start,
        recipe: Recipe,
        report: Report,
        keep: int = 0,
        checkpoint: Checkpoint = NEVER,
    ) -> Trained:
        """Trains `start` from iteration start.first + 1 to its last.

        Args:
            network: what is trained.
            data: the images; evaluated on validation and test.
            start: where it begins, and with what masks.
            recipe: how.
            report: called after each evaluation.
            keep: an iteration whose moment is wanted too; 0 for none.
            checkpoint: asked for what was interrupted, and given what should not be lost.
        """


class LossNotFinite(LotteryError):
    """The training loss became NaN or infinite."""

    def __init__(self, iteration: int, loss: float):
        super().__init__(f"training loss {loss} at iteration {iteration}: lower recipe.learning_rate")


ENGINES = {"sparse": "lottery.engines.sparse", "torch": "lottery.engines.torch"}
"""Name -> module, in the order in which `auto` asks them; imported when first asked, because PyTorch takes two
seconds."""


def choose(name: str, network: Network, recipe: Recipe, device: str) -> str:
    """The engine to train with: the one of that name, or for `auto` the first that refuses nothing.

    Args:
        name: of one of ENGINES, or auto.
        network: what is to be trained.
        recipe: how.
        device: cpu or cuda, see `resolve_device`.

    Raises:
        LotteryError: for an unknown name, and with the engine's own reason if it refuses.
    """
    if name == "dense":
        raise LotteryError("engine = 'dense': the engine dense is called torch now; use --engine torch")
    if name != "auto" and name not in ENGINES:
        raise LotteryError(known("engine", name, ("auto", *ENGINES)))
    reasons = {}
    for candidate in ENGINES if name == "auto" else [name]:
        reasons[candidate] = _module(candidate).refuses(network, recipe, device)
        if not reasons[candidate]:
            return candidate
    raise LotteryError("; ".join(f"engine = {engine!r}: {reason}" for engine, reason in reasons.items()))


def trainer(name: str, device: str) -> Train:
    """`train` of the engine of that (chosen) name, on that device."""
    train: Callable[..., Trained] = _module(name).train
    return train if device == "cpu" else partial(train, device=device)


def slow_start(name: str) -> str:
    """What will keep the first iteration of a (chosen) engine waiting, in words; "" as a rule."""
    words: str = getattr(_module(name), "slow_start", lambda: "")()
    return words


def _module(name: str) -> Any:
    return import_module(ENGINES[name])


def resolve_device(device: str) -> str:
    """cpu or cuda. `auto` is CUDA if there is one. Raises LotteryError for a device that isn't there."""
    if device not in ("auto", "cpu", "cuda"):
        raise LotteryError(known("device", device, ("auto", "cpu", "cuda")))
    if device == "cpu" or (device == "auto" and not _nvidia_driver()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise LotteryError("device = 'cuda': PyTorch finds no CUDA device here; use --device cpu")
    return "cpu"


def _nvidia_driver() -> bool:
    """Whether asking PyTorch is worth the two seconds that importing it takes."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
            return True
        except OSError:
            continue
    return False
