"""ResNets for small images: the layout, and the module that computes with it."""

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from lottery.models.layout import Network, Tensor, batch_norm, check_unused, image, weight
from lottery.spec import Model

if TYPE_CHECKING:
    from torch import nn

WIDTH = 16
"""Channels of the first stage."""


def resnet(depth: int, model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """The ResNet of that depth, 6n + 2: He et al. 2016, Section 4.2.

    A 3x3 convolution, three stages of n blocks with w, 2w and 4w channels (w = `model.width`, by itself 16), each
    channel's mean, one linear layer. A block is two 3x3 convolutions and a shortcut around them; the first block of the
    second and of the third stage halves height and width. Where shapes change, the shortcut is a 1x1 convolution with
    a batch norm (option B of the paper, where its ResNets for CIFAR-10 have option A, without parameters). Convolutions
    have no bias. resnet-20 on 3x32x32 has 272,474 parameters, 270,896 of them prunable.

    Raises LotteryError for hidden sizes and for what is no image.
    """
    check_unused(model, "hidden")
    c, h, w = image(model, inputs)
    width, blocks = model.width or WIDTH, (depth - 2) // 6
    tensors = {"conv.weight": weight(width, c, 3, 3), **batch_norm("bn", width)}
    for prefix, fan_in, fan_out, stride in _blocks(width, blocks):
        tensors[f"{prefix}.conv1.weight"] = weight(fan_out, fan_in, 3, 3)
        tensors |= batch_norm(f"{prefix}.bn1", fan_out)
        tensors[f"{prefix}.conv2.weight"] = weight(fan_out, fan_out, 3, 3)
        tensors |= batch_norm(f"{prefix}.bn2", fan_out)
        if stride > 1:
            tensors[f"{prefix}.shortcut.conv.weight"] = weight(fan_out, fan_in, 1, 1)
            tensors |= batch_norm(f"{prefix}.shortcut.bn", fan_out)
    tensors["fc.weight"] = weight(classes, 4 * width)
    tensors["fc.bias"] = Tensor((classes,))
    return Network(tensors, (c, h, w), build=partial(module, c, width, blocks, classes))


def _blocks(width: int, blocks: int) -> list[tuple[str, int, int, int]]:
    """Name, input channels, output channels and stride of each block."""
    found = []
    channels = width
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            outputs = width << (stage - 1)
            found.append((f"stage{stage}.block{block}", channels, outputs, 1 if channels == outputs else 2))
            channels = outputs
    return found


def module(channels: int, width: int, blocks: int, classes: int) -> "nn.Module":
    """Images [n, channels, h, w] -> logits [n, classes], its tensors named as in `resnet`."""
    from torch import nn

    from lottery.models.residual import Residual

    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, width, 3, padding=1, bias=False), bn=nn.BatchNorm2d(width), relu=nn.ReLU()
    )
    for prefix, fan_in, fan_out, stride in _blocks(width, blocks):
        stage, _, block = prefix.partition(".")
        parts.setdefault(stage, nn.Sequential()).add_module(block, Residual(fan_in, fan_out, stride))
    parts |= OrderedDict(average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(4 * width, classes))
    return nn.Sequential(parts)
