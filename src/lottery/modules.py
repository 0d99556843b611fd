"""The networks as PyTorch modules, under the tensor names that `lottery.models` lays out."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

PRUNABLE = (nn.Linear, nn.modules.conv._ConvNd)  # by type: a batch norm's gain is also called `weight`


class MLP(nn.Module):
    """Linear layers fc1, fc2, ... with ReLU between them: images [n, ...] -> logits [n, classes]."""

    def __init__(self, sizes: tuple[int, ...]):
        super().__init__()
        self.depth = len(sizes) - 1
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"fc{i}", nn.Linear(fan_in, fan_out))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i in range(1, self.depth):
            x = functional.relu(self.get_submodule(f"fc{i}")(x))
        logits: Tensor = self.get_submodule(f"fc{self.depth}")(x)
        return logits


def prunable(module: nn.Module) -> list[str]:
    """Names of the tensors that masks cover: the weights of linear and convolution layers."""
    return [f"{name}.weight" if name else "weight" for name, m in module.named_modules() if isinstance(m, PRUNABLE)]


def get_weights(module: nn.Module) -> dict[str, "torch.Tensor"]:
    """Copies of every parameter, on the CPU. Never views: what trains later must not reach them."""
    return {name: p.detach().to("cpu", copy=True) for name, p in module.named_parameters()}
