"""What only the sparse engine promises: any machine, the JIT off, no subnormal numbers, kernels compiled once."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir
from numba.core import base, caching, cgutils, config, datamodel, options, registry

import lottery
from lottery import masks
from lottery.data import Images, Splits
from lottery.engines import optimizers, reference, sparse
from lottery.engines.sparse import csr, doors, layout, modes, training
from lottery.engines.sparse import images as pixels
from lottery.engines.sparse.training import train
from lottery.errors import LotteryError
from lottery.models.mlp import stack
from lottery.spec import Recipe
from lottery.starts import Moment, Start

sys.path.insert(0, str(Path(__file__).parent))  # the subprocesses below import this file's neighbours too
from test_engines import NETWORK, RECIPES, no_report, parts, start

SOURCE = Path(lottery.__file__).parent


def compare() -> None:
    """A few steps of each optimizer at each kind of density, beside the reference; says how often it compiled."""
    for recipe in RECIPES.values():
        recipe = replace(recipe, iterations=6, evaluate_every=3, batch_size=70)  # two blocks, the second partial
        for density, in_bytes in product((1.0, 0.4, 0.1), (False, True)):
            data, begin = parts(100, 7, 20, in_bytes=in_bytes), start(density)
            assert pixels.prepare(data).train.coded == in_bytes
            ours = train(NETWORK, data, begin, recipe, no_report)
            expected = reference.train(NETWORK, data, begin, recipe, no_report)
            for column, values in expected.history.items():
                np.testing.assert_allclose(ours.history[column], values, rtol=1e-5)
            for name, weight in expected.weights.items():
                np.testing.assert_allclose(ours.weights[name], weight, rtol=1e-3, atol=1e-5)
    print("compiled", sum(modes.train.stats.cache_misses.values()) if doors.JIT else 0)


def run_compare(environment: dict[str, str]) -> subprocess.Popen[str]:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_sparse; test_sparse.compare()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> int:
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return int(out.split()[-1])


def test_the_kernels_are_right_with_the_jit_off() -> None:
    assert finish(run_compare({"NUMBA_DISABLE_JIT": "1"})) == 0


CHANGES = {
    "optimizers.py": ("BETA1, BETA2 = 0.9, 0.999", "BETA1, BETA2 = 0.8, 0.999"),
    "sparse/vectors.py": ("LANES = 64", "LANES = 32 + 32"),
    "sparse/images.py": ("CHUNK = 196", "CHUNK = 195 + 1"),
}
"""File -> a line of it, and what it is changed to."""


COMPILE_ONE = """
import sys; sys.path.insert(0, sys.argv[1])
from lottery.engines.sparse import doors, step
assert step.__file__.startswith(sys.argv[1])
constants, stats = step.step_of(True, 1e-3, 0.0, 0.0, 1), step.step_of.stats
one_minus_beta1, key = round(constants.one_minus_beta1, 6), doors.sources().hex()
print(sum(stats.cache_misses.values()), sum(stats.cache_hits.values()), one_minus_beta1, key)
"""
"""Compiles one kernel, or loads it: prints which, Adam's 1 - beta1 as it is compiled in, and the key."""


@pytest.mark.skipif(not doors.JIT, reason="without the JIT nothing is compiled")
def test_kernels_compiled_from_other_sources_are_not_found(tmp_path: Path) -> None:
    """Numba looks at the text of step.py alone, and compiles in what comes from the others."""
    shutil.copytree(SOURCE, tmp_path / "lottery", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", COMPILE_ONE, str(tmp_path)]

    def found() -> list[str]:
        result = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    *compiled, key = found()
    assert compiled == ["1", "0", "0.1"]
    assert found() == ["0", "1", "0.1", key]
    keys = {key}
    for file, (line, other) in CHANGES.items():  # one after the other: only what was compiled last is kept
        path = tmp_path / "lottery" / "engines" / file
        before = path.read_text()
        assert before.count(f"\n{line}\n") == 1
        path.write_text(before.replace(line, other))
        *compiled, key = found()
        assert compiled == ["1", "0", "0.2"]
        assert key not in keys
        keys.add(key)


MODULE = """
def twice(a):
    return a + a
"""


def compile_twice(file: Path) -> tuple[int, bool]:
    """(2 + 2 as a kernel, whether it was compiled), by a dispatcher that is new, as in a new process."""
    spec = importlib.util.spec_from_file_location("twice", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = doors.jit(module.twice)  # type: ignore[no-untyped-call]  # numba has no types
    return kernel(2), sum(kernel.stats.cache_hits.values()) == 0


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "last byte cut": lambda data: data[:-1],
    **{f"byte {at} %": lambda data, at=at: _changed(data, len(data) * at // 100) for at in range(0, 100, 10)},  # type: ignore[misc]  # at, the default
}


def _changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


@pytest.mark.skipif(not doors.JIT, reason="without the JIT nothing is compiled")
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_damaged_kernel_is_compiled_again(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded as it is, it would raise what it likes, or end the process, at every start."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "twice.py").write_text(MODULE)
    assert compile_twice(tmp_path / "twice.py") == (4, True)
    for name, damage in DAMAGES.items():
        assert compile_twice(tmp_path / "twice.py") == (4, False)
        (path,) = (tmp_path / "cache").rglob(f"*.{ending}")
        path.write_bytes(damage(path.read_bytes()))
        assert compile_twice(tmp_path / "twice.py") == (4, True), name
    path.unlink()
    assert compile_twice(tmp_path / "twice.py") == (4, True)
    assert compile_twice(tmp_path / "twice.py") == (4, False)


@pytest.mark.skipif(not doors.JIT, reason="without the JIT nothing is compiled")
def test_without_a_folder_to_write_to_kernels_are_compiled_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with a read-only package and home. Files where folders should be stop even those whom no permission
    stops."""
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setenv("HOME", "/dev/null")
    (tmp_path / "__pycache__").write_text("no folder")
    (tmp_path / "twice.py").write_text(MODULE)
    for _ in range(2):
        assert compile_twice(tmp_path / "twice.py") == (4, True)
    for module in (doors, training):
        monkeypatch.setattr(module, "cache_folder", lambda kernel: None)
    assert sparse.slow_start().endswith("to keep them, set NUMBA_CACHE_DIR to a folder for them")
    with doors.alone(modes.train):
        pass


@pytest.mark.skipif(not doors.JIT, reason="without the JIT nothing is compiled")
def test_a_full_disk_costs_no_more_than_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    (tmp_path / "twice.py").write_text(MODULE)
    assert compile_twice(tmp_path / "twice.py") == (4, True)
    assert compile_twice(tmp_path / "twice.py") == (4, True)


def test_the_wait_for_the_compiler_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    training.compile_kernels()
    assert sparse.slow_start() == ""
    if doors.JIT:
        monkeypatch.setattr(modes.train._cache._cache_file, "_source_stamp", b"of other sources")
        assert sparse.slow_start() == "compiling the kernels, this once: half a minute"


@pytest.mark.skipif(not doors.JIT, reason="without the JIT nothing is compiled")
def test_all_kernels_are_found_by_one_key() -> None:
    """Each is compiled into those that call it."""
    files = sorted(Path(sparse.__file__).parent.glob("*.py"))
    modules = [importlib.import_module(f"lottery.engines.sparse.{file.stem}") for file in files]
    compiled = [kernel for module in modules for kernel in vars(module).values() if hasattr(kernel, "py_func")]
    kept = [kernel for kernel in compiled if doors.cache_folder(kernel)]
    assert len(set(kept)) > 30
    assert {kernel._cache._cache_file._source_stamp for kernel in kept} == {doors.sources()}
    assert {kernel.py_func.__name__ for kernel in set(compiled) - set(kept)} == {"take_step"}  # part of its callers


def test_sources_that_cannot_be_read_are_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a package that is a zip: kernels are compiled each time."""
    monkeypatch.setattr(optimizers, "__file__", "no such file")
    assert doors.sources.__wrapped__() is None
    monkeypatch.setattr(doors, "sources", lambda: None)
    kernel = doors.jit(compile_twice)  # type: ignore[no-untyped-call]  # numba has no types
    assert doors.cache_folder(kernel) is None


@pytest.mark.parametrize("door", doors.DOORS)
def test_numbas_private_doors_are_open(door: str) -> None:
    """Fails, with the door's name, under a numba or llvmlite that no longer has what the engine takes of it."""
    doors.DOORS[door]()


CLOSED: dict[str, tuple[object, str]] = {
    "the processor's features, codegen()._tm_features": (registry.cpu_target.target_context.codegen(), "_tm_features"),
    "an array's data, make_array(...).data": (base.BaseContext, "make_array"),
    "typed pointers, .type.pointee": (ir.Type, "as_pointer"),
    "LLVM's functions, cgutils.get_or_insert_function": (cgutils, "get_or_insert_function"),
    "vectors as values, extending.register_model": (datamodel.models.PrimitiveModel, "get_value_type"),
    "the compiled cache's files, caching.IndexDataCacheFile": (caching.IndexDataCacheFile, "_open_for_write"),
    "a kernel's cache, Dispatcher._cache": (caching.CacheImpl, "filename_base"),
    "inlining by force, njit(forceinline=True)": (options.DefaultOptions, "forceinline"),
}
"""Door -> what is taken away: (owner, name)."""


@pytest.mark.parametrize("door", CLOSED)
def test_a_closed_door_is_named(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(CLOSED) == list(doors.DOORS)
    assert doors.closed() == []
    monkeypatch.delattr(*CLOSED[door])
    assert door in doors.closed()


def test_kernels_that_cannot_be_compiled_say_which_door_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttributeError, match=r"^no such thing$"), doors.alone(modes.train):
        raise AttributeError("no such thing")  # all doors are open: whatever it is, it's not that
    monkeypatch.delattr(cgutils, "get_or_insert_function")
    words = (
        r"^numba .* lacks what the sparse engine needs \(LLVM's functions, cgutils.get_or_insert_function\): install"
    )
    with pytest.raises(LotteryError, match=words), doors.alone(modes.train):
        raise AttributeError("get_or_insert_function")


@pytest.mark.parametrize("mode", [layout.SPARSE, layout.MIXED, layout.DENSE])
def test_subnormal_numbers_are_flushed(mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam's moments of a weight whose gradient has become 0 decay by 0.9 a step: 10^-38 after some 800."""
    begin = start(1.0)
    begin.weights["fc1.bias"][:] = -100  # every unit of the first layer is dead: no gradient passes
    images = Images(np.zeros((16, 30), np.float32), np.zeros(16, np.int64))
    data, recipe, iterations = Splits(images, images, images), Recipe(batch_size=16), 2000
    monkeypatch.setattr(layout, "mode", lambda stack: mode)
    level = training._Level.of(NETWORK, recipe, pixels.prepare(data), begin, Moment(0, begin.weights))
    moments = [array for slots in level.slots.values() for array in slots]
    for array in moments:
        array[:] = 1e-30
    level.train([np.arange(16)] * iterations, np.full(iterations, 1e-3), 0, np.zeros(iterations))
    for array in moments:
        assert not ((array != 0) & (np.abs(array) < np.finfo(np.float32).tiny)).any()
    assert not moments[0][: NETWORK.sizes[1]].any()


def test_numbers_outside_the_kernels_are_left_as_they_were() -> None:
    train(NETWORK, parts(20, 5, 5), start(), RECIPES["adam"], no_report)
    assert np.float32(1e-38) * np.float32(0.1) != 0


def test_images_without_any_background(tmp_path: Path) -> None:
    """Nothing to skip: slower, and the same."""
    rng = np.random.default_rng(0)
    images = Images(rng.standard_normal((50, 30)).astype(np.float32), rng.integers(0, 4, 50))
    data, recipe = Splits(images, images, images), Recipe(iterations=10, evaluate_every=5, batch_size=20)
    for density in (1.0, 0.2):
        ours, expected = (f(NETWORK, data, start(density), recipe, no_report) for f in (train, reference.train))
        np.testing.assert_allclose(ours.history["test_loss"], expected.history["test_loss"], rtol=1e-5)


def test_wide_images() -> None:
    """More pixels than two bytes can number."""
    network = stack((70_000, 3, 2))
    x = np.zeros((8, 70_000), np.float32)
    x[np.arange(8), np.arange(8) * 9_999] = 1
    images = Images(x, np.arange(8) % 2)
    shapes = {"fc1.weight": (3, 70_000), "fc2.weight": (2, 3), "fc1.bias": (3,), "fc2.bias": (2,)}
    weights = {name: np.linspace(0.01, 0.1, np.prod(s), dtype=np.float32).reshape(s) for name, s in shapes.items()}
    kept = {n: np.ones(weights[n].shape, bool) for n in ("fc1.weight", "fc2.weight")}
    data, recipe = Splits(images, images, images), Recipe(iterations=3, evaluate_every=1, batch_size=4)
    begin = Start(weights, kept, (0,))
    ours, expected = (f(network, data, begin, recipe, no_report) for f in (train, reference.train))
    np.testing.assert_allclose(ours.history["test_loss"], expected.history["test_loss"], rtol=1e-5)


@pytest.mark.parametrize("recipe", ["adam", "adam, decay"])
def test_weights_that_lead_to_a_dead_end(recipe: str) -> None:
    """They are no work: their gradient is exactly 0. Weight decay moves them all the same."""
    begin = start(0.4)
    begin.masks["fc2.weight"][:, 3], begin.masks["fc3.weight"][:, 5] = False, False
    begin = Start(masks.apply(begin.weights, begin.masks), begin.masks, begin.order)
    data = parts(100, 10, 10)
    ours, expected = (f(NETWORK, data, begin, RECIPES[recipe], no_report).weights for f in (train, reference.train))
    for name, row in (("fc1.weight", 3), ("fc2.weight", 5)):
        kept = begin.masks[name][row]
        assert kept.any()
        moved = ours[name][row][kept] != begin.weights[name][row][kept]
        assert moved.all() if "decay" in recipe else not moved.any()
        np.testing.assert_allclose(ours[name][row], expected[name][row], rtol=1e-5, atol=1e-7)


def test_four_sums_are_each_to_the_bit_what_one_is() -> None:
    """Where a weight's gradient is computed, alone or with three others, changes nothing."""
    rng, begin = np.random.default_rng(0), start(0.4)
    net = layout.build_net(layout.Stack.of(NETWORK, begin.weights, begin.masks), layout.SPARSE)
    for array in (net.A, net.D):
        array[:] = rng.standard_normal(array.size)
    csr.gradients(net, False)
    together = net.w_g.copy()
    for u in range(net.units):
        for k in range(net.indptr[u], net.indptr[u + 1]):
            alone = net._replace(indptr=np.where(np.arange(net.indptr.size) <= u, k, k + 1))
            csr.gradients(alone, False)
            assert net.w_g[k] == together[k]
    assert np.count_nonzero(together) == net.indptr[-1] > 0
