"""How one call of a layer uses its kernel: what a kind of layer must say."""

import abc
from collections.abc import Callable
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.structures import Precision, Projection, StructuredMatrix, contract

#: A factor, with which second moments are whitened; or a projection, which leaves them plain.
Whitening = StructuredMatrix | Projection


class Rows(abc.ABC):
    """The inputs of one call in the format of all layers, [batch, shared, inputs].

    The batch axis runs over examples; the shared axis over the positions (tokens, pixels) at which
    one example uses the same kernel. Sub-classes are pytrees; how they hold the inputs is theirs.
    """

    @abc.abstractmethod
    def gram(
        self, factor: Whitening, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> tuple[StructuredMatrix, jax.Array]:
        """Π(Kᵀ Σ w a aᵀ K) over all positions, and Σ w aᵀ a.

        Args:
          factor: K, or a projection in its place.
          weights: w, (batch, shared), or None for ones.
          bias: Whether a has a last entry that is 1.
          precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
        """

    @abc.abstractmethod
    def sums(self, weights: jax.Array | None, bias: bool, precision: Precision) -> jax.Array:
        """Σ w a over all positions, (inputs,); arguments are those of ``gram``."""

    @abc.abstractmethod
    def quadratic(
        self, matrix: StructuredMatrix | None, is_root: bool, bias: bool, precision: Precision
    ) -> jax.Array:
        """aᵀ M a at each position, (batch, shared), or |Mᵀ a|².

        Args:
          matrix: M; None for I.
          is_root: Whether |Mᵀ a|² is wanted; if not, M is symmetric.
          bias: Whether a has a last entry that is 1.
          precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
        """

    @abc.abstractmethod
    def squared_products(
        self,
        basis: StructuredMatrix | None,
        gradients: jax.Array,
        bias: bool,
        exact: bool,
        precision: Precision,
    ) -> jax.Array:
        """Σ (Qᵀ a)² (g²)ᵀ over all positions, entry by entry, (inputs, outputs).

        Args:
          basis: Q; None for I.
          gradients: g, (batch, shared, outputs), in the dtype of the sum.
          bias: Whether a has a last entry that is 1.
          exact: Whether the positions of an example are added up before they are squared, which is
            Σ (Σ Qᵀ a gᵀ)², as each example's gradient is.
          precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
        """

    @abc.abstractmethod
    def sketch(
        self, columns: jax.Array, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> jax.Array:
        """Σ w a aᵀ Ω over all positions, without the moment itself.

        Args:
          columns: Ω, (inputs, columns).
          weights: w, (batch, shared), or None for ones.
          bias: Whether a has a last entry that is 1.
          precision: The precision of the products, as ``jax.numpy.einsum`` takes it.
        """

    @abc.abstractmethod
    def averaged(self, weights: jax.Array | None) -> "Rows":
        """The inputs averaged over the shared axis, (batch, 1, inputs), as ``"reduce"`` wants."""


class Operation(abc.ABC):
    """How one call of a layer used its kernel; static and hashable.

    Sub-classes are frozen dataclasses. Leading axes of inputs and outputs are what they have in
    common; the first is the batch, all others are shared positions.

    Attributes:
      shares_leading: Whether the arranged inputs have all leading axes, one entry for each of the
        gradient's; else only the first one is common.
    """

    shares_leading: ClassVar[bool] = True

    def arrange(self, inputs: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The two, with all leading axes in front, so that one more can be added there."""
        return inputs, gradient

    @abc.abstractmethod
    def leading(self, gradient: jax.Array) -> tuple[int, ...]:
        """The sizes of the leading axes of the arranged gradient, pixels included."""

    @abc.abstractmethod
    def expected_leading(self, inputs: jax.Array) -> tuple[int, ...]:
        """What ``leading`` must be of the gradient, from the arranged inputs."""

    @abc.abstractmethod
    def input_rows(self, inputs: jax.Array) -> Rows:
        """The arranged inputs as rows; if the kernel has batch axes, these lead all arrays."""

    @abc.abstractmethod
    def output_rows(self, gradient: jax.Array) -> jax.Array:
        """The arranged gradient as (*kernel batch, batch, shared, outputs)."""


def batch_and_shared(leading: tuple[int, ...]) -> tuple[int, int]:
    """Leading axes as (batch, shared).

    >>> batch_and_shared((8, 3, 4)), batch_and_shared(())
    ((8, 12), (1, 1))
    """
    size = 1
    for axis in leading[1:]:
        size *= axis
    return (leading[0] if leading else 1), size


@flax.struct.dataclass
class PlainRows(Rows):
    """Inputs as they are: (batch, shared, inputs)."""

    rows: jax.Array

    def gram(
        self, factor: Whitening, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> tuple[StructuredMatrix, jax.Array]:
        """The gram of the rows, each times the root of its weight."""
        rows = with_ones(self.rows.reshape(-1, self.rows.shape[-1]), bias)
        if weights is not None:
            rows = rows * jnp.sqrt(weights).reshape(-1, 1).astype(rows.dtype)
        squares = contract("ni,ni->", rows, rows, precision=precision)
        return factor.gram(rows, precision=precision), squares

    def sums(self, weights: jax.Array | None, bias: bool, precision: Precision) -> jax.Array:
        """The sum over both leading axes."""
        rows = with_ones(self.rows, bias)
        if weights is None:
            return rows.sum((0, 1), dtype=jnp.promote_types(jnp.float32, rows.dtype))
        return contract("nsi,ns->i", rows, weights, precision=precision)

    def quadratic(
        self, matrix: StructuredMatrix | None, is_root: bool, bias: bool, precision: Precision
    ) -> jax.Array:
        """Of all rows at once."""
        rows = with_ones(self.rows, bias)
        flat = rows.reshape(-1, rows.shape[-1])
        return quadratic_of(flat, matrix, is_root, precision).reshape(rows.shape[:2])

    def squared_products(
        self,
        basis: StructuredMatrix | None,
        gradients: jax.Array,
        bias: bool,
        exact: bool,
        precision: Precision,
    ) -> jax.Array:
        """One product of squares; exactly, of some examples at a time."""
        rows = with_ones(self.rows, bias).astype(gradients.dtype)
        exact = exact and rows.shape[1] > 1

        def form(part: tuple[jax.Array, jax.Array]) -> jax.Array:
            a = turned(part[0].reshape(-1, part[0].shape[-1]), basis, precision)
            a = a.reshape(part[0].shape)
            if exact:
                each = contract("nsi,nso->nio", a, part[1], precision=precision)
                return jnp.sum(each**2, 0)
            return contract("nsi,nso->io", a**2, part[1] ** 2, precision=precision)

        most = LARGEST_PART // (rows.shape[-1] * gradients.shape[-1]) if exact else rows.shape[0]
        return sum_of_parts(form, (rows, gradients), most)

    def sketch(
        self, columns: jax.Array, weights: jax.Array | None, bias: bool, precision: Precision
    ) -> jax.Array:
        """Of all rows at once."""
        rows = with_ones(self.rows, bias)
        return sketch_of(rows, columns, weights, precision)

    def averaged(self, weights: jax.Array | None) -> "PlainRows":
        """The mean over the shared axis, with weights."""
        dtype = jnp.promote_types(jnp.float32, self.rows.dtype)
        if weights is None:
            return PlainRows(jnp.mean(self.rows, axis=1, dtype=dtype, keepdims=True))
        sums = contract("nsi,ns->ni", self.rows, weights.astype(self.rows.dtype))
        return PlainRows((sums * safe_inverse(weights.sum(1, dtype=dtype))[:, None])[:, None])


#: How many numbers the products of the examples of one part have, if one example has no more.
LARGEST_PART = 2**22


def sum_of_parts(form: Callable[[PyTree], jax.Array], arrays: PyTree, most: int) -> jax.Array:
    """The sum of ``form`` over parts of the first axis, of ``most`` entries or fewer."""
    count = jax.tree.leaves(arrays)[0].shape[0]
    size = max(d for d in range(1, max(1, min(count, most)) + 1) if count % d == 0)
    if size == count:
        return form(arrays)
    parts = jax.tree.map(lambda x: x.reshape(count // size, size, *x.shape[1:]), arrays)
    shape = jax.eval_shape(form, jax.tree.map(lambda x: x[0], parts))
    zeros = jnp.zeros(shape.shape, shape.dtype)
    total: jax.Array = jax.lax.scan(lambda sum_, part: (sum_ + form(part), None), zeros, parts)[0]
    return total


def with_ones(rows: jax.Array, bias: bool) -> jax.Array:
    """Rows with a last entry 1, if there is a bias."""
    if not bias:
        return rows
    return jnp.concatenate([rows, jnp.ones_like(rows[..., :1])], axis=-1)


def turned(rows: jax.Array, basis: StructuredMatrix | None, precision: Precision) -> jax.Array:
    """Qᵀ a of each row a, (n, dim)."""
    if basis is None:
        return rows
    return jnp.swapaxes(basis.transpose_matmul(rows.T, precision=precision), 0, 1)


def quadratic_of(
    rows: jax.Array, matrix: StructuredMatrix | None, is_root: bool, precision: Precision
) -> jax.Array:
    """aᵀ M a of each row a, (n,), or |Mᵀ a|²."""
    if is_root:
        rows = turned(rows, matrix, precision)
        return contract("ni,ni->n", rows, rows, precision=precision)
    images = rows if matrix is None else matrix.matmul(rows.T, precision=precision).T
    return contract("ni,ni->n", rows, images, precision=precision)


def sketch_of(
    rows: jax.Array, columns: jax.Array, weights: jax.Array | None, precision: Precision
) -> jax.Array:
    """Σ w a aᵀ Ω of rows (..., inputs) with weights (...)."""
    seen = contract("...i,ik->...k", rows, columns.astype(rows.dtype), precision=precision)
    if weights is not None:
        seen = seen * weights[..., None]
    flat = rows.reshape(-1, rows.shape[-1]), seen.reshape(-1, seen.shape[-1])
    return contract("ni,nk->ik", *flat, precision=precision)


def safe_inverse(x: PyTree) -> jax.Array:
    """1 / x, and 0 where x is 0."""
    return jnp.where(x == 0, 0, 1 / jnp.where(x == 0, 1, x))
