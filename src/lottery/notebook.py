"""The level loop by hand: functions for those who want to write train, record, prune, reset out in a notebook.

Built from the same core as everything else; `notebooks/lenet_mnist.ipynb` is the experiment written with them. Weights
and masks are dicts of NumPy arrays by tensor name ("fc1.weight"), always copies: what trains can't reach them. A loader
is any iterable of batches (images, labels). Losses are means per example, accuracies percent, sparsities fractions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from lottery import models
from lottery.criteria import Evidence, magnitude
from lottery.data import load, split
from lottery.engines import history
from lottery.errors import LotteryError, check_type
from lottery.masks import Masks, Weights, apply, check_applied, density, select
from lottery.models.torch import check_shapes, described_as_it_is, get_weights, prunable, set_weights
from lottery.runs import own, store
from lottery.runs.rows import Place
from lottery.runs.store import Run, SavedLevel
from lottery.seeds import Key, stream
from lottery.spec import Model, OwnLoop

Loader = Iterable[Any]
"""Gives batches (images, labels): a DataLoader, a list of pairs of tensors, an object with __iter__. Iterated anew for
every epoch, so a generator lasts for one."""

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits [n, classes], labels [n]) -> mean loss over the batch, as nn.CrossEntropyLoss() gives it."""

Device = torch.device | str

ApplyMask = Callable[[Masks], object]
"""Sets the pruned weights of a model to 0, in place."""


class Maskable(nn.Module):
    """Base for a model of one's own: class Net(Maskable) instead of class Net(nn.Module)."""

    def get_weights_as_dict(self) -> Weights:
        """Copies of every tensor: biases and buffers (a batch norm's statistics) too."""
        return get_weights(self)

    def set_weights_from_dict(self, weights: Mapping[str, np.ndarray]) -> None:
        """Copies `weights` in. Raises LotteryError, before anything is set, unless names and shapes are the model's."""
        set_weights(self, weights)

    def apply_mask(self, masks: Mapping[str, np.ndarray]) -> None:
        """Sets what `masks` prune to 0. Raises LotteryError for a name or shape that is not the model's."""
        parameters = dict(self.named_parameters())
        check_shapes("masks", masks, {name: tuple(p.shape) for name, p in parameters.items()})
        with torch.no_grad():
            for name, mask in _boolean(masks).items():
                factor = torch.from_numpy(mask.astype(np.float32)).to(parameters[name].device)
                parameters[name].mul_(factor).add_(0.0)  # -0.0 + 0.0 is 0.0: the bits of `lottery.masks.apply`


class LeNet300100(Maskable):
    """LeNet-300-100: fc1 784 -> 300, fc2 300 -> 100, fc3 100 -> 10, ReLU between; Gaussian Glorot weights, zero biases.

    266,200 prunable weights, 266,610 parameters. Images [n, 784] or [n, 1, 28, 28] -> logits [n, 10]. The same seed
    gives the same weights as replicate 0 of a spec with that seed.
    """

    def __init__(self, seed: int = 0):
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)
        network = models.network(Model("lenet-300-100"), (28, 28), 10)
        self.set_weights_from_dict(models.initial_weights(network, Model.init, stream(_seed(seed), 0, "weights")))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


class Shuffled:
    """Images in memory as a loader that shuffles anew each time it is iterated.

    Epoch e, the e-th iteration over this object, has the order that stream (*key, e) draws.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, key: Key):
        self.images, self.labels, self.batch_size, self.key = images, labels, batch_size, key
        self.epoch = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(stream(*self.key, self.epoch).permutation(len(self.labels)))
        self.epoch += 1
        for index in order.to(self.labels.device).split(self.batch_size):
            yield self.images[index], self.labels[index]


def loaders(
    batch_size: int = 60,
    *,
    name: str = "mnist",
    seed: int = 0,
    device: Device = "cpu",
    data_dir: Path | str | None = None,
) -> tuple[Shuffled, list[tuple[Tensor, Tensor]]]:
    """All training images, shuffled each epoch, and all test images, as loaders: float32 [n, 784], labels int64 [n].

    Normalised with the data set's mean and standard deviation (MNIST: 0.1307, 0.3081). The data is in memory on
    `device` and a batch is an index, which is several times faster than a DataLoader. data_dir and name are as in
    `lottery.data.load`. Raises LotteryError for a data set that is unknown or can't be had.
    """
    if batch_size < 1:
        raise LotteryError(f"batch_size = {batch_size}: must be at least 1")
    key = (_seed(seed), 0)
    data = split(load(name, Path(data_dir) if data_dir else None), "standardize", 0, stream(*key, "split"))
    images, labels, test_images, test_labels = (
        torch.from_numpy(array).to(device) for part in (data.train, data.test) for array in (part.images, part.labels)
    )
    test = list(zip(test_images.split(1000), test_labels.split(1000), strict=True))
    return Shuffled(images, labels, batch_size, (*key, "order", 0)), test


def create_initial_masks(model_or_weights: nn.Module | Mapping[str, np.ndarray]) -> Masks:
    """Masks that keep everything, boolean, by tensor name.

    Of a model: for the weights of linear and convolution layers. Of a dict of weights, where types are unknown: for
    arrays of two or more dimensions, so not for biases. Raises LotteryError if there are none.
    """
    if isinstance(model_or_weights, nn.Module):
        shapes = {n: tuple(model_or_weights.get_parameter(n).shape) for n in prunable(model_or_weights)}
    else:
        shapes = {n: np.shape(w) for n, w in model_or_weights.items() if np.ndim(w) > 1}
    if not shapes:
        raise LotteryError("nothing to prune: there are no weights of linear or convolution layers")
    return {name: np.ones(shape, bool) for name, shape in shapes.items()}


def prune_by_percent(
    percents: Mapping[str, float], masks: Mapping[str, np.ndarray], final_weights: Mapping[str, np.ndarray]
) -> Masks:
    """The next masks: of each layer's surviving weights, the `round(percent * surviving)` of least magnitude leave.

    percents: tensor name -> *fraction* in [0, 1], for every layer that has a mask; the name is that of the 2018 code
    of Frankle & Carbin. final_weights: the trained weights; others than those with a mask are ignored. What is pruned
    stays so, a surviving weight of 0.0 is surviving, ties leave by index. Returns new boolean arrays. Raises
    LotteryError for a layer that is missing or unknown, a fraction out of range, other shapes, NaN or infinity.
    """
    if missing := [name for name in masks if name not in percents]:
        raise LotteryError(
            f"percents lack {', '.join(missing)}: give a fraction for each layer, 0 to leave it as it is"
        )
    if unknown := [name for name in percents if name not in masks]:
        raise LotteryError(f"percents name {', '.join(unknown)}, which no mask has; there are {', '.join(masks)}")
    for name, fraction in percents.items():
        if not 0 <= fraction <= 1:
            raise LotteryError(f"percents[{name!r}] = {fraction}: must be a fraction in [0, 1], 0.2 for 20 %")
    if missing := [name for name in masks if name not in final_weights]:
        raise LotteryError(f"final_weights lack {', '.join(missing)}")
    check_shapes("masks", masks, {name: np.shape(final_weights[name]) for name in masks})
    weights = {name: np.asarray(final_weights[name]) for name in masks}
    evidence = Evidence(weights, weights, _boolean(masks), stream())  # magnitude reads neither start nor stream
    return select(magnitude(evidence), evidence.masks, percents, scope="layer")


def get_sparsity(masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Pruned / all of each tensor, a fraction in [0, 1]."""
    return {name: 1 - density({name: mask}) for name, mask in _boolean(masks).items()}


def get_overall_sparsity(masks: Mapping[str, np.ndarray]) -> float:
    """Pruned / all over all tensors of `masks`, a fraction in [0, 1]. Raises LotteryError for no masks."""
    if not masks:
        raise LotteryError("masks are empty: there is nothing to be sparse")
    return 1 - density(_boolean(masks))


class History(TypedDict):
    """What `train_iterations` saw: columns of one value per evaluation, and the last evaluation by itself."""

    iteration: list[int]
    """Optimizer steps done by then."""
    train_loss: list[float]
    """Mean per example over the batches since the last evaluation, each before its step."""
    train_acc: list[float]
    """Of the same batches, percent."""
    test_loss: list[float]
    test_acc: list[float]
    """Percent."""
    final_test_loss: float
    final_test_acc: float
    """Percent."""


def train_epoch(
    model: nn.Module,
    train_loader: Loader,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    device: Device,
    masks: Masks | None = None,
    apply_mask_fn: ApplyMask | None = None,
) -> tuple[float, float]:
    """One pass over `train_loader`: mean loss per example and accuracy in percent, each batch's before its step.

    Pruned weights are 0 before the first batch and after every step: set by apply_mask_fn(masks), or where that is not
    given by model.apply_mask(masks). Their gradients are zeroed too, so that none of them enters the optimizer's state.
    masks = None trains the dense network. Raises LotteryError for a loader without batches, masks that don't fit, or a
    model without apply_mask where it is needed.
    """
    step = _stepper(model, criterion, optimizer, masks, apply_mask_fn)
    seen = _Tally()
    for x, y in _batches(train_loader, device):
        step(x, y, seen)
    return seen.means("train_loader")


def evaluate(model: nn.Module, test_loader: Loader, criterion: Criterion, device: Device) -> tuple[float, float]:
    """Mean loss per example and accuracy in percent, exactly correct / examples whatever the sizes of the batches.

    The model is in evaluation mode meanwhile. Raises LotteryError for a loader without batches.
    """
    _check_mean(criterion)
    seen, training = _Tally(), model.training
    model.eval()
    try:
        with torch.no_grad():
            for x, y in _batches(test_loader, device):
                logits = model(x)
                seen.add(criterion(logits, y), logits, y)
    finally:
        model.train(training)
    return seen.means("test_loader")


def train_iterations(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    num_iterations: int,
    device: Device,
    masks: Masks | None = None,
    eval_freq: int = 100,
    apply_mask_fn: ApplyMask | None = None,
    verbose: bool = True,
) -> History:
    """`num_iterations` optimizer steps, one batch each, epoch after epoch; masks are kept as in `train_epoch`.

    Evaluates on `test_loader` every `eval_freq` iterations and after the last one; verbose prints a line for each.
    Raises LotteryError as `train_epoch` does, for counts below 1, and for a generator that ends before the iterations.
    """
    for name, value in (("num_iterations", num_iterations), ("eval_freq", eval_freq)):
        if value < 1:
            raise LotteryError(f"{name} = {value}: must be at least 1")
    step = _stepper(model, criterion, optimizer, masks, apply_mask_fn)
    rows = []
    seen = _Tally()
    for iteration, (x, y) in enumerate(islice(_epochs(train_loader, device), num_iterations), start=1):
        step(x, y, seen)
        if iteration % eval_freq == 0 or iteration == num_iterations:
            rows.append((iteration, *seen.means("train_loader"), *evaluate(model, test_loader, criterion, device)))
            seen = _Tally()
            if verbose:
                _, train_loss, _, _, test_acc = rows[-1]
                print(
                    f"iteration {iteration:>{len(str(num_iterations))}}/{num_iterations}  "
                    f"train loss {train_loss:.4f}  test accuracy {test_acc:.2f} %"
                )
    iterations, train_losses, train_accs, test_losses, test_accs = map(list, zip(*rows, strict=True))
    return {
        "iteration": iterations,
        "train_loss": train_losses,
        "train_acc": train_accs,
        "test_loss": test_losses,
        "test_acc": test_accs,
        "final_test_loss": test_losses[-1],
        "final_test_acc": test_accs[-1],
    }


def keep(
    path: Path | str, number: int, results: History, masks: Masks, model: nn.Module, initial: Mapping[str, np.ndarray]
) -> Run:
    """Keeps a round of a loop by hand as a level of a run, which `lottery report` and all other views show.

    Call it for each round, before the masks are pruned. A round that is there already, trained to the same weights, is
    left as it is.

    Args:
        path: of the run's folder.
        number: of the round; 0 is the dense network.
        results: what `train_iterations` returned.
        masks: name -> boolean array, True = kept: those that the round trained with.
        model: as it is after training.
        initial: θ₀, name -> array, every tensor.

    Returns:
        The run.

    Raises:
        LotteryError: for weights that are not masked or not finite, tensors that don't fit, a run that is in use, is of
            another network, or has another round of that number.
    """
    check_type("path", path, Path)
    check_type("number", number, int)
    kept, trained, path = _boolean(masks), get_weights(model), Path(path)
    shapes = {name: weight.shape for name, weight in trained.items()}
    check_shapes("initial", initial, shapes)
    check_shapes("masks", kept, shapes)
    if missing := [name for name in trained if name not in initial]:
        raise LotteryError(f"initial lacks {', '.join(missing)}: give θ₀ of every tensor, biases too")
    check_applied(trained, kept)
    for name, weight in trained.items():
        if not np.isfinite(weight).all():
            raise LotteryError(f"trained {name} is not finite; nothing was kept")
    patterns = () if set(kept) == set(prunable(model)) else tuple(kept)
    spec = OwnLoop(factory=type(model).__name__, prunable=patterns, levels=number)
    network = described_as_it_is(model, patterns)
    columns = ("iteration", "train_loss", "test_loss", "test_acc")
    rows = list(zip(*(results[column] for column in columns), strict=True))  # type: ignore[literal-required]  # all are keys
    nan = float("nan")
    found = history.from_rows([(at, loss, nan, nan, test, right / 100) for at, loss, test, right in rows])
    with store.lock(path):
        run = own.begin(path, spec, network)
        place = Place(spec.start, 0, number)
        if run.has(place):
            if any(run.read(place).trained[name].tobytes() != weight.tobytes() for name, weight in trained.items()):
                raise LotteryError(f"{path} has a round {number} already, with other weights: give another path")
            return run
        row = own.to_row(place, results["iteration"][-1], kept, found, {}, None)
        start = apply({name: np.asarray(initial[name], trained[name].dtype) for name in trained}, kept)
        run.save(SavedLevel(start, kept, trained, found, row))
        run.write_table()
    return run


class _Tally:
    """Sums over examples, whatever the sizes of their batches, on the device: reading them makes a GPU wait."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.correct: Tensor | int = 0
        self.examples = 0

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        self.loss = self.loss + loss.detach().double() * len(y)
        self.correct = self.correct + (logits.detach().argmax(1) == y).sum()
        self.examples += len(y)

    def means(self, loader: str) -> tuple[float, float]:
        """Loss per example and accuracy in percent."""
        if not self.examples:
            raise _no_batches(loader)
        return float(self.loss) / self.examples, 100 * int(self.correct) / self.examples


def _batches(loader: Loader, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in loader:
        if len(y):  # the mean loss of an empty batch is NaN
            yield torch.as_tensor(x, device=device), torch.as_tensor(y, device=device)


def _epochs(loader: Loader, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end."""
    done = 0
    while True:
        before = done
        for batch in _batches(loader, device):
            done += 1
            yield batch
        if not done:
            raise _no_batches("train_loader")
        if done == before:
            raise LotteryError(
                f"train_loader ended after {done} batches and can't be iterated again: a generator lasts for one "
                "epoch; give a list, a DataLoader or an object with __iter__"
            )


def _no_batches(loader: str) -> LotteryError:
    return LotteryError(f"{loader} gave no batches: is it empty, or a generator that is used up?")


def _stepper(
    model: nn.Module,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    masks: Masks | None,
    apply_mask_fn: ApplyMask | None,
) -> Callable[[Tensor, Tensor, _Tally], None]:
    """The function that makes one optimizer step on a batch and adds it to a tally. The masks are applied at once."""
    _check_mean(criterion)
    apply, pruned = _masking(model, masks, apply_mask_fn)
    apply()
    model.train()

    def step(x: Tensor, y: Tensor, seen: _Tally) -> None:
        logits = model(x)
        loss = criterion(logits, y)
        optimizer.zero_grad()
        loss.backward()
        for parameter, factor in pruned:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        optimizer.step()
        apply()  # an optimizer that was used before, without masks, still has momentum for what is pruned now
        seen.add(loss, logits, y)

    return step


def _masking(
    model: nn.Module, masks: Masks | None, apply_mask_fn: ApplyMask | None
) -> tuple[Callable[[], object], list[tuple[nn.Parameter, Tensor]]]:
    """What applies the masks, and (parameter, its mask as 0.0 and 1.0) for the masks that bear a parameter's name.

    An apply_mask_fn may know masks by other names; then it alone keeps the weights pruned.
    """
    if masks is None:
        return (lambda: None), []
    apply_mask = apply_mask_fn or getattr(model, "apply_mask", None)
    if apply_mask is None:
        raise LotteryError(
            f"{type(model).__name__} has no apply_mask(masks): give apply_mask_fn, or derive it from "
            "lottery.notebook.Maskable"
        )
    parameters = dict(model.named_parameters())
    named = {name: mask for name, mask in masks.items() if name in parameters}
    check_shapes("masks", named, {name: tuple(p.shape) for name, p in parameters.items()})
    factors = {n: torch.from_numpy(m.astype(np.float32)).to(parameters[n].device) for n, m in _boolean(named).items()}
    return partial(apply_mask, masks), [(parameters[name], factor) for name, factor in factors.items()]


def _check_mean(criterion: Criterion) -> None:
    if (reduction := getattr(criterion, "reduction", "mean")) != "mean":
        raise LotteryError(f"criterion has reduction {reduction!r}: it must give the mean over the batch")


def _boolean(masks: Mapping[str, np.ndarray]) -> Masks:
    """Masks as booleans; those that are 0 and 1 in another type are converted."""
    boolean = {}
    for name, mask in masks.items():
        boolean[name] = kept = np.asarray(mask, dtype=bool)
        if np.asarray(mask).dtype != bool and not (mask == kept).all():
            raise LotteryError(f"masks[{name!r}] has values other than 0 and 1")
    return boolean


def _seed(seed: int) -> int:
    if seed < 0:
        raise LotteryError(f"seed = {seed}: must be 0 or more")
    return seed
