"""Vectors of 64 floats for numba kernels: one row of 64 images, or 64 outputs, held in registers.

Plain numba loops keep an accumulator in memory; these intrinsics make it an LLVM vector, which LLVM lays out in
whatever registers the machine has (4 of AVX-512, 8 of AVX2, 16 of SSE). With the JIT off they are NumPy on slices.

Axes: v is a vector [64]; a is a flat contiguous float32 array, i the index of the first of 64 elements in it.
"""

import platform
from functools import partial

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

LANES = 64
"""Images in a row, and lanes of the vectors that the kernels use."""

GROUP = 32
"""Images evaluated together; lanes of the vectors whose operations end in _group."""

JIT = not config.DISABLE_JIT

AVX512 = JIT and "+avx512f" in cpu_target.target_context.codegen()._tm_features  # numba tells it nowhere else

PART = LANES if AVX512 else 16
"""Lanes of the vectors whose operations end in _part: of these, the registers hold four sums and what they need."""

TWICE = LANES if AVX512 else 32
"""Lanes of the vectors whose operations end in _twice: of these, the registers hold two sums."""

SLICE = 16
"""Units whose weights lie together for prediction, or examples predicted together; lanes of the vectors whose
operations end in _slice."""

_FLOAT = ir.FloatType()


class _Vector(types.Type):
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(_FLOAT, fe_type.lanes))


_VECTOR = _Vector(LANES)
_LLVM = ir.VectorType(_FLOAT, LANES)


def _pointer(context, builder, array_type, array, index, lanes=LANES):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(_FLOAT, lanes).as_pointer())


def _load(context, builder, array_type, array, index, lanes=LANES):
    """array[index : index + lanes], a vector of what the array has."""
    place = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
    vector = ir.VectorType(place.type.pointee, lanes)
    return builder.load(builder.bitcast(place, vector.as_pointer()), align=array_type.dtype.bitwidth // 8)


def _call(builder, name, result, arguments):
    function = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _splat(builder, x, lanes=LANES):
    undefined = ir.Constant(ir.VectorType(_FLOAT, lanes), ir.Undefined)
    one = builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _operations(lanes):
    """load, store, splat, fma and relu for vectors of that many lanes."""
    vector = _Vector(lanes)
    llvm = ir.VectorType(_FLOAT, lanes)

    @intrinsic
    def load(typingctx, a, i):
        """a[i : i + lanes], as floats, of float32 or uint8"""

        def codegen(context, builder, signature, arguments):
            loaded = _load(context, builder, signature.args[0], *arguments, lanes)
            if loaded.type == llvm:
                return loaded
            whole = builder.zext(loaded, ir.VectorType(ir.IntType(32), lanes))
            return builder.sitofp(whole, llvm)  # of signed numbers: one instruction, where unsigned ones take several

        return vector(a, types.intp), codegen

    @intrinsic
    def store(typingctx, a, i, v):
        """a[i : i + lanes] = v"""

        def codegen(context, builder, signature, arguments):
            place = _pointer(context, builder, signature.args[0], *arguments[:2], lanes)
            builder.store(arguments[2], place, align=4)
            return context.get_dummy_value()

        return types.void(a, types.intp, vector), codegen

    @intrinsic
    def splat(typingctx, x):
        """x in every lane"""

        def codegen(context, builder, signature, arguments):
            return _splat(builder, arguments[0], lanes)

        return vector(types.float32), codegen

    @intrinsic
    def fma(typingctx, x, v, w):
        """x · v + w for a scalar x; fused where the machine can"""

        def codegen(context, builder, signature, arguments):
            operands = [_splat(builder, arguments[0], lanes), *arguments[1:]]
            return _call(builder, f"llvm.fmuladd.v{lanes}f32", llvm, operands)

        return vector(types.float32, vector, vector), codegen

    @intrinsic
    def relu(typingctx, v):
        """max(v, 0); NaN stays NaN, so that a broken network shows in its loss"""

        def codegen(context, builder, signature, arguments):
            zero = ir.Constant(llvm, [0.0] * lanes)
            return builder.select(builder.fcmp_ordered("<", arguments[0], zero), zero, arguments[0])

        return vector(vector), codegen

    return load, store, splat, fma, relu


def _slices(lanes):
    """The same with the JIT off."""

    def load(a, i):
        return a[i : i + lanes].astype(np.float32)

    def store(a, i, v):
        a[i : i + lanes] = v

    def splat(x):
        return np.full(lanes, x, np.float32)

    def fma(x, v, w):
        return np.float32(x) * v + w

    def relu(v):
        return np.maximum(v, np.float32(0))

    return load, store, splat, fma, relu


_of = _operations if JIT else _slices
load, store, splat, fma, relu = _of(LANES)
load_group, store_group, splat_group, fma_group, relu_group = _of(GROUP)
load_part, store_part, splat_part, fma_part, relu_part = _of(PART)
load_twice, store_twice, splat_twice, fma_twice, _ = _of(TWICE)
load_slice, store_slice, splat_slice, fma_slice, relu_slice = _of(SLICE)
load4, store4, _, fma4, _ = _of(4)


@intrinsic
def at(typingctx, a, i):
    """a[i] for i ≥ 0: numba's own indexing first looks whether i is negative, which costs as much as the rest."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return a.dtype(a, types.intp), codegen


@intrinsic
def put(typingctx, a, i, x):
    """a[i] = x for i ≥ 0"""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store(arguments[2], builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(a, types.intp, a.dtype), codegen


@intrinsic
def prefetch(typingctx, a, i):
    """Asks for the cache line of a[i], and does not wait for it"""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        operands = [place, *(ir.Constant(ir.IntType(32), x) for x in (0, 2, 1))]  # to read, second level, data
        function = ir.FunctionType(ir.VoidType(), [x.type for x in operands])
        builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0"), operands)
        return context.get_dummy_value()

    return types.void(a, types.intp), codegen


@intrinsic
def gather_slice(typingctx, a, indices, i):
    """a[indices[i : i + SLICE]] for indices ≥ 0, int32"""

    def codegen(context, builder, signature, arguments):
        a, indices, i = arguments
        whole = ir.VectorType(ir.IntType(64), SLICE)
        offsets = builder.zext(_load(context, builder, signature.args[1], indices, i, SLICE), whole)
        begin = builder.ptrtoint(context.make_array(signature.args[0])(context, builder, a).data, ir.IntType(64))
        begins = builder.shuffle_vector(
            builder.insert_element(ir.Constant(whole, ir.Undefined), begin, ir.Constant(ir.IntType(32), 0)),
            ir.Constant(whole, ir.Undefined),
            ir.Constant(ir.VectorType(ir.IntType(32), SLICE), [0] * SLICE),
        )
        places = builder.add(begins, builder.shl(offsets, ir.Constant(whole, [2] * SLICE)))  # four bytes each
        llvm = ir.VectorType(_FLOAT, SLICE)
        operands = [
            builder.inttoptr(places, ir.VectorType(_FLOAT.as_pointer(), SLICE)),
            ir.Constant(ir.IntType(32), 4),  # the alignment
            ir.Constant(ir.VectorType(ir.IntType(1), SLICE), [1] * SLICE),  # all lanes
            ir.Constant(llvm, ir.Undefined),
        ]
        return _call(builder, f"llvm.masked.gather.v{SLICE}f32.v{SLICE}p0", llvm, operands)

    return _Vector(SLICE)(a, indices, types.intp), codegen


@intrinsic
def fma_slices(typingctx, v, w, x):
    """v · w + x for three vectors; fused where `fma_slice` is"""

    def codegen(context, builder, signature, arguments):
        return _call(builder, f"llvm.fmuladd.v{SLICE}f32", arguments[0].type, arguments)

    return v(v, w, x), codegen


@intrinsic
def where_positive(typingctx, condition, v):
    """v where condition > 0, else 0"""

    def codegen(context, builder, signature, arguments):
        zero = ir.Constant(_LLVM, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), arguments[1], zero)

    return _VECTOR(_VECTOR, _VECTOR), codegen


@intrinsic
def active(typingctx, v):
    """Bit i is whether v[i] is not 0: int64, to be taken apart by `lowest` and `rest`"""

    def codegen(context, builder, signature, arguments):
        condition = builder.fcmp_unordered("!=", arguments[0], ir.Constant(_LLVM, [0.0] * LANES))  # NaN is active
        return builder.bitcast(condition, ir.IntType(64))

    return types.int64(_VECTOR), codegen


@intrinsic
def marked(typingctx, a, i):
    """Bit j is whether a[i + j], uint8, is not 0: int64"""

    def codegen(context, builder, signature, arguments):
        codes = _load(context, builder, signature.args[0], *arguments)
        condition = builder.icmp_unsigned("!=", codes, ir.Constant(codes.type, [0] * LANES))
        return builder.bitcast(condition, ir.IntType(64))

    return types.int64(a, types.intp), codegen


@intrinsic
def lowest(typingctx, bits):
    """Number of the lowest bit that is set; bits must not be 0"""

    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@intrinsic
def rest(typingctx, bits):
    """bits without the lowest that is set"""

    def codegen(context, builder, signature, arguments):
        return builder.and_(arguments[0], builder.sub(arguments[0], ir.Constant(ir.IntType(64), 1)))

    return types.int64(types.int64), codegen


@intrinsic
def largest(typingctx, v, w):
    """The larger of each lane's two; w's where v's is not a number"""

    def codegen(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return _VECTOR(_VECTOR, _VECTOR), codegen


@intrinsic
def multiply(typingctx, v, w):
    """v · w"""

    def codegen(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return _VECTOR(_VECTOR, _VECTOR), codegen


@intrinsic
def divide(typingctx, x, v):
    """x / v for a scalar x"""

    def codegen(context, builder, signature, arguments):
        return builder.fdiv(_splat(builder, arguments[0]), arguments[1])

    return _VECTOR(types.float32, _VECTOR), codegen


@intrinsic
def exp_difference(typingctx, v, w):
    """exp(v - w) where v ≤ w, to 2e-7 of its value; differences below -87 count as -87.

    2^n · exp(r) with n whole and |r| ≤ ln 2 / 2, exp(r) by its Taylor series to r^7. NaN stays NaN.
    """

    def codegen(context, builder, signature, arguments):
        whole = ir.VectorType(ir.IntType(32), LANES)

        def constant(x):
            return ir.Constant(_LLVM, [float(np.float32(x))] * LANES)

        def fused(*operands):
            return _call(builder, f"llvm.fmuladd.v{LANES}f32", _LLVM, operands)

        x = builder.fsub(*arguments)
        x = builder.select(builder.fcmp_ordered("<", x, constant(-87)), constant(-87), x)
        n = _call(builder, f"llvm.rint.v{LANES}f32", _LLVM, [builder.fmul(x, constant(1.4426950408889634))])
        r = fused(n, constant(-0.693359375), x)  # ln 2 in two parts, the first exact in few bits
        r = fused(n, constant(2.12194440e-4), r)
        series = constant(1 / 5040)
        for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1):
            series = fused(series, r, constant(factor))
        power = builder.add(builder.fptosi(n, whole), ir.Constant(whole, [127] * LANES))
        power = builder.bitcast(builder.shl(power, ir.Constant(whole, [23] * LANES)), _LLVM)
        return builder.fmul(series, power)

    return _VECTOR(_VECTOR, _VECTOR), codegen


def _part(builder, v, start, width):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width)))
    return builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), mask)


def _halved(builder, v):
    """Lanes added in halves until one is left, in one fixed order on every machine."""
    while v.type.count > 1:
        half = v.type.count // 2
        v = builder.fadd(_part(builder, v, 0, half), _part(builder, v, half, half))
    return builder.extract_element(v, ir.Constant(ir.IntType(32), 0))


def _products(builder, v, w):
    """Σ v · w of the lanes that are 16 apart: 16 sums."""
    v, w = ([_part(builder, x, 16 * k, 16) for k in range(4)] for x in (v, w))

    def pair(k):
        first = builder.fmul(v[k], w[k])
        return _call(builder, "llvm.fmuladd.v16f32", first.type, [v[k + 1], w[k + 1], first])

    return builder.fadd(pair(0), pair(2))  # two chains, so that one's latency hides the other's


@intrinsic
def dot(typingctx, v, w):
    """Σ v · w"""

    def codegen(context, builder, signature, arguments):
        return _halved(builder, _products(builder, *arguments))

    return types.float32(_VECTOR, _VECTOR), codegen


@intrinsic
def dots(typingctx, v, w0, w1, w2, w3):
    """Σ v · w for four w: a vector [4], each the same to the bit as `dot`'s. Halving four together takes half the
    shuffles of halving each."""

    def codegen(context, builder, signature, arguments):
        v, *ws = arguments
        sums = [_products(builder, v, w) for w in ws]
        for width in (8, 4):  # two vectors become one: the halves of each, added, side by side
            lanes = 2 * width
            low = [start + i for start in range(0, 32, lanes) for i in range(width)]
            high = [i + width for i in low]
            index = [ir.Constant(ir.VectorType(ir.IntType(32), 16), x) for x in (low, high)]
            sums = [
                builder.fadd(*(builder.shuffle_vector(a, b, i) for i in index))
                for a, b in zip(sums[::2], sums[1::2], strict=True)
            ]
        (four,) = sums
        for width in (2, 1):
            index = [4 * (i // 4) + (i % 4 + width) % 4 for i in range(16)]
            moved = builder.shuffle_vector(four, four, ir.Constant(ir.VectorType(ir.IntType(32), 16), index))
            four = builder.fadd(four, moved)
        return builder.shuffle_vector(four, four, ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 4, 8, 12]))

    return _Vector(4)(_VECTOR, _VECTOR, _VECTOR, _VECTOR, _VECTOR), codegen


@intrinsic
def total(typingctx, v):
    """Σ v"""

    def codegen(context, builder, signature, arguments):
        parts = [_part(builder, arguments[0], 8 * k, 8) for k in range(8)]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return _halved(builder, parts[0])

    return types.float32(_VECTOR), codegen


@intrinsic
def keep(typingctx, bits, v):
    """v[i] where bit i of the int64 is set, else 0"""

    def codegen(context, builder, signature, arguments):
        condition = builder.bitcast(arguments[0], ir.VectorType(ir.IntType(1), LANES))
        return builder.select(condition, arguments[1], ir.Constant(_LLVM, [0.0] * LANES))

    return _VECTOR(types.int64, _VECTOR), codegen


def _exact_step(builder, fused, m, v, root, epsilon):
    """m / (sqrt(v) · root + epsilon)"""
    below = fused(_call(builder, f"llvm.sqrt.v{v.type.count}f32", v.type, [v]), root, epsilon)
    return builder.fdiv(m, below)


def _quick_step(builder, fused, m, v, root, epsilon):
    """The same to a unit or two in the last place, from AVX-512's estimates (2^-14) and a step of Newton's for each:
    its square root and division take 34 cycles, this takes 10."""

    def constant(x):
        return ir.Constant(v.type, [float(np.float32(x))] * 16)

    def estimate(name, x):
        operands = [x, x, ir.Constant(ir.IntType(16), -1)]
        return _call(builder, f"llvm.x86.avx512.{name}.ps.512", x.type, operands)

    def rest_of(x, y, z):
        """z - x · y"""
        return fused(builder.fneg(x), y, z)

    some = builder.select(builder.fcmp_ordered("<", v, constant(1e-37)), constant(1e-37), v)  # 1 / sqrt(0) is infinite
    inverse = estimate("rsqrt14", some)
    rough = builder.fmul(v, inverse)
    rough = fused(builder.fmul(rough, constant(0.5)), rest_of(rough, inverse, constant(1)), rough)
    below = fused(rough, root, epsilon)
    inverse = estimate("rcp14", below)
    quotient = builder.fmul(m, inverse)
    return fused(rest_of(quotient, below, m), inverse, quotient)


@intrinsic
def adam(typingctx, w, m, v, i, g, constants):
    """One step of Adam for the 64 weights at i, with gradient g; returns the new weights.

    constants: float32 tuple (decay, beta1, 1 - beta1, beta2, 1 - beta2, step size, root, epsilon):
    g += decay · w; m, v the moving means of g and g²; w -= step size · m / (sqrt(v) · root + epsilon).
    """

    def codegen(context, builder, signature, arguments):
        width = 16 if AVX512 else 8  # lanes of a register: all 64 would not fit
        llvm = ir.VectorType(_FLOAT, width)
        w, m, v = (_pointer(context, builder, signature.args[k], arguments[k], arguments[3]) for k in range(3))
        w, m, v = (builder.bitcast(x, llvm.as_pointer()) for x in (w, m, v))
        scalars = [builder.extract_value(arguments[5], k) for k in range(8)]
        decay, b1, a1, b2, a2, size, root, epsilon = (_splat(builder, x, width) for x in scalars)

        def fused(x, y, z):
            return _call(builder, f"llvm.fmuladd.v{width}f32", llvm, [x, y, z])

        steps = partial(_quick_step if AVX512 else _exact_step, builder, fused)
        parts = []
        for k in range(LANES // width):
            at = [builder.gep(x, [ir.Constant(ir.IntType(64), k)]) for x in (w, m, v)]
            wk, mk, vk = (builder.load(x, align=4) for x in at)
            gk = fused(decay, wk, _part(builder, arguments[4], width * k, width))
            mk = fused(b1, mk, builder.fmul(a1, gk))
            vk = fused(b2, vk, builder.fmul(builder.fmul(a2, gk), gk))
            wk = builder.fsub(wk, steps(builder.fmul(size, mk), vk, root, epsilon))
            for x, place in zip((wk, mk, vk), at, strict=True):
                builder.store(x, place, align=4)
            parts.append(wk)
        while len(parts) > 1:
            width = parts[0].type.count
            both = ir.Constant(ir.VectorType(ir.IntType(32), 2 * width), list(range(2 * width)))
            parts = [builder.shuffle_vector(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return _VECTOR(w, m, v, types.intp, _VECTOR, constants), codegen


SQUARE = 16 if AVX512 else 8
"""Rows, and columns, of what `square` transposes: the registers hold it."""


def _transposed(builder, rows):
    """As many vectors as each has lanes, transposed. A perfect shuffle of them all, laid end to end, moves the row's
    number one bit towards the column's."""
    size = len(rows)
    halves = [
        ir.Constant(ir.VectorType(ir.IntType(32), size), [begin + k // 2 + k % 2 * size for k in range(size)])
        for begin in (0, size // 2)
    ]
    for _ in range(size.bit_length() - 1):
        pairs = zip(rows[: size // 2], rows[size // 2 :], strict=True)
        rows = [builder.shuffle_vector(*pair, half) for pair in pairs for half in halves]
    return rows


@intrinsic
def square(typingctx, a, i, stride_a, b, j, stride_b):
    """b[j + column * stride_b + row] = a[i + row * stride_a + column], SQUARE rows and columns"""

    def codegen(context, builder, signature, arguments):
        a, i, stride_a, b, j, stride_b = arguments
        types_ = signature.args

        def place(array, array_type, start, stride, k):
            index = builder.add(start, builder.mul(stride, ir.Constant(ir.IntType(64), k)))
            return _pointer(context, builder, array_type, array, index, SQUARE)

        rows = [builder.load(place(a, types_[0], i, stride_a, k), align=4) for k in range(SQUARE)]
        for k, row in enumerate(_transposed(builder, rows)):
            builder.store(row, place(b, types_[3], j, stride_b, k), align=4)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, b, types.intp, types.intp), codegen


@intrinsic
def square_bytes(typingctx, a, places, i, p, b, j):
    """b.flat[j + column * 64 + row] = a.flat[places[i + row] + p + column], 16 rows and columns of uint8"""

    def codegen(context, builder, signature, arguments):
        a, places, i, p, b, j = arguments
        of_16 = ir.VectorType(ir.IntType(8), 16)

        def place(array, array_type, index):
            data = context.make_array(array_type)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), of_16.as_pointer())

        rows = []
        begins = context.make_array(signature.args[1])(context, builder, places).data
        for k in range(16):
            begin = builder.load(builder.gep(begins, [builder.add(i, ir.Constant(ir.IntType(64), k))]))
            rows.append(builder.load(place(a, signature.args[0], builder.add(begin, p)), align=1))
        for k, row in enumerate(_transposed(builder, rows)):
            index = builder.add(j, ir.Constant(ir.IntType(64), k * LANES))
            builder.store(row, place(b, signature.args[4], index), align=1)
        return context.get_dummy_value()

    return types.void(a, places, types.intp, types.intp, b, types.intp), codegen


X86 = platform.machine().lower() in ("x86_64", "amd64")
FLUSH = 0x8040  # the bits of MXCSR that take subnormal operands for zero, and make results zero


@intrinsic
def control(typingctx):
    """The thread's floating-point control word; 0 on machines where subnormal numbers cost nothing."""

    def codegen(context, builder, signature, arguments):
        word = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(32), 0))
        if X86:
            bytes_ = builder.bitcast(word, ir.IntType(8).as_pointer())
            _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [bytes_])
        return builder.load(word)

    return types.uint32(), codegen


@intrinsic
def set_control(typingctx, word):
    """Sets what `control` reads."""

    def codegen(context, builder, signature, arguments):
        if X86:
            bytes_ = builder.bitcast(cgutils.alloca_once_value(builder, arguments[0]), ir.IntType(8).as_pointer())
            _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [bytes_])
        return context.get_dummy_value()

    return types.void(types.uint32), codegen


if not JIT:

    def at(a, i):
        return a[i]

    def put(a, i, x):
        a[i] = x

    def prefetch(a, i):
        pass

    def active(v):
        return int(np.packbits(v != 0, bitorder="little").view(np.int64)[0])

    def marked(a, i):
        return active(a[i : i + LANES])

    def lowest(bits):
        bits = int(bits) % (1 << LANES)
        return (bits & -bits).bit_length() - 1

    def rest(bits):
        bits = int(bits) % (1 << LANES)
        return bits & (bits - 1)

    def largest(v, w):
        return np.where(v > w, v, w)

    def multiply(v, w):
        return v * w

    def divide(x, v):
        return x / v

    def exp_difference(v, w):
        return np.exp(np.maximum(v - w, np.float32(-87)))

    def gather_slice(a, indices, i):
        return a[indices[i : i + SLICE]]

    def fma_slices(v, w, x):
        return v * w + x

    def where_positive(condition, v):
        return np.where(condition > 0, v, np.float32(0))

    def dot(v, w):
        return np.dot(v, w)

    def dots(v, *ws):
        return np.array([np.dot(v, w) for w in ws])

    def total(v):
        return v.sum()

    def keep(bits, v):
        return np.where(np.unpackbits(np.int64([bits]).view(np.uint8), bitorder="little"), v, np.float32(0))

    def adam(w, m, v, i, g, constants):
        decay, b1, a1, b2, a2, size, root, epsilon = constants
        at = slice(i, i + LANES)
        g = g + decay * w[at]
        m[at] = b1 * m[at] + a1 * g
        v[at] = b2 * v[at] + a2 * g * g
        w[at] -= size * m[at] / (np.sqrt(v[at]) * root + epsilon)
        return w[at].copy()

    def square(a, i, stride_a, b, j, stride_b):
        for k in range(SQUARE):
            b[j + k * stride_b : j + k * stride_b + SQUARE] = a[i + k : i + k + SQUARE * stride_a : stride_a]

    def square_bytes(a, places, i, p, b, j):
        rows = np.array([a.flat[begin + p : begin + p + 16] for begin in places[i : i + 16]])
        for k in range(16):
            b.flat[j + k * LANES : j + k * LANES + 16] = rows[:, k]

    def control():
        return 0

    def set_control(word):
        pass
