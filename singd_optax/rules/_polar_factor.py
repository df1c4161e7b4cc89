"""Polar factors, exact and softened, by matrix products alone."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from singd_optax._validate import check_choice, check_number, check_size
from singd_optax.structures import Precision, contract
from singd_optax.structures._numerics import accumulation_dtype

#: (a, b, c) of one step X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X.
Coefficients = tuple[float, float, float]

#: The name of an iteration, or steps of your own.
Iteration = Literal["muon", "polar_express", "quintic"] | Sequence[Coefficients]

#: The Padé quintic: a step multiplies small singular values by 15/8, and cubes errors near 1.
_QUINTIC = (1.875, -1.25, 0.375)

#: From arXiv 2505.16932: each step is the best for the interval to which the steps before it take
#: [1e-3, 1].
_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
#: The safety factor: rounding must not take a singular value out of the range of the first steps.
_SAFETY = 1.01

#: The number of steps of a preset, unless it is given.
_STEPS = {"muon": 5, "polar_express": 5, "quintic": 12}

#: The number of steps on one Gram matrix: its rounding starts at 1e-7, and each step multiplies it
#: by up to 70.
_ROUND = 5
#: From this ratio of the long to the short side on, steps on a Gram matrix cost less than steps on
#: rows. On two cores the two took, in milliseconds, 3.7 and 2.5 for 256 x 384, 2.7 and 3.3 for
#: 256 x 512, and 4.0 and 7.3 for 256 x 1024.
_OBLONG = 2


def coefficients_of(iteration: Iteration, steps: int | None = None) -> tuple[Coefficients, ...]:
    """The coefficients (a, b, c) of each step of a Newton-Schulz iteration for polar factors.

    A step is X <- a X + b (X Xᵀ) X + c (X Xᵀ)² X.

    Args:
      iteration: "muon" (Keller Jordan's quintic; fast, singular values end between 0.7 and 1.2),
        "polar_express" (arXiv 2505.16932; fast, and exact with more steps), "quintic" (exact, but
        slow for small singular values), or triples (a, b, c) of your own, one for each step.
      steps: The number of steps, an int >= 1. None is 5 for "muon" and "polar_express", 12 for
        "quintic", and all of your own.

    Returns:
      One triple for each step.

    Raises:
      ValueError: The name is unknown, or you gave fewer triples than ``steps``.
      TypeError: ``iteration`` is neither a name nor triples of numbers.

    >>> coefficients_of("quintic", 1)
    ((1.875, -1.25, 0.375),)
    """
    if steps is not None:
        check_size("steps", steps)
    if not isinstance(iteration, str):
        own = _checked(iteration)
        if steps is not None and steps > len(own):
            raise ValueError(
                f"`steps` must be at most {len(own)}, the number of triples in `iteration`, got "
                f"{steps}. Give more triples, or fewer steps."
            )
        return own[:steps]
    check_choice("iteration", iteration, tuple(_STEPS))
    count = _STEPS[iteration] if steps is None else steps
    if iteration == "muon":
        return ((3.4445, -4.7750, 2.0315),) * count
    if iteration == "quintic":
        return (_QUINTIC,) * count
    safe = [(a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5) for a, b, c in _EXPRESS]
    return (*safe, *(_QUINTIC,) * max(count - len(safe), 0))[:count]


def _checked(iteration: Sequence[Coefficients]) -> tuple[Coefficients, ...]:
    try:
        own = tuple((float(a), float(b), float(c)) for a, b, c in iteration)
    except (TypeError, ValueError):
        own = ()
    if not own:
        raise TypeError(
            "`iteration` must be 'muon', 'polar_express', 'quintic' or triples (a, b, c), such as "
            f"((1.5, -0.5, 0.0),) * 20, got {iteration!r}."
        )
    for triple in own:
        for value in triple:
            check_number("iteration", value, minimum=-float("inf"))
    return own


def polar_factor(
    matrix: jax.Array,
    *,
    softness: ArrayLike = 0.0,
    iteration: Iteration = "muon",
    steps: int | None = None,
    dtype: DTypeLike | None = None,
    precision: Precision = "highest",
    split: Callable[[jax.Array, int], jax.Array] = lambda array, axis: array,
) -> jax.Array:
    """The polar factor W (Wᵀ W)^(-1/2), or softened W (Wᵀ W + e² I)^(-1/2), by Newton-Schulz.

    With W = U diag(σ) Vᵀ it is U diag(σ / √(σ² + e²)) Vᵀ, where e is ``softness`` times the root
    mean square of the singular values. Directions with σ far above e get one size, and those far
    below keep theirs. As the first block of the polar factor of W beside e I, it is as cheap as the
    exact one. The iteration runs on the shorter side. Where the other side is twice as long, or the
    factor is softened, it runs on the Gram matrix W Wᵀ + e² I, which is formed anew after every
    five steps.

    Args:
      matrix: W, (*stack, rows, columns), float32 or float64.
      softness: A number >= 0, which may be traced, or one for each matrix, (*stack, 1, 1).
      iteration: The steps, as ``coefficients_of`` takes them.
      steps: The number of steps, an int >= 1; None for that of the iteration.
      dtype: The dtype of the iteration; None for that of the matrix. With "bfloat16" products are
        summed in float32, and the iteration never runs on Gram matrices, whose rounding would grow.
      precision: The precision of the products.
      split: A function (array, axis) -> array that has an array split over devices along an axis.

    Returns:
      The factor, shaped like ``matrix``, with the same dtype: zeros for a matrix of zeros, NaN for
      one that is not finite.

    Raises:
      ValueError: The iteration is unknown, or it has fewer steps.
      TypeError: The iteration is neither a name nor triples of numbers.

    References:
      Jordan et al., Muon, 2024; Amsel et al., The Polar Express, arXiv 2505.16932; Higham,
      Functions of Matrices, 2008, chapter 8.

    >>> w = jnp.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    >>> polar_factor(w, iteration="quintic").round(3)
    Array([[1., 0., 0.],
           [0., 1., 0.]], dtype=float32)
    """
    coefficients = coefficients_of(iteration, steps)
    is_soft = not (isinstance(softness, int | float) and softness == 0)
    own = matrix.dtype
    softness = jnp.asarray(softness, own)
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x = jnp.swapaxes(matrix, -1, -2) if is_tall else matrix
    short, long = x.shape[-2:]
    # The scale is taken out first, so that no sum of squares over- or underflows.
    x = _divided(x, jnp.abs(x).max((-2, -1), keepdims=True))
    both = jnp.sqrt(1 + softness**2)  # the Frobenius norm of W beside e I, over that of W
    x = _divided(x, jnp.sqrt((x**2).sum((-2, -1), keepdims=True)) * both)
    e = softness / (jnp.sqrt(jnp.asarray(short, own)) * both)
    iterate = jnp.dtype(own if dtype is None else dtype)
    x = split(x.astype(iterate), -1)
    products = _Products(iterate, precision, split)
    if iterate == own and (is_soft or long >= _OBLONG * short):
        x = _by_gram(x, e if is_soft else None, coefficients, products)
    else:
        x = _by_rows(x, e.astype(iterate) if is_soft else None, coefficients, products)
    x = x.astype(own)
    return jnp.swapaxes(x, -1, -2) if is_tall else x


def _divided(x: jax.Array, by: jax.Array) -> jax.Array:
    return x / jnp.where(by == 0, 1, by)


class _Products:
    """Products of matrices in the dtype of the iteration, spread over devices.

    A product has the dtype in which it was summed, and is rounded only when it is multiplied again:
    to round the polynomials of a step to bfloat16 would be the largest error of all.
    """

    def __init__(
        self, dtype: jnp.dtype, precision: Precision, split: Callable[[jax.Array, int], jax.Array]
    ) -> None:
        self.dtype, self.precision, self.split = dtype, precision, split

    def gram(self, x: jax.Array) -> jax.Array:
        """X Xᵀ."""
        return self._made("...ik,...jk->...ij", x, x, -2)

    def square(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """A B, for square matrices of the short side."""
        return self._made("...ij,...jk->...ik", left, right, -2)

    def onto(self, left: jax.Array, x: jax.Array) -> jax.Array:
        """A X, for A of the short side and rows X."""
        return self._made("...ij,...jk->...ik", left, x, -1)

    def _made(self, subscripts: str, left: jax.Array, right: jax.Array, axis: int) -> jax.Array:
        left, right = left.astype(self.dtype), right.astype(self.dtype)
        product = contract(subscripts, left, right, precision=self.precision)
        return self.split(product, axis)


def _polynomial(gram: jax.Array, own: jax.Array, products: _Products) -> jax.Array:
    """The polynomial a I + b A + c A² of a step."""
    a, b, c = own
    eye = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    return a * eye + b * gram + c * products.square(gram, gram)


def _by_gram(
    x: jax.Array,
    e: jax.Array | None,
    coefficients: Sequence[Coefficients],
    products: _Products,
) -> jax.Array:
    """All steps, on A = X Xᵀ + e² I alone: Q is a polynomial of A, and the result is Q X."""
    eye = jnp.broadcast_to(jnp.eye(x.shape[-2], dtype=x.dtype), (*x.shape[:-1], x.shape[-2]))
    beside = None if e is None else e * eye
    for start in range(0, len(coefficients), _ROUND):
        table = jnp.asarray(coefficients[start : start + _ROUND], x.dtype)
        gram = products.gram(x)
        if beside is not None:
            gram = gram + products.gram(beside)

        def step(
            carry: tuple[jax.Array, jax.Array], own: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            gram, made = carry
            factor = _polynomial(gram, own, products)
            gram = products.square(factor, products.square(gram, factor))
            return (gram, products.square(factor, made)), None

        carry = (products.split(gram, -2), products.split(eye, -2))
        (gram, made), _ = lax.scan(step, carry, table[:-1])
        made = products.square(_polynomial(gram, table[-1], products), made)
        x = products.onto(made, x)
        beside = None if beside is None else products.square(made, beside)
    return x


def _by_rows(
    x: jax.Array,
    e: jax.Array | None,
    coefficients: Sequence[Coefficients],
    products: _Products,
) -> jax.Array:
    """All steps, on X, and beside it on the block that begins as e I if there is softness."""
    beside, dtype = None, products.dtype
    if e is not None:
        eye = jnp.eye(x.shape[-2], dtype=dtype)
        beside = products.split(jnp.broadcast_to(e * eye, (*x.shape[:-1], x.shape[-2])), -2)

    def step(
        carry: tuple[jax.Array, jax.Array | None], own: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array | None], None]:
        x, beside = carry
        gram = products.gram(x)
        if beside is not None:
            gram = gram + products.gram(beside)
        a, b, c = own
        rest = b * gram + c * products.square(gram, gram)
        x = (a * x + products.onto(rest, x)).astype(dtype)
        if beside is not None:
            beside = (a * beside + products.square(rest, beside)).astype(dtype)
        return (x, beside), None

    table = jnp.asarray(coefficients, accumulation_dtype(x))
    (x, _), _ = lax.scan(step, (x, beside), table)
    return x
