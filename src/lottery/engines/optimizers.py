"""What every engine takes from one place: the optimizers' constants, and which tensor decays by how much."""

from lottery.models import Network
from lottery.spec import Recipe

BETA1, BETA2 = 0.9, 0.999
"""Adam's decay rates of the moments: Kingma & Ba 2015, Section 2; PyTorch's defaults too."""

EPSILON = 1e-8
"""Added to the root of Adam's second moment (Kingma & Ba 2015, Section 2)."""


def weight_decays(network: Network, recipe: Recipe) -> dict[str, float]:
    """Tensor -> L2 penalty, which times the tensor is added to its gradient: the recipe's, for biases too."""
    return dict.fromkeys((n for n, tensor in network.tensors.items() if not tensor.buffer), recipe.weight_decay)
