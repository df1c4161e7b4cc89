"""What capture and transforms tell each other, as data: factors one way, statistics the other.

Neither imports the other. ``value_and_grad`` finds ``CurvatureState`` in whatever state optax
wraps around it, and hands ``Statistics`` to ``update`` as the extra argument ``curvature``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax.layers._spec import LayerSpec
from singd_optax.placement import Sides
from singd_optax.structures import StructuredMatrix


class Factors(NamedTuple):
    """The Kronecker factors of one layer; statistics are whitened with them.

    Attributes:
      K: Input side, (fan_in, fan_in).
      C: Output side, (fan_out, fan_out).
    """

    K: StructuredMatrix
    C: StructuredMatrix


def whitening_factors(factors: object) -> tuple[StructuredMatrix, ...]:
    """K and C if statistics are whitened with them; none for a method whose moments are plain."""
    return tuple(factors) if isinstance(factors, Factors) else ()


class Inverses(NamedTuple):
    """What a layer's gradient is multiplied with, by a method that inverts second moments.

    Statistics of a layer that has these instead of ``Factors`` are plain moments, not whitened.

    Attributes:
      K: The inverse on the input side, (fan_in, fan_in).
      C: The inverse on the output side, (fan_out, fan_out).
    """

    K: StructuredMatrix
    C: StructuredMatrix


class Eigenbases(NamedTuple):
    """Eigenvectors and eigenvalues of both second moments, for an inverse of their product.

    Attributes:
      K: Eigenvectors on the input side, (fan_in, fan_in).
      C: Eigenvectors on the output side, (fan_out, fan_out).
      values_K: Their eigenvalues, (fan_in,).
      values_C: Likewise, (fan_out,).
      damping: λ, added to the products of eigenvalues.
    """

    K: StructuredMatrix
    C: StructuredMatrix
    values_K: jax.Array
    values_C: jax.Array
    damping: jax.Array


class Statistics(NamedTuple):
    """What one layer measured on a refresh step; zeros on any other.

    On the matrices see arXiv 2312.05705, section 3; the means set the scale of relative damping.

    Attributes:
      H_K: Π(Kᵀ U K), with U the second moment of the layer's inputs; Π(U) for a method that has
        ``Inverses`` or ``Eigenbases`` instead of ``Factors``.
      H_C: Π(Cᵀ G C), with G the second moment of the gradients of its outputs; or Π(G).
      mean_U: Tr U / fan_in.
      mean_G: Tr G / fan_out.
      transposed: Of a kernel that the model also uses as its transpose (tied embeddings): the
        same of those uses, in which the output gradients are on the side of K, and the inputs on
        the side of C. None for all others.
    """

    H_K: StructuredMatrix
    H_C: StructuredMatrix
    mean_U: jax.Array
    mean_G: jax.Array
    transposed: "Statistics | None" = None

    @staticmethod
    def sides() -> Sides:
        """Which fields belong to K (0), to C (1), or to neither."""
        use = {"H_K": 0, "H_C": 1, "mean_U": None, "mean_G": None}
        return {**use, "transposed": {**use, "transposed": None}}

    @classmethod
    def zeros(cls, spec: LayerSpec) -> "Statistics":
        """Zeros of the shapes and dtypes that the layer's statistics have."""
        shape, dtype = spec.stack_shape, spec.statistics_dtype
        (structure_K, structure_C), (fan_in, fan_out) = spec.structures, spec.dims
        zeros = cls(
            H_K=structure_K.zeros(fan_in, dtype, shape),
            H_C=structure_C.zeros(fan_out, dtype, shape),
            mean_U=jnp.zeros(shape, dtype),
            mean_G=jnp.zeros(shape, dtype),
        )
        return zeros._replace(transposed=zeros) if spec.tied else zeros

    def scaled(self, *, inputs: ArrayLike = 1, gradients: ArrayLike = 1) -> "Statistics":
        """The statistics with all that is made of inputs, or of output gradients, scaled."""
        return Statistics(
            H_K=self.H_K * inputs,
            H_C=self.H_C * gradients,
            mean_U=self.mean_U * inputs,
            mean_G=self.mean_G * gradients,
            transposed=self.transposed
            and self.transposed.scaled(inputs=gradients, gradients=inputs),
        )

    def merged(self) -> "Statistics":
        """The statistics of both uses of a tied kernel as one.

        Inputs and output gradients have different units, and each side gets some of both: so each
        use is first scaled to (s U) ⊗ (G / s), which is the same curvature, with s such that
        both means are equal.
        """
        if self.transposed is None:
            return self
        return jax.tree.map(
            jnp.add, _balanced(self._replace(transposed=None)), _balanced(self.transposed)
        )


def _balanced(use: Statistics) -> Statistics:
    empty = (use.mean_U == 0) | (use.mean_G == 0)
    scale = jnp.where(empty, 0, jnp.sqrt(use.mean_G / jnp.where(empty, 1, use.mean_U)))
    inverse = jnp.where(empty, 0, 1 / jnp.where(empty, 1, scale))
    return Statistics(use.H_K * scale, use.H_C * inverse, use.mean_U * scale, use.mean_G * inverse)
