"""Masks and the selector: exact counts, ties, nesting, and what is defined at the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lottery import masks, models
from lottery.criteria import rates
from lottery.errors import LotteryError
from lottery.spec import Model, Pruning


def test_select_removes_the_lowest_scores() -> None:
    scores = {"w": np.array([[4.0, 1.0], [3.0, 2.0]])}
    kept = {"w": np.ones((2, 2), bool)}
    out = masks.select(scores, kept, {"w": 0.5}, "layer")
    np.testing.assert_array_equal(out["w"], [[True, False], [True, False]])


def test_ties_leave_in_order_of_index() -> None:
    out = masks.select({"w": np.zeros(6)}, {"w": np.ones(6, bool)}, {"w": 0.5}, "layer")
    np.testing.assert_array_equal(out["w"], [False, False, False, True, True, True])


def test_pruned_weights_do_not_compete() -> None:
    kept = np.array([False, False, True, True])
    out = masks.select({"w": np.array([0.0, 0.0, 5.0, 4.0])}, {"w": kept}, {"w": 0.5}, "layer")
    np.testing.assert_array_equal(out["w"], [False, False, True, False])


def test_counts_round_half_to_even() -> None:
    for kept, expected in ((1, 0), (3, 2), (5, 2), (7, 4)):  # half of them: 0.5, 1.5, 2.5, 3.5
        out = masks.select({"w": np.arange(kept)}, {"w": np.ones(kept, bool)}, {"w": 0.5}, "layer")
        assert kept - out["w"].sum() == expected


def test_lenet_loses_exactly_the_papers_weights() -> None:
    """235,200 -> 188,160 and not 188,159, as cut-offs by `>` have it; constant scores lose no whole layer."""
    shapes = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "fc3.weight": (10, 100)}
    kept = {n: np.ones(s, bool) for n, s in shapes.items()}
    rates = {"fc1.weight": 0.2, "fc2.weight": 0.2, "fc3.weight": 0.1}
    out = masks.select({n: np.full(s, 0.1) for n, s in shapes.items()}, kept, rates, "layer")
    assert {n: int(m.sum()) for n, m in out.items()} == {"fc1.weight": 188160, "fc2.weight": 24000, "fc3.weight": 900}


def test_global_scope_lets_layers_compete() -> None:
    scores = {"a": np.array([1.0, 2.0]), "b": np.array([[10.0], [20.0]])}
    kept = {"a": np.ones(2, bool), "b": np.ones((2, 1), bool)}
    out = masks.select(scores, kept, {"a": 0.5, "b": 0.5}, "global")
    assert not out["a"].any()
    assert out["b"].all()
    assert out["b"].shape == (2, 1)


def test_layers_at_rate_0_do_not_compete_in_global_scope() -> None:
    """The rate is that of the others' weights: half of 4, though b's are the smallest. b stays, pruned ones too."""
    scores = {"a": np.array([1.0, 4.0]), "b": np.array([[0.0], [0.5], [0.1]]), "c": np.array([3.0, 2.0, 9.0])}
    kept = {"a": np.ones(2, bool), "b": np.array([[True], [False], [True]]), "c": np.array([True, True, False])}
    out = masks.select(scores, kept, {"a": 0.5, "b": 0.0, "c": 0.5}, "global")
    np.testing.assert_array_equal(out["a"], [False, True])
    np.testing.assert_array_equal(out["c"], [True, False, False])
    np.testing.assert_array_equal(out["b"], kept["b"])
    assert not np.shares_memory(out["b"], kept["b"])
    assert list(out) == ["a", "b", "c"]


def test_resnet_20_loses_a_fifth_of_its_convolutions_and_no_output_weight() -> None:
    """Exactly, however the scores are tied: 270,256 convolutional weights, and 640 of the output layer."""
    network = models.network(Model("resnet-20"), (3, 32, 32), 10)
    kept = {n: np.ones(network.tensors[n].shape, bool) for n in network.prunable}
    chosen = rates(Pruning(scope="global", layer_rates={"fc.*": 0}), kept)
    scores = {n: np.full(m.shape, 0.0 if n == "fc.weight" else 1.0, np.float32) for n, m in kept.items()}
    left = 270_256
    for _ in range(3):
        kept = masks.select(scores, kept, chosen, "global")
        left -= round(0.2 * left)
        assert kept["fc.weight"].all()
        assert sum(int(m.sum()) for m in kept.values()) == left + 640


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    scores = {"fc1.weight": np.array([1.0, bad])}
    with pytest.raises(LotteryError, match=r"fc1\.weight"):
        masks.select(scores, {"fc1.weight": np.ones(2, bool)}, {"fc1.weight": 0.5}, "layer")
    masks.select(scores, {"fc1.weight": np.array([True, False])}, {"fc1.weight": 0.5}, "layer")  # pruned: no matter


SHAPES = array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6)


@given(st.data(), st.lists(SHAPES, min_size=1, max_size=3), st.floats(0, 1), st.sampled_from(["layer", "global"]))
def test_selection_properties(data: st.DataObject, shapes: list[tuple[int, ...]], rate: float, scope: str) -> None:
    """Counts are exact, nothing comes back, what leaves scores no higher than what stays; inputs are untouched. Layers
    at rate 0 stay as they are."""
    small = st.integers(-3, 3).map(float)  # few values: many ties
    scores = {str(i): data.draw(arrays(np.float32, s, elements=small)) for i, s in enumerate(shapes)}
    kept = {str(i): data.draw(arrays(bool, s)) for i, s in enumerate(shapes)}
    before = {n: m.copy() for n, m in kept.items()}
    chosen = {n: data.draw(st.sampled_from([rate, 0.0])) for n in kept}
    out = masks.select(scores, kept, chosen, scope)
    for n in kept:
        assert chosen[n] or (out[n] == kept[n]).all()
    pruned = [n for n in kept if chosen[n]]
    groups = [[n] for n in pruned] if scope == "layer" or not pruned else [pruned]
    for group in groups:
        total = sum(int(kept[n].sum()) for n in group)
        assert sum(int(out[n].sum()) for n in group) == total - round(rate * total)
        gone = np.concatenate([scores[n][kept[n] & ~out[n]] for n in group])
        stay = np.concatenate([scores[n][out[n]] for n in group])
        if gone.size and stay.size:
            assert gone.max() <= stay.min()
    for n in kept:
        assert not (out[n] & ~kept[n]).any()
        np.testing.assert_array_equal(kept[n], before[n])
        assert not np.shares_memory(out[n], kept[n])


@given(st.data(), SHAPES)
def test_pack_and_back(data: st.DataObject, shape: tuple[int, ...]) -> None:
    mask = data.draw(arrays(bool, shape))
    packed = masks.pack(mask)
    assert packed.nbytes == -(-mask.size // 8)
    np.testing.assert_array_equal(masks.unpack(packed, shape), mask)


def test_packed_masks_never_change() -> None:
    """Published tickets are read by these bytes: row after row, the first weight in the highest bit."""
    mask = np.array([[True, False, False, False, False], [True, True, False, False, True]])
    assert masks.pack(mask).tobytes() == b"\x86\x40"
    np.testing.assert_array_equal(masks.unpack(np.array([0x86, 0x40], np.uint8), (2, 5)), mask)


def test_unpack_refuses_another_shape() -> None:
    with pytest.raises(LotteryError, match="does not fit"):
        masks.unpack(masks.pack(np.ones(9, bool)), (3, 9))


def test_apply_copies_and_zeroes() -> None:
    weights = {"w": np.array([-1.0, 2.0, 0.0], np.float32), "b": np.array([3.0], np.float32)}
    out = masks.apply(weights, {"w": np.array([False, True, True])})
    assert out["w"].tobytes() == np.array([0.0, 2.0, 0.0], np.float32).tobytes()  # +0.0, not -0.0
    for name in weights:
        assert not np.shares_memory(out[name], weights[name])
        assert out[name].dtype == np.float32


@pytest.mark.parametrize("moved", [1e-30, -1e-30, -1.0, np.nan, -np.inf])
def test_a_pruned_weight_that_is_not_zero_is_caught(moved: float) -> None:
    """One of many, whatever it became; kept weights may be anything."""
    weights = {"fc1.weight": np.array([[0.5, 0.0, -3.0]], np.float32), "fc1.bias": np.ones(1, np.float32)}
    kept = {"fc1.weight": np.array([[True, False, False]])}
    with pytest.raises(LotteryError, match=r"1 pruned weights of fc1\.weight are not 0"):
        masks.check_applied(weights | {"fc1.weight": np.array([[0.5, 0.0, moved]], np.float32)}, kept)
    masks.check_applied(weights, {"fc1.weight": np.array([[True, False, True]])})


def test_density_counts_the_mask_not_the_values() -> None:
    assert masks.density({"a": np.array([True, False]), "b": np.ones(6, bool)}) == 7 / 8
