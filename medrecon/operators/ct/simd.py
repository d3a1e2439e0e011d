"""Vectors of sixteen numbers inside numba kernels.

The inner loops of the shear-sum projector keep sums in registers over many lines. LLVM does not find
that by itself, since the sums live in arrays that might overlap; with values of a vector type there
is nothing to find. A vector is LLVM's ``<16 x float>`` or ``<16 x double>``, which every processor
supports with the registers it has.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Numbers in a vector."""


class _Vector(types.Type):
    """The numba type of a vector."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        super().__init__(name=f"Vector({element})")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    """A vector is one LLVM value."""

    def __init__(self, manager: Any, kind: Any) -> None:  # noqa: ANN401 (numba's types)
        super().__init__(manager, kind, _llvm_type(kind.element))


def _llvm_type(element: Any) -> ir.Type:  # noqa: ANN401 (numba's types)
    return ir.VectorType(ir.FloatType() if element == types.float32 else ir.DoubleType(), LANES)


def _pointer(context: Any, builder: Any, signature: Any, array: Any, index: Any) -> Any:  # noqa: ANN401 (llvmlite's values)
    """Return the address of array[index] as that of a vector."""
    kind = signature.args[0]
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    at = context.cast(builder, index, signature.args[1], types.intp)
    return builder.bitcast(builder.gep(data, [at]), _llvm_type(kind.dtype).as_pointer())


def _bytes(signature: Any) -> int:  # noqa: ANN401 (numba's types)
    return 4 if signature.args[0].dtype == types.float32 else 8


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:  # noqa: ANN401, ARG001 (numba's protocol)
    """Return the vector array[index : index + 16] of a contiguous one-dimensional array."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.load(_pointer(context, builder, signature, *args), align=_bytes(signature))

    return _Vector(array.dtype)(array, index), code


@intrinsic
def zeros(typingctx: Any, array: Any) -> Any:  # noqa: ANN401, ARG001 (numba's protocol)
    """Return a vector of zeros of the type of the array."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        return ir.Constant(_llvm_type(array.dtype), [0.0] * LANES)

    return _Vector(array.dtype)(array), code


@intrinsic
def store(typingctx: Any, array: Any, index: Any, vector: Any) -> Any:  # noqa: ANN401, ARG001 (numba's protocol)
    """Write a vector to array[index : index + 16]."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        builder.store(args[2], _pointer(context, builder, signature, *args[:2]), align=_bytes(signature))
        return context.get_dummy_value()

    return types.void(array, index, vector), code


@intrinsic
def add_scaled(typingctx: Any, total: Any, weight: Any, vector: Any) -> Any:  # noqa: ANN401, ARG001 (numba's protocol)
    """Return total + weight · vector."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        kind = _llvm_type(total.element)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), args[1], ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        weights = builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)
        suffix = "f32" if total.element == types.float32 else "f64"
        name = f"llvm.fmuladd.v{LANES}{suffix}"
        fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(fused, [weights, args[2], args[0]])

    return total(total, weight, vector), code


@intrinsic
def add(typingctx: Any, a: Any, b: Any) -> Any:  # noqa: ANN401, ARG001 (numba's protocol)
    """Return the sum of two vectors."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.fadd(*args)

    return a(a, b), code
