"""The spec: validated when made, the same in Python and TOML, and its names of runs never change."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lottery.criteria import rates
from lottery.errors import LotteryError
from lottery.runs.experiment import check
from lottery.spec import PRESETS, Data, Model, Pruning, Recipe, Spec, load


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_toml(name: str) -> None:
    assert Spec.from_toml(PRESETS[name].to_toml()) == PRESETS[name]
    assert load(name) == PRESETS[name]


def test_names_of_runs_never_change() -> None:
    """A run's folder is found by this name: a change here orphans everybody's old results."""
    assert {name: spec.uid for name, spec in PRESETS.items()} == {
        "quickstart": "mnist-5k-lenet-300-100-1000it-seed0-aa423cc7",
        "notebook": "mnist-lenet-300-100-5it-seed0-4a3832f1",
        "lenet-mnist": "mnist-lenet-300-100-50000it-seed0-a47adeca",
        "conv2-cifar10": "cifar10-conv-2-20000it-seed0-0fda3307",
        "conv4-cifar10": "cifar10-conv-4-25000it-seed0-875f808f",
        "conv6-cifar10": "cifar10-conv-6-30000it-seed0-65584d20",
        "resnet20-cifar10": "cifar10-resnet-20-30000it-seed0-eb779e7e",
        "vgg19-cifar10": "cifar10-vgg-19-112480it-seed0-6a66781b",
        "conv2-mnist-5k": "mnist-5k-conv-2-1000it-seed0-972bfdd3",
        "resnet8-mnist-5k-m": "mnist-5k-m-resnet-8-600it-seed0-5d87769a",
    }
    assert Spec().uid == "mnist-lenet-300-100-50000it-seed0-44136fa3"
    more = replace(PRESETS["quickstart"], levels=3, replicates=5, branches=("reinit:10", "one_shot"))
    assert more.uid == "mnist-5k-lenet-300-100-1000it-seed0-aa423cc7"  # more of the same
    recipe = Recipe("sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-4, iterations=2000)
    mlp = Spec(Data("fashion-mnist"), Model("mlp", hidden=(500, 20)), recipe)
    assert mlp.uid == "fashion-mnist-mlp-2000it-seed0-3b8f355e"
    scaled = Spec(Data("kmnist", scaling="l2"), pruning=Pruning(scope="global", rate=0.3), seed=7)
    assert scaled.uid == "kmnist-lenet-300-100-50000it-seed7-57b23400"


def test_what_changes_a_result_changes_the_name_and_nothing_else_does() -> None:
    spec = PRESETS["lenet-mnist"]
    assert replace(spec, levels=3, replicates=5, branches=("reinit:3",)).uid == spec.uid
    assert replace(spec, pruning=Pruning(rate=1)).uid == replace(spec, pruning=Pruning(rate=1.0)).uid
    for other in (
        replace(spec, seed=1),
        replace(spec, data=Data(name="kmnist")),
        replace(spec, start="continue"),
        replace(spec, model=Model(init="gaussian")),
        replace(spec, recipe=Recipe(learning_rate=1e-3)),
        replace(spec, pruning=Pruning(layer_rates={"fc3.weight": 0.2})),
    ):
        assert other.uid != spec.uid


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("levels = -1", "levels = -1: must be 0"),
        ("replicates = 0", "replicates = 0: must be at least 1"),
        ("seed = -1", "seed = -1"),
        ("levels = true", "levels = True: must be a whole number"),
        ('levels = "three"', "levels"),
        ("levelz = 3", "levelz"),
        ("levels = ", "a.toml"),
        ("[recipe]\niterations = 0", "recipe.iterations = 0: must be at least 1"),
        ("[recipe]\nbatch_size = 0", "recipe.batch_size = 0"),
        ("[recipe]\nevaluate_every = 0", "recipe.evaluate_every = 0"),
        ("[recipe]\nlearning_rate = nan", "recipe.learning_rate = nan"),
        ("[recipe]\nlearning_rate = inf", "recipe.learning_rate = inf"),
        ("[recipe]\nweight_decay = -0.1", "recipe.weight_decay = -0.1"),
        ("[recipe]\nmomentum = 0.9", "only sgd has momentum"),
        ('[recipe]\noptimizer = "sgd"\nmomentum = 1', "recipe.momentum = 1.0"),
        ('[recipe]\noptimizer = "lion"', "use adam, adamw or sgd"),
        ("[recipe]\nlearning_rte = 1", "learning_rte"),
        ("[pruning]\nrate = 1.1", "pruning.rate = 1.1: must be in"),
        ("[pruning.layer_rates]\nfc1 = -0.1", "pruning.layer_rates"),
        ('[pruning]\nscope = "local"', "use layer or global"),
        (
            '[pruning]\nscope = "global"\n[pruning.layer_rates]\nfc1 = 0.1',
            "pruning.layer_rates['fc1'] = 0.1: in global scope",
        ),
        ("[model]\nhidden = [0]", "at least 1 unit"),
        ("[data]\nvalidation = -5", "data.validation = -5"),
        ("[model]\nstd = 0.2", "model.std = 0.2: only gaussian has it"),
        ('[model]\ninit = "gaussian"\nstd = 0', "model.std = 0.0: must be above 0 and finite"),
        ('[model]\ninit = "gaussian"\nstd = inf', "model.std = inf"),
        ('branches = ["reinit:0"]', "branches = 'reinit:0': a branch is the name of a start rule, or name:draws"),
        ('branches = ["reinit:"]', "branches = 'reinit:'"),
        ('branches = [":2"]', "branches = ':2'"),
        ('branches = ["reinit:x"]', "branches = 'reinit:x'"),
        ('branches = ["reinit", "one_shot", "reinit:3"]', "name 'reinit' once"),
        ('branches = ["rewind"]', "branches = 'rewind': is the trunk's own rule"),
        ("[model]\nhidden = 5", "model.hidden = 5: must be a list"),
        ("model.hidden = true", "model.hidden = True: must be a list"),
        ("branches = 3", "branches = 3: must be a list"),
        ('branches = "reinit"', "branches = 'reinit': must be a list"),
        ("[branches]", "branches = {}: must be a list"),
        ("data = 3", "data = 3: must be a table"),
        ("levels = " + "9" * 5000, "a.toml: a number of over 4,300 digits: write a shorter one"),
        ("levels = 0x" + "f" * 5000, "levels = (a int that cannot be shown): must be 0"),
        ("levels = " + "[" * 5000, "a.toml: lists or tables hundreds deep"),
        ("a." * 20_000 + "a = 1", "40,005 characters are no spec"),
        ("levelz = 3", "unknown setting 'levelz': choose from data, model, recipe, pruning, start, rewind_to, "),
        (
            "[recipe]\nlearning_rte = 1",
            "unknown setting 'recipe.learning_rte': choose from recipe.optimizer, recipe.lea",
        ),
        ("levels = 10001", "levels = 10001: must be 0 (the dense network alone) or more, at most 10,000"),
        ("replicates = 10001", "replicates = 10001: must be at least 1, and at most 10,000"),
        ('branches = ["reinit:10001"]', "branches = 'reinit:10001': at most 10,000 draws"),
        ("levels = 9999\nreplicates = 9999", "that is 99,990,000 networks to train, at most 1,000,000"),
        ("[recipe]\niterations = 2000000000", "recipe.iterations = 2000000000: must be at least 1, and at most"),
        ("[recipe]\niterations = 100000000\nevaluate_every = 100000000", "images between two evaluations"),
        ("[model]\nhidden = [100001]", "model.hidden = (100001,): every layer needs at least 1 unit, and has at most"),
        ('start = "continue"\nbranches = ["continue"]', "branches = 'continue': is the trunk's own rule"),
    ],
)
def test_bad_settings_are_named_with_value_and_source(toml: str, message: str) -> None:
    with pytest.raises(LotteryError, match=r"a\.toml") as caught:
        Spec.from_toml(toml, source="a.toml")
    assert message in str(caught.value)


def test_draws_may_have_two_digits() -> None:
    spec = Spec.from_toml('branches = ["reinit:10", "one_shot"]')
    assert spec.draws == {"reinit": 10, "one_shot": 1}
    assert spec.extended(Spec(branches=("reinit:9",))).draws["reinit"] == 10


def test_extending_takes_the_union_of_branches_and_the_larger_draws() -> None:
    one, other = Spec(branches=("reinit:3", "one_shot")), Spec(branches=("shuffle", "reinit", "one_shot"))
    assert one.draws == {"reinit": 3, "one_shot": 1}
    assert one.extended(other).branches == ("reinit:3", "one_shot", "shuffle")
    assert other.extended(one).branches == ("shuffle", "reinit:3", "one_shot")
    assert one.extended(Spec()).branches == one.branches == Spec().extended(one).branches


def test_a_byte_order_mark_is_no_setting(tmp_path: Path) -> None:
    """Some editors begin every file with one."""
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbflevels = 3\n")
    assert load(str(tmp_path / "a.toml")).levels == 3
    (tmp_path / "b.toml").write_text("levels = 3\n", encoding="utf-16")
    with pytest.raises(LotteryError, match=r"b\.toml: .*: save it as UTF-8"):
        load(str(tmp_path / "b.toml"))


def test_only_regular_files_of_a_spec_s_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")  # would wait for a writer
    (tmp_path / "big.toml").write_bytes(b"#" * 30_000)
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name, message in (("pipe", "not a regular"), ("zero", "not a regular"), ("big", "larger than 20,000 bytes")):
        with pytest.raises(LotteryError, match=message):
            load(str(tmp_path / f"{name}.toml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": "3"}, "levels = '3': must be a whole number"),
        ({"levels": True}, "levels = True: must be a whole number"),
        ({"branches": "reinit"}, "branches = 'reinit': must be a list"),
        ({"recipe": {"iterations": 3}}, "recipe = {'iterations': 3}: must be a Recipe"),
    ],
)
def test_constructors_check_types(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LotteryError) as caught:
        replace(PRESETS["quickstart"], **change)
    assert message in str(caught.value)


def test_unknown_preset_and_unreadable_file() -> None:
    with pytest.raises(LotteryError, match="unknown preset 'lenet': choose from quickstart, notebook, lenet-mnist"):
        load("lenet")
    with pytest.raises(LotteryError, match=r"cannot read the spec nowhere\.toml"):
        load("nowhere.toml")


def test_presets_name_layers_that_their_networks_have() -> None:
    for spec in PRESETS.values():
        network = check(spec)
        assert not set(network.prunable) - set(rates(spec.pruning, network.prunable))
