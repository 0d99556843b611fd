"""Streams are what their names say, and nothing else."""

from itertools import combinations

import numpy as np

from lottery.seeds import stream


def test_streams_depend_on_their_name_alone() -> None:
    first = stream(0, 0, "order", 3, 7).permutation(100)
    stream(0, 0, "order", 3, 6).random(1000)
    np.testing.assert_array_equal(first, stream(0, 0, "order", 3, 7).permutation(100))


def test_names_that_differ_anywhere_give_other_streams() -> None:
    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 0, "a", 0), (0, 0, "a", 1), (0, 0)]
    draws = [stream(*key).random(4) for key in keys]
    assert all((a != b).any() for a, b in combinations(draws, 2))


def test_streams_never_change() -> None:
    """Published results are found again by their seed: a golden value."""
    assert stream(0, 0, "weights").integers(0, 1000, 5).tolist() == [626, 485, 519, 747, 310]
