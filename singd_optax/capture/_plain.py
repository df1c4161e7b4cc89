"""Whether a function that a layer is given in place of a product multiplies what it is given."""

from collections.abc import Callable
from typing import Any

import jax

from singd_optax.capture._dependence import Dependence, Known
from singd_optax.capture._origins import Origin
from singd_optax.capture._programs import read

_INPUTS, _KERNEL, _PRODUCT = range(3)


def multiplies_plainly(product: Callable[[Any, Any], Any], inputs: Any, kernel: Any) -> bool:
    """Whether a function is a product of inputs and kernel, but for casts and shardings.

    Args:
      product: Of the inputs and the kernel; one that quantizes or scales them is not plain.
      inputs: Arrays or types.
      kernel: Likewise.
    """
    program = jax.make_jaxpr(product)(inputs, kernel)
    types = [variable.aval for variable in program.jaxpr.invars]
    values = [
        Known(1 << place, origin=Origin(place, tuple(range(len(aval.shape)))))
        for place, aval in enumerate(types)
    ]
    outputs = read(program, values, _Product())
    return len(outputs) == 1 and _is(outputs[0], _PRODUCT)


def hands_on(promotion: Callable[[Any, Any], Any], inputs: Any, kernel: Any) -> bool:
    """Whether a function returns inputs and kernel as they are, but for casts.

    Args:
      promotion: Of the inputs and the kernel.
      inputs: Arrays or types.
      kernel: Likewise.
    """
    program = jax.make_jaxpr(promotion)(inputs, kernel)
    values = [
        Known(1 << place, origin=Origin(place, tuple(range(len(variable.aval.shape)))))
        for place, variable in enumerate(program.jaxpr.invars)
    ]
    outputs = read(program, values, Dependence())
    return len(outputs) == 2 and _is(outputs[0], _INPUTS) and _is(outputs[1], _KERNEL)


class _Product(Dependence):
    """Follows the product of the two inputs of a program."""

    def equation(self, equation: Any, inputs: list[Known]) -> list[Known]:
        """As for any primitive, but that the product has an origin of its own."""
        is_product = equation.primitive.name in ("dot_general", "conv_general_dilated")
        if is_product and _is(inputs[0], _INPUTS) and _is(inputs[1], _KERNEL):
            rank = len(equation.outvars[0].aval.shape)
            return [Known(origin=Origin(_PRODUCT, tuple(range(rank))))]
        return super().equation(equation, inputs)


def _is(value: Known, parameter: int) -> bool:
    origin = value.origin
    return (
        isinstance(origin, Origin)
        and origin.parameter == parameter
        and origin.axes == tuple(range(len(origin.axes)))
        and not origin.taken
        and not origin.is_mapped
    )
