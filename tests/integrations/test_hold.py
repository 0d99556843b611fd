"""Masks are held under a compiler, and in processes that average their gradients."""

import copy
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import lottery

STEPS, NORM = 4, 0.1


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def random_masks(module: nn.Module) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    named = [(name, p) for name, p in module.named_parameters() if p.dim() > 1]
    return {name: rng.permutation(p.numel()).reshape(p.shape) % 2 == 0 for name, p in named}


def check_gradients(module: nn.Module, masks: dict[str, np.ndarray]) -> None:
    """As the backward pass left them, before anything else may have masked them."""
    for name, mask in masks.items():
        gradient = module.get_parameter(name).grad
        assert gradient is not None
        assert gradient.any(), name
        assert not gradient[torch.from_numpy(~mask)].any(), name


def check(module: nn.Module, masks: dict[str, np.ndarray], optimizer: torch.optim.Optimizer) -> None:
    """Pruned weights are +0.0, and their optimizer state is 0."""
    for name, mask in masks.items():
        parameter, pruned = module.get_parameter(name), torch.from_numpy(~mask)
        assert not parameter.detach().view(torch.int32)[pruned].any(), name
        state = [value for value in optimizer.state[parameter].values() if value.shape == parameter.shape]
        assert state
        assert not any(value[pruned].any() for value in state), name


def train(
    module: Callable[[Tensor], Tensor],
    net: nn.Module,
    masks: dict[str, np.ndarray],
    batches: list[tuple[Tensor, Tensor]],
) -> list[float]:
    """Trains `net`, or what wraps it: matrices with Muon, which mixes the entries of an update, the rest with AdamW.
    Returns the norms of the gradients, by which they are clipped."""
    matrices = torch.optim.Muon([p for p in net.parameters() if p.dim() == 2], lr=0.1)
    others = torch.optim.AdamW([p for p in net.parameters() if p.dim() != 2], lr=0.01)
    norms = []
    for x, y in batches:
        net.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        check_gradients(net, masks)
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), NORM)))
        matrices.step()
        others.step()
        check(net, masks, matrices)
    return norms


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)) for _ in range(STEPS)]


@pytest.mark.filterwarnings("default")  # PyTorch's own, of its compiler
@pytest.mark.parametrize("inside", [True, False])
def test_compiled_by_inductor(inside: bool) -> None:
    """Compiled before the masks are held, or after: it trains as the plain module does."""
    net = mlp()
    twin = copy.deepcopy(net)
    masks = random_masks(net)
    compiled = torch.compile(net)
    if not inside:
        compiled(batches()[0][0]).sum().backward()
        net.zero_grad()
    with lottery.hold(net, masks) as held, lottery.hold(twin, masks):
        norms = train(compiled, net, masks, batches())
        assert norms == pytest.approx(train(twin, twin, masks, batches()), rel=1e-4)
    assert (held.steps, held.untrained) == (2 * STEPS, set())
    for parameter, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("default")
def test_the_optimizers_step_compiled_by_inductor() -> None:
    net = mlp()
    masks = random_masks(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    with lottery.hold(net, masks) as held:
        step = torch.compile(optimizer.step)
        for x, y in batches():
            optimizer.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            check_gradients(net, masks)
            step()
            check(net, masks, optimizer)
    assert held.steps == STEPS


def _process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = mlp()
    masks = random_masks(net)
    with lottery.hold(net, masks) as held:
        wrapped = DistributedDataParallel(net)
        halves = [(x[rank::2], y[rank::2]) for x, y in batches()]
        norms = train(wrapped, net, masks, halves)
    assert (held.steps, held.untrained) == (2 * STEPS, set())
    torch.save((net.state_dict(), norms), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_that_average_their_gradients(tmp_path: Path) -> None:
    """DistributedDataParallel over gloo: both end with the weights of one process on the whole batches."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_process, (port, str(tmp_path)), nprocs=2)
    (first, norms), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert norms == others
    net = mlp()
    masks = random_masks(net)
    with lottery.hold(net, masks):
        assert norms == pytest.approx(train(net, net, masks, batches()), rel=1e-4)
    for name, parameter in net.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], parameter, rtol=1e-4, atol=1e-5)
