"""VGGs with batch norm for small images."""

from lottery.models.conv import POOL, Plan, stack
from lottery.models.layout import Network, check_unused
from lottery.spec import Model

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Depth -> convolutions of each stage: Simonyan & Zisserman 2015, Table 1."""


def vgg(depth: int, model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """VGG-11 to VGG-19 as Frankle et al. 2020 trained them on CIFAR-10.

    Convolutions are 3x3 with padding 1 and a bias, with a batch norm behind each, in five stages of w, 2w, 4w, 8w and
    8w channels (w = `model.width`, by itself 64), and max pooling between the stages. One linear layer sees each
    channel's mean: over 2x2 pixels for images of 32x32. vgg-19 on 3x32x32 has 20,024,000 weights.

    Raises LotteryError for hidden sizes, and for images of which nothing is left.
    """
    check_unused(model, "hidden")
    width = model.width or 64
    convolutions: tuple[int, ...] = ()
    for multiple, repeats in zip((1, 2, 4, 8, 8), CONVOLUTIONS[depth], strict=True):
        convolutions += (*(width * multiple,) * repeats, POOL)
    return stack(model, Plan(convolutions[:-1], norm=True, average=True), inputs, classes)
