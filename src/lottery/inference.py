"""What a ticket costs to use: size, memory and time of every way to compute its logits here, beside dense PyTorch.

All methods run on one core, in rounds: each once per round, in an order drawn anew, on the same examples, so that what
slows the machine down slows all of them. A method whose logits differ is an error: a fast wrong answer is no result.
To add a method: a function and a row in METHODS, its name in `lottery.words`, its colour in `views.measures`.
"""

import importlib.util
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as save_tensors
from torch import Tensor, nn

from lottery import models
from lottery.errors import LotteryError, check_type
from lottery.runs import store, timings
from lottery.runs.machine import this_session
from lottery.runs.store import Run
from lottery.runs.ticket import Ticket
from lottery.runs.timings import Cost, Latency, Measured, Spread
from lottery.spec import OwnLoop
from lottery.words import method_name

BATCHES = (1, 32, 256)
"""Examples at once."""

SECONDS = 9.0
"""That the timing of one level takes, divided evenly among the batch sizes; what is slow takes longer."""

ROUNDS = 3, 200
"""Fewest and most for one batch size."""

MOMENT = 2e-3
"""Seconds in a round that the fastest method takes at least: all methods are called as often as that needs."""

TOLERANCE = 1e-4
"""Most that logits may differ from dense PyTorch's, as a fraction of the largest of them."""

SPREAD = 6
"""Levels that are measured where none are named."""


@dataclass(frozen=True)
class Method:
    """A ticket made ready to compute."""

    logits: Callable[[Any], Any]
    """From examples [n, ...] to logits [n, classes]."""
    takes: Callable[[np.ndarray], Any]
    """From examples as an array, float32, to what `logits` takes; not timed."""
    memory_bytes: int
    """Of weights, biases and indices."""
    file_bytes: int


def _torch(module: nn.Module) -> Method:
    """A module of PyTorch, its file in safetensors."""
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    memory = sum(tensor.nbytes for tensor in tensors.values())
    return Method(module, torch.from_numpy, memory, len(save_tensors(tensors)))


def dense(ticket: Ticket) -> Method:
    """PyTorch, pruned weights as zeros."""
    return _torch(ticket.module())


def shrunk(ticket: Ticket) -> Method:
    """PyTorch, without the units and channels that have no way in or no way out."""
    return _torch(ticket.shrunk())


def csr(ticket: Ticket) -> Method:
    """PyTorch's compressed sparse rows, activations [units, n] between the layers.

    Raises:
        LotteryError: for anything but a stack of linear layers.
    """
    if not ticket.network.linear:
        raise LotteryError("PyTorch multiplies sparse matrices alone: there are no sparse convolutions")
    weights = ticket.weights()
    layers, arrays = [], dict[str, np.ndarray]()
    for layer in ticket.network.layers:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            kept = torch.from_numpy(weights[layer.weight]).to_sparse_csr()
        rows, columns, values = kept.crow_indices().int(), kept.col_indices().int(), kept.values()  # 32 bits, as MKL's
        bias = torch.from_numpy(weights[layer.bias])[:, None]
        layers.append((torch.sparse_csr_tensor(rows, columns, values, kept.shape, check_invariants=True), bias))
        arrays |= {f"{layer.weight}:{i}": part.numpy() for i, part in enumerate((rows, columns, values, bias))}

    def logits(examples: Tensor) -> Tensor:
        units = examples.flatten(1).T
        for i, (weight, bias) in enumerate(layers):
            units = torch.addmm(bias, weight, units.relu_() if i else units)
        return units.T

    return Method(logits, torch.from_numpy, sum(array.nbytes for array in arrays.values()), len(save_tensors(arrays)))


def onnx(ticket: Ticket, shrunk: bool = False) -> Method:
    """ONNX Runtime on the file that `lottery.export.onnx` writes.

    Raises:
        LotteryError: where the extra `onnx` is not installed, or the network cannot be written so.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise LotteryError(f'{package} is not installed: pip install "lottery[onnx]"')
    import onnx as format
    import onnxruntime

    from lottery import export

    with tempfile.TemporaryDirectory() as folder:
        file = export.onnx(ticket, Path(folder) / "ticket.onnx", shrunk=shrunk).read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns of devices that it looked for
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    parameters = format.load_from_string(file).graph.initializer
    memory = sum(format.numpy_helper.to_array(parameter).nbytes for parameter in parameters)
    return Method(lambda examples: session.run(None, {name: examples})[0], lambda examples: examples, memory, len(file))


def onnx_shrunk(ticket: Ticket) -> Method:
    """ONNX Runtime, without the units and channels that have no way in or no way out."""
    return onnx(ticket, shrunk=True)


def predictor(ticket: Ticket) -> Method:
    """The package's own kernels on the surviving weights; its file is the ticket's, with trained weights alone."""
    ready = ticket.predictor()
    with tempfile.TemporaryDirectory() as folder:
        size = ticket.save(Path(folder) / "ticket", weights="trained").stat().st_size
    return Method(ready, lambda examples: examples.reshape(len(examples), -1), ready.nbytes, size)


METHODS: dict[str, Callable[[Ticket], Method]] = {
    "dense": dense,
    "shrunk": shrunk,
    "csr": csr,
    "onnx": onnx,
    "onnx_shrunk": onnx_shrunk,
    "predictor": predictor,
}
"""Name -> function from a ticket to a method, raising LotteryError where it cannot compute the ticket."""

REFERENCE = "dense"
"""What the others are compared with: the first of METHODS."""


def bench(
    run: Run,
    levels: Collection[int] = (),
    *,
    replicate: int = 0,
    branch: str | None = None,
    data_dir: Path | str | None = None,
) -> Iterator[Measured]:
    """Measures levels of a run on the run's own test images, and keeps each in RUN/inference.json before it is given.

    Args:
        run: of one of the package's own networks.
        levels: which ones; if empty, those of `spread`.
        replicate: of which replicate.
        branch: the trunk's, if None.
        data_dir: where data sets are looked for first, in folders of their names; then $LOTTERY_DATA, cache, then the
            network.

    Raises:
        LotteryError: before any work, for a level that is not there, a network of one's own, data that are not the
            run's, or a run that a process is working on; and as `measure` does.
    """
    if data_dir is not None:
        check_type("data_dir", data_dir, Path)
        if not os.path.isdir(data_dir):
            raise LotteryError(f"data-dir = {str(data_dir)!r}: there is no such folder")
    levels = levels or spread(run, replicate, branch)
    tickets = [run.ticket(level, replicate, branch) for level in sorted(set(levels))]
    spec = run.spec
    if isinstance(spec, OwnLoop) or spec.model.name not in models.MODELS:
        raise LotteryError(
            f"{run.path.name} is of a network of one's own, {spec.network}: bench is for the package's own networks"
        )
    with store.lock(run.path):
        examples = _images(tickets[0], data_dir)
        for ticket in tickets:
            measured = measure(ticket, examples)
            timings.record(run, measured)
            yield measured


def spread(run: Run, replicate: int = 0, branch: str | None = None) -> list[int]:
    """The dense level and about five others, evenly over all that are there. Raises LotteryError where none is."""
    branch = branch or run.spec.start
    places = [place for place in run.places() if (place.branch, place.replicate, place.draw) == (branch, replicate, 0)]
    if not places:
        raise LotteryError(f"{run.path} has no level of {branch}, replicate {replicate}: train it first")
    chosen = np.linspace(0, len(places) - 1, SPREAD).round().astype(int)
    return sorted({places[i].level for i in chosen})


def _images(ticket: Ticket, data_dir: Path | str | None) -> np.ndarray:
    """The run's test images, scaled as it trained on them: how many pixels are black matters to what skips them."""
    images = ticket.images(data_dir).test.images
    return images.reshape(len(images), *ticket.network.inputs)


def measure(ticket: Ticket, examples: np.ndarray) -> Measured:
    """Sizes and times of all METHODS on one core.

    Args:
        ticket: of one of the package's own networks.
        examples: float32 [n, ...] as the network takes them, at least as many as the largest of BATCHES.

    Raises:
        LotteryError: for a ticket that PyTorch itself cannot compute, too few examples, or a method whose logits are
            not dense PyTorch's to TOLERANCE.
    """
    if len(examples) < max(BATCHES):
        raise LotteryError(f"{len(examples)} examples: at least {max(BATCHES)} are needed, the largest batch")
    session = this_session(jobs=1)
    machine = {name: session[name] for name in ("started", "processor", "platform", "python", "versions")}
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        machine["versions"] |= {"onnxruntime": onnxruntime.__version__}
    methods: dict[str, Method] = {}
    missing: dict[str, str] = {}
    latencies: dict[str, list[Latency]] = {name: [] for name in METHODS}
    with _one_thread(), torch.inference_mode():
        for name, prepare in METHODS.items():
            try:
                methods[name] = prepare(ticket)
            except LotteryError as error:
                if name == REFERENCE:
                    raise
                missing[name] = str(error)
        for batch in BATCHES:
            _check_logits(methods, examples[:batch])
        begun = time.perf_counter(), time.process_time()
        for batch in BATCHES:
            seconds = _rounds(methods, examples, batch)
            for name, latency in zip(methods, compared(seconds, batch), strict=True):
                latencies[name].append(latency)
    core = (time.process_time() - begun[1]) / (time.perf_counter() - begun[0])
    costs = tuple(
        Cost(name, methods[name].file_bytes, methods[name].memory_bytes, tuple(latencies[name]))
        if name in methods
        else Cost(name, missing=missing[name])
        for name in METHODS
    )
    return Measured(ticket.row.place, ticket.row.density, machine, core, costs)


def _check_logits(methods: Mapping[str, Method], examples: np.ndarray) -> None:
    """Raises LotteryError for a method whose logits are not those of the reference."""
    logits = {name: np.asarray(method.logits(method.takes(examples))) for name, method in methods.items()}
    expected = logits[REFERENCE]
    largest = float(np.abs(expected).max())
    for name, found in logits.items():
        off = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
        if not off <= TOLERANCE * largest:  # nor where it is NaN
            raise LotteryError(
                f"{method_name(name)}: its logits of {len(examples)} examples differ from dense PyTorch's by {off:.2g} "
                f"where the largest is {largest:.2g}, so nothing was timed: please report it"
            )


def _rounds(methods: Mapping[str, Method], examples: np.ndarray, batch: int) -> np.ndarray:
    """Seconds of one batch, [rounds, methods]."""
    starts = range(0, len(examples) - batch + 1, batch)[:1000]
    inputs = [[method.takes(examples[i : i + batch]) for i in starts] for method in methods.values()]
    calls = [method.logits for method in methods.values()]
    for call, given in zip(calls, inputs, strict=True):  # warm, also what is compiled or chosen at the first call
        _seconds(call, given[:2])
    count = max(1, math.ceil(MOMENT / min(map(_seconds, calls, (given[:1] for given in inputs)))))
    fewest, most = ROUNDS
    rng = np.random.default_rng(0)
    rows: list[np.ndarray] = []
    end = time.perf_counter() + SECONDS / len(BATCHES)
    while len(rows) < fewest or (len(rows) < most and time.perf_counter() < end):
        turn = [(len(rows) * count + i) % len(starts) for i in range(count)]
        row = np.empty(len(calls))
        for i in rng.permutation(len(calls)):
            row[i] = _seconds(calls[i], [inputs[i][k] for k in turn])
        rows.append(row)
    return np.array(rows)


def _seconds(call: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """Of one call, the mean."""
    begun = time.perf_counter()
    for given in inputs:
        call(given)
    return (time.perf_counter() - begun) / len(inputs)


def compared(seconds: np.ndarray, batch: int) -> list[Latency]:
    """Medians and quartiles over rounds.

    Args:
        seconds: of one batch, [rounds, methods], the reference's first.
        batch: examples in it.

    Returns:
        Of each method. Its speed is paired: the reference's seconds / its own, round by round.
    """
    speeds = seconds[:, :1] / seconds
    return [
        Latency(batch, _spread(seconds[:, i]), _spread(speeds[:, i]), len(seconds)) for i in range(seconds.shape[1])
    ]


def _spread(values: np.ndarray) -> Spread:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, low, high)


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch computes on one core in the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
