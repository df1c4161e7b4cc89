"""Whether a function that a layer is given in place of a product multiplies what it is given."""

from collections.abc import Callable

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from singd_optax._types import PyTree
from singd_optax.capture._dataflow import run_dataflow
from singd_optax.capture._dependence import Dependence, DependenceAnalysis
from singd_optax.capture._jaxprs import array_type
from singd_optax.capture._origins import Origin

_INPUTS, _KERNEL, _PRODUCT = range(3)


def multiplies_plainly(
    product: Callable[[PyTree, PyTree], PyTree], inputs: PyTree, kernel: PyTree
) -> bool:
    """Whether a function is a product of inputs and kernel, but for casts and shardings.

    One that quantizes or scales them is not plain.
    """
    program = jax.make_jaxpr(product)(inputs, kernel)
    outputs = run_dataflow(program, _inputs_of(program), _Product())
    return len(outputs) == 1 and _is(outputs[0], _PRODUCT)


def hands_on(promotion: Callable[..., PyTree], *arrays: PyTree) -> bool:
    """Whether a function of arrays returns what it is given, but for casts, and None beside it."""
    program = jax.make_jaxpr(promotion)(*arrays)
    outputs = run_dataflow(program, _inputs_of(program), DependenceAnalysis())
    return len(outputs) == len(arrays) and all(map(_is, outputs, range(len(arrays))))


def _inputs_of(program: ClosedJaxpr) -> list[Dependence]:
    shapes = [array_type(variable).shape for variable in program.jaxpr.invars]
    return [
        Dependence(1 << place, origin=Origin(place, tuple(range(len(shape)))))
        for place, shape in enumerate(shapes)
    ]


class _Product(DependenceAnalysis):
    """Follows the product of the two inputs of a program."""

    def equation(self, equation: JaxprEqn, inputs: list[Dependence]) -> list[Dependence]:
        """What any primitive says, but that the product has an origin of its own."""
        is_product = equation.primitive.name in ("dot_general", "conv_general_dilated")
        if is_product and _is(inputs[0], _INPUTS) and _is(inputs[1], _KERNEL):
            rank = array_type(equation.outvars[0]).ndim
            return [Dependence(origin=Origin(_PRODUCT, tuple(range(rank))))]
        return super().equation(equation, inputs)


def _is(value: Dependence, parameter: int) -> bool:
    origin = value.origin
    return (
        isinstance(origin, Origin)
        and origin.parameter == parameter
        and origin.axes == tuple(range(len(origin.axes)))
        and not origin.taken
        and not origin.is_mapped
    )
