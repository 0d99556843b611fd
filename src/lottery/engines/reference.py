"""The slow twin: what training means, in plain float64 NumPy. The other engines are compared with it; it is not one of
those that a run can choose.

Axes: n images, i inputs of a layer, o its outputs.
"""

import time

import numpy as np

from lottery.data import Images, Splits, batches
from lottery.engines import NEVER, Checkpoint, LossNotFinite, Report, Trained, history
from lottery.engines.optimizers import BETA1, BETA2, EPSILON, learning_rate, state_slots, weight_decays
from lottery.masks import Weights
from lottery.models import Layer, Network
from lottery.spec import Recipe
from lottery.starts import Moment, Start

Layers = tuple[Layer, ...]


def train(
    network: Network,
    data: Splits,
    start: Start,
    recipe: Recipe,
    report: Report,
    keep: int = 0,
    checkpoint: Checkpoint = NEVER,
) -> Trained:
    """Trains `start` on data.train; see `lottery.engines.Train`. Returns float64 weights; keeps no checkpoint."""
    assert network.linear, "the twin computes stacks of linear layers alone"
    began = time.perf_counter()
    layers = network.layers
    weights = {name: w.astype(np.float64) for name, w in start.weights.items()}
    decays = weight_decays(network, recipe)
    names = [*state_slots(recipe), "", ""][:2]  # two arrays for each tensor, whether the optimizer keeps them or not
    slots = {
        name: [start.optimizer.get(f"{slot}:{name}", np.zeros(w.shape)).astype(np.float64) for slot in names]
        for name, w in weights.items()
    }
    taken = int(start.optimizer.get("step", 0)) - start.first
    last = recipe.iterations if start.last is None else start.last
    rows: list[tuple[float, ...]] = []
    losses: list[float] = []
    early = None
    order = batches(start.order, len(data.train.labels), recipe.batch_size, recipe.drop_last, last, start.first)
    for iteration, index in enumerate(order, start=start.first + 1):
        loss, gradients = loss_and_gradients(weights, data.train.images[index], data.train.labels[index], layers)
        if not np.isfinite(loss):
            raise LossNotFinite(iteration, loss)
        losses.append(loss)
        rate = learning_rate(recipe, iteration)
        for name, gradient in gradients.items():
            if name in start.masks:
                gradient = gradient * start.masks[name]
            if recipe.optimizer == "adamw":
                weights[name] *= 1 - rate * decays[name]
            else:
                gradient = gradient + decays[name] * weights[name]
            m, v = slots[name]
            step(weights[name], m, v, gradient, taken + iteration, rate, recipe)
        if iteration % recipe.evaluate_every == 0 or iteration == last:
            found = (*evaluate(weights, data.validation, layers), *evaluate(weights, data.test, layers))
            rows.append((iteration, float(np.mean(losses)), *found))
            report(rows[-1])
            losses = []
        if iteration == keep:
            kept = {f"{s}:{n}": a.copy() for n, both in slots.items() for s, a in zip(names, both, strict=True) if s}
            copies = {name: w.copy() for name, w in weights.items()}
            early = Moment(iteration, copies, kept | {"step": np.array(taken + iteration)})
    train_accuracy = evaluate(weights, data.train, layers)[1]
    return Trained(weights, history.from_rows(rows), train_accuracy, time.perf_counter() - began, "reference", early)


def activations(weights: Weights, images: np.ndarray, layers: Layers) -> list[np.ndarray]:
    """The images [n, i], then the output [n, o] of each layer; the last one's are the logits."""
    outputs = [images.astype(np.float64)]
    for layer in layers:
        z = outputs[-1] @ weights[layer.weight].T + weights[layer.bias]
        outputs.append(z if layer is layers[-1] else np.maximum(z, 0))
    return outputs


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log softmax at the label, in nats [n], and the softmax [n, o]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    each: np.ndarray = -(shifted - log_sums)[np.arange(len(labels)), labels]
    return each, np.exp(shifted - log_sums)


def loss_and_gradients(
    weights: Weights, images: np.ndarray, labels: np.ndarray, layers: Layers
) -> tuple[float, dict[str, np.ndarray]]:
    """Mean cross-entropy of a batch, and its gradient by every tensor."""
    outputs = activations(weights, images, layers)
    each, delta = cross_entropies(outputs[-1], labels)
    delta[np.arange(len(labels)), labels] -= 1
    delta /= len(labels)
    gradients = {}
    for layer, inputs in zip(reversed(layers), reversed(outputs[:-1]), strict=True):
        gradients[layer.weight] = delta.T @ inputs
        gradients[layer.bias] = delta.sum(axis=0)
        delta = (delta @ weights[layer.weight]) * (inputs > 0)
    return float(each.mean()), gradients


def step(
    w: np.ndarray, m: np.ndarray, v: np.ndarray, gradient: np.ndarray, t: int, rate: float, recipe: Recipe
) -> None:
    """The optimizer's step number t, the first being 1, in place; weight decay is in the gradient already.

    Adam: Kingma & Ba 2015, Algorithm 1. Nesterov's momentum: as Sutskever et al. 2013, Section 2, writes it, with the
    gradient taken where the weights are.
    """
    if recipe.optimizer == "sgd":
        m *= recipe.momentum
        m += gradient
        w -= rate * (gradient + recipe.momentum * m if recipe.nesterov else m)
    else:
        m += (1 - BETA1) * (gradient - m)
        v += (1 - BETA2) * (gradient**2 - v)
        w -= rate * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPSILON)


def evaluate(weights: Weights, part: Images, layers: Layers) -> tuple[float, float]:
    """Mean loss and accuracy; NaN for no images."""
    if not len(part.labels):
        return float("nan"), float("nan")
    logits = activations(weights, part.images, layers)[-1]
    return float(cross_entropies(logits, part.labels)[0].mean()), float((logits.argmax(axis=1) == part.labels).mean())
