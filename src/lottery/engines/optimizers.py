"""What every engine takes from one place: the optimizers' constants and state, the learning rate of each iteration, and
which tensor decays by how much."""

from math import cos, pi

from lottery.models import Network
from lottery.spec import Recipe

BETA1, BETA2 = 0.9, 0.999
"""Adam's decay rates of the moments: Kingma & Ba 2015, Section 2; PyTorch's defaults too."""

EPSILON = 1e-8
"""Added to the root of Adam's second moment (Kingma & Ba 2015, Section 2)."""


def state_slots(recipe: Recipe) -> tuple[str, ...]:
    """What the recipe's optimizer keeps for each parameter, in PyTorch's words. A saved state is "slot:tensor" -> array
    of the tensor's shape, and "step" -> how many steps it has taken."""
    if recipe.optimizer == "sgd":
        return ("momentum_buffer",) if recipe.momentum else ()
    return "exp_avg", "exp_avg_sq"


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """The learning rate of an iteration, the first being 1: a function of nothing that came before.

    Warmup is linear (Goyal et al. 2017, Section 2.2), milestones are steps (He et al. 2016, Section 4.2), cosine is
    without restarts (Loshchilov & Hutter 2017, Section 3). After the recipe's last iteration it stays as it was there.
    """
    done = min(iteration, recipe.iterations) - 1
    rate = recipe.learning_rate
    if done < recipe.warmup:
        return rate * (done + 1) / recipe.warmup
    if recipe.schedule == "milestones":
        return rate * recipe.gamma ** sum(done >= milestone for milestone in recipe.milestones)
    if recipe.schedule == "cosine":
        return rate * (1 + cos(pi * (done - recipe.warmup) / (recipe.iterations - recipe.warmup))) / 2
    return rate


def weight_decays(network: Network, recipe: Recipe) -> dict[str, float]:
    """Parameter -> its weight decay: the recipe's; 0 for biases and the gains of norms, which have one axis, where they
    are spared."""
    return {
        name: recipe.weight_decay if recipe.decay_biases or len(tensor.shape) > 1 else 0.0
        for name, tensor in network.tensors.items()
        if not tensor.buffer
    }
