"""Numba's private doors: everything here that numba and llvmlite do not document, and nothing of it anywhere else.

Kernels need five things that numba keeps to itself: what the processor can do, where an array's data begins, typed
pointers into it, LLVM's own functions by name, and the files of the compiled cache. `DOORS` lists them; `closed` says
which of them an installed numba no longer has.
"""

import pickle
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock
from llvmlite import ir
from numba import config, njit, types
from numba.core import caching, cgutils, options, registry
from numba.extending import intrinsic as intrinsic  # for simd
from numba.extending import models, register_model

from lottery.engines import optimizers
from lottery.errors import LotteryError

JIT = not config.DISABLE_JIT
"""Whether kernels are compiled: not under NUMBA_DISABLE_JIT, where Python runs them, with the twins in `vectors`."""

X86 = platform.machine().lower() in ("x86_64", "amd64")


def _features() -> str:
    return registry.cpu_target.target_context.codegen()._tm_features


def _has(feature: str) -> bool:
    try:
        return JIT and feature in _features()
    except AttributeError:  # a closed door: narrower registers, the same results but for rounding
        return False


AVX512 = _has("+avx512f")

FLOAT, INT32, INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


# ---- vectors and arrays, inside intrinsics ---------------------------------------------------------------------------


class Vector(types.Type):
    """Numba's type of a vector of float32: as many as it has lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    """An LLVM vector, which LLVM lays out in whatever registers the machine has."""

    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(FLOAT, fe_type.lanes))


def data(context, builder, array_type, array):
    """Pointer to an array's first element."""
    return context.make_array(array_type)(context, builder, array).data


def pointer(context, builder, array_type, array, index, lanes):
    """Pointer to the vector array.flat[index : index + lanes], of what the array has."""
    element = builder.gep(data(context, builder, array_type, array), [index])
    return builder.bitcast(element, ir.VectorType(element.type.pointee, lanes).as_pointer())


def as_bytes(builder, place):
    """The same pointer, to bytes: as LLVM's own functions take it."""
    return builder.bitcast(place, ir.IntType(8).as_pointer())


def as_pointers(builder, addresses):
    """A vector of addresses, int64, as pointers to floats."""
    return builder.inttoptr(addresses, ir.VectorType(FLOAT.as_pointer(), addresses.type.count))


def call(builder, name, result, arguments):
    """A call of LLVM's function of that name."""
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def local(builder, value):
    """Pointer to a variable on the stack that begins as that value."""
    return cgutils.alloca_once_value(builder, value)


# ---- the compiled cache ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def sources() -> bytes | None:
    """SHA-256 of all that kernels are compiled from: this folder's files, and the optimizers' constants.

    Numba looks at the text of a kernel's own file alone: kernels compiled with other vectors or constants would go on
    being used. None where the files cannot be read, as in a zip: then nothing is kept.
    """
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(optimizers.__file__)]
    try:
        digests = [sha256(file.name.encode()).digest() + sha256(file.read_bytes()).digest() for file in files]
    except OSError:
        return None
    return sha256(b"".join(digests)).digest() if len(digests) > 1 else None


class Checked(getattr(caching, "IndexDataCacheFile", object)):
    """Numba's files of one compiled kernel, each behind its SHA-256: a damaged one, which could raise anything or end
    the process, is as good as none. It is compiled and written again."""

    def _dump(self, value):
        stored = super()._dump(value)
        return sha256(stored).digest() + stored

    def _read(self, path):
        """The value that `_dump` was given. Raises OSError for a file that is missing or damaged."""
        stored = Path(path).read_bytes()
        if sha256(stored[32:]).digest() != stored[:32]:
            raise OSError(f"{path} is damaged")
        return pickle.loads(stored[32:])

    def _save_index(self, overloads):
        with self._open_for_write(self._index_path) as file:
            file.write(self._dump((self._version, self._source_stamp, overloads)))

    def _load_index(self):
        try:
            *made_by, overloads = self._read(self._index_path)
        except OSError:
            return {}
        return overloads if made_by == [self._version, self._source_stamp] else {}

    def _load_data(self, name):
        return self._read(self._data_path(name))  # numba compiles where this raises OSError

    def save(self, key, data):
        with suppress(OSError):  # a full disk: it will be compiled again next time
            super().save(key, data)


def jit(function):
    """Compiles a kernel, or loads what was compiled from the same sources."""
    settings = {"nogil": True, "error_model": "numpy"}
    if sources() is None:
        return njit(**settings)(function)
    try:
        compiled = njit(cache=True, **settings)(function)
        if JIT:
            cache = compiled._cache
            cache._cache_file = Checked(cache.cache_path, f"{cache._impl.filename_base}.checked", sources())
    except (RuntimeError, AttributeError, TypeError):  # no folder that it may write to, or a door is closed
        return njit(**settings)(function)
    return compiled


def inline(function):
    """A function that LLVM must make part of each kernel that calls it: for what is called for every 64 weights and too
    long to be inlined of LLVM's own accord, so that vectors would go through memory. Not numba's own inline="always",
    which counts references to arrays at each call."""
    return njit(forceinline=True, error_model="numpy")(function)


def cache_folder(kernel: Any) -> Path | None:
    """The folder in which that kernel is kept once it is compiled; None where it is kept nowhere."""
    path = getattr(getattr(kernel, "_cache", None), "cache_path", None)  # numba tells it nowhere else
    return path and Path(path)


def is_kept(kernel: Any) -> bool:
    """Whether that kernel was compiled from these sources, and can be loaded."""
    return cache_folder(kernel) is not None and bool(kernel._cache._cache_file._load_index())


@contextmanager
def alone(kernel: Any) -> Iterator[None]:
    """Makes other processes wait that compile that kernel, and those kept beside it. Where nothing can be kept, each
    compiles for itself. Raises LotteryError where compiling fails behind a closed door."""
    with ExitStack() as stack:
        if (folder := cache_folder(kernel)) is not None:
            with suppress(OSError):  # a folder that became read-only, another user's lock
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / "lottery.lock"))
        try:
            yield
        except Exception as error:
            if not (shut := closed()):
                raise
            raise LotteryError(
                f"numba {numba.__version__} lacks what the sparse engine needs ({'; '.join(shut)}): "
                "install an older numba, or use --engine torch"
            ) from error


# ---- which doors are open --------------------------------------------------------------------------------------------


def _builder() -> ir.IRBuilder:
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [FLOAT.as_pointer()]), "f")
    return ir.IRBuilder(function.append_basic_block())


def _open_array() -> None:
    array = types.Array(types.float32, 1, "C")
    context, builder = registry.cpu_target.target_context, _builder()
    value = ir.Constant(context.get_value_type(array), ir.Undefined)
    assert data(context, builder, array, value).type.pointee == FLOAT


def _open_typed_pointers() -> None:
    builder = _builder()
    element = builder.gep(builder.function.args[0], [ir.Constant(INT64, 1)])
    vector = builder.bitcast(element, ir.VectorType(element.type.pointee, 4).as_pointer())
    assert builder.load(vector, align=4).type == ir.VectorType(FLOAT, 4)


def _open_functions() -> None:
    builder = _builder()
    call(builder, "llvm.sqrt.f32", FLOAT, [builder.load(local(builder, ir.Constant(FLOAT, 1.0)))])


def _open_vectors() -> None:
    context = registry.cpu_target.target_context
    assert context.get_value_type(Vector(16)) == ir.VectorType(FLOAT, 16)


def _open_cache() -> None:
    for name in ("_dump", "_open_for_write", "_data_path", "_load_data", "_load_index", "_save_index", "load", "save"):
        getattr(caching.IndexDataCacheFile, name)
    files = caching.IndexDataCacheFile("folder", "name", b"stamp")
    assert (files._version, files._source_stamp) == (numba.__version__, b"stamp")
    assert Path(files._index_path).parent.name == "folder"


def _open_dispatcher() -> None:
    try:
        cache = njit(cache=True)(_features)._cache
    except RuntimeError:  # no folder that numba may write to
        return
    assert cache._cache_file
    assert isinstance(cache.cache_path, str)
    assert isinstance(cache._impl.filename_base, str)


DOORS: dict[str, Callable[[], object]] = {
    "the processor's features, codegen()._tm_features": _features,
    "an array's data, make_array(...).data": _open_array,
    "typed pointers, .type.pointee": _open_typed_pointers,
    "LLVM's functions, cgutils.get_or_insert_function": _open_functions,
    "vectors as values, extending.register_model": _open_vectors,
    "the compiled cache's files, caching.IndexDataCacheFile": _open_cache,
    "a kernel's cache, Dispatcher._cache": _open_dispatcher,
    "inlining by force, njit(forceinline=True)": lambda: options.DefaultOptions.forceinline,
}
"""What numba and llvmlite keep to themselves -> a function that raises where they no longer have it."""


def closed() -> list[str]:
    """Names of the `DOORS` that the installed numba and llvmlite do not have; empty as a rule."""
    shut = []
    for name, look in DOORS.items():
        try:
            look()
        except Exception:  # whatever a later version raises instead
            shut.append(name)
    return shut
