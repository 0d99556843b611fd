"""What a ticket becomes outside: its own file, ONNX, CSR arrays, a card for a model hub.

To add a format: a function and a row in FORMATS. Each file is written whole or not at all, and in the same bytes each
time. torch, pandas and onnx are imported by the formats that need them.
"""

import importlib.util
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lottery.errors import LotteryError, check_type, known, own_code
from lottery.masks import Weights
from lottery.runs import files
from lottery.runs.store import Run
from lottery.runs.ticket import Ticket, Which
from lottery.views.card import text
from lottery.words import number_of

if TYPE_CHECKING:  # two seconds
    import torch
    from torch import nn

TOLERANCE = 1e-5
"""Most that logits of an ONNX file may be off, as a fraction of the largest of them."""

BATCHES = (1, 7)
"""Numbers of examples that an ONNX file is tried with."""


def safetensors(ticket: Ticket, path: Path | str, weights: Literal["both", "start", "trained"] = "both") -> Path:
    """Writes the ticket's own file, which `lottery.load_ticket` reads; see `lottery.Ticket.save`.

    Args:
        ticket: to be written.
        path: of the file, which is replaced if it is there.
        weights: which of them to keep: both, or those that it starts from, or its trained ones alone.

    Returns:
        The path.

    Raises:
        LotteryError: for a folder that is not there, or weights that the ticket's file lacks.
    """
    return ticket.save(_writable(path), weights)


def onnx(
    ticket: Ticket,
    path: Path | str,
    *,
    factory: "Callable[[], nn.Module] | None" = None,
    examples: "torch.Tensor | None" = None,
    shrunk: bool = False,
    weights: Which = "trained",
) -> Path:
    """Writes the ticket's network as ONNX, in evaluation mode: `examples` [n, ...] to `logits` [n, classes], any n.

    Pruned weights are zeros there: the file is as large as the dense network's, unless it is shrunk. Before anything is
    written, onnxruntime computes logits of it, of 1 example and of 7, which must be torch's to 1e-5 of the largest. The
    model's metadata say run, place, density, weights, and this package's version.

    Args:
        ticket: to be written.
        path: of the file, which is replaced if it is there.
        factory: makes the network, where that is none of the package's own; as in `lottery.Ticket.module`.
        examples: a batch [n, ...] as the network takes it, where the ticket does not know of what shape they are: that
            of a training loop of one's own. Else random numbers are.
        shrunk: without the units and channels that have no way in or no way out; see `lottery.models.shrink`.
        weights: trained, or start: those that it starts from.

    Returns:
        The path.

    Raises:
        LotteryError: for a missing package, a network that needs a factory or examples, that torch cannot export or
            that ONNX does not compute, and a folder that is not there.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise LotteryError(f'ONNX needs {package}, which is not installed: pip install "lottery[onnx]"')
    path = _writable(path)
    import torch

    module = _module(ticket, factory, weights)
    if examples is None:
        if not ticket.network.inputs:
            raise LotteryError(
                "this ticket does not know what its network takes: give a batch of it, such as "
                "lottery.export.onnx(ticket, path, factory=Net, examples=torch.zeros(1, 28, 28))"
            )
        examples = torch.randn(max(BATCHES), *ticket.network.inputs, generator=torch.Generator().manual_seed(0))
    check_type("examples", examples, torch.Tensor)
    if examples.ndim == 0 or not len(examples):
        raise LotteryError(f"examples of shape {tuple(examples.shape)}: must be a batch [n, ...] of 1 or more")
    batches = [examples[torch.arange(count) % len(examples)].detach() for count in BATCHES]
    expected = [_logits(module, batch) for batch in batches]  # of the ticket's whole network
    if shrunk:
        from lottery.models.shrink import shrink

        module = shrink(module)
    properties = {
        "lottery": version("lottery"),
        "run": ticket.source["run"],
        **vars(ticket.row.place),
        "density": ticket.row.density,
        "weights": weights,
        "shrunk": shrunk,
    }
    data = _traced(module, batches[-1], {name: str(value) for name, value in properties.items()})
    for batch, logits in zip(batches, expected, strict=True):
        _check_onnx(data, batch.numpy(), logits)
    files.write(path, data)
    return path


def _module(ticket: Ticket, factory: "Callable[[], nn.Module] | None", weights: Which) -> "nn.Module":
    ticket.weights(weights)
    try:
        return ticket.module(factory, weights)
    except LotteryError as error:
        if factory is None:
            raise LotteryError(f"{error}; for ONNX lottery.export.onnx(ticket, path, factory=Net)") from error
        raise


def _logits(module: "nn.Module", examples: "torch.Tensor") -> np.ndarray:
    import torch

    with torch.no_grad(), own_code("the network fails"):
        logits = module(examples)
        check_type("the network's output", logits, torch.Tensor)
        return np.asarray(logits.numpy())


def _traced(module: "nn.Module", examples: "torch.Tensor", properties: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX file, checked by onnx itself."""
    import torch
    from onnx import checker, helper, load_model

    axes = {"examples": {0: "n"}, "logits": {0: "n"}}
    folder = tempfile.TemporaryDirectory()
    with folder, own_code("torch cannot export this network as ONNX"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # the exporter that traces: a tenth of a second and onnx alone, where its successor takes eight and onnxscript
        names: dict[str, Any] = {"input_names": ["examples"], "output_names": ["logits"], "dynamic_axes": axes}
        traced = Path(folder.name) / "traced.onnx"
        torch.onnx.export(module, (examples,), traced, dynamo=False, **names)
        model = load_model(traced)
        helper.set_model_props(model, dict(properties))
        checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


def _check_onnx(data: bytes, examples: np.ndarray, expected: np.ndarray) -> None:
    """Raises LotteryError unless onnxruntime computes these logits of these examples."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 3  # it warns of devices that it looked for
    what = f"ONNX of {number_of(len(examples), 'example')}"
    with own_code(f"{what}: onnxruntime cannot run it, so it was not written"):
        session = InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"examples": examples})
    largest = float(np.abs(expected).max(initial=0))
    off = float(np.abs(found - expected).max(initial=0)) if found.shape == expected.shape else float("nan")
    if not off <= TOLERANCE * largest:
        raise LotteryError(
            f"{what} computes other logits than the network: off by {off:.2g} where the largest is {largest:.2g}; it "
            "was not written"
        )


def csr(ticket: Ticket, path: Path | str, weights: Which = "trained") -> Path:
    """Writes the ticket's weights as the arrays of compressed sparse rows, in one .npz that NumPy reads without pickle.

    Of each tensor that masks cover: `<name>:data`, the kept weights in index order, also those that are zero;
    `<name>:indices`, their columns; `<name>:indptr`, where each row begins and the last one ends; `<name>:shape`, of
    the tensor. Rows are units [out]; a convolution's columns are its inputs [in · h · w]. All other tensors are there
    as they are.

    Args:
        ticket: to be written.
        path: of the file, which is replaced if it is there.
        weights: trained, or start: those that it starts from.

    Returns:
        The path.

    Raises:
        LotteryError: for a folder that is not there, or weights that the ticket's file lacks.
    """
    path = _writable(path)
    arrays: Weights = {}
    state = ticket.weights(weights)
    for name in ticket.network.tensors:
        array = state[name]
        if name in ticket.masks:
            parts = _rows(array, ticket.masks[name]).items()
            arrays |= {f"{name}:{part}": values for part, values in parts}
        elif name in ("file", "allow_pickle"):
            raise LotteryError(f"a tensor called {name} has no place in .npz: NumPy keeps that name to itself")
        else:
            arrays[name] = array
    written = io.BytesIO()  # NumPy gives all parts one fixed date: the same bytes each time
    np.savez(written, **arrays)  # type: ignore[arg-type]  # a name might be that of its flag: refused above
    files.write(path, written.getvalue())
    return path


def _rows(array: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    rows = mask.reshape(mask.shape[0] if mask.ndim else 1, -1)
    index = np.int32 if rows.size < 2**31 else np.int64
    return {
        "data": array[mask],
        "indices": np.nonzero(rows)[1].astype(index),
        "indptr": np.concatenate([[0], np.cumsum(rows.sum(1))]).astype(index),
        "shape": np.array(mask.shape, np.int64),
    }


def card(ticket: Ticket, path: Path | str, run: Run | None = None) -> Path:
    """Writes a model card in Markdown, as model hubs show it: what the ticket is, how it was found, its accuracy with
    intervals, how to load it, where it comes from.

    Args:
        ticket: to be described.
        path: of the card, which is replaced if it is there.
        run: the ticket's, for means over its replicates, intervals and the verdict; without it the card has the
            accuracy of the ticket alone.

    Returns:
        The path.

    Raises:
        LotteryError: for a folder that is not there, or another run than the ticket's.
    """
    path = _writable(path)
    if run is not None and run.identity != ticket.source["identity"]:
        raise LotteryError(f"{run.path} is another run than the ticket's, {ticket.source['run']}")
    files.write(path, text(ticket, file_name(ticket), run).encode())
    return path


class Format(NamedTuple):
    """A row of FORMATS."""

    write: Callable[..., Path]
    """From a ticket and a path, and what it takes by name, to the path."""
    suffix: str
    takes: tuple[str, ...]
    """Names of what it takes beside a ticket and a path, of those that the command line has."""


FORMATS = {
    "safetensors": Format(safetensors, ".safetensors", ("weights",)),
    "onnx": Format(onnx, ".onnx", ("weights", "shrunk")),
    "csr": Format(csr, ".npz", ("weights",)),
    "card": Format(card, ".md", ("run",)),
}
"""Name -> what writes it."""


def write(ticket: Ticket, path: Path | str, to: str, **options: Any) -> Path:
    """Writes a ticket in one of FORMATS, and returns the path.

    Args:
        ticket: to be written.
        path: of the file, which is replaced if it is there.
        to: name of the format.
        options: what that format's function takes by name.

    Raises:
        LotteryError: for an unknown format, an option that it has no use for, and what the format's function raises.
    """
    if to not in FORMATS:
        raise LotteryError(known("format", to, FORMATS))
    for name in options:
        if name not in FORMATS[to].takes:
            fitting = ", ".join(other for other, row in FORMATS.items() if name in row.takes)
            raise LotteryError(f"{name}: {to} has no use for it; it is for {fitting}")
    return FORMATS[to].write(ticket, path, **options)


def file_name(ticket: Ticket, to: str = "safetensors", shrunk: bool = False) -> str:
    """What its file is called where nobody says: run and place, without what no file name can have."""
    place = ticket.row.place
    parts = [ticket.source["run"], f"level-{place.level}"]
    parts += [place.branch] if place.branch != ticket.spec.start else []
    parts += [f"{name}-{n}" for name, n in (("replicate", place.replicate), ("draw", place.draw)) if n]
    stem = re.sub(r"[^\w.]+", "-", "-".join(parts + ["shrunk"] * shrunk)).strip("-.")
    return f"{stem}{FORMATS[to].suffix}"


def _writable(path: Path | str) -> Path:
    """The path. Raises LotteryError, before any work, where no file can be."""
    check_type("path", path, Path)
    files.check_target(Path(path))
    return Path(path)
