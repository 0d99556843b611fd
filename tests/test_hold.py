"""Masks are held in any loop: after every step each pruned weight is +0.0, and nothing of it is in the gradient or the
optimizer's state."""

import copy
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import lottery
from lottery.engines.hold import INTEGERS, TRAINABLE
from lottery.errors import LotteryError

Masks = dict[str, np.ndarray]
Make = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, weight_decay=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "sgd foreach": partial(torch.optim.SGD, lr=0.1, momentum=0.9, foreach=True),
    "sgd fused": partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, lr=0.01, weight_decay=0.1),
    "amsgrad": partial(torch.optim.Adam, lr=0.01, amsgrad=True),
    "adamw": partial(torch.optim.AdamW, lr=0.01, foreach=False),
    "adamw foreach": partial(torch.optim.AdamW, lr=0.01, foreach=True),
    "adamw fused": partial(torch.optim.AdamW, lr=0.01, fused=True),
    "adamax": partial(torch.optim.Adamax, lr=0.01),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "adagrad": partial(torch.optim.Adagrad, lr=0.01),
    "adadelta": partial(torch.optim.Adadelta, lr=0.1),
    "nadam": partial(torch.optim.NAdam, lr=0.01),
    "radam": partial(torch.optim.RAdam, lr=0.01),
    "lbfgs": partial(torch.optim.LBFGS, lr=0.1, max_iter=4),
}
if hasattr(torch.optim, "Muon"):  # of matrices only
    OPTIMIZERS["muon"] = lambda parameters: torch.optim.Muon([p for p in parameters if p.dim() == 2], lr=0.1)
if hasattr(torch.optim, "Adafactor"):
    OPTIMIZERS["adafactor"] = partial(torch.optim.Adafactor, lr=0.01)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Weights and data, and one thread: of networks this small a second makes nothing faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    """A convolution, a batch norm, two linear layers: [n, 2, 4, 4] -> [n, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc1 = nn.Linear(16, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.conv(x))).flatten(1)
        return self.fc2(torch.tanh(self.fc1(x)))  # type: ignore[no-any-return]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def random_masks(module: nn.Module, names: Iterable[str] | None = None) -> Masks:
    """Half of each tensor of two or more dimensions, or of those named."""
    rng = np.random.default_rng(1)
    named = dict(module.named_parameters())
    names = names or [name for name, p in named.items() if p.dim() > 1]
    return {name: rng.permutation(named[name].numel()).reshape(named[name].shape) % 2 == 0 for name in names}


def bits(tensor: Tensor) -> np.ndarray:
    """Of a dense tensor, as integers: +0.0 alone is 0."""
    return tensor.detach().contiguous().view(INTEGERS[tensor.dtype.itemsize]).cpu().numpy()


def check_weights(module: nn.Module, masks: Masks) -> None:
    for name, mask in masks.items():
        assert not bits(module.get_parameter(name))[~mask].any(), f"pruned weights of {name} are not +0.0"


def check_gradients(module: nn.Module, masks: Masks) -> None:
    for name, mask in masks.items():
        gradient = module.get_parameter(name).grad
        if gradient is not None:
            assert not gradient.to_dense()[torch.from_numpy(~mask)].any(), f"gradient of {name}"
            assert gradient.to_dense().any(), f"all of the gradient of {name} is gone"


def check_state(module: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> None:
    """The state of pruned weights is that of weights whose gradients are 0."""
    for name, mask in masks.items():
        parameter = module.get_parameter(name)
        for key, value in optimizer.state[parameter].items() if parameter in optimizer.state else ():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                most = 1e-8 if key == "exp_inf" else 0.0  # Adamax keeps the maximum of |gradient| + epsilon
                assert (value.to_dense().abs().float().numpy()[~mask] <= most).all(), f"{key} of {name}"


def check_flat(module: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> int:
    """The same of LBFGS, whose state is vectors of all weights, and lists of such. Returns how many there were."""
    parameters = dict(module.named_parameters())
    kept = [masks.get(name, np.ones(p.shape, dtype=bool)).ravel() for name, p in parameters.items()]
    pruned = ~np.concatenate(kept)
    (state,) = optimizer.state.values()
    vectors = [v for value in state.values() for v in (value if isinstance(value, list) else [value])]
    vectors = [v for v in vectors if isinstance(v, Tensor) and v.dim() == 1]
    for vector in vectors:
        assert not vector.numpy()[pruned].any()
    return len(vectors)


def batch(module: nn.Module, n: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    shape = (n, 2, 4, 4) if isinstance(module, Net) else (n, 6)
    return torch.randn(shape, dtype=dtype), torch.randint(3, (n,))


def gradients(module: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[Tensor, Tensor]) -> Tensor:
    """What LBFGS calls a closure."""
    optimizer.zero_grad()
    loss = functional.cross_entropy(module(data[0]), data[1])
    loss.backward()
    return loss


def check(module: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> None:
    check_weights(module, masks)
    check_gradients(module, masks)
    if isinstance(optimizer, torch.optim.LBFGS):
        assert check_flat(module, masks, optimizer)
    else:
        check_state(module, masks, optimizer)


def train(module: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    """A plain loop that looks after every step."""
    for _ in range(steps):
        data = batch(module)
        gradients(module, optimizer, data)
        check_gradients(module, masks)
        optimizer.step(partial(gradients, module, optimizer, data))  # type: ignore[arg-type]
        check(module, masks, optimizer)


# --- optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str) -> None:
    net = Net() if name != "muon" else mlp()
    masks = random_masks(net)
    before = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    with lottery.hold(net, masks) as held:
        check_weights(net, masks)  # on entering
        optimizer = OPTIMIZERS[name](net.parameters())
        train(net, masks, optimizer)
    assert held.steps == 3
    assert held.untrained == set()
    for tensor, mask in masks.items():
        moved = net.get_parameter(tensor).detach().numpy() != before[tensor]
        assert moved[mask & (before[tensor] > 0)].all()  # of both signs, and all of them
        assert moved[mask & (before[tensor] < 0)].all()


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adafactor"])
def test_an_optimizer_that_was_used_before(name: str) -> None:
    """Its state is masked before its first step, so that it can't mix what was pruned into what is kept."""
    net = mlp()
    masks = random_masks(net)
    optimizer = OPTIMIZERS[name](net.parameters())
    for _ in range(3):
        data = batch(net)
        optimizer.step(partial(gradients, net, optimizer, data))  # type: ignore[arg-type]
    saved = copy.deepcopy(optimizer.state_dict())
    with lottery.hold(net, masks):
        check_gradients(net, masks)  # there was one
        train(net, masks, optimizer)
        optimizer.load_state_dict(saved)
        train(net, masks, optimizer)


def test_old_momentum_at_pruned_weights_does_not_reach_kept_ones() -> None:
    """Muon makes every entry of its update from all entries of its momentum."""
    net = mlp()
    masks = random_masks(net)
    twin = copy.deepcopy(net)
    data = batch(net)
    moved = []
    for module, stale in ((net, 100.0), (twin, 0.0)):
        optimizer = OPTIMIZERS["muon"](module.parameters())
        for name, mask in masks.items():
            momentum = torch.where(torch.from_numpy(mask), 0.1, stale)
            optimizer.state[module.get_parameter(name)] = {"momentum_buffer": momentum}
        with lottery.hold(module, masks):
            gradients(module, optimizer, data)
            optimizer.step()
        moved.append({name: bits(p) for name, p in module.named_parameters()})
    np.testing.assert_equal(moved[0], moved[1])


def test_kept_weights_train_as_if_there_were_no_others() -> None:
    """Against a network that multiplies its weights with the masks in its forward pass."""
    for make in (OPTIMIZERS["nesterov"], OPTIMIZERS["adamw"], OPTIMIZERS["rmsprop"], OPTIMIZERS["lbfgs"]):
        net = mlp()
        masks = random_masks(net)
        factors = {name: torch.from_numpy(mask).float() for name, mask in masks.items()}
        twin = {n: nn.Parameter(p.detach() * factors.get(n, torch.ones(()))) for n, p in net.named_parameters()}
        optimizer, other = make(net.parameters()), make(twin.values())
        with lottery.hold(net, masks):
            for _ in range(4):
                data = batch(net)

                def closure(twin: Any = twin, other: Any = other, data: Any = data, factors: Any = factors) -> Tensor:
                    other.zero_grad()
                    weights = {name: p * factors[name] if name in factors else p for name, p in twin.items()}
                    loss = functional.cross_entropy(torch.func.functional_call(mlp(), weights, data[0]), data[1])
                    loss.backward()
                    return loss

                optimizer.step(partial(gradients, net, optimizer, data))  # type: ignore[arg-type]
                other.step(closure)  # type: ignore[arg-type]
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(parameter, twin[name], rtol=1e-5, atol=1e-6)


def test_an_optimizer_in_the_backward_pass() -> None:
    net = Net()
    masks = random_masks(net)
    optimizers: dict[Tensor, torch.optim.Adam] = {p: torch.optim.Adam([p], lr=0.01) for p in net.parameters()}

    def step(parameter: Tensor) -> None:
        assert parameter.grad is not None
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    with lottery.hold(net, masks) as held:
        for _ in range(3):
            x, y = batch(net)
            functional.cross_entropy(net(x), y).backward()
            check_weights(net, masks)
            for optimizer in optimizers.values():
                check_state(net, masks, optimizer)
    assert held.steps == 3 * len(optimizers)


# --- gradients


def test_accumulated_gradients_and_the_norm_that_clips_are_of_kept_weights() -> None:
    net = Net()
    masks = random_masks(net)
    optimizer = OPTIMIZERS["adam"](net.parameters())
    with lottery.hold(net, masks):
        for _ in range(3):
            optimizer.zero_grad()
            kept = {name: np.zeros(p.shape) for name, p in net.named_parameters()}
            for _ in range(3):
                x, y = batch(net)
                functional.cross_entropy(net(x), y).backward()
                for name, p in net.named_parameters():
                    assert p.grad is not None
                    kept[name] = p.grad.double().numpy() * masks.get(name, np.ones(()))
            norm = float(nn.utils.clip_grad_norm_(net.parameters(), 0.01))
            assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in kept.values())), rel=1e-5)
            assert norm > 0.01
            optimizer.step()
            check(net, masks, optimizer)


def test_a_gradient_that_two_tensors_share_is_masked_for_one() -> None:
    """Autograd gives both terms of a sum the same tensor."""
    masked, free = (nn.ParameterDict({"w": nn.Parameter(torch.ones(4))}) for _ in range(2))
    with lottery.hold(masked, {"w": np.array([True, False, True, False])}):
        (masked["w"] + free["w"]).square().sum().backward()  # 2 (w + v), for both
    assert masked["w"].grad is not None
    assert masked["w"].grad.tolist() == [4.0, 0.0, 4.0, 0.0]
    assert free["w"].grad is not None
    assert free["w"].grad.tolist() == [4.0, 2.0, 4.0, 2.0]


def test_gradients_of_gradients_go_through_the_mask() -> None:
    """A penalty on the gradient's norm, which create_graph=True makes differentiable."""
    net = mlp().double()
    masks = random_masks(net)
    x, y = batch(net, dtype=torch.float64)

    def penalty(weights: Mapping[str, Tensor]) -> Tensor:
        loss = functional.cross_entropy(torch.func.functional_call(net, dict(weights), x), y)
        first = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        kept = [torch.from_numpy(masks.get(name, np.ones(1, dtype=bool))) for name in weights]
        return torch.stack([(g * m).square().sum() for g, m in zip(first, kept, strict=True)]).sum()

    with lottery.hold(net, masks):
        loss = functional.cross_entropy(net(x), y)
        first = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        torch.stack([g.square().sum() for g in first]).sum().backward()
        check_gradients(net, masks)
        found = {name: p.grad for name, p in net.named_parameters()}
    twin = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    expected = torch.autograd.grad(penalty(twin), list(twin.values()))
    for (name, gradient), g in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(gradient, g * torch.from_numpy(masks.get(name, np.ones(1, dtype=bool))))


def test_a_gradient_written_by_hand() -> None:
    """Noise that is added after the backward pass, as for privacy."""
    net = mlp()
    masks = random_masks(net)
    optimizer = OPTIMIZERS["momentum"](net.parameters())
    with lottery.hold(net, masks):
        for _ in range(2):
            gradients(net, optimizer, batch(net))
            for p in net.parameters():
                assert p.grad is not None
                p.grad.add_(torch.randn_like(p))
            optimizer.step()
            check(net, masks, optimizer)


def test_a_frozen_parameter_that_thaws() -> None:
    net = mlp()
    masks = random_masks(net)
    first = net.get_parameter("0.weight").requires_grad_(False)
    optimizer = OPTIMIZERS["momentum"](net.parameters())
    with lottery.hold(net, masks) as held:
        assert not first.requires_grad
        train(net, masks, optimizer)
        assert held.untrained == {"0.weight"}
        first.requires_grad_()
        train(net, masks, optimizer)
        assert not held.untrained


def test_what_is_not_a_number_does_not_stay() -> None:
    net = mlp()
    masks = random_masks(net)
    weight, pruned = net.get_parameter("0.weight"), torch.from_numpy(~masks["0.weight"])
    optimizer = OPTIMIZERS["momentum"](net.parameters())
    for worst in (float("nan"), float("inf"), -0.0):
        with torch.no_grad():
            weight[pruned] = worst
        with lottery.hold(net, masks):
            check_weights(net, masks)
            with torch.no_grad():
                weight[pruned] = worst
            assert weight.grad is None or not weight.grad[pruned].any()
            optimizer.zero_grad()
            (weight * torch.where(pruned, worst, 1.0)).sum().backward()
            check_gradients(net, masks)
            optimizer.step()
            check_weights(net, masks)


@pytest.mark.parametrize("dtype", TRAINABLE)
def test_every_type_of_number(dtype: torch.dtype) -> None:
    net = mlp().to(dtype)
    masks = random_masks(net)
    optimizer = OPTIMIZERS["momentum"](net.parameters())
    with lottery.hold(net, masks):
        for _ in range(3):
            gradients(net, optimizer, batch(net, dtype=dtype))
            check_gradients(net, masks)
            optimizer.step()
            check(net, masks, optimizer)


def test_a_module_that_changes_its_type_and_its_memory_format() -> None:
    net = Net()
    masks = random_masks(net)
    with lottery.hold(net, masks):
        for change in (
            lambda: net.double(),
            lambda: net.float().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        ):
            change()
            optimizer = OPTIMIZERS["momentum"](net.parameters())
            for _ in range(2):
                gradients(net, optimizer, batch(net, dtype=net.fc1.weight.dtype))
                check_gradients(net, masks)
                optimizer.step()
                check(net, masks, optimizer)


def test_bfloat16_autocast_with_a_scaler() -> None:
    net = Net()
    masks = random_masks(net)
    optimizer = OPTIMIZERS["adamw"](net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with lottery.hold(net, masks) as held:
        for _ in range(3):
            x, y = batch(net)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = functional.cross_entropy(net(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            check_gradients(net, masks)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            check(net, masks, optimizer)
        assert held.steps == 3
        optimizer.zero_grad()  # infinity in a pruned weight's gradient is no reason to skip a step
        weight = torch.ones(net.fc2.weight.shape)
        weight[torch.from_numpy(~masks["fc2.weight"])] = float("inf")
        scaler.scale((net.fc2.weight * weight).sum()).backward()
        scaler.step(optimizer)
        assert held.steps == 4


# --- modules


def test_compiled_by_the_eager_backend() -> None:
    net = mlp()
    masks = random_masks(net)
    optimizer = OPTIMIZERS["momentum"](net.parameters())
    with lottery.hold(net, masks) as held:
        compiled = torch.compile(net, backend="eager")
        for _ in range(3):
            x, y = batch(net)
            optimizer.zero_grad()
            functional.cross_entropy(compiled(x), y).backward()
            check_gradients(net, masks)
            optimizer.step()
            check(net, masks, optimizer)
    assert (held.steps, held.untrained) == (3, set())
    torch._dynamo.reset()


def test_tied_weights_have_one_mask_under_either_name() -> None:
    for name in ("encode.weight", "decode.weight"):
        net = nn.ModuleDict({"encode": nn.Embedding(6, 4), "decode": nn.Linear(4, 6, bias=False)})
        net["decode"].weight = net["encode"].weight
        mask = np.random.default_rng(0).random((6, 4)) < 0.5
        masks = {name: mask}
        optimizer = OPTIMIZERS["adam"](net.parameters())
        with lottery.hold(net, masks) as held:
            for assign in (False, True):  # which unties them
                if assign:
                    net.load_state_dict(copy.deepcopy(net.state_dict()), assign=True)
                    optimizer = OPTIMIZERS["adam"](net.parameters())
                for _ in range(3):
                    x = torch.randint(6, (8,))
                    optimizer.zero_grad()
                    functional.cross_entropy(net["decode"](net["encode"](x)), x).backward()
                    optimizer.step()
                    for both in ("encode.weight", "decode.weight"):
                        check(net, {both: mask}, optimizer)
        assert not held.untrained


def test_attention_and_its_projection_of_three_in_one() -> None:
    net = nn.MultiheadAttention(8, 2, batch_first=True)
    masks = random_masks(net)
    assert "in_proj_weight" in masks
    optimizer = OPTIMIZERS["adamw"](net.parameters())
    with lottery.hold(net, masks):
        for _ in range(3):
            x = torch.randn(2, 5, 8)
            optimizer.zero_grad()
            net(x, x, x)[0].square().sum().backward()
            check_gradients(net, masks)
            optimizer.step()
            check(net, masks, optimizer)


def test_an_lstm() -> None:
    net = nn.LSTM(4, 5, num_layers=2)
    masks = random_masks(net)
    assert len(masks) == 4
    optimizer = OPTIMIZERS["rmsprop"](net.parameters())
    with lottery.hold(net, masks):
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(6, 3, 4))[0].square().sum().backward()
            check_gradients(net, masks)
            optimizer.step()
            check(net, masks, optimizer)


@pytest.mark.parametrize("make", [torch.optim.SparseAdam, partial(torch.optim.SGD, lr=0.1, momentum=0.9)])
@pytest.mark.parametrize("old", [False, True])
def test_sparse_gradients(make: Make, old: bool) -> None:
    net = nn.Embedding(7, 3, sparse=True)
    masks = random_masks(net)
    optimizer = make(net.parameters())

    def step() -> None:
        optimizer.zero_grad()
        net(torch.tensor([1, 3, 3, 5, 6])).square().sum().backward()
        if not old:
            check_gradients(net, masks)
        optimizer.step()

    if old:
        step()
        old = False
    with lottery.hold(net, masks):
        for _ in range(3):
            step()
            check(net, masks, optimizer)


def test_any_parameters_may_have_masks() -> None:
    net = Net()
    masks = random_masks(net, ["conv.bias", "norm.weight", "fc2.weight"])
    with lottery.hold(net, {name: torch.from_numpy(mask) for name, mask in masks.items()}):
        train(net, masks, OPTIMIZERS["adam"](net.parameters()))
    with lottery.hold(net, {}) as held:
        train(net, {}, OPTIMIZERS["adam"](net.parameters()), steps=1)
    assert held.steps == 1


def test_masks_that_keep_all_or_nothing() -> None:
    net = mlp()
    masks = {"0.weight": np.ones((5, 6), dtype=bool), "2.weight": np.zeros((3, 5), dtype=bool)}
    before = net.get_parameter("0.weight").detach().clone()
    with lottery.hold(net, masks):
        assert torch.equal(net.get_parameter("0.weight"), before)
        optimizer = OPTIMIZERS["adam"](net.parameters())
        gradients(net, optimizer, batch(net))
        optimizer.step()
    assert not net.get_parameter("2.weight").any()


def test_a_mask_is_copied_on_entering() -> None:
    net = mlp()
    masks = random_masks(net)
    given = copy.deepcopy(masks)
    with lottery.hold(net, given):
        for mask in given.values():
            mask[:] = ~mask
        net.double()  # for which the masks are read again
        gradients(net, optimizer := OPTIMIZERS["sgd"](net.parameters()), batch(net, dtype=torch.float64))
        optimizer.step()
        check(net, masks, optimizer)


# --- copies, and what is left


def test_copies_are_plain_and_pruned() -> None:
    """deepcopy, pickle, and the averages of weights that are kept for evaluation."""
    net = Net()
    masks = random_masks(net)
    plain = {key: type(value) for key, value in vars(net).items()}
    names = list(net.state_dict())
    with lottery.hold(net, masks):
        ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        swa = AveragedModel(net, use_buffers=False)
        optimizer = OPTIMIZERS["adam"](net.parameters())
        for _ in range(3):
            train(net, masks, optimizer, steps=1)
            ema.update_parameters(net)
            swa.update_parameters(net)
        update_bn([batch(net)[0]], swa)
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(file, weights_only=False)]
        for other in (*copies, ema.module, swa.module):
            check_weights(other, masks)
            assert {key: type(value) for key, value in vars(other).items()} == plain
            assert not any(p._backward_hooks for p in other.parameters())
        assert list(net.state_dict()) == names
        assert not any(t._backward_hooks for t in net.state_dict().values())
        for other in (*copies, ema.module, swa.module):  # they aren't held: nothing of the hold is in them
            optimizer = OPTIMIZERS["sgd"](other.parameters())
            gradients(other, optimizer, batch(net))
            optimizer.step()
            with pytest.raises(AssertionError, match="pruned weights"):
                check_weights(other, masks)


def test_loading_weights_into_the_module_while_it_is_held() -> None:
    net = Net()
    masks = random_masks(net)
    dense = copy.deepcopy(net.state_dict())
    with lottery.hold(net, masks) as held:
        old = net.get_parameter("fc1.weight")
        net.load_state_dict(copy.deepcopy(dense), assign=True)
        assert net.get_parameter("fc1.weight") is not old
        assert not old._backward_hooks
        check_weights(net, masks)
        optimizer = OPTIMIZERS["momentum"](net.parameters())
        train(net, masks, optimizer, steps=1)  # its first gradient is masked already
        net.load_state_dict(dense)
        gradients(net, optimizer, batch(net))
        optimizer.step()
        check(net, masks, optimizer)
        net.fc1._parameters["weight"] = nn.Parameter(torch.randn(8, 16))  # past the module's own door
        optimizer = OPTIMIZERS["momentum"](net.parameters())
        gradients(net, optimizer, batch(net))
        optimizer.step()
        check(net, masks, optimizer)
    assert held.steps == 3
    assert not any(p._backward_hooks for p in net.parameters())
    with lottery.hold(net, masks), pytest.raises(LotteryError, match=r"masks\['fc2.weight'\] has shape \(3, 8\)"):
        net.fc2.weight = nn.Parameter(torch.zeros(4, 8))


def hooks(net: nn.Module) -> list[int]:
    """How many there are of every kind, anywhere."""
    ours = [len(p._backward_hooks or {}) for p in net.parameters()]
    optimizer = torch.optim.Optimizer.step.__globals__
    names = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
    everywhere = [optimizer[name] for name in names] + [torch_module._global_parameter_registration_hooks]
    return [*ours, *map(len, everywhere)]


def test_nothing_is_left_behind() -> None:
    net = mlp()
    masks = random_masks(net)
    before = hooks(net)
    with lottery.hold(net, masks):
        assert sum(hooks(net)) == sum(before) + len(masks) + 3
    assert hooks(net) == before
    with pytest.raises(ZeroDivisionError), lottery.hold(net, masks):
        raise ZeroDivisionError
    assert hooks(net) == before
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    gradients(net, optimizer, batch(net))
    optimizer.step()
    for name, mask in masks.items():
        assert net.get_parameter(name).detach().numpy()[~mask].any()


def test_one_holds_within_another_and_leaves_it_whole() -> None:
    net = mlp()
    outer = random_masks(net)
    inner = {name: mask & (np.random.default_rng(2).random(mask.shape) < 0.5) for name, mask in outer.items()}
    optimizer = OPTIMIZERS["momentum"](net.parameters())
    with lottery.hold(net, outer):
        with lottery.hold(net, inner):
            train(net, inner, optimizer, steps=2)
        train(net, outer, optimizer, steps=2)


def test_only_the_parameters_that_step_are_touched() -> None:
    """Another's may be in use by a graph, or by another thread."""
    net, other = mlp(), mlp()
    masks = random_masks(net)
    with lottery.hold(net, masks) as held:
        versions = [p._version for p in net.parameters()]
        stranger = OPTIMIZERS["adam"](other.parameters())
        gradients(other, stranger, batch(other))
        stranger.step()
        assert held.steps == 0
        assert [p._version for p in net.parameters()] == versions
        head = OPTIMIZERS["adam"](net[2].parameters())
        gradients(net, head, batch(net))
        head.step()
        assert held.steps == 1
        assert [p._version for p in net[0].parameters()] == versions[:2]
        check(net, masks, head)


def test_a_copy_that_was_trained_instead_is_known() -> None:
    net = mlp()
    masks = random_masks(net)
    with lottery.hold(net, masks) as held:
        twin = copy.deepcopy(net)
        train(twin, {}, OPTIMIZERS["adam"](twin.parameters()))
        assert held.steps == 0
        optimizer = OPTIMIZERS["adam"](net.parameters())
        x, y = batch(net)
        functional.cross_entropy(twin(x), y).backward()
        optimizer.step()  # of the module itself, which no gradient has reached
        assert (held.steps, held.untrained) == (1, set(masks))
        train(net, masks, optimizer, steps=1)
        assert (held.steps, held.untrained) == (2, set())


# --- bad input


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


KEEP = np.ones((5, 6), dtype=bool)


@pytest.mark.parametrize(
    ("module", "masks", "words"),
    [
        (mlp, {"fc1.weight": KEEP}, r"masks name 'fc1.weight', which is not a parameter here; there are 0.weight, 0.b"),
        (mlp, {0: KEEP}, "masks name 0, which is not a parameter here"),
        (nn.ReLU, {"weight": KEEP}, "masks name 'weight', which is not a parameter here; there are none"),
        (lambda: nn.BatchNorm1d(2), {"running_mean": KEEP}, "masks name 'running_mean', which is not a parameter here"),
        (mlp, {"0.weight": KEEP.T}, r"masks\['0.weight'\] has shape \(6, 5\), expected \(5, 6\)"),
        (mlp, {"0.weight": np.ones(30, dtype=bool)}, r"masks\['0.weight'\] has shape \(30,\), expected \(5, 6\)"),
        (
            mlp,
            {"0.weight": KEEP.astype(float)},
            r"masks\['0.weight'\] is a ndarray of float64: must be a boolean",
        ),
        (mlp, {"0.weight": torch.ones(5, 6)}, r"masks\['0.weight'\] is a Tensor of torch.float32: must be a boolean"),
        (mlp, {"0.weight": KEEP.tolist()}, r"masks\['0.weight'\] is a list: must be a boolean array or tensor"),
        (mlp, {"0.weight": None}, r"masks\['0.weight'\] is a NoneType: must be a boolean array or tensor"),
        (mlp, [KEEP], "masks is a list: must be a dict, such as"),
        (lambda: "net", {}, "module is a str: must be a torch.nn.Module, the one that trains"),
        (lambda: mlp, {}, "module is a function: must be a torch.nn.Module"),
        (
            tied,
            {"0.weight": np.ones((4, 4), dtype=bool), "1.weight": np.eye(4, dtype=bool)},
            r"masks\['0.weight'\] and masks\['1.weight'\] differ, but the two are one tied tensor: give one mask",
        ),
        (
            lambda: nn.ParameterDict({"w": nn.Parameter(torch.ones(5, 6, dtype=torch.complex64))}),
            {"w": KEEP},
            r"masks\['w'\]: its parameter is torch.complex64; masks can be held on torch.float64, ",
        ),
        (
            lambda: nn.LazyLinear(3),
            {"weight": KEEP},
            r"masks\['weight'\]: its parameter has no shape yet; run the module once before",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_touched(module: Callable[[], Any], masks: Any, words: str) -> None:
    net = module()
    before = copy.deepcopy(net.state_dict()) if isinstance(net, nn.Module) and not hasattr(net, "cls_to_become") else {}
    with pytest.raises(LotteryError, match=words) as error, lottery.hold(net, masks):
        pass
    assert "\n" not in str(error.value)
    for name, tensor in before.items():
        assert torch.equal(tensor, net.state_dict()[name])
