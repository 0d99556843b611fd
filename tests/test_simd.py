"""Each vector operation of the sparse engine's kernels, alone, beside its twin in NumPy."""

import inspect
from collections.abc import Callable
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest
from numba import njit

from lottery.engines.sparse import doors, simd, vectors
from lottery.engines.sparse.simd import (
    adam,
    clear_lowest,
    divide,
    dot,
    dots,
    exp_difference,
    fma,
    gather_x16,
    get,
    keep_bits,
    load_by2,
    load_by4,
    load_x4,
    load_x16,
    load_x32,
    load_x64,
    lowest_bit,
    maximum,
    multiply,
    nonzero,
    nonzero_bytes,
    prefetch,
    put,
    relu,
    splat_by2,
    splat_by4,
    splat_x16,
    splat_x32,
    splat_x64,
    store,
    total,
    transpose_bytes,
    transpose_square,
    where_positive,
)
from lottery.engines.sparse.step import Step

pytestmark = pytest.mark.skipif(not doors.JIT, reason="without the JIT the twins are all there is")

LANES, SQUARE = vectors.LANES, vectors.SQUARE

FLOATS = {
    "load_x4": 0.0,
    "load_x16": 0.0,
    "load_x32": 0.0,
    "load_x64": 0.0,
    "load_by2": 0.0,
    "load_by4": 0.0,
    "load_x32, bytes": 0.0,
    "splat_x16": 0.0,
    "splat_x32": 0.0,
    "splat_x64": 0.0,
    "splat_by2": 0.0,
    "splat_by4": 0.0,
    "put": 0.0,
    "get": 0.0,
    "gather_x16": 0.0,
    "fma, scalar": 3e-7,
    "fma, vector": 3e-7,
    "relu": 0.0,
    "where_positive": 0.0,
    "maximum": 0.0,
    "multiply": 0.0,
    "divide": 0.0,
    "exp_difference": 3e-7,
    "dot": 1e-6,
    "dots": 1e-6,
    "total": 1e-6,
    "keep_bits": 0.0,
    "adam": 3e-7,
    "adam, w": 3e-7,
    "adam, m": 3e-7,
    "adam, v": 3e-7,
}
"""Row of `every_operation`'s floats -> how far from its twin's it may be, of the row's largest."""

BITS = ("nonzero", "nonzero_bytes", "lowest_bit", "clear_lowest", "clear_lowest, highest")
"""Entries of its whole numbers."""


# what numba compiles has types that mypy does not know
def every_operation(a, b, codes, indices, places, bits, parameters, step, out, whole, turned, turned_bytes):  # type: ignore[no-untyped-def]
    """Calls all operations once, with indices that are not aligned. out: float32, a row of 64 for each of FLOATS."""
    v, w = load_x64(a, 1), load_x64(b, 3)
    prefetch(a, 5)
    i = 0
    store(out, i, load_x4(a, 3))
    store(out, i + 64, load_x16(a, 3))
    store(out, i + 128, load_x32(a, 3))
    store(out, i + 192, load_x64(a, 3))
    store(out, i + 256, load_by2(a, 3))
    store(out, i + 320, load_by4(a, 3))
    store(out, i + 384, load_x32(codes, 3))
    i += 448
    store(out, i, splat_x16(a[1]))
    store(out, i + 64, splat_x32(a[1]))
    store(out, i + 128, splat_x64(a[1]))
    store(out, i + 192, splat_by2(a[1]))
    store(out, i + 256, splat_by4(a[1]))
    put(out, i + 325, a[2])
    out[i + 387] = get(a, 7)
    store(out, i + 448, gather_x16(a, indices, 2))
    i += 512
    store(out, i, fma(a[1], v, w))
    store(out, i + 64, fma(w, v, w))
    store(out, i + 128, relu(v))
    store(out, i + 192, where_positive(v, w))
    store(out, i + 256, maximum(v, w))
    store(out, i + 320, multiply(v, w))
    store(out, i + 384, divide(a[1], w))
    store(out, i + 448, exp_difference(v, maximum(v, w)))
    i += 512
    out[i] = dot(v, w)
    store(out, i + 64, dots(v, w, v, load_x64(b, 9), load_x64(a, 2)))
    out[i + 128] = total(v)
    store(out, i + 192, keep_bits(bits[0], v))
    i += 256
    store(out, i, adam(parameters[0], parameters[1], parameters[2], 2, w, step))
    for k in range(3):
        store(out, i + 64 + 64 * k, load_x64(parameters[k], 2))
    whole[0] = nonzero(load_x64(parameters[3], 0))
    whole[1] = nonzero_bytes(codes, 5)
    whole[2] = lowest_bit(bits[1])
    whole[3] = clear_lowest(bits[1])
    whole[4] = clear_lowest(bits[2])
    transpose_square(a, 3, 21, turned, 2, 19)
    transpose_bytes(codes, places, 1, 4, turned_bytes, 7)


def run(function: Callable[..., None]) -> SimpleNamespace:
    """What `function`, a form of `every_operation`, gives."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(400).astype(np.float32) for _ in range(2))
    moments = [rng.standard_normal(80), rng.standard_normal(80), rng.random(80), rng.standard_normal(80)]
    parameters = tuple(array.astype(np.float32) for array in moments)
    parameters[3][[1, 7, 63]] = [0, -0.0, np.nan]
    codes = np.where(rng.random(600) < 0.5, 0, rng.integers(0, 256, 600)).astype(np.uint8)
    results = SimpleNamespace(
        floats=np.zeros(64 * len(FLOATS), np.float32),
        whole=np.zeros(len(BITS), np.int64),
        turned=np.zeros(19 * 20, np.float32),
        turned_bytes=np.zeros(LANES * 17, np.uint8),
    )
    function(
        *(a, b, codes, rng.integers(0, 400, 20).astype(np.int32), rng.integers(0, 500, 20)),
        *(np.array([0x5A5A_0FF0_1234_8001 - (1 << 63), 0b1011000, -(1 << 63)]), parameters),
        Step(True, *map(np.float32, (0.01, 0.1, 0.5, 0.9, 0.1, 0.999, 0.001, 1.5, 1e-8))),
        *(results.floats, results.whole, results.turned, results.turned_bytes),
    )
    return results


@pytest.fixture(scope="module")
def ours() -> SimpleNamespace:
    return run(njit(every_operation))


@pytest.fixture(scope="module")
def twins() -> SimpleNamespace:
    """The same function, with the twins under the operations' names."""
    names = vars(vectors) | {"__builtins__": __builtins__}
    for kind, of_width in (("load", vectors.loading), ("splat", vectors.splatting)):
        for name, lanes in (
            ("x4", 4),
            ("x16", 16),
            ("x32", 32),
            ("x64", 64),
            ("by2", vectors.BY2),
            ("by4", vectors.BY4),
        ):
            names[f"{kind}_{name}"] = of_width(lanes)  # type: ignore[no-untyped-call]  # numba has no types
    return run(FunctionType(every_operation.__code__, names))


@pytest.mark.parametrize("row", FLOATS)
def test_floats(row: str, ours: SimpleNamespace, twins: SimpleNamespace) -> None:
    place = 64 * list(FLOATS).index(row)
    computed, expected = (results.floats[place : place + 64] for results in (ours, twins))
    assert expected.any()
    np.testing.assert_allclose(computed, expected, rtol=0, atol=FLOATS[row] * np.abs(expected).max())


@pytest.mark.parametrize("entry", BITS)
def test_bits(entry: str, ours: SimpleNamespace, twins: SimpleNamespace) -> None:
    place = BITS.index(entry)
    assert ours.whole[place] == twins.whole[place]
    assert twins.whole[place] or "highest" in entry


def test_transposition(ours: SimpleNamespace, twins: SimpleNamespace) -> None:
    assert np.count_nonzero(twins.turned) == SQUARE**2
    np.testing.assert_array_equal(ours.turned, twins.turned)
    assert np.count_nonzero(twins.turned_bytes) > 100
    np.testing.assert_array_equal(ours.turned_bytes, twins.turned_bytes)


def test_all_operations_are_compared() -> None:
    """Each has a twin, and a place above; but for those of the control word, which test_sparse.py tests."""
    named = {name for name in every_operation.__code__.co_names if hasattr(simd, name)}
    operations = {name for name, value in vars(simd).items() if type(value).__name__ == "_Intrinsic"}
    assert operations - named == {"control", "set_control"}
    twins = {name for name, value in vars(vectors).items() if inspect.isfunction(value)} - {"loading", "splatting"}
    assert twins <= operations
    assert all(name in twins or name.startswith(("load_", "splat_")) for name in operations)


def test_nan_stays_nan() -> None:
    """So that a broken network shows in its loss."""

    @njit
    def compute(a, out):  # type: ignore[no-untyped-def]  # compiled, as above
        v = simd.load_x64(a, 0)
        simd.store(out, 0, simd.relu(v))
        simd.store(out, 64, simd.exp_difference(v, simd.splat_x64(np.float32(1))))

    a, out = np.full(64, np.nan, np.float32), np.zeros(128, np.float32)
    compute(a, out)
    assert np.isnan(out).all()
