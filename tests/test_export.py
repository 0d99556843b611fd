"""What a ticket becomes outside, read back there by others: in a process of its own, by NumPy and SciPy alone."""

import importlib.machinery
import io
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

import lottery
from lottery import LotteryError, Ticket, cli, export, models
from lottery.analysis.statistics import summary
from lottery.cli import main
from lottery.masks import apply
from lottery.spec import Data, Model, Pruning, Recipe, Spec

SMALL = Spec(
    data=Data(name="mnist-5k", validation=500),
    model=Model(name="mlp", hidden=(20, 10)),
    recipe=Recipe(iterations=20, evaluate_every=10, learning_rate=3e-3),
    pruning=Pruning(rate=0.5),
    levels=1,
    replicates=2,
    branches=("reinit",),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    folder = tmp_path_factory.mktemp("runs")
    return lottery.run(SMALL, runs_dir=folder, engine="torch", name="small one", progress=False)


@pytest.fixture
def here(run: lottery.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to export to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exported(run: lottery.Run, *words: str) -> int:
    return main(["export", "small one", *words, "--runs-dir", str(run.path.parent)])


def residual(ticket: Ticket) -> Ticket:
    """One of a network with convolutions and buffers, of random weights: one that is kept is 0, one unit has none."""
    model, rng = Model(name="resnet-8", width=2), np.random.default_rng(0)
    network = models.network(model, (3, 8, 8), 10)
    state = {
        name: np.asarray(rng.standard_normal(tensor.shape)).astype(tensor.dtype)
        for name, tensor in network.tensors.items()
    }
    masks = {name: rng.random(state[name].shape) < 0.4 for name in network.prunable}
    masks["conv.weight"][0, 0, 0, 0] = True
    state["conv.weight"][0, 0, 0, 0] = 0
    masks["conv.weight"][1] = False
    spec = replace(ticket.spec, model=model)
    return replace(ticket, masks=masks, start=state, trained=apply(state, masks), network=network, spec=spec)


READ = """
import re, sys
from pathlib import Path
import numpy as np
from scipy.sparse import csr_matrix

(block,) = re.findall(r"```python\\n(.*?)```", Path("small-one-level-1.md").read_text(encoding="utf-8"), re.DOTALL)
exec(block)  # binds ticket and module
assert not module.training
arrays = np.load("small-one-level-1.npz", allow_pickle=False)
state = module.state_dict()
for name, mask in ticket.masks.items():
    data, indices, indptr, shape = (arrays[f"{name}:{part}"] for part in ("data", "indices", "indptr", "shape"))
    assert (data.dtype, indices.dtype, indptr.dtype) == (np.float32, np.int32, np.int32)
    matrix = csr_matrix((data, indices, indptr), shape)
    assert matrix.has_canonical_format and matrix.nnz == mask.sum()
    assert matrix.toarray().tobytes() == state[name].numpy().tobytes()
assert all(arrays[name].tobytes() == state[name].numpy().tobytes() for name in state if name not in ticket.masks)
np.save("trained.npy", np.concatenate([t.numpy().ravel() for _, t in sorted(state.items())]))
"""


def test_every_format_is_read_in_a_process_of_its_own(
    run: lottery.Run, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the names that the files get by themselves, and by the code in the card."""
    for to in ("safetensors", "csr", "card"):
        assert exported(run, "--level", "1", "--to", to) == 0
    written = re.findall(r"^written: (.+) \(([\d,]+) bytes\)$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in written] == [f"small-one-level-1.{end}" for end in ("safetensors", "npz", "md")]
    assert all((here / name).stat().st_size == int(size.replace(",", "")) for name, size in written)
    result = subprocess.run([sys.executable, "-c", READ], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "tensor([[" in result.stdout
    trained = [array.ravel() for _, array in sorted(run.ticket(1).weights().items())]
    assert np.load("trained.npy").tobytes() == np.concatenate(trained).tobytes()


def test_rows_are_those_of_the_mask(run: lottery.Run, tmp_path: Path) -> None:
    """A kept weight that is 0 stays, a unit without weights is an empty row, a convolution's columns are its inputs."""
    ticket = residual(run.ticket(1))
    data = export.csr(ticket, tmp_path / "a.npz").read_bytes()
    arrays = np.load(io.BytesIO(data), allow_pickle=False)
    for name, mask in ticket.masks.items():
        rows, *rest = shape = tuple(arrays[f"{name}:shape"])
        parts = tuple(arrays[f"{name}:{part}"] for part in ("data", "indices", "indptr"))
        kept = csr_matrix((np.ones_like(parts[0]), *parts[1:]), (rows, int(np.prod(rest))))
        assert (kept.toarray().reshape(shape) == mask).all(), name
        found = csr_matrix(parts, kept.shape).toarray().reshape(shape)
        assert found.tobytes() == ticket.weights()[name].tobytes()
    others = set(ticket.weights()) - set(ticket.masks)
    assert others == {name for name in arrays.files if ":" not in name}
    assert all(arrays[name].dtype == ticket.weights()[name].dtype for name in others)
    assert arrays["bn.num_batches_tracked"].shape == ()
    assert {entry.date_time for entry in zipfile.ZipFile(io.BytesIO(data)).infolist()} == {(1980, 1, 1, 0, 0, 0)}
    started = np.load(export.csr(ticket, tmp_path / "b.npz", "start"))
    assert (
        started["conv.weight:data"].tobytes()
        == ticket.weights("start")["conv.weight"][ticket.masks["conv.weight"]].tobytes()
    )


def test_a_card_has_the_numbers_of_the_analysis(run: lottery.Run, tmp_path: Path) -> None:
    text = export.card(run.ticket(1), tmp_path / "card.md", run).read_text()
    assert text.startswith('---\nlibrary_name: lottery\ntags:\n- "lottery-ticket"\n')
    assert 'datasets:\n- "mnist-5k"\n' in text
    assert "# A lottery ticket: mlp with 50 % of its weights" in text
    assert "7,990 of 15,980 prunable weights are left" in text
    assert "| `fc1.weight` | 20 × 784 | 7,840 | 50 % |" in text
    assert "(x / 255 − 0.1307) / 0.3081" in text
    assert "lottery run quickstart --model.name mlp --model.hidden 20 10" in text
    found = summary(run.levels(), "test_accuracy_early_stop").set_index(["branch", "level"])
    row: Any = found.loc["rewind", 1]
    dense: Any = found.loc["rewind", 0]
    ours = run.ticket(1).row.test_accuracy_early_stop
    assert ours is not None
    numbers = (
        f"{100 * ours:.2f} % | {100 * row['mean']:.2f} % | {100 * row['low']:.2f} to {100 * row['high']:.2f} % | 2"
    )
    assert f"| test accuracy at early stop | {numbers} | {100 * dense['mean']:.2f} % |" in text
    assert re.search(r"- accuracy − dense \(points\): \S+ \(95 % interval \S+ to \S+, of this level alone\), ≥ ", text)
    assert re.search(r"- winning ticket: (yes|no|undecided), judged alone; (not )?shown for all levels together", text)
    sums = run.ticket(1).source["sha256"]
    assert all(f"| level 1, `{name}` | `{value}` |" in text for name, value in sums.items())
    other = export.card(run.ticket(1, 1, "reinit"), tmp_path / "card.md", run).read_text()
    assert "of the start rule `reinit` (random reinitialisation)" in other
    assert "`lottery export 'small one' --level 1 --replicate 1 --branch reinit`" in other
    assert 'load_ticket("small-one-level-1-reinit-replicate-1.safetensors")' in other
    assert "- matching ticket: " in other
    alone = export.card(run.ticket(0), tmp_path / "card.md").read_text()
    assert "This is level 0, the dense network" in alone
    assert "That is this ticket alone, one replicate" in alone


class Net(nn.Module):
    """Of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.only(x)
        return logits


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    path = tmp_path_factory.mktemp("own") / "mine"
    for level in lottery.tickets(Net, path, levels=1, rate=0.5):
        optimizer = torch.optim.SGD(level.model.parameters(), 0.1)
        level.model(torch.ones(1, 6)).sum().backward()
        optimizer.step()
        level.record(f1=0.25, **({"test_accuracy": 0.5} if level.number else {}))
    return lottery.open_run(path)


def test_a_card_of_a_loop_of_ones_own_says_what_is_known(own: lottery.Run, tmp_path: Path) -> None:
    text = export.card(own.ticket(1), tmp_path / "card.md", own).read_text()
    assert "# A lottery ticket: Net with 50 % of its weights" in text
    assert "- Training: a loop of one’s own: Net" in text
    assert "Recorded: `f1` 0.25." in text
    assert "| test accuracy at the end | 50.00 % | 50.00 % | – | 1 | – |" in text
    assert "One replicate has no interval" in text
    assert "ticket.module(Net)" in text
    assert "datasets" not in text
    dense = export.card(own.ticket(0), tmp_path / "card.md", own).read_text()
    assert "No test accuracy was recorded." in dense


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["small one"], "which level of mnist-5k-mlp-20it-seed0-"),
        (["small one", "--level", "7"], "has no rewind, replicate 0, level 7: there are levels 0 to 1"),
        (["small one", "--level", "-1"], "level -1: there are levels 0 to 1"),
        (["small one", "--level", "1", "--branch", "shuffle"], "there is no level of that kind"),
        (["small one", "--level", "1", "--replicate", "2"], "there is no level of that kind"),
        (["small one", "--level", "one"], "'one': must be a whole number"),
        (["small one", "--level", "1", "--to", "gguf"], "invalid choice 'gguf'"),
        (["small one", "--level", "1", "--to", "csr", "--shrunk"], "shrunk: csr has no use for it; it is for onnx"),
        (["small one", "--level", "1", "--to", "card", "--weights", "start"], "weights: card has no use for it"),
        (
            ["small one", "--level", "1", "--to", "csr", "--weights", "both"],
            "unknown weights 'both': choose from start",
        ),
        (["small one", "--level", "1", "-o", "no/t"], "no/t: there is no folder no; make it first"),
        (["small one", "--level", "1", "-o", "."], ". is a folder: name the file in it"),
        (["nothing", "--level", "1"], "no run 'nothing' in "),
        ([300 * "x", "--level", "1"], "no run 'xxx"),
        (["cut.safetensors"], "cut.safetensors is no ticket, or a damaged one"),
        (["flipped.safetensors"], "flipped.safetensors is a damaged ticket: its SHA-256 is"),
        (
            ["whole.safetensors", "--level", "0"],
            "--level 0: whole.safetensors is one ticket already; leave --level out",
        ),
        (["whole.safetensors", "--replicate", "1"], "--replicate 1: whole.safetensors is one ticket already"),
        (["whole.safetensors", "-o", "whole.safetensors"], "-o whole.safetensors: is what is read"),
        (["whole.safetensors", "--to", "csr", "--weights", "start"], "this ticket has no start weights"),
        (["whole.safetensors"], "this ticket has no start weights: its file was saved without"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, run: lottery.Run, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = run.ticket(1).save("whole.safetensors", weights="trained").read_bytes()
    Path("cut.safetensors").write_bytes(data[:500])
    Path("flipped.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = sorted(here.iterdir())
    assert main(["export", *words, "--runs-dir", str(run.path.parent)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("lottery: error: ")
    assert said.count("\n") == 1
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, run: lottery.Run, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxruntime"):
        found = sys.modules.get(name) or type(sys)(name)
        found.__spec__ = found.__spec__ or importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, None if name == package else found)
    assert exported(run, "--level", "1", "--to", "onnx") == 2
    said = f'ONNX needs {package}, which is not installed: pip install "lottery[onnx]"\n'
    assert capsys.readouterr().err == f"lottery: error: {said}"
    assert not list(here.iterdir())


def test_a_file_of_a_ticket_is_exported_too(run: lottery.Run, here: Path) -> None:
    run.ticket(1).save("mine.safetensors", weights="trained")
    assert main(["export", "mine.safetensors", "--to", "csr", "-o", "mine.npz"]) == 0
    assert Path("mine.npz").read_bytes() == export.csr(run.ticket(1), here / "b").read_bytes()
    strange = replace(run.ticket(1), source={**run.ticket(1).source, "identity": "0"})
    with pytest.raises(LotteryError, match="is another run than the ticket's"):
        export.card(strange, here / "c", run)


def test_a_file_is_named_after_run_and_place(run: lottery.Run) -> None:
    ticket = run.ticket(1)
    assert export.file_name(ticket, "onnx", shrunk=True) == "small-one-level-1-shrunk.onnx"
    strange = replace(ticket, source={**ticket.source, "run": "../a b/é\n"})
    assert export.file_name(strange) == "a-b-é-level-1.safetensors"


def test_the_command_line_knows_every_format(run: lottery.Run) -> None:
    assert get_args(get_type_hints(cli.ExportCommand)["to"]) == tuple(export.FORMATS)
    with pytest.raises(LotteryError, match="unknown format 'gguf': choose from safetensors, onnx, csr, card"):
        export.write(run.ticket(1), "x", "gguf")
