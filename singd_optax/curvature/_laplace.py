"""The Laplace posterior: a Gaussian around trained parameters."""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_number, concrete_number
from singd_optax.curvature._curvature import Curvature, Damping
from singd_optax.curvature._views import matrices_of
from singd_optax.placement import laid_out_like, on_auto_axes, partitions_of


@flax.struct.dataclass
class Laplace:
    """N(mean, (H / (σ² T) + Δ)^-1), with H of a data set and Δ the precision of a Gaussian prior.

    All units are those of the summed negative log-likelihood: with a weight decay γ in a mean loss
    over N terms, the prior precision is N γ. Parameters without a block keep their values. A
    pytree, so that everything may be differentiated with respect to its hyper-parameters.
    From ``laplace``.

    Attributes:
      mean: The trained parameters.
      curvature: H, at the mean.
      prior_precision: Δ: one number, or one for each block by its path.
      temperature: T: below 1 the posterior is sharper than the likelihood says.
      noise: σ of a Gaussian likelihood, relative to the σ that the curvature was fitted with; 1 for
        all others.
      prior_mean: Of the prior, like the parameters; None for zeros.

    References:
      MacKay, A Practical Bayesian Framework for Backpropagation Networks, 1992. Ritter et al., ICLR
      2018. Daxberger et al., Laplace Redux, NeurIPS 2021, arXiv 2106.14806.
    """

    mean: PyTree
    curvature: Curvature
    prior_precision: Damping
    temperature: ArrayLike = 1.0
    noise: ArrayLike = 1.0
    prior_mean: PyTree = None

    @property
    def likelihood_curvature(self) -> Curvature:
        """H / (σ² T)."""
        return self.curvature.scaled(1 / (jnp.asarray(self.noise) ** 2 * self.temperature))

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> PyTree:
        """Parameters drawn from the posterior, with these axes in front of each array.

        Args:
          key: A random key.
          shape: Of the draws.
        """
        curvature = self.likelihood_curvature
        dampings = curvature.dampings(self.prior_precision, inverted=True)

        def draw(
            mean: PyTree, curvature: Curvature, dampings: dict[str, ArrayLike], key: jax.Array
        ) -> PyTree:
            return jax.tree.map(jnp.add, mean, curvature.sample(key, dampings, shape))

        like = partitions_of(self.mean, in_front=len(shape))
        return laid_out_like(draw, like, self.mean, curvature, dampings, key)

    def variance(self) -> PyTree:
        """The marginal variance of each parameter; 0 without a block."""
        return self.likelihood_curvature.diagonal(-1.0, self.prior_precision)

    def log_evidence(self, nll: ArrayLike | None = None, real_targets: ArrayLike = 0) -> jax.Array:
        """The Laplace approximation of the log marginal likelihood (evidence) of the data.

        With L the summed negative log-likelihood at the mean θ, μ the mean of the prior::

            -L / (σ² T) - n (log σ + ½ log 2π) - ½ (θ-μ)ᵀ Δ (θ-μ) - ½ log det(H/(σ² T) + Δ)/det Δ

        Differentiable in ``prior_precision``, ``temperature`` and ``noise``; its maximum chooses
        the first and the last without any validation data (MacKay, 1992; Immer et al., ICML 2021,
        arXiv 2104.04975), see ``tune``. In the temperature it has no maximum.

        Args:
          nll: L; None for what ``fit`` has added up, which must be free of penalties. Of a Gaussian
            likelihood, the sum of (y - f)² / 2 σ_0², with σ_0 that of the fit, without constants.
          real_targets: n, how many real numbers are predicted by a Gaussian likelihood: examples
            times outputs. 0 for classification.

        Returns:
          A scalar.

        Raises:
          ValueError: ``nll`` is not known, or a block is singular.
        """
        if nll is None:
            nll = self.curvature.nll
            known = concrete_number(nll)
            if known is not None and math.isnan(known):
                raise ValueError(
                    "The curvature has no negative log-likelihood: it is NaN, as from "
                    "from_opt_state, or from a loss without tag_distribution. Pass nll=, the sum "
                    "over the data set."
                )
        curvature = self.likelihood_curvature
        dampings = curvature.dampings(self.prior_precision, inverted=True)
        sizes = {path: block.values.size for path, block in curvature.blocks.items()}
        ratio = curvature.logdet(dampings) - sum(
            sizes[path] * jnp.log(jnp.asarray(dampings[path])) for path in sizes
        )
        log_noise = jnp.log(jnp.asarray(self.noise)) + 0.5 * jnp.log(2 * jnp.pi)
        fit = nll / (jnp.asarray(self.noise) ** 2 * self.temperature) + real_targets * log_noise
        return jnp.asarray(-fit - 0.5 * (self.scatter() + ratio))

    def scatter(self) -> jax.Array:
        """(θ-μ)ᵀ Δ (θ-μ), over parameters with a block."""
        dampings = self.curvature.dampings(self.prior_precision)
        parts = [dampings[path] * square for path, square in self.squared_distances().items()]
        return jnp.asarray(sum(parts, jnp.zeros([])))

    def squared_distances(self) -> dict[str, jax.Array]:
        """|θ-μ|² of each block."""
        off = self.mean
        if self.prior_mean is not None:
            off = jax.tree.map(jnp.subtract, self.mean, self.prior_mean)
        self.curvature.check(off, "the mean")
        squares = lambda tree: {
            path: jnp.sum(matrix**2)
            for path, matrix in matrices_of(self.curvature.views, tree).items()
        }
        return on_auto_axes(squares, off)


def laplace(
    curvature: Curvature,
    params: PyTree,
    *,
    prior_precision: Damping = 1.0,
    temperature: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    prior_mean: PyTree = None,
) -> Laplace:
    """The Laplace posterior of trained parameters, see ``Laplace``.

    Of the last layer, or of a subnetwork, with ``curvature.select(pattern)``.

    Args:
      curvature: From ``fit``, at these parameters; ``fisher="mc"`` or ``"ggn"``.
      params: The trained parameters.
      prior_precision: Δ > 0: one number, or a mapping from the paths of blocks.
      temperature: T > 0.
      noise: σ > 0 of a Gaussian likelihood, relative to ``standard_deviation`` of the fit.
      prior_mean: Like ``params``; None for zeros.

    Returns:
      A ``Laplace``.

    Raises:
      TypeError: ``curvature`` is something else.
      ValueError: The parameters are of other layers, or a number is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal, laplace
      >>> posterior = laplace(from_diagonal({"w": jnp.array([1.0, 3.0])}), {"w": jnp.zeros(2)})
      >>> posterior.variance()["w"]
      Array([0.5 , 0.25], dtype=float32)
      >>> posterior.sample(jax.random.key(0), (7,))["w"].shape
      (7, 2)
    """
    if not isinstance(curvature, Curvature):
        raise TypeError(
            f"`curvature` must be a singd_optax.curvature.Curvature, got {curvature!r} of type "
            f"{type(curvature).__name__}. Make one with singd_optax.curvature.fit."
        )
    check_number("temperature", temperature, strict=True, schedule=False)
    check_number("noise", noise, strict=True, schedule=False)
    for number in curvature.dampings(prior_precision).values():
        check_number("prior_precision", number, strict=True, schedule=False)
    curvature.check(params, "params")
    if prior_mean is not None:
        curvature.check(prior_mean, "prior_mean")
    return Laplace(params, curvature, prior_precision, temperature, noise, prior_mean)


def with_numbers(posterior: Laplace, **numbers: PyTree) -> Laplace:
    """The posterior with other hyper-parameters."""
    return dataclasses.replace(posterior, **numbers)
