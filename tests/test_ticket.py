"""A ticket as a thing to take away: what it trains to, what its file keeps, and what is said of one that is no good."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

import lottery
from lottery import LotteryError, Ticket, models
from lottery.masks import apply
from lottery.models.torch import get_weights
from lottery.runs.ticket import KEY
from lottery.spec import Data, Model, Pruning, Recipe, Spec

STACK = Spec(
    data=Data(name="mnist-5k", validation=500),
    model=Model(name="mlp", hidden=(20, 10)),
    recipe=Recipe(iterations=24, evaluate_every=8, learning_rate=3e-3),
    pruning=Pruning(rate=0.5),
    levels=2,
    rewind_to=7,
    optimizer_state="saved",
    branches=("reinit:2", "random_mask", "lr_rewind", "finetune", "noise_1"),
)
RESIDUAL = Spec(
    data=Data(name="mnist-5k-m", scaling="standardize", validation=500),
    model=Model(name="resnet-8", width=2),
    recipe=Recipe("sgd", momentum=0.9, learning_rate=0.1, iterations=4, evaluate_every=4, batch_size=20, flip=True),
    pruning=Pruning(scope="global", rate=0.6),
    levels=1,
    data_order="dense",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lottery.Run:
    return lottery.run(STACK, runs_dir=tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Ticket:
    return lottery.run(RESIDUAL, runs_dir=tmp_path_factory.mktemp("runs"), progress=False).ticket(1)


def bits(weights: dict[str, np.ndarray] | None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in (weights or {}).items()}


def test_a_ticket_is_what_its_level_has(run: lottery.Run) -> None:
    ticket, saved = run.ticket(2), run.load("rewind", 0, 2)
    assert bits(ticket.masks) == bits(saved.masks)
    assert bits(ticket.start) == bits(saved.start)
    assert bits(ticket.trained) == bits(saved.trained)
    assert (ticket.row, ticket.spec) == (saved.row, run.spec)
    assert repr(ticket) == "<Ticket of mlp, 25 % of the weights: rewind, replicate 0, level 2>"


def test_every_ticket_trains_to_the_recorded_bits(run: lottery.Run, tmp_path: Path) -> None:
    """Whatever its rule, also from its file: from iteration k, with the optimizer's state of then or a fresh one."""
    assert {place.branch for place in run.places()} == {"rewind", *STACK.draws}
    for place in run.places():
        ticket = run.ticket(place.level, place.replicate, place.branch, place.draw)
        loaded = lottery.load_ticket(ticket.save(tmp_path / "ticket"))
        assert bits(loaded.train().weights) == bits(ticket.trained), place
    assert run.ticket(1).optimizer
    assert not run.ticket(1, branch="reinit").optimizer
    assert not run.ticket(0).optimizer


def test_a_network_with_buffers_trains_to_its_bits(residual: Ticket, tmp_path: Path) -> None:
    loaded = lottery.load_ticket(residual.save(tmp_path / "ticket"))
    assert bits(loaded.train().weights) == bits(residual.trained)


@pytest.mark.parametrize("which", ["run", "residual"])
def test_a_file_gives_back_what_was_saved(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = request.getfixturevalue(which)
    ticket = found.ticket(2, branch="random_mask") if which == "run" else found
    loaded = lottery.load_ticket(ticket.save(tmp_path / "a"))
    for name in ("masks", "start", "trained", "optimizer"):
        assert bits(getattr(loaded, name)) == bits(getattr(ticket, name))
    assert (loaded.network, loaded.spec, loaded.row) == (ticket.network, ticket.spec, ticket.row)
    assert list(loaded.network.tensors) == list(ticket.network.tensors)
    assert loaded.source == ticket.source
    assert loaded.save(tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


@pytest.mark.parametrize(("weights", "kilobytes"), [("trained", 75), ("start", 75), ("both", 115)])
def test_a_file_takes_what_bits_and_kept_values_take(
    run: lottery.Run, tmp_path: Path, weights: Literal["both", "start", "trained"], kilobytes: int
) -> None:
    """LeNet-300-100 at 3.6 %: one bit for each of 266,200 weights, four bytes for each that is kept and each bias."""
    network, rng = models.network(Model(), (28, 28), 10), np.random.default_rng(0)
    state = {name: rng.standard_normal(tensor.shape).astype(np.float32) for name, tensor in network.tensors.items()}
    masks = {name: rng.random(state[name].shape) < 0.036 for name in network.prunable}
    state = apply(state, masks)
    ticket = replace(run.ticket(1), masks=masks, start=state, trained=state, network=network, optimizer={})
    path = ticket.save(tmp_path / "ticket", weights=weights)
    kept = sum(int(mask.sum()) for mask in masks.values()) + 410
    values = 4 * kept * (2 if weights == "both" else 1)
    assert 0 < path.stat().st_size - 266_200 / 8 - values < 6_000
    assert abs(path.stat().st_size - 1000 * kilobytes) < 5_000


def test_modules_compute_what_the_ticket_does(run: lottery.Run, residual: Ticket, tmp_path: Path) -> None:
    """In a fresh process, without the run, too."""
    tickets = {"stack": run.ticket(2), "residual": residual}
    expected = {}
    for name, ticket in tickets.items():
        module = ticket.module()
        assert not module.training
        assert type(module) is nn.Sequential
        assert bits(get_weights(module)) == bits(ticket.trained)
        other = ticket.module(weights="start")
        assert bits(get_weights(other)) == bits(ticket.start)
        other.load_state_dict(ticket.state_dict())
        assert bits(get_weights(other)) == bits(ticket.trained)
        examples = torch.linspace(-1, 1, 3 * int(np.prod(ticket.network.inputs)))
        with torch.inference_mode():
            expected[name] = module(examples.reshape(3, *ticket.network.inputs)).numpy()
        ticket.save(tmp_path / name, weights="trained")
    source = """if True:
        import numpy, torch
        import lottery
        for name in ("stack", "residual"):
            ticket = lottery.load_ticket(name)
            x = torch.linspace(-1, 1, 3 * int(numpy.prod(ticket.network.inputs))).reshape(3, *ticket.network.inputs)
            numpy.save(name + ".npy", ticket.module()(x).detach().numpy())
            numpy.save(name + "-shrunk.npy", ticket.shrunk()(x).detach().numpy())
    """
    subprocess.run([sys.executable, "-c", source], cwd=tmp_path, check=True)
    for name, logits in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), logits, rtol=1e-6)
        np.testing.assert_allclose(np.load(tmp_path / f"{name}-shrunk.npy"), logits, rtol=1e-5, atol=1e-5)


def test_what_is_made_of_a_ticket_computes_what_it_does(run: lottery.Run, residual: Ticket) -> None:
    """Shrunk, and on its surviving weights alone."""
    for ticket in (run.ticket(2), residual):
        examples = torch.linspace(-1, 1, 5 * int(np.prod(ticket.network.inputs))).reshape(5, *ticket.network.inputs)
        expected = ticket.module()(examples).detach()
        shrunk = ticket.shrunk()
        torch.testing.assert_close(shrunk(examples).detach(), expected, rtol=1e-5, atol=1e-5)
        assert sum(p.numel() for p in shrunk.parameters()) <= sum(p.numel() for p in ticket.module().parameters())
    logits = run.ticket(2).predictor()(torch.ones(2, 28, 28))
    expected = run.ticket(2).module()(torch.ones(2, 28, 28)).detach()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(LotteryError, match="stacks of linear layers"):
        residual.predictor()


def test_held_masks_are_the_tickets(run: lottery.Run) -> None:
    ticket = run.ticket(2)
    module = ticket.module(weights="start").train()
    optimizer = torch.optim.Adam(module.parameters())
    with ticket.hold(module):
        for _ in range(2):
            optimizer.zero_grad()
            module(torch.ones(4, 28, 28)).square().sum().backward()
            optimizer.step()
    after = get_weights(module)
    assert all(not after[name][~mask].any() for name, mask in ticket.masks.items())
    assert bits(after) != bits(ticket.start)


class Net(nn.Module):
    """Of one's own; its two layers share a weight."""

    def __init__(self, units: int = 6) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(units, units), nn.Linear(units, units)
        self.last.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.first(x))
        return logits


def test_a_network_of_ones_own_needs_its_factory(tmp_path: Path) -> None:
    for level in lottery.tickets(Net, tmp_path / "mine", levels=1, rate=0.5):
        optimizer = torch.optim.SGD(level.model.parameters(), 0.1)
        level.model(torch.ones(1, 6)).sum().backward()
        optimizer.step()
        level.record(test_accuracy=0.5)
    ticket = lottery.load_ticket(lottery.open_run(tmp_path / "mine").ticket(1).save(tmp_path / "ticket"))
    module = ticket.module(Net)
    assert isinstance(module, Net)
    assert module.last.weight is module.first.weight
    assert bits(get_weights(module)) == bits(ticket.trained)
    for call, words in (
        (ticket.module, "of a network of one's own, Net, .* ticket.module"),
        (lambda: ticket.module(lambda: Net(5)), "factory makes another network than the ticket's: .*first.weight"),
        (lambda: ticket.module(lambda: Net(-1)), "factory fails: .*RuntimeError"),
        (ticket.train, "only its own script can train it"),
    ):
        with pytest.raises(LotteryError, match=words):
            call()


def test_what_is_missing_or_damaged_is_said_in_a_line(run: lottery.Run, tmp_path: Path) -> None:
    ticket = run.ticket(2)
    for call, words in (
        (lambda: run.ticket(5), "has no rewind, replicate 0, level 5: there are levels 0 to 2"),
        (lambda: run.ticket(1, branch="shuffle"), "there is no level of that kind"),
        (
            lambda: ticket.module(weights="both"),  # type: ignore[arg-type]  # the mistake that is tested
            "unknown weights 'both': choose from start, trained",
        ),
        (
            lambda: ticket.save(tmp_path / "t", weights="all"),  # type: ignore[arg-type]  # the same
            "unknown weights 'all': choose from both",
        ),
        (lambda: lottery.load_ticket(tmp_path / "none"), "no such file; `lottery export"),
        (lambda: lottery.load_ticket(tmp_path), "is a folder: name the ticket's file"),
        (lambda: ticket.save(tmp_path / "no" / "x"), "there is no folder .*no; make it first"),
        (lambda: ticket.save(tmp_path), "is a folder: name the file in it"),
        (lambda: ticket.save("/dev/null"), "/dev/null is no regular file"),
    ):
        with pytest.raises(LotteryError, match=words):
            call()
    alone = lottery.load_ticket(ticket.save(tmp_path / "alone", weights="trained"))
    assert alone.start is None
    needing: list[Callable[[], object]] = [alone.train, alone.begin, lambda: alone.save(tmp_path / "both")]
    for needs in needing:
        with pytest.raises(LotteryError, match=r"this ticket has no start weights: .* take it from its run"):
            needs()
    strange = replace(ticket, source={**ticket.source, "data": {"test": "0"}})
    with pytest.raises(LotteryError, match=r"was trained on data .*'0'"):
        strange.train()


def test_no_damage_goes_unnoticed(run: lottery.Run, tmp_path: Path) -> None:
    path = run.ticket(2).save(tmp_path / "ticket")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in [*range(0, 8), *rng.integers(8, len(data), 150), len(data) - 1]:
        (tmp_path / "flipped").write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with pytest.raises(LotteryError, match="damaged"):
            lottery.load_ticket(tmp_path / "flipped")
    for length in (0, 7, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "short").write_bytes(data[:length])
        with pytest.raises(LotteryError, match="no ticket, or a damaged one"):
            lottery.load_ticket(tmp_path / "short")
    with pytest.raises(LotteryError, match="no ticket"):
        lottery.load_ticket(run.folder(run.places()[0]) / "ticket.safetensors")


def test_what_a_later_version_wrote_is_not_called_damaged(
    run: lottery.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = {**run.spec.to_table(), "temperature": 3}
    with monkeypatch.context() as later:
        later.setattr(Spec, "to_table", lambda spec: newer)
        path = run.ticket(2).save(tmp_path / "ticket")
    with pytest.raises(LotteryError, match=r"is of lottery .*, and this version cannot read it: .*temperature"):
        lottery.load_ticket(path)


def test_a_later_format_is_named(run: lottery.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lottery.runs.ticket.FORMAT", 2)
    path = run.ticket(2).save(tmp_path / "ticket")
    monkeypatch.undo()
    with pytest.raises(LotteryError, match="has format 2, this version reads 1"):
        lottery.load_ticket(path)


def test_the_metadata_has_one_key(run: lottery.Run, tmp_path: Path) -> None:
    """Of several, the order in the file would not be fixed."""
    data = run.ticket(1).save(tmp_path / "ticket").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == [KEY]
