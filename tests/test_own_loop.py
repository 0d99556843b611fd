"""A training loop of one's own: what it is given, what is kept of it, and what goes on after a kill."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

import lottery
from lottery import LotteryError, notebook
from lottery.analysis.answer import answer_of
from lottery.cli import main
from lottery.loop import levels as loop_levels
from lottery.masks import apply
from lottery.models.torch import get_weights
from lottery.runs import states
from lottery.runs.own import Level
from lottery.runs.rows import Place
from lottery.runs.verify import verify
from lottery.spec import OwnLoop, Spec
from lottery.starts import STARTS
from lottery.views import plots

X = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 6), dtype=np.float32))
Y = X[:, :3].argmax(1)


class Net(nn.Module):
    """With dropout and a batch norm: noise and buffers must be kept too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(functional.dropout(self.norm(self.first(x)).relu(), 0.2, self.training))
        return logits


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """One on a random batch, drawn and dropped by the global random numbers."""
    index = torch.randint(0, len(X), (20,))
    loss = functional.cross_entropy(model(X[index]), Y[index])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def accuracy(model: nn.Module) -> torch.Tensor:
    model.eval()
    right: torch.Tensor = (model(X).argmax(1) == Y).double().mean()
    return right


def plain(level: Level, iterations: int = 5) -> None:
    """The first form: any loop as it is."""
    optimizer = torch.optim.SGD(level.model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(iterations):
        step(level.model, optimizer)
    level.record(test_accuracy=accuracy(level.model))


class Killed(BaseException):
    """Where a kill comes."""


def through_steps(level: Level, total: int = 12, die: int | None = None, scheduler: Any = CosineAnnealingLR) -> None:
    """The second form: what was interrupted goes on."""
    optimizer = torch.optim.Adam(level.model.parameters(), lr=0.01)
    schedule = scheduler(optimizer, 12)
    for i in level.steps(total, optimizer, schedule, save_every=2):
        loss = step(level.model, optimizer)
        schedule.step()
        if i == die:
            raise Killed
        level.log(i + 1, train_loss=loss, validation_loss=loss + i, noise=random.random() + np.random.rand())  # noqa: NPY002
        level.record(rate=schedule.get_last_lr()[0])
    level.record(test_accuracy=accuracy(level.model))


def tickets(path: Path, **settings: Any) -> Iterator[Level]:
    return lottery.tickets(Net, path, **{"levels": 2, "rate": 0.5} | settings)


def train(path: Path, body: Callable[[Level], Any], **settings: Any) -> None:
    for level in tickets(path, **settings):
        body(level)


def content(path: Path) -> dict[str, bytes]:
    """Name -> bytes of the files of all levels; without the seconds, which differ."""
    found = {}
    for file in sorted(path.glob("*/replicate-*/level-*/*")):
        name = str(file.relative_to(path))
        found[name] = file.read_bytes()
        if file.name == "level.json":
            record = json.loads(found[name])
            del record["row"]["seconds"], record["checksum"]
            found[name] = json.dumps(record).encode()
    return found


def test_levels_are_those_of_the_loop_and_masks_hold(tmp_path: Path) -> None:
    given = []
    for level in tickets(tmp_path / "run", branches=("reinit:2", "random_mask", "continue"), replicates=2):
        weights = get_weights(level.model)
        assert all(np.array_equal(apply(weights, level.masks)[name], w) for name, w in weights.items())
        assert level.density == pytest.approx(0.5**level.number, abs=0.02)
        given.append(Place(level.branch, level.replicate, level.number, level.draw))
        plain(level)
        for name, w in apply(get_weights(level.model), level.masks).items():
            assert get_weights(level.model)[name].tobytes() == w.tobytes()  # +0.0 where they are pruned
    run = lottery.open_run(tmp_path / "run")
    assert set(given) == set(run.places())
    assert len(given) == len(run.places()) == 2 * (3 + 4 * 2)
    dense = run.load("rewind", 0, 0)
    for place in given:
        saved = run.read(place)
        assert saved.row.test_accuracy is not None
        assert saved.row.iterations == 5
        if place.branch == "rewind" and not place.replicate:
            for name, w in apply(dense.start, saved.masks).items():
                assert saved.start[name].tobytes() == w.tobytes()

    def read(number: int, start: Any) -> Any:
        return run.load("rewind", 0, number).trained

    def prune(level: Any) -> Any:
        following = run.load("rewind", 0, level.number + 1).masks
        for name, mask in following.items():
            lowest = np.sort(np.abs(level.trained[name][level.start.masks[name]]))
            assert np.abs(level.trained[name][mask]).min() >= lowest[len(lowest) - np.count_nonzero(mask)]
        return following

    assert len(list(loop_levels(dense.start, run.network.prunable, 2, STARTS["rewind"].start, read, prune))) == 3
    first, second = run.load("rewind", 0, 0).start, run.load("rewind", 1, 0).start
    assert not np.array_equal(first["first.weight"], second["first.weight"])
    drawn = [run.load("reinit", 0, 1, draw).start["first.weight"] for draw in (0, 1)]
    assert not np.array_equal(drawn[0], drawn[1])
    other = run.load("continue", 0, 1).start["norm.running_mean"]
    assert other.tobytes() == dense.trained["norm.running_mean"].tobytes()


def test_what_is_finished_is_not_given_again_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    for level in tickets(tmp_path / "whole", replicates=2, branches=("reinit",)):
        plain(level)
    given = []
    for number in (0, 1, 3, None):
        for i, level in enumerate(tickets(tmp_path / "parts", replicates=2, branches=("reinit",))):
            given.append((level.branch, level.replicate, level.number))
            if i == number:
                _ = random.random(), np.random.rand(), torch.rand(7)  # noqa: NPY002  of no matter to what is trained later
                break
            plain(level)
    assert len(given) == 10 + 3
    for level in tickets(tmp_path / "parts", replicates=2, branches=("reinit",)):
        plain(level)
    assert content(tmp_path / "whole") == content(tmp_path / "parts") != {}
    assert list(tickets(tmp_path / "whole", replicates=2, branches=("reinit",))) == []


def list_and_train(path: Path, **settings: Any) -> list[int]:
    numbers = []
    for level in tickets(path, **settings):
        plain(level)
        numbers.append(level.number)
    return numbers


def test_more_levels_are_trained_alone_and_other_settings_are_refused(tmp_path: Path) -> None:
    assert list_and_train(tmp_path) == [0, 1, 2]
    assert list_and_train(tmp_path, levels=3) == [3]
    before = content(tmp_path)
    with pytest.raises(LotteryError, match=r"was made with pruning.rate = 0.5, not 0.25: give another path"):
        list(tickets(tmp_path, rate=0.25))
    with pytest.raises(LotteryError, match=r"was made with factory = 'Net', not '.*lambda"):
        list(lottery.tickets(lambda: Net(), tmp_path, levels=2, rate=0.5))
    assert content(tmp_path) == before


def test_a_level_and_its_branches_draw_the_same_numbers_and_replicates_their_own(tmp_path: Path) -> None:
    drawn: dict[tuple[int, int], set[float]] = {}
    for level in tickets(tmp_path, branches=("reinit",), replicates=2):
        numbers = torch.rand(1).item() + np.random.rand() + random.random()  # noqa: NPY002
        drawn.setdefault((level.replicate, level.number), set()).add(numbers)
        plain(level, 1)
    assert [len(numbers) for numbers in drawn.values()] == [1] * 6
    assert len(set.union(*drawn.values())) == 6


def test_a_factory_that_draws_other_weights_now_is_refused(tmp_path: Path) -> None:
    def factory(scale: float) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            network = Net()
            network.first.weight.data *= scale
            return network

        return build

    for level in lottery.tickets(factory(1.0), tmp_path, levels=1):
        plain(level)
    with pytest.raises(LotteryError, match=r"its ticket's weights of first\.weight are not what this version makes"):
        list(lottery.tickets(factory(2.0), tmp_path, levels=2))


@pytest.mark.parametrize("scheduler", [CosineAnnealingLR, lambda o, _: MultiStepLR(o, [3, 6])])
def test_a_level_goes_on_where_it_was_killed_with_the_same_bytes(tmp_path: Path, scheduler: Any) -> None:
    for level in tickets(tmp_path / "whole"):
        through_steps(level, scheduler=scheduler)
    for die in (0, 1, 5, 11, None):
        try:
            for level in tickets(tmp_path / "parts"):
                begun = level.number
                through_steps(level, die=die, scheduler=scheduler)
        except Killed:
            assert begun == 0
            assert (tmp_path / "parts/rewind/replicate-0/level-00.partial").exists() == (die not in (0, 1))
    assert content(tmp_path / "whole") == content(tmp_path / "parts")
    history = lottery.open_run(tmp_path / "parts").history(level=1)
    assert list(history["iteration"]) == list(range(1, 13))
    assert history["noise"].notna().all()
    assert history["validation_loss"].is_monotonic_increasing
    row = lottery.open_run(tmp_path / "parts").load("rewind", 0, 1).row
    assert row.early_stop_iteration == 1
    assert row.iterations == 12
    assert list(row.recorded) == ["rate"]
    assert not list(tmp_path.glob("parts/**/*.partial"))


def test_a_process_that_is_killed_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    script = (
        "import os, sys, test_own_loop as t\n"
        "try:\n"
        "    for level in t.tickets(t.Path(sys.argv[1])):\n"
        "        t.through_steps(level, die=9 if level.number else None)\n"
        "except t.Killed:\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", script, str(tmp_path / "parts")]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    assert (tmp_path / "parts/rewind/replicate-0/level-01.partial").exists()
    for name in ("parts", "whole"):
        for level in tickets(tmp_path / name):
            assert level.number or name == "whole"
            through_steps(level)
    assert content(tmp_path / "whole") == content(tmp_path / "parts") != {}


@pytest.mark.parametrize("state", ["fresh", "saved"])
def test_rewinding_to_k(tmp_path: Path, state: str) -> None:
    seen: dict[int, list[int]] = {}
    moments: dict[int, Any] = {}
    for level in tickets(tmp_path, rewind_to=4, optimizer_state=state, branches=["reinit", "lr_rewind"]):
        optimizer = torch.optim.SGD(level.model.parameters(), lr=0.1, momentum=0.9)
        schedule = CosineAnnealingLR(optimizer, 12)
        seen[level.number] = []
        for i in level.steps(12, optimizer, schedule):
            if i == 4 and level.branch == "rewind":
                moments[level.number] = get_weights(level.model), optimizer.param_groups[0]["lr"]
                slots = [s["momentum_buffer"].clone() for s in optimizer.state.values()]
                assert bool(slots) == (state == "saved" or not level.number)
                assert schedule.last_epoch == 4
            seen[level.number].append(i)
            step(level.model, optimizer)
            for name, parameter in level.model.named_parameters():
                if name in level.masks:
                    assert not optimizer.state[parameter]["momentum_buffer"].numpy()[~level.masks[name]].any()
            schedule.step()
        if level.branch in ("rewind", "lr_rewind"):
            assert seen[level.number] == list(range(0 if not level.number else 4, 12))
        else:
            assert seen[level.number] == list(range(12)), "fresh weights have no steps behind them"
    for number in (1, 2):
        masks = lottery.open_run(tmp_path).load("rewind", 0, number).masks
        for name, w in apply(moments[0][0], masks).items():
            assert moments[number][0][name].tobytes() == w.tobytes()
        assert moments[number][1] == moments[0][1] < 0.1  # the learning rate of iteration k, either way


def test_from_the_rewinding_point_with_full_masks_the_dense_run_comes_again(tmp_path: Path) -> None:
    """Weights, buffers, optimizer, schedule: with the same noise, nothing else is needed."""
    for level in tickets(tmp_path, rate=0.0, levels=1, rewind_to=5, optimizer_state="saved"):
        optimizer = torch.optim.Adam(level.model.parameters(), lr=0.01)
        schedule = CosineAnnealingLR(optimizer, 12)
        for i in level.steps(12, optimizer, schedule):
            torch.manual_seed(i)
            step(level.model, optimizer)
            schedule.step()
    run = lottery.open_run(tmp_path)
    dense, again = run.load("rewind", 0, 0), run.load("rewind", 0, 1)
    assert again.start["first.weight"].tobytes() != dense.start["first.weight"].tobytes()
    assert all(again.trained[name].tobytes() == w.tobytes() for name, w in dense.trained.items())


def test_averages_of_weights_are_kept_and_masked_at_the_rewinding_point(tmp_path: Path) -> None:
    for level in tickets(tmp_path, rewind_to=2):
        optimizer = torch.optim.SGD(level.model.parameters(), lr=0.1)
        averages = torch.optim.swa_utils.AveragedModel(level.model, use_buffers=True)
        for _ in level.steps(4, optimizer, averages):
            if level.number:
                assert int(averages.n_averaged) >= 2
            step(level.model, optimizer)
            averages.update_parameters(level.model)
            for name, mask in level.masks.items():
                assert not averages.module.get_parameter(name).detach().numpy()[~mask].any()


def test_random_numbers_are_restored_after_the_loop_has_prepared(tmp_path: Path) -> None:
    """A DataLoader draws when it is iterated: in a level that goes on as in one that does not."""
    outcomes = []
    for name, die in (("whole", None), ("parts", 5)):
        for _ in range(2):
            try:
                for level in tickets(tmp_path / name, levels=0):
                    optimizer = torch.optim.SGD(level.model.parameters(), lr=0.1)
                    numbers = level.steps(8, optimizer, save_every=1)
                    torch.rand(3)
                    for i in numbers:
                        step(level.model, optimizer)
                        if i == die:
                            die = None
                            raise Killed
            except Killed:
                continue
        outcomes.append(content(tmp_path / name))
    assert outcomes[0] == outcomes[1] != {}


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, "text", True], 3: (1, (2,)), "nan": float("inf"), "empty": {}},
        torch.arange(6).reshape(2, 3),
        [torch.ones(2, dtype=torch.bfloat16), torch.tensor(1.5), torch.zeros(0), torch.tensor([True])],
        np.float64(3),
        random.getstate(),
    ],
)
def test_states_come_back_as_they_were(value: Any) -> None:
    back = states.decode(states.encode(value, "it"))
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_optimizers_and_schedules_come_back_as_they_were() -> None:
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    for optimizer in (torch.optim.AdamW(parameters, amsgrad=True), torch.optim.RMSprop(parameters, momentum=0.9)):
        sum(p.sum() for p in parameters).backward()  # type: ignore[union-attr]
        optimizer.step()
        lr = torch.optim.lr_scheduler
        parts = [lr.LinearLR(optimizer), lr.MultiStepLR(optimizer, [2, 2])]
        schedules = [
            lr.OneCycleLR(optimizer, 1, 9),
            lr.ReduceLROnPlateau(optimizer),
            lr.SequentialLR(optimizer, parts, [3]),
        ]
        for each in (optimizer, *schedules, torch.amp.GradScaler("cpu")):
            state: Any = each.state_dict()
            assert repr(states.decode(states.encode(state, "it"))) == repr(state)


def bad_levels() -> dict[str, tuple[Callable[[Level], Any], str]]:
    def never(level: Level) -> None:
        level.record(test_accuracy=0.5)

    def copy(level: Level) -> None:
        model = Net()
        step(model, torch.optim.SGD(model.parameters(), lr=0.1))

    def infinite(level: Level) -> None:
        plain(level)
        level.model.last.bias.data[0] = float("inf")  # type: ignore[union-attr, operator]

    def unmasked(level: Level) -> None:
        plain(level)
        level.model.first.weight.data += 1  # type: ignore[union-attr, operator]

    def renamed(level: Level) -> None:
        plain(level)
        level.model.more = nn.Linear(2, 2)

    def back(level: Level) -> None:
        level.log(2, a=1)
        level.log(1, a=1)

    return {
        "never": (never, "no optimizer stepped level.model, so nothing was saved"),
        "copy": (copy, "no optimizer stepped level.model, so nothing was saved"),
        "infinite": (infinite, "trained last.bias is not finite; nothing was saved"),
        "unmasked": (unmasked, "pruned weights of first.weight are not 0"),
        "renamed": (renamed, "more.weight of level.model has changed its name or shape"),
        "percent": (lambda level: level.record(test_accuracy=93.5), "must be a fraction in [0, 1], such as 0.98"),
        "text": (lambda level: level.record(size="large"), "record(size='large'): must be a number"),
        "many": (lambda level: level.record(size=torch.ones(2)), "must be a number"),
        "nan": (lambda level: level.record(size=float("nan")), "record(size=nan): must be a finite number"),
        "ours": (lambda level: level.record(density=0.5), "levels.csv has that column anyway; choose another name"),
        "stop": (
            lambda level: level.record(early_stop_iteration=5),
            "early stops follow from log(iteration, validation_loss=...)",
        ),
        "back": (back, "log(1, ...) after log(2, ...)"),
        "log": (lambda level: level.log(1.5, a=1), "log: iteration = 1.5: must be a whole number"),  # type: ignore[arg-type]
        "logged": (lambda level: level.log(1, test_accuracy=50), "must be a fraction in [0, 1]"),
        "total": (lambda level: level.steps(0), "steps: total = 0: must be a whole number, at least 1"),
        "stateless": (lambda level: level.steps(9, 3), "argument 2 is a int, without state_dict"),
        "strange": (lambda level: level.steps(9, Strange()), "state_dict of Strange: it['what'] = "),
        "twice": (lambda level: (level.steps(9), level.steps(9)), "steps was called twice"),
    }


class Strange:
    def state_dict(self) -> dict[str, Any]:
        return {"what": object()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("never kept")


@pytest.mark.parametrize("case", bad_levels())
def test_a_level_that_should_not_be_saved_is_refused_in_one_line_and_nothing_is_lost(case: str, tmp_path: Path) -> None:
    body, words = bad_levels()[case]
    for level in islice(tickets(tmp_path), 2):
        plain(level)
        if level.number:
            break
    before = content(tmp_path)
    assert before
    with pytest.raises(LotteryError) as error:
        train(tmp_path, body)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert content(tmp_path) == before
    assert list_and_train(tmp_path) == [1, 2], "the lock is free, and it goes on"


class Argument(nn.Module):
    def __init__(self, size: int):
        super().__init__()


class Changing:
    calls = 0

    def __call__(self) -> nn.Module:
        self.calls += 1
        return nn.Sequential(*([nn.ReLU()] * (self.calls % 2)), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        (Net(), {}, "factory is a network, of class Net: give the function that makes it"),
        (Argument, {}, "missing a required argument: 'size': give one without"),
        (Changing(), {}, "a network's tensors must be the same each time"),
        (lambda: 3, {}, "gives 3: it must make a torch.nn.Module"),
        (Net, {"rate": 2.0}, "pruning.rate = 2.0: must be in [0, 1]"),
        (Net, {"levels": -1}, "levels = -1: must be 0"),
        (Net, {"criterion": "size"}, "unknown pruning.criterion 'size'"),
        (Net, {"branches": ("nothing",)}, "unknown branch 'nothing'"),
        (Net, {"branches": ("finetune",)}, "branches = 'finetune': trains on at the rate of a recipe's last iteration"),
        (Net, {"branches": "reinit"}, "branches = 'reinit': must be a list"),
        (Net, {"prunable": ["*.weights"]}, "prunable: '*.weights' matches no parameter; there are first.weight"),
        (Net, {"layer_rates": {"fc*": 0.1}}, "'fc*' matches no layer; there are first.weight, last.weight"),
        (Net, {"rewind_to": "2%"}, "rewind_to = '2%': give the iteration"),
        (Net, {"optimizer_state": "saved"}, "set rewind_to above 0"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    factory: Any, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(LotteryError) as error:
        lottery.tickets(factory, tmp_path / "run", **{"levels": 1} | settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_rewinding_point_needs_steps(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match=r"was not trained through level\.steps"):
        train(tmp_path, plain, rewind_to=3)
    with pytest.raises(LotteryError, match=r"steps\(3\): must be more than rewind_to = 3"):
        train(tmp_path, partial(through_steps, total=3), rewind_to=3)


def test_what_takes_part_must_be_the_same_when_a_level_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, partial(through_steps, die=5))
    with pytest.raises(LotteryError, match=r"given nothing, but .*partial was kept with Adam, CosineAnnealingLR"):
        train(tmp_path, lambda level: level.steps(12))


def test_two_at_once_and_a_run_of_lottery_run_are_refused(tmp_path: Path, tiny: Spec) -> None:
    going = tickets(tmp_path / "run")
    next(going)
    with pytest.raises(LotteryError, match="another process is working on"):
        next(tickets(tmp_path / "run"))
    going.close()  # type: ignore[attr-defined]
    from dataclasses import replace

    made = lottery.run(replace(tiny, levels=0), runs_dir=tmp_path)
    with pytest.raises(LotteryError, match="is a run of `lottery run`, trained by a recipe: give another path"):
        next(tickets(made.path))


def test_patterns_say_what_is_prunable(tmp_path: Path) -> None:
    def attention() -> nn.Module:
        return nn.MultiheadAttention(4, 2)

    for level in lottery.tickets(attention, tmp_path, levels=1, rate=0.5, prunable=["in_proj_weight"]):
        assert list(level.masks) == ["in_proj_weight"]
        assert level.density == 0.5**level.number
        optimizer = torch.optim.SGD(level.model.parameters(), lr=0.1)
        level.model(*[torch.ones(3, 1, 4)] * 3)[0].sum().backward()
        optimizer.step()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mine"
    for level in tickets(path, replicates=2, branches=("reinit",)):
        through_steps(level)
    return path


def test_every_view_of_it_works(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = lottery.open_run(finished)
    assert "data" not in run.info["spec"]
    assert "recipe" not in run.info["spec"]
    assert isinstance(run.spec, OwnLoop)
    assert Spec.from_toml(run.spec.to_toml()) == run.spec
    assert "dense network" in repr(run)
    assert not verify(finished).wrong
    for command in ("show", "report", "figures", "verify"):
        assert main([command, str(finished)]) == 0, capsys.readouterr().err
    assert main(["list", "--runs-dir", str(finished.parent)]) == 0
    said = capsys.readouterr().out
    assert "rate" in said
    assert "sound" in said
    assert "mine" in said
    page = (finished / "report.html").read_text()
    assert "a loop of one’s own: Net" in page
    assert "lottery run " not in page.split("Plotly")[0][:3000]
    assert "\na loop of one’s own: Net\n" in plots.accuracy(run).get_title()
    assert main(["run", str(finished / "spec.toml")]) == 2
    assert "only its own script can train it, so run that again" in capsys.readouterr().err
    with pytest.raises(LotteryError, match="only its own script can train it"):
        lottery.run(run.spec)


def test_rounds_of_a_loop_by_hand_are_kept_as_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Small(notebook.Maskable):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.net(x)
            return logits

    model, batches, path = Small(), [(X[:100], Y[:100]), (X[100:], Y[100:])], tmp_path / "run"
    theta_0, masks = model.get_weights_as_dict(), notebook.create_initial_masks(model)
    for number in range(3):
        model.set_weights_from_dict(theta_0)
        model.apply_mask(masks)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        what = (model, batches, batches, nn.CrossEntropyLoss(), optimizer, 6, "cpu", masks, 3)
        results = notebook.train_iterations(*what, verbose=False)
        for _ in range(2):  # a cell that is run again
            run = notebook.keep(path, number, results, masks, model, theta_0)
        saved = run.load("rewind", 0, number)
        assert all(saved.start[n].tobytes() == w.tobytes() for n, w in apply(theta_0, masks).items())
        assert all(saved.trained[n].tobytes() == w.tobytes() for n, w in model.get_weights_as_dict().items())
        assert saved.row.test_accuracy == pytest.approx(results["final_test_acc"] / 100)
        assert list(saved.history["iteration"]) == [3, 6]
        masks = notebook.prune_by_percent(dict.fromkeys(masks, 0.5), masks, model.get_weights_as_dict())
    with pytest.raises(LotteryError, match=r"pruned weights of net\.first\.weight are not 0"):
        notebook.keep(path, 3, results, masks, model, theta_0)
    model.apply_mask(masks)
    with pytest.raises(LotteryError, match="has a round 2 already, with other weights"):
        notebook.keep(path, 2, results, masks, model, theta_0)
    assert "pruning" not in run.info["spec"]
    assert main(["report", str(path)]) == 0, capsys.readouterr().err
    assert main(["verify", str(path)]) == 0, capsys.readouterr().out


def test_a_run_without_accuracies_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for level in tickets(tmp_path / "run", levels=1):
        step(level.model, torch.optim.SGD(level.model.parameters(), lr=0.1))
    assert answer_of(lottery.open_run(tmp_path / "run")).headline.startswith("No test accuracy was recorded")
    for command in ("show", "report", "figures"):
        assert main([command, str(tmp_path / "run")]) == 0, capsys.readouterr().err
