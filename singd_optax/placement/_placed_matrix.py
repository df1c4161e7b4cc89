"""Factors that say where their products are computed."""

import flax.struct
import jax

from singd_optax.placement._mesh_partitions import MeshPartitions
from singd_optax.placement._splits import partition_of
from singd_optax.structures import Precision, Structure, StructuredMatrix


@flax.struct.dataclass
class PlacedMatrix(StructuredMatrix):
    """A factor whose products with gradients are split over a mesh.

    A factor with split rows multiplies gradients with split rows; a whole one those with split
    columns: so each device does its share, and gradients travel instead of factors, unless the
    factor is ``fetched``: whole for its products, though its rows are split where it is kept.
    """

    matrix: StructuredMatrix
    partitions: MeshPartitions = flax.struct.field(pytree_node=False)
    side: int = flax.struct.field(pytree_node=False)
    fetched: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def structure(self) -> Structure:
        """The structure of the matrix."""
        return self.matrix.structure

    @property
    def dim(self) -> int:
        """The number of rows of the matrix."""
        return self.matrix.dim

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading batch axes of the matrix."""
        return self.matrix.batch_shape

    def to_dense(self) -> jax.Array:
        """The entries of the matrix, (..., dim, dim)."""
        return self.matrix.to_dense()

    def matmul(self, x: jax.Array, *, precision: Precision = "highest") -> jax.Array:
        """The product A X with gradients X of shape (..., dim, n)."""
        return self._beside(self._at_hand().matmul(self._beside(x), precision=precision))

    def transpose_matmul(self, x: jax.Array, *, precision: Precision = "highest") -> jax.Array:
        """The product Aᵀ X with gradients X of shape (..., dim, n)."""
        return self._beside(self._at_hand().transpose_matmul(self._beside(x), precision=precision))

    @property
    def is_split(self) -> bool:
        """Whether its products are of split rows."""
        return not self.fetched and self.partitions.has_split_rows(self.matrix, self.side)

    def _beside(self, x: jax.Array) -> jax.Array:
        split = self.partitions.beside(x.shape, self.is_split, self.side)
        return self.partitions.constrain(x, partition_of(split))

    def _at_hand(self) -> StructuredMatrix:
        if not self.fetched:
            return self.matrix
        own = self.partitions
        return jax.tree.map(lambda x: own.constrain(x, own.kept(x.shape, None)), self.matrix)
