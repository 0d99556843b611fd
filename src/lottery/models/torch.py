"""Any nn.Module: which of its tensors masks cover, and copies of its weights."""

import numpy as np
from torch import nn

PRUNABLE = (nn.Linear, nn.modules.conv._ConvNd)  # by type: a batch norm's gain is also called `weight`


def prunable(module: nn.Module) -> list[str]:
    """Names of the tensors that masks cover: the weights of linear and convolution layers."""
    return [f"{name}.weight" if name else "weight" for name, m in module.named_modules() if isinstance(m, PRUNABLE)]


def get_weights(module: nn.Module) -> dict[str, np.ndarray]:
    """Copies of every parameter as arrays. Never views: what trains later must not reach them."""
    return {name: p.detach().to("cpu", copy=True).numpy() for name, p in module.named_parameters()}
