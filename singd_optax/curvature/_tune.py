"""The hyper-parameters of a Laplace posterior, by its evidence."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_number, check_size
from singd_optax.curvature._laplace import Laplace, with_numbers

TUNED = ("prior_precision", "temperature", "noise")


def tune(
    posterior: Laplace,
    nll: ArrayLike | None = None,
    *,
    what: Sequence[str] = ("prior_precision",),
    real_targets: ArrayLike = 0,
    steps: int = 100,
    learning_rate: float = 0.1,
) -> Laplace:
    """The posterior with the hyper-parameters that maximize its evidence.

    Adam on their logarithms, from where they are; no data are needed, so that it may be called now
    and then while training, in turns with ``fit`` (Immer et al., ICML 2021, arXiv 2104.04975). Then
    the weight decay of the next steps is prior_precision / terms (times the temperature), for a
    loss that is a mean over ``curvature.terms``. It may be jitted, if ``nll`` is given.

    Args:
      posterior: From ``laplace``. A prior precision for each block is tuned for each block.
      nll: Of the data, see ``Laplace.log_evidence``.
      what: Which: some of ``"prior_precision"``, ``"temperature"`` and ``"noise"``. The last two
        are one number where there are no real targets: tune one of them.
      real_targets: As there.
      steps: How many.
      learning_rate: Of Adam, in natural logarithms.

    Returns:
      A posterior like this one.

    Raises:
      ValueError: A name is not one of these, or is tuned without a unique optimum.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal, laplace
      >>> params = {"w": jnp.full(100, 0.5)}
      >>> posterior = laplace(from_diagonal({"w": jnp.full(100, 1e6)}), params)
      >>> round(float(tune(posterior, nll=0.0).prior_precision), 2)  # 1 / 0.5², data say it all
      4.0
    """
    for name in what:
        check_choice("what", name, TUNED)
    check_size("steps", steps)
    check_number("learning_rate", learning_rate, strict=True, schedule=False)
    if "temperature" in what and "noise" in what:
        raise ValueError(
            "The evidence has no unique optimum in temperature and noise, which scale the same "
            f"curvature, got what={tuple(what)}. Tune 'noise' for a Gaussian likelihood, "
            "'temperature' for others."
        )
    posterior.log_evidence(nll, real_targets)  # its errors, before anything is traced
    start = {
        name: jax.tree.map(lambda one: jnp.log(jnp.asarray(one, float)), getattr(posterior, name))
        for name in what
    }
    adam = optax.adam(learning_rate)

    def objective(logs: PyTree) -> jax.Array:
        numbers = jax.tree.map(jnp.exp, logs)
        return -with_numbers(posterior, **numbers).log_evidence(nll, real_targets)

    def step(carry: PyTree, _: None) -> tuple[PyTree, None]:
        logs, state = carry
        updates, state = adam.update(jax.grad(objective)(logs), state)
        return (optax.apply_updates(logs, updates), state), None

    @jax.jit
    def run(logs: PyTree) -> PyTree:
        (logs, _), _ = jax.lax.scan(step, (logs, adam.init(logs)), None, length=steps)
        return jax.tree.map(jnp.exp, logs)

    return with_numbers(posterior, **run(start))
