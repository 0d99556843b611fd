"""The training loops that are timed: three that one would write without this package, and every engine it has.

All do the same task, LeNet-300-100 with Adam on the same batches, and report what the same evaluations find:

    dataloader  a notebook: DataLoader with two workers, transforms per image, masks on the gradients
    bare        the barest PyTorch loop: tensors in memory, fused Adam, no masks at all, so always the dense network
    jax         the same in JAX: one compiled scan from evaluation to evaluation, masks multiplied in
    ...         `lottery.engines`, each on the CPU

A contestant is a function that makes the training function: what it compiles is compiled once for all its runs.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery import engines
from lottery.data import DATASETS, Images, Splits, batches
from lottery.engines import Report
from lottery.engines.history import History, from_rows
from lottery.models import Network
from lottery.spec import Recipe
from lottery.starts import Start

if TYPE_CHECKING:
    from torch import Tensor, nn

Tree = Any
"""What jax.tree maps over."""

Train = Callable[[Network, Splits, Start, Recipe, Report], History]
"""What engines do, but that the history is all they return."""

CHUNK = 1000
"""Images evaluated at once: the fastest of 250 to 15,000 in PyTorch and JAX alike."""


def _order(data: Splits, start: Start, recipe: Recipe) -> list[np.ndarray]:
    return list(batches(start.order, len(data.train.labels), recipe.batch_size, recipe.drop_last, recipe.iterations))


# --- PyTorch, as in a notebook


class Digits:
    """A data set of uint8 images that makes a float tensor of one at a time, as torchvision's transforms do."""

    def __init__(self, part: Images):
        known = DATASETS["mnist"]
        self.mean, self.std = np.asarray(known.mean).item(), np.asarray(known.std).item()  # of its one channel
        pixels = (part.images * self.std + self.mean) * 255
        self.images, self.labels = np.rint(pixels).astype(np.uint8), part.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> "tuple[Tensor, int]":
        import torch

        image = torch.from_numpy(self.images[i]).to(torch.float32).div(255)
        return image.sub(self.mean).div(self.std), int(self.labels[i])


def dataloader() -> Train:
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader

    # The ignores below: PyTorch's stubs want a subclass of Dataset; its documentation asks for len and indexing only.
    def evaluate(module: "nn.Module", digits: Digits) -> tuple[float, float]:
        loss, correct = 0.0, 0
        with torch.no_grad():
            for x, y in DataLoader(digits, batch_size=CHUNK, num_workers=2):  # type: ignore[arg-type]
                logits = module(x)
                loss += functional.cross_entropy(logits, y, reduction="sum").item()
                correct += int((logits.argmax(1) == y).sum().item())
        return loss / len(digits), correct / len(digits)

    def train(network: Network, data: Splits, start: Start, recipe: Recipe, report: Report) -> History:
        torch.set_num_threads(1)
        module = network.module()
        module.load_state_dict({name: torch.from_numpy(w) for name, w in start.weights.items()})
        masks = {name: torch.from_numpy(m).float() for name, m in start.masks.items()}
        optimizer = torch.optim.Adam(module.parameters(), lr=recipe.learning_rate)
        digits, validation, test = Digits(data.train), Digits(data.validation), Digits(data.test)
        order = [index.tolist() for index in _order(data, start, recipe)]
        rows, losses = [], []
        for iteration, (x, y) in enumerate(DataLoader(digits, batch_sampler=order, num_workers=2), 1):  # type: ignore[arg-type]
            optimizer.zero_grad()
            loss = functional.cross_entropy(module(x), y)
            loss.backward()
            for name, parameter in module.named_parameters():
                if name in masks and parameter.grad is not None:
                    parameter.grad *= masks[name]
            optimizer.step()
            losses.append(loss.item())
            if iteration % recipe.evaluate_every == 0:
                rows.append((iteration, float(np.mean(losses)), *evaluate(module, validation), *evaluate(module, test)))
                losses = []
                report(rows[-1])
        return from_rows(rows)

    return train


# --- PyTorch, nothing but the arithmetic


def bare() -> Train:
    import torch
    from torch.nn import functional

    def forward(parameters: "list[Tensor]", x: "Tensor") -> "Tensor":
        w1, b1, w2, b2, w3, b3 = parameters
        x = functional.relu(functional.linear(x, w1, b1))
        x = functional.relu(functional.linear(x, w2, b2))
        return functional.linear(x, w3, b3)

    @torch.inference_mode()
    def evaluate(parameters: "list[Tensor]", images: "Tensor", labels: "Tensor") -> tuple[float, float]:
        loss, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for x, y in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
            logits = forward(parameters, x)
            loss += functional.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
        return float(loss) / len(labels), int(correct) / len(labels)

    def train(network: Network, data: Splits, start: Start, recipe: Recipe, report: Report) -> History:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        names = [f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")]
        parameters = [torch.tensor(start.weights[name], requires_grad=True) for name in names]
        optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate, fused=True)
        (images, labels), *held_out = (
            (torch.from_numpy(part.images), torch.from_numpy(part.labels))
            for part in (data.train, data.validation, data.test)
        )
        rows, losses = [], []
        for iteration, index in enumerate(_order(data, start, recipe), start=1):
            batch = torch.from_numpy(index)
            logits = forward(parameters, images.index_select(0, batch))
            loss = functional.cross_entropy(logits, labels.index_select(0, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if iteration % recipe.evaluate_every == 0:
                found = [x for part in held_out for x in evaluate(parameters, *part)]
                rows.append((iteration, float(torch.stack(losses).mean()), *found))
                losses = []
                report(rows[-1])
        return from_rows(rows)

    return train


# --- JAX


def jax_scan() -> Train:
    """Of the variants tried the fastest: weights [out, in], masks on the gradients inside the fused update (the
    weights start masked), four iterations of the scan unrolled, evaluation mapped over chunks.

    XLA chooses its threads by the cores it may use: whoever calls this pins the process to one.
    """
    import jax
    from jax import numpy as jnp

    def forward(parameters: Sequence[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight.T + bias)
        weight, bias = parameters[-1]
        return x @ weight.T + bias

    def losses_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]

    @jax.jit
    def evaluate(parameters: Tree, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        def chunk(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            logits = forward(parameters, part[0])
            return losses_of(logits, part[1]).mean(), (logits.argmax(1) == part[1]).mean()

        loss, accuracy = jax.lax.map(chunk, (images, labels))  # equal chunks: the mean of means is the mean
        return loss.mean(), accuracy.mean()

    @partial(jax.jit, donate_argnums=0)
    def iterate(
        state: Tree, masks: Tree, rate: float, data: tuple[jax.Array, jax.Array], order: tuple[jax.Array, jax.Array]
    ) -> tuple[Tree, jax.Array]:
        images, labels = data

        def objective(parameters: Tree, index: jax.Array, share: jax.Array) -> jax.Array:
            return (losses_of(forward(parameters, images[index]), labels[index]) * share).sum()

        def step(state: Tree, batch: tuple[jax.Array, jax.Array]) -> tuple[Tree, jax.Array]:
            parameters, mean, square, count = state
            loss, gradients = jax.value_and_grad(objective)(parameters, *batch)
            gradients = [(w * mask, b) for (w, b), mask in zip(gradients, masks, strict=True)]
            count = count + 1
            correction = jnp.sqrt(-jnp.expm1(count * math.log(0.999)))
            size, epsilon = -rate * correction / jnp.expm1(count * math.log(0.9)), 1e-8 * correction
            mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradients)
            square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, gradients)
            parameters = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) + epsilon), parameters, mean, square)
            return (parameters, mean, square, count), loss

        return jax.lax.scan(step, state, order, unroll=4)

    def train(network: Network, data: Splits, start: Start, recipe: Recipe, report: Report) -> History:
        assert [device.platform for device in jax.devices()] == ["cpu"]
        parameters = [
            (jnp.array(start.weights[layer.weight]), jnp.array(start.weights[layer.bias])) for layer in network.layers
        ]
        masks = [jnp.asarray(start.masks[layer.weight], jnp.float32) for layer in network.layers]
        mean, square = jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters)
        state = parameters, mean, square, jnp.zeros(())
        on_device = jnp.asarray(data.train.images), jnp.asarray(data.train.labels, jnp.int32)
        held_out = [
            (
                jnp.asarray(part.images.reshape(-1, CHUNK, network.sizes[0])),
                jnp.asarray(part.labels.reshape(-1, CHUNK), jnp.int32),
            )
            for part in (data.validation, data.test)
        ]
        order, rows = iter(_order(data, start, recipe)), []
        for done in range(recipe.evaluate_every, recipe.iterations + 1, recipe.evaluate_every):
            index = np.zeros((recipe.evaluate_every, recipe.batch_size), np.int32)
            share = np.zeros(index.shape, np.float32)  # of the mean loss: the last batch of an epoch is smaller
            for i, batch in enumerate(islice(order, recipe.evaluate_every)):
                index[i, : len(batch)], share[i, : len(batch)] = batch, 1 / len(batch)
            state, losses = iterate(state, masks, recipe.learning_rate, on_device, (index, share))
            found = [float(x) for part in held_out for x in evaluate(state[0], *part)]
            rows.append((done, float(losses.mean()), *found))
            report(rows[-1])
        return from_rows(rows)

    return train


# --- ours


def _engine(name: str) -> Train:
    engine = engines.trainer(name, "cpu")
    return lambda *task: engine(*task).history


CONTESTANTS: dict[str, Callable[[], Train]] = {
    "dataloader": dataloader,
    "bare": bare,
    "jax": jax_scan,
    **{name: partial(_engine, name) for name in engines.ENGINES},
}

UNMASKED = ("bare",)
"""They train the dense network whatever the level: what it costs does not depend on the weights' values."""

SLOW = ("dataloader",)
"""Timed for fewer iterations and rounds, at the first and last level only: a mask changes nothing in its cost."""
