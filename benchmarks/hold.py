"""Times what holding masks costs an iteration of a ResNet-20, in PyTorch, on one thread.

    python -m benchmarks.hold                                      the table
    python -m benchmarks.hold --output benchmarks/RESULTS.md       writes it there

Random batches of 3x32x32 images, SGD with momentum, masks that keep a fifth of every convolution and linear layer. A
round is a few iterations without and as many with masks, in turns of which comes first; the ratio is taken within a
round, because a machine's speed drifts. Time is the thread's own, so that others on the core don't count. Medians.
"""

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional

import lottery
from benchmarks.results import rewrite


class Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, fan_in: int, fan_out: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False), nn.BatchNorm2d(fan_out)
        self.conv2, self.norm2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False), nn.BatchNorm2d(fan_out)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.extend([nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out)])

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def resnet20() -> nn.Module:
    """He et al. 2016, Section 4.2, with a convolution where a shortcut changes shape: 272,474 parameters."""
    parts = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    shapes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    return nn.Sequential(
        *parts, *(Block(*shape) for shape in shapes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )


@dataclass(frozen=True)
class Options:
    """Time an iteration with masks held against one without."""

    batch_sizes: tuple[int, ...] = (4, 128)
    """Images of a batch."""

    rounds: int = 21
    """Pairs of turns, for each size."""

    seconds: float = 0.3
    """Least time of a turn."""

    output: Path | None = None
    """Markdown file to write the table to."""


def measure(size: int, options: Options) -> tuple[float, float, list[float]]:
    """Milliseconds of an iteration, milliseconds that masks add to it, and the ratios of the rounds."""
    torch.manual_seed(0)
    net = resnet20()
    rng = np.random.default_rng(0)
    masks = {name: rng.random(p.shape) < 0.2 for name, p in net.named_parameters() if p.dim() > 1}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    images, labels = torch.randn(size, 3, 32, 32), torch.randint(10, (size,))

    def turn(held: bool, iterations: int) -> float:
        with lottery.hold(net, masks) if held else nullcontext():
            began = time.thread_time()
            for _ in range(iterations):
                optimizer.zero_grad()
                functional.cross_entropy(net(images), labels).backward()
                optimizer.step()
            return 1e3 * (time.thread_time() - began) / iterations

    iterations = max(1, round(1e3 * options.seconds / min(turn(held, 3) for held in (False, True))))
    pairs = []
    for number in range(options.rounds):
        first = bool(number % 2)
        times = {held: turn(held, iterations) for held in (first, not first)}
        pairs.append((times[False], times[True]))
    plain = median(plain for plain, _ in pairs)
    return plain, median(held - plain for plain, held in pairs), [held / plain for plain, held in pairs]


def main(options: Options) -> None:
    torch.set_num_threads(1)
    load = os.getloadavg()[0]  # of the minute before
    rows = []
    for size in options.batch_sizes:
        plain, added, ratios = measure(size, options)
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rows.append(f"| {size} | {plain:.1f} | {added:+.2f} | {middle:.3f} ({low:.3f}–{high:.3f}) |")
        print(rows[-1])
    if options.output:
        text = [
            f"`python -m benchmarks.hold`, {datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, one thread. "
            "ResNet-20, SGD with momentum, masks on its 22 convolutions and linear layers. Medians of "
            f"{options.rounds} pairs of turns, in CPU time of the thread, at a load average of {load:.1f}.",
            "| batch | plain, ms/iteration | masks held, ms more | held / plain: median (quartiles) |\n"
            "| --- | ---: | ---: | ---: |\n" + "\n".join(rows),
        ]
        rewrite(options.output, "hold", "\n\n".join(text))


if __name__ == "__main__":
    main(tyro.cli(Options))
