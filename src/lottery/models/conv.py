"""Stacks of convolutions conv1, conv2, ... and linear layers fc1, fc2, ... behind them: the layout, and the module that
computes with it. ReLU follows each layer but the last; pooling takes the largest of 2x2.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from typing import TYPE_CHECKING

from lottery.errors import LotteryError
from lottery.models.layout import Layer, Network, Tensor, batch_norm, check_unused, image, weight
from lottery.spec import Model

if TYPE_CHECKING:
    from torch import nn

POOL = 0


@dataclass(frozen=True)
class Plan:
    """A stack, apart from the images and classes that it is for."""

    convolutions: tuple[int, ...]
    """Output channels of each, and POOL for each pooling, from the input on."""
    hidden: tuple[int, ...] = ()
    """Units of the linear layers before the last."""
    kernel: int = 3
    """Height and width of the convolutions' windows."""
    padding: int = 1
    """Zeros that they add on each side."""
    norm: bool = False
    """Whether a batch norm bn1, bn2, ... lies between each convolution and its ReLU."""
    average: bool = False
    """Whether the linear layers see the mean of each channel, instead of all its pixels."""

    def side(self, pixels: int) -> int:
        """What the convolutions leave of so many pixels in height or width; 0 or less if nothing."""
        for channels in self.convolutions:
            pixels = pixels // 2 if channels == POOL else pixels + 2 * self.padding - self.kernel + 1
        return pixels


def lenet_5(model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """LeNet-5 as Caffe's example has it, 20-50-500-10 with 5x5 convolutions: 431,080 parameters for MNIST, 430,500 of
    them prunable. After LeCun et al. 1998; Caffe leaves out the ReLU behind the convolutions.

    Raises LotteryError for settings that it has no use for, and for images of which nothing is left.
    """
    check_unused(model, "hidden", "width")
    return stack(model, Plan((20, POOL, 50, POOL), (500,), kernel=5, padding=0), inputs, classes)


def conv(depth: int, model: Model, inputs: tuple[int, ...], classes: int) -> Network:
    """Conv-2, Conv-4 and Conv-6: Frankle & Carbin 2019, Figure 2.

    Weights on 3x32x32 images, of them convolutional; the paper's round numbers in parentheses. Conv-6 alone differs:
    its layers as the figure lists them have more than the total that it states.

    - conv-2: 4,300,992 (4.3M), 38,592 (38K)
    - conv-4: 2,425,024 (2.4M), 259,776 (260K)
    - conv-6: 2,261,184 (1.7M), 1,144,512 (1.1M)

    Raises LotteryError for settings that it has no use for, and for images of which nothing is left.
    """
    check_unused(model, "hidden", "width")
    convolutions = (64, 64, POOL, 128, 128, POOL, 256, 256, POOL)[: depth // 2 * 3]
    return stack(model, Plan(convolutions, (256, 256)), inputs, classes)


def stack(model: Model, plan: Plan, inputs: tuple[int, ...], classes: int) -> Network:
    """The network of that plan. Raises LotteryError for what is no image, or too small a one."""
    c, h, w = image(model, inputs)
    if min(plan.side(h), plan.side(w)) < 1:
        least = next(n for n in count(1) if plan.side(n) >= 1)
        remedy = f"they must be at least {least} x {least}, or use mlp"
        raise LotteryError(f"model.name = {model.name!r}: nothing is left of images of {h} x {w} pixels: {remedy}")
    tensors: dict[str, Tensor] = {}
    layers = []
    channels = [n for n in plan.convolutions if n != POOL]
    for i, (fan_in, fan_out) in enumerate(pairwise((c, *channels)), start=1):
        layers.append(Layer(f"conv{i}.weight", f"conv{i}.bias", f"bn{i}" if plan.norm else ""))
        tensors[f"conv{i}.weight"] = weight(fan_out, fan_in, plan.kernel, plan.kernel)
        tensors[f"conv{i}.bias"] = Tensor((fan_out,))
        if plan.norm:
            tensors |= batch_norm(f"bn{i}", fan_out)
    pixels = 1 if plan.average else plan.side(h) * plan.side(w)
    sizes = (channels[-1] * pixels, *plan.hidden, classes)
    for name, (fan_in, fan_out) in zip(_linear(plan), pairwise(sizes), strict=True):
        layers.append(Layer(f"{name}.weight", f"{name}.bias"))
        tensors[f"{name}.weight"] = weight(fan_out, fan_in)
        tensors[f"{name}.bias"] = Tensor((fan_out,))
    return Network(tensors, (c, h, w), tuple(layers), partial(module, plan, c, sizes))


def _linear(plan: Plan) -> list[str]:
    return [f"fc{i + 1}" for i in range(len(plan.hidden) + 1)] if plan.hidden else ["fc"]


def module(plan: Plan, channels: int, sizes: tuple[int, ...]) -> "nn.Module":
    """Images [n, channels, h, w] -> logits [n, sizes[-1]], its tensors named as in `stack`."""
    from torch import nn

    parts: OrderedDict[str, nn.Module] = OrderedDict()
    i = 0
    for outputs in plan.convolutions:
        if outputs == POOL:
            parts[f"pool{i}"] = nn.MaxPool2d(2)
            continue
        i += 1
        parts[f"conv{i}"] = nn.Conv2d(channels, outputs, plan.kernel, padding=plan.padding)
        if plan.norm:
            parts[f"bn{i}"] = nn.BatchNorm2d(outputs)
        parts[f"relu{i}"] = nn.ReLU()
        channels = outputs
    if plan.average:
        parts["average"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    names = _linear(plan)
    for name, (fan_in, fan_out) in zip(names, pairwise(sizes), strict=True):
        parts[name] = nn.Linear(fan_in, fan_out)
        if name != names[-1]:
            parts[f"relu_{name}"] = nn.ReLU()
    return nn.Sequential(parts)
