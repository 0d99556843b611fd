"""What is exported as ONNX computes what the ticket does, in a process without torch, for any number of examples."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lottery
from lottery import LotteryError, Ticket, export, models
from lottery.cli import main
from lottery.masks import apply, density
from lottery.models.torch import described, get_weights, state
from lottery.runs.rows import Place, Row
from lottery.spec import Model, OwnLoop, Spec

pytest.importorskip("onnxruntime")

SOURCE = {"run": "random one", "identity": "0", "engine": "torch", "device": "cpu", "data": {}, "sha256": {}}


def ticket_of(spec: Spec, network: models.Network, module: nn.Module, units: float = 0.5) -> Ticket:
    """Of torch's own random weights. In each layer but the last some units have no weights, so that it can shrink;
    batch norms have statistics, gains and biases of their own."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, tensor in state(module).items():
            if not network.tensors[name].prunable and tensor.ndim:
                tensor.copy_(torch.from_numpy(0.1 + rng.random(tensor.shape)))
    weights = get_weights(module)
    masks = {name: rng.random(weights[name].shape) < 0.5 for name in network.prunable}
    for name in network.prunable[:-1]:
        masks[name][rng.random(len(masks[name])) > units] = False
    weights = apply(weights, masks)
    row = Row(Place("rewind", 0, 3), density(masks), 10)
    return Ticket(masks, weights, weights, network, spec, row, SOURCE)


def random_ticket(model: Model, inputs: tuple[int, ...]) -> Ticket:
    torch.manual_seed(0)
    network = models.network(model, inputs, 10)
    return ticket_of(Spec(model=model), network, network.module())


TICKETS = {
    "mlp": (Model(name="mlp", hidden=(30, 20)), (28, 28)),
    "conv": (Model(name="lenet-5"), (28, 28)),
    "residual": (Model(name="resnet-8", width=4), (3, 32, 32)),
}

COMPUTE = """
import json, sys
import numpy as np
from onnxruntime import InferenceSession

assert "torch" not in sys.modules
name = sys.argv[1]
saved = np.load(f"{name}.npz")
for file in (f"{name}.onnx", f"{name}-shrunk.onnx"):
    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    (examples,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (examples.name, examples.shape[0], logits.name, logits.shape[0]) == ("examples", "n", "logits", "n")
    for count in (1, 3, 64):
        (found,) = session.run(None, {"examples": saved["examples"][:count]})
        expected = saved["logits"][:count]
        assert found.shape == expected.shape == (count, 10)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["run"] == "random one" and facts["level"] == "3" and facts["branch"] == "rewind"
    assert 0.1 < float(facts["density"]) < 0.5 and facts["lottery"] and facts["weights"] == "trained"
    assert facts["shrunk"] == str("shrunk" in file)
"""


@pytest.mark.parametrize("name", TICKETS)
def test_a_process_without_torch_computes_its_logits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense and shrunk, as the command line writes them, for numbers of examples that it did not try itself."""
    monkeypatch.chdir(tmp_path)
    ticket = random_ticket(*TICKETS[name])
    ticket.save("mine.safetensors")
    assert main(["export", "mine.safetensors", "--to", "onnx", "-o", f"{name}.onnx"]) == 0
    assert main(["export", "mine.safetensors", "--to", "onnx", "-o", f"{name}-shrunk.onnx", "--shrunk"]) == 0
    examples = torch.randn(64, *ticket.network.inputs, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = ticket.module()(examples)
    np.savez(f"{name}.npz", examples=examples.numpy(), logits=logits.numpy())
    subprocess.run([sys.executable, "-c", COMPUTE, name], check=True)
    sizes = [Path(file).stat().st_size for file in (f"{name}-shrunk.onnx", f"{name}.onnx")]
    assert sizes[0] < 0.8 * sizes[1]
    assert sizes[1] > 4 * ticket.network.weights
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npz", ".onnx", ".onnx", ".safetensors"]
    again = export.onnx(lottery.load_ticket("mine.safetensors"), "again.onnx")
    assert again.read_bytes() == Path(f"{name}.onnx").read_bytes()


class Net(nn.Module):
    """Of one's own, of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(9, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.words(x).mean(1))
        return logits


class Fixed(Net):
    """It tells a tracer how many examples there were."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(int(x.shape[0]), 4) * int(x.shape[0])


class Two(Net):
    """It has two outputs."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


@pytest.fixture(scope="module")
def own() -> Ticket:
    torch.manual_seed(0)
    return ticket_of(OwnLoop(factory="Net"), described(Net, ()), Net(), units=1)


def test_a_network_of_ones_own(own: Ticket, tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    words = torch.arange(10).reshape(2, 5) % 9
    path = export.onnx(own, tmp_path / "own.onnx", factory=Net, examples=words)
    (found,) = InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"examples": words[:1].numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, own.module(Net)(words[:1]).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # a tracer's own, which a user would see
@pytest.mark.parametrize(
    ("factory", "examples", "message"),
    [
        (None, torch.zeros(1, 5, dtype=torch.int64), r"of a network of one's own, Net, .*lottery.export.onnx"),
        (Net, None, "does not know what its network takes: give a batch"),
        (Net, torch.zeros(0, 5, dtype=torch.int64), r"must be a batch \[n, ...\] of 1 or more"),
        (Net, torch.full((1, 5), 9), "the network fails: .*IndexError"),
        (Two, torch.zeros(1, 5, dtype=torch.int64), "the network's output = .* must be a Tensor"),
        (Fixed, torch.zeros(1, 5, dtype=torch.int64), r"ONNX of 1 example.*it was not written|so it was not written"),
    ],
)
def test_what_cannot_be_exported_is_said_and_leaves_nothing(
    factory: type[nn.Module] | None, examples: Tensor | None, message: str, own: Ticket, tmp_path: Path
) -> None:
    with pytest.raises(LotteryError, match=message):
        export.onnx(own, tmp_path / "own.onnx", factory=factory, examples=examples)
    assert not list(tmp_path.iterdir())


def test_other_logits_are_seen(own: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By 2e-5 of the largest: a weight that onnxruntime has and torch has not."""
    words = torch.arange(5).reshape(1, 5)
    logits = export._logits

    def off(module: nn.Module, examples: Tensor) -> np.ndarray:
        return logits(module, examples) * np.float32(1 + 2e-5)

    monkeypatch.setattr(export, "_logits", off)
    with pytest.raises(LotteryError, match="computes other logits than the network: off by"):
        export.onnx(own, tmp_path / "own.onnx", factory=Net, examples=words)
    assert not list(tmp_path.iterdir())
