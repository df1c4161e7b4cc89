"""The hyper-parameters of a Laplace posterior, by its evidence."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_size
from singd_optax.curvature._laplace import Laplace, with_numbers

TUNED = ("prior_precision", "noise")


def tune(
    posterior: Laplace,
    nll: ArrayLike | None = None,
    *,
    what: Sequence[str] = ("prior_precision",),
    real_targets: ArrayLike = 0,
    steps: int = 100,
) -> Laplace:
    """The posterior with the hyper-parameters that maximize its evidence.

    At the maximum, for each prior precision Δ with γ = Tr H (H + σ² T Δ)^-1, how many of its
    parameters the data determine (MacKay, 1992)::

        Δ = γ / |θ - μ|²          σ² = 2 L / (T (n - Σ γ))

    Each step goes half of the way there, in logarithms: in Δ alone the evidence has one maximum,
    and the distance to it is at least halved. What is not finite (a layer at the prior's mean)
    stays as it is. No data are needed; for choosing the prior while training see ``add_prior``. It
    may be jitted, if ``nll`` is given.

    The evidence is that of these parameters as an optimum under this prior. It means little where
    they are none: a network that was trained without a prior until its loss is nothing has large
    parameters and hardly any curvature, so that γ and Δ are small, and the posterior is far too
    wide. That is so with the exact Gauss-Newton matrix too. Choose the prior in turns with training
    (Immer et al., ICML 2021, arXiv 2104.04975), or by a validation set. The γ of the diagonal
    blocks alone, which know nothing of what layers have in common, is never below that of the whole
    matrix, in which it is concave: so priors come out stronger.

    Args:
      posterior: From ``laplace``. A prior precision for each block is tuned for each block.
      nll: L of the data, see ``Laplace.log_evidence``; for "prior_precision" it does not matter.
      what: Which: ``"prior_precision"``, or ``"noise"`` of a Gaussian likelihood, or both. A
        likelihood to the power of 1 / temperature is not normalized: the evidence cannot tune it.
      real_targets: n, as there; for "noise".
      steps: How many.

    Returns:
      A posterior like this one.

    Raises:
      ValueError: A name is not one of these; or for "noise" ``real_targets`` is missing, or
        ``nll`` is not known.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal, laplace
      >>> params = {"w": jnp.full(100, 0.5)}
      >>> posterior = laplace(from_diagonal({"w": jnp.full(100, 1e6)}), params)
      >>> round(float(tune(posterior, nll=0.0).prior_precision), 2)  # 1 / 0.5², data say it all
      4.0
    """
    if "temperature" in what:
        raise ValueError(
            f"The evidence has no maximum in the temperature, got what={tuple(what)}: a likelihood "
            "to a power is not normalized, and the flatter it is, the larger this is. Tune "
            "'noise' for a Gaussian likelihood, and choose a temperature by a validation set."
        )
    for name in what:
        check_choice("what", name, TUNED)
    check_size("steps", steps)
    posterior.curvature.dampings(posterior.prior_precision, inverted=True)
    if "noise" in what:
        if isinstance(real_targets, int | float) and real_targets <= 0:
            raise ValueError(
                "`real_targets` must be how many real numbers are predicted, examples times "
                f"outputs, to tune 'noise', got {real_targets}. For classification there is no "
                "noise: tune 'prior_precision' alone."
            )
        posterior.log_evidence(nll, real_targets)  # its errors, before anything is traced
    known = posterior.curvature.nll if nll is None else nll
    start = {
        name: jax.tree.map(lambda one: jnp.asarray(one, float), getattr(posterior, name))
        for name in what
    }

    @jax.jit
    def run(
        posterior: Laplace, numbers: dict[str, PyTree], nll: ArrayLike, real_targets: ArrayLike
    ) -> dict[str, PyTree]:
        squares = posterior.squared_distances()

        def step(numbers: dict[str, PyTree], _: None) -> tuple[dict[str, PyTree], None]:
            now = with_numbers(posterior, **numbers)
            goals = _goals(now, squares, nll, real_targets)
            return {
                name: jax.tree.map(_half_way, number, goals[name](number))
                for name, number in numbers.items()
            }, None

        return jax.lax.scan(step, numbers, None, length=steps)[0]

    return with_numbers(posterior, **run(posterior, start, known, real_targets))


def _goals(
    posterior: Laplace, squares: dict[str, jax.Array], nll: ArrayLike, real_targets: ArrayLike
) -> dict[str, Callable[[PyTree], PyTree]]:
    """Name -> what a number like the one that is given would be, were γ to stay."""
    curvature = posterior.likelihood_curvature
    dampings = curvature.dampings(posterior.prior_precision)
    determined = {
        path: (block.values / (block.values + dampings[path])).sum()
        for path, block in curvature.blocks.items()
    }
    total = sum(determined.values(), jnp.zeros([]))

    def precision(like: PyTree) -> PyTree:
        if isinstance(like, Mapping):
            return {path: determined[path] / squares[path] for path in like}
        return total / sum(squares.values(), jnp.zeros([]))

    def noise(like: PyTree) -> PyTree:
        del like
        return jnp.sqrt(2 * nll / (posterior.temperature * (real_targets - total)))

    return {"prior_precision": precision, "noise": noise}


def _half_way(now: jax.Array, goal: jax.Array) -> jax.Array:
    """The geometric mean, or the number as it is where the goal is none."""
    is_legal = jnp.isfinite(goal) & (goal > 0)
    return jnp.sqrt(now * jnp.where(is_legal, goal, now).astype(now.dtype))
