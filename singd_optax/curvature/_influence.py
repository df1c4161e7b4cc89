"""Which training examples are behind a prediction: influence scores."""

import functools
from collections.abc import Hashable, Iterator
from typing import Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import LossFunction, PyTree
from singd_optax._validate import check_choice, check_size
from singd_optax.curvature._batches import (
    Batches,
    arguments,
    check_batch,
    check_examples,
    form_of,
    no_batch,
)
from singd_optax.curvature._curvature import Curvature, Damping
from singd_optax.curvature._examples import each_example
from singd_optax.curvature._views import arrays_of
from singd_optax.layers._tree import Leaves
from singd_optax.placement import axes_of_first, laid_out_like, on_auto_axes, partitions_of
from singd_optax.structures._in_turn import decomposed

Mode = Literal["forward", "reverse"]
MODES: tuple[Mode, ...] = ("forward", "reverse")

#: Path of a parameter -> array, of parameters with a block.
Vector = dict[str, jax.Array]


@flax.struct.dataclass
class _Problem:
    """What all passes share: a pytree, so that no array is a constant of a program."""

    params: PyTree
    curvature: Curvature
    dampings: dict[str, PyTree]
    losses_fn: LossFunction = flax.struct.field(pytree_node=False)

    def losses(self, params: PyTree, values: Vector, batch: tuple[PyTree, ...]) -> jax.Array:
        """Of parameters with a block, all others fixed."""
        return self.losses_fn(Leaves(params).replaced(values), *batch)

    def values(self, params: PyTree) -> Vector:
        """The parameters with a block."""
        leaves = Leaves(params)
        return {path: leaves[path] for view in self.curvature.views for path in view.shapes}

    def gradients(self, batch: tuple[PyTree, ...]) -> Vector:
        """(examples, ...) of each example's loss, summed over its positions."""

        def one(params: PyTree, example: tuple[PyTree, ...]) -> Vector:
            loss = lambda values: self.losses(params, values, example).sum()
            return jax.grad(loss)(self.values(params))

        return each_example(one, self.params, batch)

    def matrices(self, gradients: Vector) -> dict[str, jax.Array]:
        """Of each block: (examples, *stack, rows, columns)."""
        return {
            view.path: jax.vmap(view.to_matrix)(*(gradients[path] for path in view.shapes)).astype(
                self.curvature.blocks[view.path].values.dtype
            )
            for view in self.curvature.views
        }

    def directions(self, batch: tuple[PyTree, ...]) -> dict[str, jax.Array]:
        """(H + d I)^-1 g of each example, as matrices of the blocks."""

        def solved(self: _Problem, gradients: Vector) -> dict[str, jax.Array]:
            return {
                path: self.curvature.blocks[path].power(matrix, -1.0, self.dampings[path])
                for path, matrix in self.matrices(gradients).items()
            }

        gradients = self.gradients(batch)
        return on_auto_axes(solved, self, gradients, split=axes_of_first(gradients))

    def own_products(self, batch: tuple[PyTree, ...]) -> jax.Array:
        """Of each example g with itself, gᵀ (H + d I)^-1 g."""

        def products(self: _Problem, gradients: Vector) -> jax.Array:
            parts = []
            for path, matrix in self.matrices(gradients).items():
                block = self.curvature.blocks[path]
                squares = block.into(matrix) ** 2 * block.powers(-1.0, self.dampings[path])
                parts.append(squares.reshape(len(matrix), -1).sum(1))
            return sum(parts, jnp.zeros([]))

        gradients = self.gradients(batch)
        return on_auto_axes(products, self, gradients, split=axes_of_first(gradients))

    def forward(self, found: PyTree, batch: tuple[PyTree, ...]) -> jax.Array:
        """(queries, examples) or (queries, examples, positions): losses along these directions."""
        values = self.values(self.params)
        _, follow = jax.linearize(lambda values: self.losses(self.params, values, batch), values)

        def arrays(query: dict[str, jax.Array]) -> Vector:
            found = arrays_of(self.curvature.views, query)
            return {path: found[path].astype(values[path].dtype) for path in values}

        like = partitions_of(values)
        return jax.vmap(lambda query: follow(laid_out_like(arrays, like, query)))(_whole(found))

    def reverse(self, found: PyTree, batch: tuple[PyTree, ...]) -> jax.Array:
        """(queries, examples): products of these directions with gradients."""

        def products(self: _Problem, found: dict[str, jax.Array], gradients: Vector) -> jax.Array:
            parts = []
            for path, own in self.matrices(gradients).items():
                one = found[path]
                parts.append(
                    jnp.einsum(
                        "qp,tp->qt",
                        one.reshape(len(one), -1),
                        own.reshape(len(own), -1),
                        precision="highest",
                    )
                )
            return sum(parts, jnp.zeros([]))

        return on_auto_axes(products, self, _whole(found), self.gradients(batch))


def influence(
    losses_fn: LossFunction,
    params: PyTree,
    curvature: Curvature,
    train_batches: Batches,
    query_batches: Batches,
    *,
    damping: Damping,
    query_rank: int | None = None,
    query_chunk: int = 16,
    mode: Mode = "forward",
) -> np.ndarray:
    """Scores g_qᵀ (H + d I)^-1 g_t of training examples t for queries q.

    Without example t, the loss of query q would rise by about this score: a positive one helps, a
    negative one harms (Koh and Liang, 2017, arXiv 1703.04730; by EKFAC, Grosse et al., 2023, arXiv
    2308.03296). H is the curvature of the summed loss, d its damping or the prior's precision,
    N times the weight decay of a mean loss.

    Query gradients are multiplied by the inverse once. "forward" then follows the training losses
    along them, by ``jax.linearize``: no gradient of a training example is ever formed, and each
    position of it has a score of its own. "reverse" forms the gradient of each training example.

    Args:
      losses_fn: ``losses_fn(params, *batch)`` returns the loss of each example, (examples,), or of
        each position, (examples, positions), which are not averaged.
      params: The parameters, where the curvature is.
      curvature: From ``fit``; ``kind="ekfac"`` is what the literature uses.
      train_batches: Tuples of arguments, as in ``fit``. They are gone through once for each query
        batch; once in all with a ``query_rank``.
      query_batches: Likewise; their losses are summed over positions. All query gradients of one
        batch are in memory at a time.
      damping: d, > 0 unless the curvature is regular.
      query_rank: Keep the queries' directions as this many singular vectors of each layer, all of
        them at a time: exact where they have no higher rank.
      query_chunk: How many queries are followed through a training batch at a time.
      mode: "forward" or "reverse".

    Returns:
      (queries, training examples), or (queries, training examples, positions).

    Raises:
      ValueError: H + d I is singular, there is no batch, a batch does not fit the loss, or
        "reverse" is asked for scores of positions; or on a mesh with Explicit axes the loss does
        not run with one example, as ``out_sharding`` names the mesh axis of examples.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal
      >>> losses_fn = lambda params, x, y: 0.5 * (x @ params["w"] - y) ** 2
      >>> params, x, y = {"w": jnp.zeros(2)}, jnp.eye(2), jnp.ones(2)
      >>> data = [(x, y)]
      >>> scores = influence(losses_fn, params, from_diagonal({"w": jnp.ones(2)}), data, data,
      ...                    damping=1.0)
      >>> abs(scores).tolist()
      [[0.5, 0.0], [0.0, 0.5]]
    """
    check_choice("mode", mode, MODES)
    check_size("query_chunk", query_chunk)
    if query_rank is not None:
        check_size("query_rank", query_rank)
    problem = _Problem(params, curvature, curvature.dampings(damping, inverted=True), losses_fn)
    curvature.check(params, "params")
    directions = jax.jit(lambda problem, batch: problem.directions(batch))
    compress = jax.jit(
        lambda found: on_auto_axes(functools.partial(_compressed, rank=query_rank), found)
    )
    ranks = (1,) if mode == "reverse" else (1, 2)
    score = jax.jit(lambda problem, found, batch: getattr(problem, mode)(found, batch))

    def queries() -> Iterator[PyTree]:
        for batch in _checked(problem, query_batches, True):
            found = directions(problem, batch)
            yield found if query_rank is None else jax.device_get(compress(found))

    if query_rank is not None:
        kept = list(queries())
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *kept) if kept else None
        groups = [] if whole is None else [whole]
    rows = []
    for found in queries() if query_rank is None else groups:
        columns = []
        for batch in _checked(problem, train_batches, mode == "reverse", ranks):
            count = len(jax.tree.leaves(found)[0])
            parts = [
                score(problem, _part(found, at, query_chunk), batch)
                for at in range(0, count, query_chunk)
            ]
            columns.append(np.concatenate(jax.device_get(parts)))
        if not columns:
            raise no_batch("train_batches", train_batches)  # gone through for each query batch
        rows.append(np.concatenate(columns, axis=1))
    if not rows:
        raise no_batch("query_batches", query_batches)
    return np.concatenate(rows)


def self_influence(
    losses_fn: LossFunction,
    params: PyTree,
    curvature: Curvature,
    batches: Batches,
    *,
    damping: Damping,
) -> np.ndarray:
    """g_tᵀ (H + d I)^-1 g_t of each example: large for what the model knows from that one alone.

    Outliers and wrong labels are among the largest.

    Args:
      losses_fn: As of ``influence``.
      params: The parameters.
      curvature: From ``fit``.
      batches: Tuples of arguments; the gradients of one batch are in memory at a time.
      damping: d.

    Returns:
      (examples,).

    Raises:
      ValueError: H + d I is singular, or there is no batch.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal
      >>> losses_fn = lambda params, x, y: 0.5 * (x @ params["w"] - y) ** 2
      >>> self_influence(losses_fn, {"w": jnp.zeros(2)}, from_diagonal({"w": jnp.ones(2)}),
      ...                [(jnp.eye(2), jnp.array([1.0, 3.0]))], damping=1.0).tolist()
      [0.5, 4.5]
    """
    problem = _Problem(params, curvature, curvature.dampings(damping, inverted=True), losses_fn)
    curvature.check(params, "params")

    scores = jax.jit(lambda problem, batch: problem.own_products(batch))
    found = [np.asarray(scores(problem, batch)) for batch in _checked(problem, batches, True)]
    if not found:
        raise no_batch("batches", batches)
    return np.concatenate(found)


def _part(found: PyTree, start: int, count: int) -> PyTree:
    """Some of the queries."""
    return on_auto_axes(
        functools.partial(jax.tree.map, lambda leaf: leaf[start : start + count]), found
    )


def _checked(
    problem: _Problem, batches: Batches, by_example: bool, ranks: tuple[int, ...] = (1, 2)
) -> Iterator[tuple[PyTree, ...]]:
    """The batches as arguments; one of each form is checked before it is used.

    Args:
      problem: What they are for.
      batches: Batches.
      by_example: Whether one example is taken at a time.
      ranks: How many axes the losses may have.
    """
    forms: set[Hashable] = set()
    for batch in arguments(batches):
        form = form_of(batch)
        if form not in forms:
            forms.add(form)
            check_batch(problem.losses_fn, problem.params, batch, None)
            if by_example:
                check_examples(batch)
            _check_losses(problem, batch, ranks)
        yield batch


def _check_losses(problem: _Problem, batch: tuple[PyTree, ...], ranks: tuple[int, ...]) -> None:
    found = jax.eval_shape(problem.losses_fn, problem.params, *batch)
    shape = getattr(found, "shape", type(found).__name__)
    count = jax.tree.leaves(batch)[0].shape[0]
    if not isinstance(shape, tuple) or len(shape) not in ranks or shape[0] != count:
        positions = f", or of each position, ({count}, positions)," if 2 in ranks else ""
        raise ValueError(
            f"`losses_fn` must return the loss of each example, ({count},){positions} got shape "
            f"{shape}. Take no mean over examples; for scores of positions use mode='forward'."
        )


class _LowRank(NamedTuple):
    """left @ right, of each query and each matrix of a stack."""

    left: jax.Array
    right: jax.Array


def _svd(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def _compressed(found: dict[str, jax.Array], rank: int | None) -> dict[str, PyTree]:
    """Singular vectors of each query's direction, where that is smaller."""

    def one(matrix: jax.Array) -> PyTree:
        rows, columns = matrix.shape[-2:]
        if rank is None or rank * (rows + columns) >= rows * columns:
            return matrix
        left, values, right = decomposed(_svd, matrix)
        return _LowRank(left[..., :rank] * values[..., None, :rank], right[..., :rank, :])

    return {path: one(matrix) for path, matrix in found.items()}


def _whole(found: dict[str, PyTree]) -> dict[str, jax.Array]:
    return {
        path: jnp.matmul(*one, precision="highest") if isinstance(one, _LowRank) else one
        for path, one in found.items()
    }
