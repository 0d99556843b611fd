"""Engines train one start and know nothing of levels, files or the command line. All compute the same function."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lottery.data import Splits
from lottery.errors import LotteryError, known
from lottery.history import History
from lottery.masks import Weights
from lottery.spec import Recipe
from lottery.starts import Start


@dataclass(frozen=True)
class Trained:
    """What comes out of one training run."""

    weights: Weights
    """Every tensor after the last iteration; pruned weights are exactly 0."""
    history: History
    """Every evaluation, see `lottery.history`."""
    train_accuracy: float
    """Fraction of all training images that the last weights classify correctly."""
    seconds: float
    """Wall time of training, its evaluations included."""
    engine: str
    """Name of the engine."""


Report = Callable[[int, float], None]
"""Called after each evaluation with iteration and test accuracy."""

Train = Callable[[tuple[int, ...], Splits, Start, Recipe, Report], Trained]
"""An engine: sizes of the layers (input and output included), data, start, recipe, report. Raises LossNotFinite."""


class LossNotFinite(LotteryError):
    """The training loss became NaN or infinite."""

    def __init__(self, iteration: int, loss: float):
        super().__init__(f"training loss {loss} at iteration {iteration}: lower recipe.learning_rate")


ENGINES = ("auto", "dense", "sparse")


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


def resolve(name: str, device: str) -> str:
    """dense or sparse, on that (resolved) device: `auto` is sparse on a CPU, at every density, and dense elsewhere.

    Raises LotteryError for an unknown name, and for the sparse engine on another device.
    """
    if name not in ENGINES:
        raise LotteryError(known("engine", name, ENGINES))
    if name == "sparse" and device != "cpu":
        raise LotteryError(f"engine = 'sparse': runs on a CPU, not on {device}; use --device cpu, or --engine dense")
    if name == "auto":
        return "sparse" if device == "cpu" else "dense"
    return name


def engine(name: str, device: str) -> Train:
    """The engine of that name on that (resolved) device; see `resolve`."""
    if resolve(name, device) == "sparse":
        from lottery.engines import sparse

        return sparse.train
    from lottery.engines import dense

    return partial(dense.train, device=device)


def slow_start(name: str) -> str:
    """What will keep the first iteration of a (resolved) engine waiting, in words; nothing as a rule."""
    if name == "sparse":
        from lottery.engines import sparse

        if sparse.must_compile():
            return "compiling the kernels, this once: half a minute"
    return ""
