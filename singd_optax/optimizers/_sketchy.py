"""Sketchy: Shampoo that keeps the leading eigenvectors of its moments."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from singd_optax._types import PyTree
from singd_optax._validate import check_number, check_precision, check_size
from singd_optax.layers import Layers
from singd_optax.measures import Statistics
from singd_optax.optimizers._recipe import (
    optimizer_of,
    scaling_of,
    shows_recipe_of,
    shows_scaling_of,
)
from singd_optax.rules import (
    ColumnValues,
    Hyperparameter,
    JointRule,
    MatrixView,
    MomentumOf,
    Number,
    Recipe,
    Role,
    RowValues,
    hyperparameter_at,
)
from singd_optax.rules._dealing import Deal
from singd_optax.rules._roots import dealt_eigh
from singd_optax.structures import Dense, Identity, Precision, Structure, contract


class SketchyState(NamedTuple):
    """What Sketchy keeps of a parameter; None for a side without a factor.

    Attributes:
      vectors_K: U, the leading eigenvectors of the rows' moment, (rows, rank).
      vectors_C: The leading eigenvectors of the columns' moment, (columns, rank).
      values_K: s, the eigenvalues of the rows, less what escaped, descending, (rank,).
      values_C: The eigenvalues of the columns, likewise.
      escaped_K: ρ, the weighted sum of what was taken from the eigenvalues of the rows.
      escaped_C: The same sum for the columns.
      moment_weight: w, the sum of the weights, by which moments are divided.
    """

    vectors_K: Annotated[jax.Array | None, Role("moment", 0)]
    vectors_C: Annotated[jax.Array | None, Role("moment", 1)]
    values_K: RowValues
    values_C: ColumnValues
    escaped_K: Number
    escaped_C: Number
    moment_weight: Number


class _Side(NamedTuple):
    """U, s and ρ of one side."""

    vectors: jax.Array
    values: jax.Array
    escaped: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sketchy(JointRule):
    """Sketchy: Shampoo from the leading eigenvectors of its moments (arXiv 2302.03764).

    The moment of the rows is kept as L ≈ U diag(s) Uᵀ + ρ I, with k = ``rank`` columns in U (and no
    more than rows), and that of the columns likewise. This is the sketch of frequent directions,
    with the mass ρ that escapes from it. On refresh steps, with the gradient G::

        b2 U diag(s) Uᵀ + (1 - b2) G Gᵀ = U' diag(σ) U'ᵀ,     c = σ_{k+1}
        U <- the first k of U',    s <- σ - c,    ρ <- b2 ρ + c
        A = (L / w + ε λ_max I)^(-1/p),    G -> A G B

    After t refreshes w = 1 - b2^t is the sum of the weights in L, and λ_max is its largest
    eigenvalue. ρ I covers all that was dropped, so that L is never less than the moment that it
    stands for. At full rank it is this moment, and the method is ``Shampoo``. Only the gradients of
    refresh steps are seen. Where there are more rows than rank and columns together, no matrix of
    rows x rows is formed. On a mesh, sides of equal size are dealt to the devices, so that no
    decomposition is made on two of them.

    Sides are dense, or ``Identity()`` for a side without a factor. The authors' code decays ρ by
    √b2.

    Attributes:
      rank: k, the number of eigenvectors of a side, an int >= 1.
      b2: The decay of the moments in a refresh, a number in [0, 1) or a schedule.
      eps: ε, a number >= 0 or a schedule: ε λ_max I is added before a root is taken.
      root: p, the order of the inverse roots, an int >= 1.
      precision: The precision of all products, as ``jax.numpy.einsum`` takes it.
    """

    rank: int = 128
    b2: Hyperparameter = 0.95
    eps: Hyperparameter = 1e-6
    root: int = 4
    precision: Precision = "highest"

    State: ClassVar[type] = SketchyState
    momentum_of: ClassVar[MomentumOf] = "update"
    structures: ClassVar[str | Structure] = Dense()
    recipe: ClassVar[Recipe] = Recipe(
        momentum=0.9, nesterov=False, update_rms=None, grafting="rmsprop", refresh_every=10
    )

    def __post_init__(self) -> None:
        check_size("rank", self.rank)
        check_number("b2", self.b2, maximum=1, strict_maximum=True)
        check_number("eps", self.eps)
        check_size("root", self.root)
        check_precision("precision", self.precision)

    def init(self, view: MatrixView) -> SketchyState:
        """Moments of zero."""
        stack, dtype = view.stack_shape, view.statistics_dtype
        parts: dict[str, list[jax.Array | None]] = {"vectors": [], "values": [], "escaped": []}
        for structure, dim in zip(view.structures, view.dims, strict=True):
            if not isinstance(structure, Dense | Identity):
                raise ValueError(
                    "Sketchy keeps leading eigenvectors, so that a side must be Dense(), or "
                    f"Identity() without a factor, got {structure!r}. Use shampoo for "
                    "BlockDiagonal(block_size), and inverse_free_shampoo for other structures."
                )
            rank = min(self.rank, dim)
            shapes = {"vectors": (dim, rank), "values": (rank,), "escaped": ()}
            for name, shape in shapes.items():
                is_there = isinstance(structure, Dense)
                parts[name].append(jnp.zeros((*stack, *shape), dtype) if is_there else None)
        flat = [part for sides in parts.values() for part in sides]
        new: list[PyTree] = [*flat, jnp.zeros(stack, dtype)]
        return SketchyState(*new)

    def refresh_all(
        self,
        views: Mapping[str, MatrixView],
        states: Mapping[str, SketchyState],
        statistics: Mapping[str, Statistics | None],
        gradients: Mapping[str, jax.Array],
        count: jax.Array,
        key: jax.Array,
    ) -> dict[str, tuple[SketchyState, jax.Array | bool]]:
        """The sketches with one more gradient, those of equal sides in one batch."""
        groups: dict[tuple[object, ...], list[tuple[str, int]]] = {}
        parts: dict[tuple[str, int], tuple[jax.Array, ...]] = {}
        for path, gradient in gradients.items():
            matrices = gradient, jnp.swapaxes(gradient, -1, -2)
            for place, (side, matrix) in enumerate(
                zip(_sides(states[path]), matrices, strict=True)
            ):
                if side is None:
                    continue
                stack = views[path].stack_shape
                parts[path, place] = own = tuple(
                    array.reshape(-1, *array.shape[len(stack) :]) for array in (*side, matrix)
                )
                alike = tuple((array.shape[1:], array.dtype.name) for array in own)
                groups.setdefault(alike, []).append((path, place))
        b2 = hyperparameter_at(self.b2, count, next(iter(views.values())).statistics_dtype)
        new: dict[tuple[str, int], _Side] = {}
        for members in groups.values():
            batch = [jnp.concatenate(each) for each in zip(*map(parts.get, members), strict=True)]
            found = Deal.of(views).apply(
                lambda *own: self._with(_Side(*own[:3]), own[3], b2), *batch
            )
            start = 0
            for path, place in members:
                stack = views[path].stack_shape
                part = slice(start, start + math.prod(stack))
                start = part.stop
                new[path, place] = _Side(*(x[part].reshape(*stack, *x.shape[1:]) for x in found))
        result: dict[str, tuple[SketchyState, jax.Array | bool]] = {}
        for path, state in states.items():
            sides = [new.get((path, place)) for place in (0, 1)]
            flat = [None if side is None else side[part] for part in range(3) for side in sides]
            weight = state.moment_weight * b2 + (1 - b2)
            both: list[PyTree] = [*flat, weight]
            result[path] = SketchyState(*both), True
        return result

    def _with(self, side: _Side, matrix: jax.Array, b2: jax.Array) -> _Side:
        """Sides (devices, share, ...) with gradients (devices, share, dim, n) more."""
        dim, rank = side.vectors.shape[-2:]
        kept = side.vectors * jnp.sqrt(b2 * side.values)[..., None, :]
        columns = jnp.concatenate([kept, jnp.sqrt(1 - b2) * matrix], -1)
        is_wide = columns.shape[-1] >= dim
        equation = "...ik,...jk->...ij" if is_wide else "...ki,...kj->...ij"
        gram = contract(equation, columns, columns, precision=self.precision)
        values, vectors = dealt_eigh((gram + jnp.swapaxes(gram, -1, -2)) / 2)
        values = jnp.maximum(values[..., ::-1][..., : rank + 1], 0)
        vectors = vectors[..., ::-1][..., :rank]
        escaped = values[..., rank] if rank < dim else jnp.zeros_like(side.escaped)
        largest = values[..., :rank]
        left = largest - escaped[..., None]
        # An eigenvalue that is rounding beside the largest has no direction.
        is_there = left > 8 * jnp.finfo(values.dtype).eps * dim * values[..., :1]
        if not is_wide:
            image = contract("...ik,...kl->...il", columns, vectors, precision=self.precision)
            vectors = image / jnp.sqrt(jnp.where(is_there, largest, 1))[..., None, :]
        # Decompositions leave signs to chance.
        along = (vectors * jnp.linspace(1, 2, dim, dtype=vectors.dtype)[:, None]).sum(-2)
        signs = jnp.where(is_there, jnp.where(along < 0, -1, 1), 0).astype(vectors.dtype)
        kept = jnp.where(is_there, left, 0)
        return _Side(vectors * signs[..., None, :], kept, b2 * side.escaped + escaped)

    def direction(
        self,
        view: MatrixView,
        state: SketchyState,
        vector: jax.Array,
        gradient: jax.Array,
        count: jax.Array,
    ) -> tuple[jax.Array, SketchyState]:
        """A G B; G itself where nothing was seen."""
        eps = hyperparameter_at(self.eps, count, view.statistics_dtype)
        for side in _sides(state):
            if side is not None:
                vector = self._multiplied(side, state.moment_weight, eps, vector)
            vector = jnp.swapaxes(vector, -1, -2)
        return vector, state

    def _multiplied(
        self, side: _Side, weight: jax.Array, eps: jax.Array, x: jax.Array
    ) -> jax.Array:
        """A X."""
        weight = jnp.where(weight > 0, weight, 1)
        rest = side.escaped / weight
        values = side.values / weight[..., None] + rest[..., None]
        ridge = eps * values[..., 0]
        is_seen = values[..., 0] > 0
        power = lambda x: jnp.where(x > 0, x, 1) ** (-1 / self.root)
        of_rest = power(jnp.where(is_seen, rest + ridge, 1))
        of_values = power(jnp.where(is_seen[..., None], values + ridge[..., None], 1))
        more = jnp.where(side.values > 0, of_values - of_rest[..., None], 0)
        along = contract("...ik,...ij->...kj", side.vectors, x, precision=self.precision)
        along = along * more[..., None]
        back = contract("...ik,...kj->...ij", side.vectors, along, precision=self.precision)
        return of_rest[..., None, None] * x + back


def _sides(state: SketchyState) -> tuple[_Side | None, _Side | None]:
    """Both sides, with None for one without a factor."""
    rows = state.vectors_K, state.values_K, state.escaped_K
    columns = state.vectors_C, state.values_C, state.escaped_C
    first, second = (None if part[0] is None else _Side(*part) for part in (rows, columns))  # type: ignore[arg-type]
    return first, second


@shows_scaling_of(Sketchy)
def scale_by_sketchy(
    layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Scale gradients by Shampoo's preconditioner, from leading eigenvectors of its moments.

    A gradient G becomes L^(-1/4) G R^(-1/4), where L = U diag(s) Uᵀ + ρ I with ``rank`` columns in
    U, and R alike.

    References:
      Feinberg, Chen, Sun, Anil and Hazan, Sketchy: Memory-efficient Adaptive Regularization with
      Frequent Directions, NeurIPS 2023, arXiv 2302.03764.

    Example:
      >>> import jax.numpy as jnp, singd_optax
      >>> tx = singd_optax.scale_by_sketchy(rank=2, eps=0.0)
      >>> grads = {"kernel": jnp.diag(jnp.array([4.0, 9.0]))}
      >>> tx.update(grads, tx.init(grads))[0]["kernel"].round(4)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    return scaling_of(scale_by_sketchy, Sketchy, layers, options)


@shows_recipe_of(Sketchy)
def sketchy(
    learning_rate: Hyperparameter, layers: Layers | None = None, **options: object
) -> optax.GradientTransformationExtraArgs:
    """Sketchy in the place of AdamW: Shampoo in the memory of ``rank`` vectors for each side.

    It works for any model, from gradients alone, where sides have thousands of rows. A matrix moves
    by an average of Sketchy's directions, each at the length of RMSProp's step, with decoupled
    weight decay. Feinberg et al., NeurIPS 2023, arXiv 2302.03764.
    """
    return optimizer_of(sketchy, Sketchy, learning_rate, layers, options)
