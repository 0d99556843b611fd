"""The torch engine: PyTorch, on a CPU or a GPU, any network. A mask saves nothing here.

`hold` keeps the mask. All else that an iteration depends on is its number and the `Moment` before it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lottery.data import Images, Splits, batches
from lottery.data.augment import crops, cut
from lottery.engines import NEVER, Checkpoint, LossNotFinite, Partial, Report, Trained, history
from lottery.engines.hold import hold
from lottery.engines.optimizers import BETA1, BETA2, EPSILON, learning_rate, state_slots, weight_decays
from lottery.masks import Weights
from lottery.models import Network
from lottery.models.torch import state
from lottery.seeds import Key, stream
from lottery.spec import Recipe
from lottery.starts import Moment, Start

CHUNK, CHUNK_OF_PLANES = 1000, 200
"""Images evaluated at once, by linear layers and by convolutions: their activations stay in cache."""


def train(
    network: Network,
    data: Splits,
    start: Start,
    recipe: Recipe,
    report: Report,
    keep: int = 0,
    checkpoint: Checkpoint = NEVER,
    device: str = "cpu",
) -> Trained:
    """Trains `start` on data.train; see `lottery.engines.Train`. On a CPU, on one thread."""
    with _settings(device):
        return _train(network, data, start, recipe, report, keep, checkpoint, device)


def refuses(network: Network, recipe: Recipe, device: str) -> str:
    """Why it can't train that network with that recipe on that device; "" if it can."""
    if (recipe.crop_padding or recipe.flip) and len(network.inputs) == 1:
        return f"recipe.crop_padding and recipe.flip are for images, not for examples of shape {network.inputs}"
    return ""


@contextmanager
def _settings(device: str) -> Iterator[None]:
    """One thread, because another number of them gives other last bits and gains nothing at this size; no subnormal
    numbers, which Adam's moments decay into and which are slow; the caller's random numbers left as they were. On a
    GPU, convolutions whose sums have one order and float32's precision."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    gpus = [torch.cuda.current_device()] if device == "cuda" else []
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with torch.random.fork_rng(gpus), exact:
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def _train(
    network: Network,
    data: Splits,
    start: Start,
    recipe: Recipe,
    report: Report,
    keep: int,
    checkpoint: Checkpoint,
    device: str,
) -> Trained:
    began = time.perf_counter()
    partial = checkpoint.read() or Partial(
        Moment(start.first, start.weights, start.optimizer), [], np.zeros(0), seconds=0.0
    )
    moment, rows, early = partial.moment, list(partial.rows), partial.early
    session = _Session(network, recipe, moment, device)
    module, optimizer = session.module, session.optimizer
    parts = [_to_device(part, network.inputs, device) for part in (data.train, data.validation, data.test)]
    (images, labels), validation, test = parts
    shown = _Crops(start.order, recipe, data.black, network.inputs, device)
    noise = int(stream(*start.order, "noise").integers(2**62))

    last, every = recipe.iterations if start.last is None else start.last, recipe.evaluate_every
    losses = torch.zeros(min(every, last), device=device)  # since the last evaluation: read only then
    pending = len(partial.losses)
    losses[:pending] = torch.from_numpy(partial.losses).to(device, torch.float32)

    def seen() -> np.ndarray:
        return losses[:pending].cpu().numpy().astype(np.float64)

    def seconds() -> float:
        return partial.seconds + time.perf_counter() - began

    order = batches(start.order, len(labels), recipe.batch_size, recipe.drop_last, last, moment.iteration)
    with hold(module, start.masks):
        for iteration, index in enumerate(order, start=moment.iteration + 1):
            torch.manual_seed(noise + iteration)  # dropout and its like: a function of the iteration too
            batch = torch.from_numpy(index).to(device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, iteration)
            loss = functional.cross_entropy(module(shown(images[batch], iteration)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[pending] = loss.detach()
            pending += 1
            if iteration % every == 0 or iteration == last:
                if (bad := np.flatnonzero(~np.isfinite(seen()))).size:
                    raise LossNotFinite(iteration - pending + 1 + int(bad[0]), float(seen()[bad[0]]))
                rows.append((iteration, seen().mean(), *_evaluate(module, *validation), *_evaluate(module, *test)))
                report(rows[-1])
                pending = 0
            if iteration == keep:
                early = session.moment(iteration)
            if checkpoint.due():
                checkpoint.write(Partial(session.moment(iteration), rows, seen(), seconds(), early))
    train_accuracy = _evaluate(module, images, labels)[1]
    return Trained(session.state(), history.from_rows(rows), train_accuracy, seconds(), "torch", early)


class _Session:
    """A module and its optimizer, as they were at one moment."""

    def __init__(self, network: Network, recipe: Recipe, moment: Moment, device: str):
        module = network.module().to(device)
        if any(len(tensor.shape) == 4 for tensor in network.tensors.values()):
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
        self.module = module
        self.tensors = state(module)
        self.slots = {name: state_slots(recipe) for name, tensor in network.tensors.items() if not tensor.buffer}
        self.optimizer = _optimizer(self.tensors, weight_decays(network, recipe), recipe)
        self.taken = int(moment.optimizer.get("step", 0)) - moment.iteration
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(torch.from_numpy(moment.weights[name]))
                kept: dict[str, Any] = {}
                for slot in self.slots.get(name, ()) if moment.optimizer else ():
                    kept[slot] = torch.empty_like(tensor).copy_(torch.from_numpy(moment.optimizer[f"{slot}:{name}"]))
                if kept and recipe.optimizer != "sgd":
                    kept["step"] = torch.tensor(float(moment.optimizer["step"]), device=device)
                if kept:
                    self.optimizer.state[tensor] = kept

    def state(self) -> Weights:
        """Copies of every parameter and buffer."""
        return {name: _array(tensor) for name, tensor in self.tensors.items()}

    def moment(self, iteration: int) -> Moment:
        """All that the iterations after this one depend on."""
        optimizer = {"step": np.array(self.taken + iteration, np.int64)}
        for name, slots in self.slots.items():
            optimizer |= {f"{slot}:{name}": _array(self.optimizer.state[self.tensors[name]][slot]) for slot in slots}
        return Moment(iteration, self.state(), optimizer)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", copy=True).contiguous().numpy()


def _optimizer(tensors: Mapping[str, Tensor], decays: Mapping[str, float], recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": [tensors[name] for name in decays if decays[name] == decay], "weight_decay": decay}
        for decay in dict.fromkeys(decays.values())
    ]
    rate = recipe.learning_rate
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(BETA1, BETA2), eps=EPSILON, fused=True)


class _Crops:
    """What the network sees of a batch's images: themselves, or crops of them in a border of black, some mirrored."""

    def __init__(self, order: Key, recipe: Recipe, black: np.ndarray, shape: tuple[int, ...], device: str):
        self.order, self.padding, self.flip = order, recipe.crop_padding, recipe.flip
        self.black = torch.from_numpy(np.broadcast_to(black, prod(shape)).copy()).to(device).reshape(-1, *shape[-2:])

    def __call__(self, images: Tensor, iteration: int) -> Tensor:
        if not (self.padding or self.flip):
            return images
        shape, pad = images.shape, self.padding
        count, (height, width) = len(images), shape[-2:]
        planes = images.reshape(count, -1, height, width)
        padded = self.black[:, :1, :1].repeat(count, 1, height + 2 * pad, width + 2 * pad)
        padded[:, :, pad : pad + height, pad : pad + width] = planes
        drawn = crops(self.order, iteration, count, height, width, pad, self.flip)
        chosen, rows, columns = (torch.from_numpy(index).to(images.device) for index in (np.arange(count), *drawn))
        return cast(Tensor, cut(padded, chosen, rows, columns)).reshape(shape)


def _to_device(part: Images, shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(part.images).reshape(-1, *shape)
    return images.to(device), torch.from_numpy(part.labels).to(device)


@torch.no_grad()
def _evaluate(module: torch.nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy; NaN for no images."""
    if not len(labels):
        return float("nan"), float("nan")
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    chunk = CHUNK if images[0].dim() < 3 else CHUNK_OF_PLANES
    module.eval()
    for x, y in zip(images.split(chunk), labels.split(chunk), strict=True):
        logits = module(x)
        loss += functional.cross_entropy(logits, y, reduction="sum")
        correct += (logits.argmax(1) == y).sum()
    module.train()
    return float(loss) / len(labels), int(correct) / len(labels)
