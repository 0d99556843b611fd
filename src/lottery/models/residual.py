"""The block that ResNets repeat: a class that pickle finds by its name, in a file that imports torch."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut around them: He et al. 2016, Figure 2.

    Images [n, fan_in, h, w] -> [n, fan_out, ceil(h / stride), ceil(w / stride)].
    """

    def __init__(self, fan_in: int, fan_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        projection = OrderedDict(conv=nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), bn=nn.BatchNorm2d(fan_out))
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else nn.Sequential(projection)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
