"""The loop around the kernels: lays a level out, has it trained from one evaluation to the next, reads the results."""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import numpy as np

from lottery.data import Images, Splits, batches
from lottery.engines import NEVER, Checkpoint, LossNotFinite, Partial, Report, Trained, history
from lottery.engines.optimizers import learning_rate, state_slots, weight_decays
from lottery.engines.sparse import evaluation, images, layout, modes
from lottery.engines.sparse.doors import JIT, alone, cache_folder, is_kept
from lottery.engines.sparse.evaluation import Csc, Groups, Pairs
from lottery.engines.sparse.images import Batch, Data, Lists
from lottery.engines.sparse.layout import Net, Stack, Tiles
from lottery.masks import Weights
from lottery.models import Network
from lottery.models.mlp import stack
from lottery.spec import Recipe
from lottery.starts import Moment, Start

WORK = 100_000_000_000
"""Kept weights times images, at most, between two moments at which a checkpoint may be written: a few seconds."""


@dataclass(frozen=True, eq=False)
class _Level:
    """A level as the kernels hold it, and what leads from there to everybody else's arrays."""

    network: Network
    recipe: Recipe
    whole: Stack
    """What training begins with, in dense form."""
    masks: list[np.ndarray]
    """bool [out, in] of each layer: what the kernels train."""
    data: Data
    net: Net
    first: Tiles
    second: Tiles
    csc: Csc
    batch: Batch

    @staticmethod
    def of(network: Network, recipe: Recipe, data: Data, start: Start, moment: Moment) -> "_Level":
        """The level that begins at `start`, come to `moment`."""
        whole = Stack.of(network, moment.weights, start.masks)
        by_gradient_alone = not recipe.weight_decay and not start.optimizer
        trained = replace(whole, masks=layout.leading_on(whole.masks)) if by_gradient_alone else whole
        mode, batch_size = layout.mode(trained), min(recipe.batch_size, len(data.train.labels))
        net = layout.build_net(trained, mode)
        first, second = layout.build_tiles(trained, mode, batch_size)
        level = _Level(
            network=network,
            recipe=recipe,
            whole=whole,
            masks=trained.masks,
            data=data,
            net=net,
            first=first,
            second=second,
            csc=evaluation.build_csc(net, 0 if mode else trained.sizes[1]),
            batch=images.build_batch(data.features, batch_size, mode > 0, data.train.coded),
        )
        for slot, values in level.slots.items():
            if moment.optimizer:
                dense = {name: moment.optimizer[f"{slot}:{name}"] for name in network.tensors}
                layout.scatter(network, dense, level.masks, values)
        return level

    @property
    def slots(self) -> dict[str, layout.Slots]:
        """The optimizer's slots, in PyTorch's words -> where the kernels have them."""
        _, *of_optimizer = layout.slots(self.net, self.first, self.second)
        return dict(zip(state_slots(self.recipe), of_optimizer, strict=False))

    def train(self, order: list[np.ndarray], rates: np.ndarray, steps: int, losses: np.ndarray) -> None:
        """One iteration for each batch of indices in `order`; `steps` of the optimizer's are behind it. Fills `losses`,
        float64 [iterations]."""
        ends = np.cumsum([0, *map(len, order)])
        (decay,) = set(weight_decays(self.network, self.recipe).values())  # the kernels know one for all tensors
        modes.train(
            self.net,
            self.first,
            self.second,
            self.batch,
            self.data.train,
            self.data.background,
            np.concatenate(order),
            ends,
            steps,
            self.recipe.optimizer == "adam",
            rates,
            self.recipe.momentum,
            decay,
            losses,
        )

    def arrange(self, part: Lists, order: np.ndarray) -> Pairs | Groups:
        """Images to be evaluated, neighbours in that order together."""
        if self.first.units:
            return evaluation.build_pairs(part, order)
        return evaluation.build_groups(part, order, self.net)

    def evaluate(self, arranged: Pairs | Groups) -> tuple[float, float]:
        """Mean cross-entropy in nats, and accuracy; NaN of no images."""
        count = len(arranged.labels)
        if not count:
            return float("nan"), float("nan")
        if self.first.units:
            loss, correct = evaluation.evaluate_pairs(self.net, self.first, self.second, arranged, self.data.background)
        else:
            loss, correct = evaluation.evaluate_groups(self.net, arranged, self.data.background, self.csc)
        return loss / count, correct / count

    def weights(self) -> Weights:
        """The network's weights and biases."""
        values, *_ = layout.slots(self.net, self.first, self.second)
        return layout.gather(self.network, self.whole, self.masks, values)

    def moment(self, iteration: int, steps: int) -> Moment:
        """Weights and the optimizer's state after that iteration, and as many of its steps."""
        nothing = replace(self.whole, weights=[np.zeros_like(w) for w in self.whole.weights])
        optimizer = {"step": np.array(steps, np.int64)}
        for slot, values in self.slots.items():
            dense = layout.gather(self.network, nothing, self.masks, values)
            optimizer |= {f"{slot}:{name}": array for name, array in dense.items()}
        return Moment(iteration, self.weights(), optimizer)


def train(
    network: Network,
    data: Splits,
    start: Start,
    recipe: Recipe,
    report: Report,
    keep: int = 0,
    checkpoint: Checkpoint = NEVER,
) -> Trained:
    """Trains `start` on data.train; see `lottery.engines.Train`. On one thread."""
    compile_kernels()
    began = time.perf_counter()
    prepared = images.prepare(data)
    partial = checkpoint.read() or Partial(
        Moment(start.first, start.weights, start.optimizer), [], np.zeros(0), seconds=0.0
    )
    moment, rows, losses, early = partial.moment, list(partial.rows), partial.losses, partial.early
    level = _Level.of(network, recipe, prepared, start, moment)
    earlier = int(moment.optimizer.get("step", 0)) - moment.iteration  # the optimizer's steps, beside the iterations

    def seconds() -> float:
        return partial.seconds + time.perf_counter() - began

    evaluated = [level.arrange(*part) for part in prepared.evaluated]
    done, last, every = moment.iteration, recipe.iterations if start.last is None else start.last, recipe.evaluate_every
    order = batches(start.order, len(data.train.labels), recipe.batch_size, recipe.drop_last, last, done)
    kept, batch_size = sum(int(mask.sum()) for mask in level.masks), min(recipe.batch_size, len(data.train.labels))
    chunk = max(1, WORK // (batch_size * max(1, kept)))
    while done < last:
        end = min(done - done % every + every, last, done + chunk, keep if done < keep else last)
        new = np.zeros(end - done)
        rates = np.array([learning_rate(recipe, iteration) for iteration in range(done + 1, end + 1)])
        level.train(list(islice(order, end - done)), rates, earlier + done, new)
        losses = np.append(losses, new)
        if (bad := np.flatnonzero(~np.isfinite(new))).size:
            raise LossNotFinite(done + 1 + int(bad[0]), float(new[bad[0]]))
        done = end
        if done % every == 0 or done == last:
            scores = [score for part in evaluated for score in level.evaluate(part)]
            rows.append((done, losses.mean(), *scores))
            losses = np.zeros(0)
            report(rows[-1])
        if done == keep:
            early = level.moment(done, earlier + done)
        if checkpoint.due():
            checkpoint.write(Partial(level.moment(done, earlier + done), rows, losses, seconds(), early))
    as_they_come = np.arange(len(data.train.labels))  # no better order is worth its cost: only once
    train_accuracy = level.evaluate(level.arrange(prepared.train, as_they_come))[1]
    return Trained(level.weights(), history.from_rows(rows), train_accuracy, seconds(), "sparse", early)


def must_compile() -> bool:
    """Whether the kernels will be compiled, which takes half a minute, before the first iteration."""
    return JIT and not is_kept(modes.train)  # nor if it is of other sources, or damaged


def cached() -> bool:
    """Whether what was compiled is kept: not where numba finds no folder that it may write to."""
    return JIT and cache_folder(modes.train) is not None


@lru_cache(maxsize=1)
def compile_kernels() -> None:
    """Compiles the kernels, or loads them: what one process compiles, those beside it wait for and load."""
    if not JIT:
        return
    network = stack((2, 2, 2))
    weights = {name: np.zeros(tensor.shape, np.float32) for name, tensor in network.tensors.items()}
    start = Start(weights, {name: np.ones((2, 2), bool) for name in network.prunable}, order=(0,))
    none = Images(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    with alone(modes.train):
        data = images.prepare(Splits(none, none, none))
        level = _Level.of(network, Recipe(), data, start, Moment(0, weights))
        lists, order = data.evaluated[0]
        level.train([order], np.zeros(0), 0, np.zeros(0))
        evaluation.evaluate_pairs(
            level.net, level.first, level.second, evaluation.build_pairs(lists, order), data.background
        )
        csc, groups = evaluation.build_csc(level.net, 0), evaluation.build_groups(lists, order, level.net)
        evaluation.evaluate_groups(level.net, groups, data.background, csc)
