"""Criteria score, every registered one; patterns of rates; pruning refuses broken weights."""

import numpy as np
import pytest

from lottery import criteria
from lottery.errors import LotteryError
from lottery.seeds import stream
from lottery.spec import Pruning

NAMES = ["fc1.weight", "fc2.weight"]


def evidence(seed: int = 0) -> criteria.Evidence:
    rng = stream(seed)
    weights = [{n: rng.standard_normal((6, 5)).astype(np.float32) for n in NAMES} for _ in range(2)]
    return criteria.Evidence(weights[0], weights[1], {n: rng.random((6, 5)) < 0.8 for n in NAMES}, stream(seed, "c"))


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_every_criterion_scores_prunes_exactly_and_repeats(name: str) -> None:
    given = evidence()
    out = criteria.prune(given, Pruning(criterion=name, rate=0.3))
    again = criteria.prune(evidence(), Pruning(criterion=name, rate=0.3))
    for n, mask in given.masks.items():
        assert out[n].sum() == mask.sum() - round(0.3 * mask.sum())
        assert not (out[n] & ~mask).any()
        np.testing.assert_array_equal(out[n], again[n])


def test_magnitude_keeps_large_weights_of_both_signs() -> None:
    weights = {"fc1.weight": np.array([[-5.0, 0.1, 4.0, -0.2]], np.float32)}
    given = criteria.Evidence({}, weights, {"fc1.weight": np.ones((1, 4), bool)}, stream(0))
    out = criteria.prune(given, Pruning(rate=0.5))
    np.testing.assert_array_equal(out["fc1.weight"], [[True, False, True, False]])


def test_random_ignores_the_weights_and_depends_on_the_stream() -> None:
    given, other = evidence(), evidence(1)
    pruning = Pruning(criterion="random", rate=0.5)
    swapped = criteria.Evidence(given.trained, given.start, given.masks, stream(0, "c"))
    np.testing.assert_array_equal(
        criteria.prune(given, pruning)["fc1.weight"], criteria.prune(swapped, pruning)["fc1.weight"]
    )
    different = criteria.Evidence(given.start, given.trained, given.masks, other.rng)
    assert (criteria.prune(evidence(), pruning)["fc1.weight"] != criteria.prune(different, pruning)["fc1.weight"]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    given = evidence()
    given.trained["fc2.weight"][given.masks["fc2.weight"]] = bad
    with pytest.raises(LotteryError, match=r"fc2\.weight are NaN or infinite"):
        criteria.prune(given, Pruning())


def test_rates_by_pattern() -> None:
    assert criteria.rates(Pruning(rate=0.2, layer_rates={"fc2*": 0.1}), NAMES) == {"fc1.weight": 0.2, "fc2.weight": 0.1}


def test_global_scope_leaves_layers_at_rate_0_unpruned() -> None:
    given = evidence()
    kept = given.masks
    out = criteria.prune(given, Pruning(scope="global", rate=0.3, layer_rates={"fc2*": 0}))
    np.testing.assert_array_equal(out["fc2.weight"], kept["fc2.weight"])
    only = criteria.Evidence(given.start, given.trained, {"fc1.weight": kept["fc1.weight"]}, given.rng)
    alone = criteria.prune(only, Pruning(scope="global", rate=0.3))
    np.testing.assert_array_equal(out["fc1.weight"], alone["fc1.weight"])
    unpruned = criteria.prune(given, Pruning(scope="global", rate=0))
    for n, mask in kept.items():
        np.testing.assert_array_equal(unpruned[n], mask)


@pytest.mark.parametrize("rate", [1e-9, 0.2, 1.0])
def test_global_scope_has_one_rate(rate: float) -> None:
    with pytest.raises(
        LotteryError, match=r"layer_rates\['fc2\*'\] = .*: in global scope layers have one rate, or 0 to be"
    ):
        Pruning(scope="global", rate=0.2, layer_rates={"fc1*": 0, "fc2*": rate})


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"fc9*": 0.1}, r"'fc9\*' matches no layer; there are fc1\.weight, fc2\.weight"),
        ({"fc*": 0.1, "fc2*": 0.3}, r"'fc\*' and 'fc2\*' both match fc2\.weight"),
    ],
)
def test_patterns_that_match_nothing_or_twice_are_refused(patterns: dict[str, float], message: str) -> None:
    with pytest.raises(LotteryError, match=message):
        criteria.rates(Pruning(layer_rates=patterns), NAMES)


def test_unknown_criterion() -> None:
    with pytest.raises(LotteryError, match=r"unknown pruning\.criterion 'magnitud': choose from magnitude, random"):
        criteria.prune(evidence(), Pruning(criterion="magnitud"))
