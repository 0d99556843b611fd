"""Vectors of 64 floats for numba kernels: one row of 64 images, or 64 outputs, held in registers.

Plain numba loops keep an accumulator in memory; these intrinsics make it an LLVM vector, which LLVM lays out in
whatever registers the machine has (4 of AVX-512, 8 of AVX2, 16 of SSE). With the JIT off they are NumPy on slices.

Axes: v is a vector [64]; a is a flat contiguous float32 array, i the index of the first of 64 elements in it.
"""

import platform

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 64
"""Images in a row, and lanes of the vectors that the kernels use."""

GROUP = 16
"""Images in a group, and lanes of the short vectors, whose operations end in 16."""

JIT = not config.DISABLE_JIT

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
        """a[i : i + lanes]"""

        def codegen(context, builder, signature, arguments):
            return builder.load(_pointer(context, builder, signature.args[0], *arguments, lanes), align=4)

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


load, store, splat, fma, relu = _operations(LANES)
load16, store16, splat16, fma16, relu16 = _operations(GROUP)


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


def _sum(builder, eight):
    """Lanes of 8 added pairwise, in one fixed order on every machine."""
    for width in (4, 2, 1):
        halves = [_part(builder, eight, s, width) for s in (0, width)]
        eight = builder.fadd(*halves)
    return builder.extract_element(eight, ir.Constant(ir.IntType(32), 0))


@intrinsic
def dot(typingctx, v, w):
    """Σ v · w"""

    def codegen(context, builder, signature, arguments):
        v, w = arguments
        pair = [None, None]  # two chains, so that one's latency hides the other's
        for k in range(8):
            a, b = (_part(builder, x, 8 * k, 8) for x in (v, w))
            chain = pair[k % 2]
            pair[k % 2] = (
                builder.fmul(a, b) if chain is None else _call(builder, "llvm.fmuladd.v8f32", a.type, [a, b, chain])
            )
        return _sum(builder, builder.fadd(*pair))

    return types.float32(_VECTOR, _VECTOR), codegen


@intrinsic
def total(typingctx, v):
    """Σ v"""

    def codegen(context, builder, signature, arguments):
        parts = [_part(builder, arguments[0], 8 * k, 8) for k in range(8)]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return _sum(builder, parts[0])

    return types.float32(_VECTOR), codegen


@intrinsic
def keep(typingctx, mask, i, v):
    """v where the uint8 mask[i : i + 64] is not 0, else 0"""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        of_bytes = ir.VectorType(ir.IntType(8), LANES)
        kept = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), of_bytes.as_pointer()), align=1)
        condition = builder.icmp_unsigned("!=", kept, ir.Constant(of_bytes, [0] * LANES))
        return builder.select(condition, arguments[2], ir.Constant(_LLVM, [0.0] * LANES))

    return _VECTOR(mask, types.intp, _VECTOR), codegen


@intrinsic
def adam(typingctx, w, m, v, i, g, constants):
    """One step of Adam for the 64 weights at i, with gradient g; returns the new weights.

    constants: float32 tuple (decay, beta1, 1 - beta1, beta2, 1 - beta2, step size, root, epsilon):
    g += decay · w; m, v the moving means of g and g²; w -= step size · m / (sqrt(v) · root + epsilon).
    """

    def codegen(context, builder, signature, arguments):
        eight = ir.VectorType(_FLOAT, 8)
        w, m, v = (_pointer(context, builder, signature.args[k], arguments[k], arguments[3]) for k in range(3))
        w, m, v = (builder.bitcast(x, eight.as_pointer()) for x in (w, m, v))
        scalars = [builder.extract_value(arguments[5], k) for k in range(8)]
        decay, b1, a1, b2, a2, size, root, epsilon = (_part(builder, _splat(builder, x), 0, 8) for x in scalars)

        def fused(x, y, z):
            return _call(builder, "llvm.fmuladd.v8f32", eight, [x, y, z])

        parts = []
        for k in range(LANES // 8):  # eight lanes at a time: all 64 would not fit the registers
            at = [builder.gep(x, [ir.Constant(ir.IntType(64), k)]) for x in (w, m, v)]
            wk, mk, vk = (builder.load(x, align=4) for x in at)
            gk = fused(decay, wk, _part(builder, arguments[4], 8 * k, 8))
            mk = fused(b1, mk, builder.fmul(a1, gk))
            vk = fused(b2, vk, builder.fmul(builder.fmul(a2, gk), gk))
            below = fused(_call(builder, "llvm.sqrt.v8f32", eight, [vk]), root, epsilon)
            wk = builder.fsub(wk, builder.fdiv(builder.fmul(size, mk), below))
            for x, place in zip((wk, mk, vk), at, strict=True):
                builder.store(x, place, align=4)
            parts.append(wk)
        while len(parts) > 1:
            width = parts[0].type.count
            both = ir.Constant(ir.VectorType(ir.IntType(32), 2 * width), list(range(2 * width)))
            parts = [builder.shuffle_vector(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return _VECTOR(w, m, v, types.intp, _VECTOR, constants), codegen


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

    def _slices(lanes):
        def load(a, i):
            return a[i : i + lanes].copy()

        def store(a, i, v):
            a[i : i + lanes] = v

        def splat(x):
            return np.full(lanes, x, np.float32)

        def fma(x, v, w):
            return np.float32(x) * v + w

        def relu(v):
            return np.maximum(v, np.float32(0))

        return load, store, splat, fma, relu

    load, store, splat, fma, relu = _slices(LANES)
    load16, store16, splat16, fma16, relu16 = _slices(GROUP)

    def active(v):
        return sum(1 << int(i) for i in np.flatnonzero(v))

    def lowest(bits):
        return (bits & -bits).bit_length() - 1

    def rest(bits):
        return bits & (bits - 1)

    def largest(v, w):
        return np.where(v > w, v, w)

    def multiply(v, w):
        return v * w

    def divide(x, v):
        return x / v

    def exp_difference(v, w):
        return np.exp(np.maximum(v - w, np.float32(-87)))

    def where_positive(condition, v):
        return np.where(condition > 0, v, np.float32(0))

    def dot(v, w):
        return np.dot(v, w)

    def total(v):
        return v.sum()

    def keep(mask, i, v):
        return np.where(mask[i : i + LANES] != 0, v, np.float32(0))

    def adam(w, m, v, i, g, constants):
        decay, b1, a1, b2, a2, size, root, epsilon = constants
        at = slice(i, i + LANES)
        g = g + decay * w[at]
        m[at] = b1 * m[at] + a1 * g
        v[at] = b2 * v[at] + a2 * g * g
        w[at] -= size * m[at] / (np.sqrt(v[at]) * root + epsilon)
        return w[at].copy()

    def control():
        return 0

    def set_control(word):
        pass
