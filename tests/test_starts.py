"""Start rules: what each claims to keep is kept, and what it doesn't claim does change, on a really trained trunk."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from lottery import criteria, data, engines, loop, masks, models, starts
from lottery.masks import Masks, Weights
from lottery.models.mlp import stack
from lottery.seeds import stream
from lottery.spec import Pruning, Recipe
from lottery.starts import STARTS, WORDS, Start, Trunk

NETWORK = stack((784, 30, 30, 10))
KEY = (7, 1)


def fresh(rng: np.random.Generator) -> Weights:
    return models.initial_weights(NETWORK, "glorot_normal", rng)


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    """The trunk before its level 2, trained far enough for signs to flip; its initial biases are not 0."""
    parts = data.split(data.load("mnist-5k"), "standardize", 500, stream(*KEY, "split"))
    train, recipe = engines.trainer("sparse", "cpu"), Recipe(learning_rate=0.01, iterations=300, evaluate_every=300)
    initial = fresh(stream(0))
    for name in (name for name in initial if "bias" in name):
        initial[name] = stream(1, name).standard_normal(initial[name].shape).astype(np.float32) / 10
    before: list[Trunk] = []

    def rule(trunk: Trunk) -> Start:
        before.append(trunk)
        return starts.rewind(trunk)

    def prune(level: loop.Level) -> Masks:
        return criteria.prune(
            criteria.Evidence(level.start.weights, level.trained, level.start.masks, stream(0)), Pruning(rate=0.3)
        )

    for _ in loop.levels(
        initial,
        NETWORK.prunable,
        2,
        rule,
        lambda _, s: train(NETWORK, parts, s, recipe, lambda row: None).weights,
        prune,
        KEY,
    ):
        pass
    return replace(before[-1], fresh=fresh)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


KEPT: dict[str, Callable[[Trunk, Start, str], bool]] = {
    "mask": lambda t, s, n: same(s.masks[n], t.masks[n]),
    "weights": lambda t, s, n: same(s.weights[n][s.masks[n]], t.initial[n][s.masks[n]]),
    "signs": lambda t, s, n: same(np.signbit(s.weights[n][s.masks[n]]), np.signbit(t.initial[n][s.masks[n]])),
    "multiset": lambda t, s, n: same(np.sort(s.weights[n][s.masks[n]]), np.sort(t.initial[n][t.masks[n]])),
    "biases": lambda t, s, n: same(s.weights[bias(n)], t.initial[bias(n)]),
}


def bias(weight: str) -> str:
    return weight.replace("weight", "bias")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("rule", STARTS)
def test_rules_keep_what_they_claim_and_change_the_rest_in_every_layer(trunk: Trunk, rule: str, word: str) -> None:
    start = STARTS[rule].start(trunk)
    assert (word in STARTS[rule].keeps) != (word in STARTS[rule].changes)
    for name in trunk.masks:
        assert KEPT[word](trunk, start, name) == (word in STARTS[rule].keeps), name


@pytest.mark.parametrize("rule", STARTS)
def test_every_rule_keeps_counts_order_and_types_and_shares_nothing(trunk: Trunk, rule: str) -> None:
    start = STARTS[rule].start(trunk)
    assert start.order == (*KEY, "order", 2)
    assert list(start.masks) == list(trunk.masks)
    masks.check_applied(start.weights, start.masks)
    for name, mask in trunk.masks.items():
        assert start.masks[name].sum() == mask.sum()
    for name, weight in trunk.initial.items():
        assert start.weights[name].shape == weight.shape
        assert start.weights[name].dtype == np.float32
    for made in (*start.weights.values(), *start.masks.values()):
        for given in (trunk.initial, trunk.masks, trunk.dense, trunk.before):
            assert not any(np.shares_memory(made, array) for array in given.values())


def weights(rule: str, trunk: Trunk) -> list[bytes]:
    start = STARTS[rule].start(trunk)
    return [start.weights[name].tobytes() for name in start.masks]


@pytest.mark.parametrize("rule", STARTS)
def test_draws_levels_and_replicates_differ_where_a_rule_is_random_and_only_there(trunk: Trunk, rule: str) -> None:
    first = weights(rule, trunk)
    assert weights(rule, trunk) == first  # whatever was drawn meanwhile
    for other in (replace(trunk, draw=1), replace(trunk, level=3), replace(trunk, key=(7, 2))):
        assert all((a != b) == STARTS[rule].random for a, b in zip(first, weights(rule, other), strict=True))


def test_random_rules_draw_independently_of_each_other(trunk: Trunk) -> None:
    """Two controls that share their draws are one control shown twice."""
    drawn = {}
    for rule in (name for name, rule in STARTS.items() if rule.random):
        start = STARTS[rule].start(trunk)
        weights = np.where(start.masks["fc1.weight"], start.weights["fc1.weight"], np.nan).astype(float)
        if rule.startswith("noise"):
            weights -= trunk.initial["fc1.weight"]
        drawn[rule] = np.abs(weights) if rule == "same_sign" else weights
    for (first, a), (second, b) in combinations(drawn.items(), 2):
        both = np.isfinite(a) & np.isfinite(b)
        assert abs(np.corrcoef(a[both], b[both])[0, 1]) < 0.1, (first, second)


@pytest.mark.parametrize("rule", ["random_mask", "random_mask_reinit"])
def test_random_masks_take_any_position_of_the_layer(trunk: Trunk, rule: str) -> None:
    start = STARTS[rule].start(trunk)
    for name, mask in start.masks.items():
        assert abs(np.corrcoef(mask.ravel(), trunk.masks[name].ravel())[0, 1]) < 4 / np.sqrt(mask.size)
        for axis in (0, 1):  # connections per unit are not kept
            assert (mask.sum(axis) != trunk.masks[name].sum(axis)).any()
    a, b = (STARTS[r].start(trunk).masks["fc1.weight"].ravel() for r in ("random_mask", "random_mask_reinit"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


@pytest.mark.parametrize("rule", ["reinit", "random_mask_reinit", "one_shot_reinit"])
def test_fresh_weights_are_the_initialisations(trunk: Trunk, rule: str) -> None:
    start = STARTS[rule].start(trunk)
    weights = start.weights["fc1.weight"][start.masks["fc1.weight"]]
    assert weights.std() == pytest.approx(np.sqrt(2 / 804), rel=0.05)  # of any weight, not of those that survived
    assert not any(start.weights[bias(n)].any() for n in start.masks)


@pytest.mark.parametrize(("rule", "source"), [("one_shot", "dense"), ("prune_at_init", "initial")])
def test_pruned_at_once_by_magnitude(trunk: Trunk, rule: str, source: str) -> None:
    start = STARTS[rule].start(trunk)
    for name, mask in start.masks.items():
        magnitude = np.abs(getattr(trunk, source)[name])
        assert magnitude[mask].min() >= magnitude[~mask].max()
        if rule == "one_shot":
            assert not same(mask, STARTS["prune_at_init"].start(trunk).masks[name])
    if rule == "one_shot":
        fresh_too = STARTS["one_shot_reinit"].start(trunk)
        assert all(same(start.masks[n], fresh_too.masks[n]) for n in start.masks)


def test_continuing_starts_from_the_level_before_masked_biases_too(trunk: Trunk) -> None:
    start = starts.continue_(trunk)
    assert all(same(start.weights[n], w) for n, w in masks.apply(trunk.before, trunk.masks).items())
    assert not any(same(trunk.before[n], trunk.dense[n]) for n in trunk.initial)


def test_reinit_from_ticket_draws_from_the_layers_survivors_with_replacement(trunk: Trunk) -> None:
    start = starts.reinit_from_ticket(trunk)
    for name, mask in trunk.masks.items():
        survivors, drawn = trunk.initial[name][mask], start.weights[name][mask]
        assert set(drawn) <= set(survivors)
        assert len(set(drawn)) / len(set(survivors)) == pytest.approx(1 - np.exp(-1), abs=0.15)


@pytest.mark.parametrize("multiple", [0.5, 1, 2, 3])
def test_noise_is_as_wide_as_it_says(trunk: Trunk, multiple: float) -> None:
    start = STARTS[f"noise_{multiple:g}"].start(trunk)
    for name in ("fc1.weight", "fc2.weight"):
        mask = trunk.masks[name]
        z = (start.weights[name] - trunk.initial[name])[mask] / trunk.initial[name].std() / multiple
        assert z.std() == pytest.approx(1, abs=4 / np.sqrt(2 * mask.sum()))
        assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(mask.sum()))


def test_layers_that_lost_everything_are_no_special_case(trunk: Trunk) -> None:
    empty = replace(trunk, masks={n: np.zeros_like(m) for n, m in trunk.masks.items()})
    for rule in STARTS.values():
        start = rule.start(empty)
        assert not any(start.masks[n].any() or start.weights[n].any() for n in empty.masks)
