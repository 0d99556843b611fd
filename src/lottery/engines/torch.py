"""The torch engine: PyTorch, on a CPU or a GPU. A mask costs and saves nothing here; it is the engine for anything.

Pruned weights start at 0 and their gradients are zeroed before each step, so their moments, and with weight decay
their decay too, are 0: the update itself leaves them at exactly 0, for Adam and for SGD with momentum.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lottery.data import Images, Splits, batches
from lottery.engines import LossNotFinite, Report, Trained, history
from lottery.engines.optimizers import BETA1, BETA2, EPSILON, weight_decays
from lottery.models import Network
from lottery.models.torch import get_weights
from lottery.spec import Recipe
from lottery.starts import Start

CHUNK = 1000  # images evaluated at once: their activations stay in cache


def train(network: Network, data: Splits, start: Start, recipe: Recipe, report: Report, device: str = "cpu") -> Trained:
    """Trains `start` on data.train; see `lottery.engines`. On a CPU, on one thread."""
    with _settings():
        return _train(network, data, start, recipe, report, device)


def refuses(network: Network, recipe: Recipe, device: str) -> str:
    """Why it can't train that network with that recipe on that device: it always can."""
    return ""


@contextmanager
def _settings() -> Iterator[None]:
    """One thread, because another number of them gives other last bits and gains nothing at this size; and no
    subnormal numbers, which Adam's moments decay into and which are slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def _train(network: Network, data: Splits, start: Start, recipe: Recipe, report: Report, device: str) -> Trained:
    began = time.perf_counter()
    module = network.module().to(device)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(start.weights[name]))
    masked = [module.get_parameter(name) for name in start.masks]
    masks: Any = [  # the stubs know no list of tensors here
        torch.from_numpy(mask).to(device, torch.float32) for mask in start.masks.values()
    ]
    optimizer = _optimizer(module, network, recipe)
    train_set, validation, test = (_to_device(s, device) for s in (data.train, data.validation, data.test))
    images, labels = train_set

    rows = []
    losses = torch.zeros(
        min(recipe.evaluate_every, recipe.iterations), device=device
    )  # since the last evaluation: read only then
    done = 0
    order = batches(start.order, len(labels), recipe.batch_size, recipe.drop_last, recipe.iterations)
    for iteration, index in enumerate(order, start=1):
        batch = torch.from_numpy(index).to(device)
        loss = functional.cross_entropy(module(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        torch._foreach_mul_([p.grad for p in masked if p.grad is not None], masks)
        optimizer.step()
        losses[iteration - done - 1] = loss.detach()
        if iteration - done == recipe.evaluate_every or iteration == recipe.iterations:
            seen = losses[: iteration - done].cpu().numpy().astype(np.float64)
            if (bad := np.flatnonzero(~np.isfinite(seen))).size:
                raise LossNotFinite(done + 1 + int(bad[0]), float(seen[bad[0]]))
            rows.append((iteration, seen.mean(), *_evaluate(module, *validation), *_evaluate(module, *test)))
            report(iteration, rows[-1][-1])
            done = iteration
    train_accuracy = _evaluate(module, images, labels)[1]
    seconds = time.perf_counter() - began
    return Trained(get_weights(module), history.from_rows(rows), train_accuracy, seconds, "torch")


def _optimizer(module: torch.nn.Module, network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    decays, rate = weight_decays(network, recipe), recipe.learning_rate
    groups = [
        {"params": [p for name, p in module.named_parameters() if decays[name] == decay], "weight_decay": decay}
        for decay in dict.fromkeys(decays.values())
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=(BETA1, BETA2), eps=EPSILON, fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, fused=True)


def _to_device(part: Images, device: str) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device)


@torch.no_grad()
def _evaluate(module: torch.nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy; NaN for no images."""
    if not len(labels):
        return float("nan"), float("nan")
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    for x, y in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
        logits = module(x)
        loss += functional.cross_entropy(logits, y, reduction="sum")
        correct += (logits.argmax(1) == y).sum()
    return float(loss) / len(labels), int(correct) / len(labels)
