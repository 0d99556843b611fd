"""The sparse engine: one CPU core, and a cost that follows the density. Stacks of linear layers with ReLU.

`training` prepares data and weights and runs the loop, `predictor` computes logits, `kernels` are the loops that numba
compiles, `vectors` the operations that they are made of. numba is imported when the first level is trained.
"""

from lottery.data import Splits
from lottery.engines import NEVER, Checkpoint, Report, Trained
from lottery.models import Network
from lottery.spec import Recipe
from lottery.starts import Start


def train(
    network: Network,
    data: Splits,
    start: Start,
    recipe: Recipe,
    report: Report,
    keep: int = 0,
    checkpoint: Checkpoint = NEVER,
) -> Trained:
    """Trains `start` on data.train, on one thread; see `lottery.engines.Train`."""
    from lottery.engines.sparse import training

    return training.train(network, data, start, recipe, report, keep, checkpoint)


def refuses(network: Network, recipe: Recipe, device: str) -> str:
    """Why it can't train that network with that recipe on that device; "" if it can."""
    if device != "cpu":
        return f"it runs on a CPU, not on {device}; use --device cpu, or --engine torch"
    if not network.linear:
        return "it trains stacks of linear layers alone; use --engine torch"
    if recipe.optimizer == "adamw" or recipe.nesterov:
        return "it knows Adam, SGD and SGD with momentum alone; use --engine torch"
    if recipe.weight_decay and not recipe.decay_biases:
        return "it decays weights and biases alike; use recipe.decay_biases, or --engine torch"
    if recipe.crop_padding or recipe.flip:
        return "it trains on images as they are, without recipe.crop_padding and recipe.flip; use --engine torch"
    return ""


def slow_start() -> str:
    """What keeps the first iteration waiting: compiling the kernels where this was never done, or cannot be kept."""
    from lottery.engines.sparse import training

    if not training.must_compile():
        return ""
    if training.cached():
        return "compiling the kernels, this once: half a minute"
    return "compiling the kernels, half a minute each time: to keep them, set NUMBA_CACHE_DIR to a folder for them"
