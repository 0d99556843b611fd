"""The kernels' vector operations in LLVM: what `vectors` computes in NumPy, held in registers.

Plain numba loops keep an accumulator in memory; these intrinsics make it an LLVM vector, which LLVM lays out in
whatever registers the machine has: 64 floats are 4 registers of AVX-512, 8 of AVX2, 16 of SSE. Each operation computes
what its twin in `vectors` does, which has its docstring; with the JIT off the twin takes its place.
"""

from functools import partial

import numpy as np

from lottery.engines.sparse import vectors
from lottery.engines.sparse.doors import (
    AVX512,
    FLOAT,
    INT32,
    INT64,
    JIT,
    X86,
    Vector,
    as_bytes,
    as_pointers,
    call,
    data,
    intrinsic,
    ir,
    local,
    pointer,
    types,
)
from lottery.engines.sparse.vectors import BY2, BY4, LANES, SQUARE

_X64 = Vector(LANES)
_LLVM_X64 = ir.VectorType(FLOAT, LANES)


def operation(build):
    """An operation for kernels: `build` is given the arguments' types, and returns the signature and what emits the
    code. With the JIT off its twin of the same name."""
    return intrinsic(build) if JIT else getattr(vectors, build.__name__)


def _floats(lanes):
    return ir.VectorType(FLOAT, lanes)


def _lanes(numbers):
    """An index for shuffle_vector."""
    return ir.Constant(ir.VectorType(INT32, len(numbers)), list(numbers))


def _constant(vector, x):
    """x, rounded to float32, in every lane."""
    return ir.Constant(vector, [float(np.float32(x))] * vector.count)


def _splat(builder, x, lanes):
    vector = ir.VectorType(x.type, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, x, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, _lanes([0] * lanes))


def _fma(builder, x, v, w):
    return call(builder, f"llvm.fmuladd.v{w.type.count}f32", w.type, [x, v, w])


# ---- memory ----------------------------------------------------------------------------------------------------------


def _load(context, builder, array_type, array, index, lanes):
    place = pointer(context, builder, array_type, array, index, lanes)
    return builder.load(place, align=array_type.dtype.bitwidth // 8)


def _loading(lanes):
    def load(typingctx, a, i):
        def codegen(context, builder, signature, arguments):
            loaded = _load(context, builder, signature.args[0], *arguments, lanes)
            if loaded.type == _floats(lanes):
                return loaded
            whole = builder.zext(loaded, ir.VectorType(INT32, lanes))
            return builder.sitofp(whole, _floats(lanes))  # signed: one instruction, where unsigned takes several

        return Vector(lanes)(a, types.intp), codegen

    return intrinsic(load) if JIT else vectors.loading(lanes)


def _splatting(lanes):
    def splat(typingctx, x):
        def codegen(context, builder, signature, arguments):
            return _splat(builder, arguments[0], lanes)

        return Vector(lanes)(types.float32), codegen

    return intrinsic(splat) if JIT else vectors.splatting(lanes)


load_x4, load_x16, load_x32, load_x64 = map(_loading, (4, 16, 32, 64))
load_by2, load_by4 = _loading(BY2), _loading(BY4)
splat_x16, splat_x32, splat_x64 = map(_splatting, (16, 32, 64))
splat_by2, splat_by4 = _splatting(BY2), _splatting(BY4)


@operation
def store(typingctx, a, i, v):
    def codegen(context, builder, signature, arguments):
        place = pointer(context, builder, signature.args[0], *arguments[:2], signature.args[2].lanes)
        builder.store(arguments[2], place, align=4)
        return context.get_dummy_value()

    return types.void(a, types.intp, v), codegen


@operation
def get(typingctx, a, i):
    # numba's own indexing first looks whether i is negative, which costs as much as the rest
    def codegen(context, builder, signature, arguments):
        return builder.load(builder.gep(data(context, builder, signature.args[0], arguments[0]), [arguments[1]]))

    return a.dtype(a, types.intp), codegen


@operation
def put(typingctx, a, i, x):
    def codegen(context, builder, signature, arguments):
        place = builder.gep(data(context, builder, signature.args[0], arguments[0]), [arguments[1]])
        builder.store(arguments[2], place)
        return context.get_dummy_value()

    return types.void(a, types.intp, a.dtype), codegen


@operation
def prefetch(typingctx, a, i):
    def codegen(context, builder, signature, arguments):
        place = builder.gep(data(context, builder, signature.args[0], arguments[0]), [arguments[1]])
        how = [ir.Constant(INT32, x) for x in (0, 2, 1)]  # to read, second level, data
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [as_bytes(builder, place), *how])
        return context.get_dummy_value()

    return types.void(a, types.intp), codegen


@operation
def gather_x16(typingctx, a, indices, i):
    def codegen(context, builder, signature, arguments):
        a, indices, i = arguments
        whole, result = ir.VectorType(INT64, 16), _floats(16)
        offsets = builder.zext(_load(context, builder, signature.args[1], indices, i, 16), whole)
        begin = builder.ptrtoint(data(context, builder, signature.args[0], a), INT64)
        in_bytes = builder.shl(offsets, ir.Constant(whole, [2] * 16))  # four bytes each
        operands = [
            as_pointers(builder, builder.add(_splat(builder, begin, 16), in_bytes)),
            ir.Constant(INT32, 4),  # the alignment
            ir.Constant(ir.VectorType(ir.IntType(1), 16), [1] * 16),  # all lanes
            ir.Constant(result, ir.Undefined),
        ]
        return call(builder, "llvm.masked.gather.v16f32.v16p0", result, operands)

    return Vector(16)(a, indices, types.intp), codegen


# ---- lane by lane ----------------------------------------------------------------------------------------------------


@operation
def fma(typingctx, x, v, w):
    def codegen(context, builder, signature, arguments):
        x, v, w = arguments
        return _fma(builder, x if x.type == w.type else _splat(builder, x, w.type.count), v, w)

    return w(x if isinstance(x, Vector) else types.float32, v, w), codegen


@operation
def relu(typingctx, v):
    def codegen(context, builder, signature, arguments):
        zero = _constant(arguments[0].type, 0)
        return builder.select(builder.fcmp_ordered("<", arguments[0], zero), zero, arguments[0])

    return v(v), codegen


@operation
def where_positive(typingctx, condition, v):
    def codegen(context, builder, signature, arguments):
        zero = _constant(arguments[0].type, 0)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), arguments[1], zero)

    return v(condition, v), codegen


@operation
def maximum(typingctx, v, w):
    def codegen(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return v(v, w), codegen


@operation
def multiply(typingctx, v, w):
    def codegen(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return v(v, w), codegen


@operation
def divide(typingctx, x, v):
    def codegen(context, builder, signature, arguments):
        return builder.fdiv(_splat(builder, arguments[0], arguments[1].type.count), arguments[1])

    return v(types.float32, v), codegen


@operation
def exp_difference(typingctx, v, w):
    # 2^n · exp(r) with n whole and |r| ≤ ln 2 / 2, exp(r) by its Taylor series to r^7
    def codegen(context, builder, signature, arguments):
        vector = arguments[0].type
        whole, constant = ir.VectorType(INT32, vector.count), partial(_constant, vector)
        x = builder.fsub(*arguments)
        x = builder.select(builder.fcmp_ordered("<", x, constant(-87)), constant(-87), x)
        of_two = builder.fmul(x, constant(1.4426950408889634))
        n = call(builder, f"llvm.rint.v{vector.count}f32", vector, [of_two])
        r = _fma(builder, n, constant(-0.693359375), x)  # ln 2 in two parts, the first exact in few bits
        r = _fma(builder, n, constant(2.12194440e-4), r)
        series = constant(1 / 5040)
        for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1):
            series = _fma(builder, series, r, constant(factor))
        power = builder.add(builder.fptosi(n, whole), ir.Constant(whole, [127] * vector.count))
        power = builder.bitcast(builder.shl(power, ir.Constant(whole, [23] * vector.count)), vector)
        return builder.fmul(series, power)

    return v(v, w), codegen


# ---- across lanes ----------------------------------------------------------------------------------------------------


def _part(builder, v, start, width):
    """v[start : start + width]"""
    return builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), _lanes(range(start, start + width)))


def _halved(builder, v):
    """Lanes added in halves until one is left, in one fixed order on every machine."""
    while v.type.count > 1:
        half = v.type.count // 2
        v = builder.fadd(_part(builder, v, 0, half), _part(builder, v, half, half))
    return builder.extract_element(v, ir.Constant(INT32, 0))


def _products(builder, v, w):
    """Σ v · w of the lanes that are 16 apart: 16 sums."""
    v, w = ([_part(builder, x, 16 * k, 16) for k in range(4)] for x in (v, w))

    def pair(k):
        return _fma(builder, v[k + 1], w[k + 1], builder.fmul(v[k], w[k]))

    return builder.fadd(pair(0), pair(2))  # two chains, so that one's latency hides the other's


@operation
def dot(typingctx, v, w):
    def codegen(context, builder, signature, arguments):
        return _halved(builder, _products(builder, *arguments))

    return types.float32(_X64, _X64), codegen


@operation
def dots(typingctx, v, w0, w1, w2, w3):
    # each the same to the bit as `dot`'s: halving four together takes half the shuffles of halving each
    def codegen(context, builder, signature, arguments):
        v, *ws = arguments
        sums = [_products(builder, v, w) for w in ws]
        for width in (8, 4):  # two vectors become one: the halves of each, added, side by side
            low = [start + i for start in range(0, 32, 2 * width) for i in range(width)]
            high = [i + width for i in low]
            sums = [
                builder.fadd(builder.shuffle_vector(a, b, _lanes(low)), builder.shuffle_vector(a, b, _lanes(high)))
                for a, b in zip(sums[::2], sums[1::2], strict=True)
            ]
        (four,) = sums
        for width in (2, 1):
            turned = _lanes([4 * (i // 4) + (i % 4 + width) % 4 for i in range(16)])
            four = builder.fadd(four, builder.shuffle_vector(four, four, turned))
        return builder.shuffle_vector(four, four, _lanes([0, 4, 8, 12]))

    return Vector(4)(_X64, _X64, _X64, _X64, _X64), codegen


@operation
def total(typingctx, v):
    def codegen(context, builder, signature, arguments):
        parts = [_part(builder, arguments[0], 8 * k, 8) for k in range(8)]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return _halved(builder, parts[0])

    return types.float32(_X64), codegen


# ---- bits, one for each of 64 lanes ----------------------------------------------------------------------------------


@operation
def nonzero(typingctx, v):
    def codegen(context, builder, signature, arguments):
        condition = builder.fcmp_unordered("!=", arguments[0], _constant(_LLVM_X64, 0))  # unordered: NaN is not 0
        return builder.bitcast(condition, INT64)

    return types.int64(_X64), codegen


@operation
def nonzero_bytes(typingctx, a, i):
    def codegen(context, builder, signature, arguments):
        codes = _load(context, builder, signature.args[0], *arguments, LANES)
        return builder.bitcast(builder.icmp_unsigned("!=", codes, ir.Constant(codes.type, [0] * LANES)), INT64)

    return types.int64(a, types.intp), codegen


@operation
def lowest_bit(typingctx, bits):
    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


@operation
def clear_lowest(typingctx, bits):
    def codegen(context, builder, signature, arguments):
        return builder.and_(arguments[0], builder.sub(arguments[0], ir.Constant(INT64, 1)))

    return types.int64(types.int64), codegen


@operation
def keep_bits(typingctx, bits, v):
    def codegen(context, builder, signature, arguments):
        condition = builder.bitcast(arguments[0], ir.VectorType(ir.IntType(1), LANES))
        return builder.select(condition, arguments[1], _constant(_LLVM_X64, 0))

    return _X64(types.int64, _X64), codegen


# ---- Adam ------------------------------------------------------------------------------------------------------------


def _exact_quotient(builder, m, v, root, epsilon):
    """m / (sqrt(v) · root + epsilon)"""
    below = _fma(builder, call(builder, f"llvm.sqrt.v{v.type.count}f32", v.type, [v]), root, epsilon)
    return builder.fdiv(m, below)


def _quick_quotient(builder, m, v, root, epsilon):
    """The same to a unit or two in the last place, from AVX-512's estimates (2^-14) and a step of Newton's for each:
    its square root and division take 34 cycles, this takes 10."""
    constant = partial(_constant, v.type)

    def estimate(name, x):
        return call(builder, f"llvm.x86.avx512.{name}.ps.512", x.type, [x, x, ir.Constant(ir.IntType(16), -1)])

    def rest_of(x, y, z):
        """z - x · y"""
        return _fma(builder, builder.fneg(x), y, z)

    some = builder.select(builder.fcmp_ordered("<", v, constant(1e-37)), constant(1e-37), v)  # 1 / sqrt(0) is infinite
    inverse = estimate("rsqrt14", some)
    rough = builder.fmul(v, inverse)
    rough = _fma(builder, builder.fmul(rough, constant(0.5)), rest_of(rough, inverse, constant(1)), rough)
    below = _fma(builder, rough, root, epsilon)
    inverse = estimate("rcp14", below)
    quotient = builder.fmul(m, inverse)
    return _fma(builder, rest_of(quotient, below, m), inverse, quotient)


@operation
def adam(typingctx, w, m, v, i, g, step):
    fields = ("decay", "beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "size", "root", "epsilon")

    def codegen(context, builder, signature, arguments):
        w, m, v, i, g, step = arguments
        width = 16 if AVX512 else 8  # lanes of a register: all 64 would not fit
        w, m, v = (pointer(context, builder, signature.args[k], arguments[k], i, width) for k in range(3))
        places = [signature.args[5].fields.index(name) for name in fields]
        scalars = (builder.extract_value(step, place) for place in places)
        decay, b1, a1, b2, a2, size, root, epsilon = (_splat(builder, x, width) for x in scalars)
        quotient = _quick_quotient if AVX512 else _exact_quotient
        parts = []
        for k in range(LANES // width):
            places = [builder.gep(x, [ir.Constant(INT64, k)]) for x in (w, m, v)]
            wk, mk, vk = (builder.load(place, align=4) for place in places)
            gk = _fma(builder, decay, wk, _part(builder, g, width * k, width))
            mk = _fma(builder, b1, mk, builder.fmul(a1, gk))
            vk = _fma(builder, b2, vk, builder.fmul(builder.fmul(a2, gk), gk))
            wk = builder.fsub(wk, quotient(builder, builder.fmul(size, mk), vk, root, epsilon))
            for x, place in zip((wk, mk, vk), places, strict=True):
                builder.store(x, place, align=4)
            parts.append(wk)
        while len(parts) > 1:
            both = _lanes(range(2 * parts[0].type.count))
            parts = [builder.shuffle_vector(a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    return _X64(w, m, v, types.intp, _X64, step), codegen


# ---- transposition ---------------------------------------------------------------------------------------------------


def _transposed(builder, rows):
    """As many vectors as each has lanes, transposed. A perfect shuffle of them all, laid end to end, moves the row's
    number one bit towards the column's."""
    size = len(rows)
    halves = [_lanes([begin + k // 2 + k % 2 * size for k in range(size)]) for begin in (0, size // 2)]
    for _ in range(size.bit_length() - 1):
        pairs = zip(rows[: size // 2], rows[size // 2 :], strict=True)
        rows = [builder.shuffle_vector(*pair, half) for pair in pairs for half in halves]
    return rows


@operation
def transpose_square(typingctx, a, i, stride_a, b, j, stride_b):
    def codegen(context, builder, signature, arguments):
        a, i, stride_a, b, j, stride_b = arguments

        def place(array, array_type, start, stride, k):
            index = builder.add(start, builder.mul(stride, ir.Constant(INT64, k)))
            return pointer(context, builder, array_type, array, index, SQUARE)

        rows = [builder.load(place(a, signature.args[0], i, stride_a, k), align=4) for k in range(SQUARE)]
        for k, row in enumerate(_transposed(builder, rows)):
            builder.store(row, place(b, signature.args[3], j, stride_b, k), align=4)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, b, types.intp, types.intp), codegen


@operation
def transpose_bytes(typingctx, a, places, i, p, b, j):
    def codegen(context, builder, signature, arguments):
        a, places, i, p, b, j = arguments
        begins = data(context, builder, signature.args[1], places)
        rows = []
        for k in range(16):
            begin = builder.load(builder.gep(begins, [builder.add(i, ir.Constant(INT64, k))]))
            place = pointer(context, builder, signature.args[0], a, builder.add(begin, p), 16)
            rows.append(builder.load(place, align=1))
        for k, row in enumerate(_transposed(builder, rows)):
            index = builder.add(j, ir.Constant(INT64, k * LANES))
            builder.store(row, pointer(context, builder, signature.args[4], b, index, 16), align=1)
        return context.get_dummy_value()

    return types.void(a, places, types.intp, types.intp, b, types.intp), codegen


# ---- subnormal numbers -----------------------------------------------------------------------------------------------

FLUSH = 0x8040
"""The bits of MXCSR that take subnormal operands for zero, and make results zero."""


@operation
def control(typingctx):
    def codegen(context, builder, signature, arguments):
        word = local(builder, ir.Constant(INT32, 0))
        if X86:
            call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [as_bytes(builder, word)])
        return builder.load(word)

    return types.uint32(), codegen


@operation
def set_control(typingctx, word):
    def codegen(context, builder, signature, arguments):
        if X86:
            call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [as_bytes(builder, local(builder, arguments[0]))])
        return context.get_dummy_value()

    return types.void(types.uint32), codegen
