"""What a Laplace posterior predicts: the linearized model, or samples of the whole one."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from singd_optax._types import PyTree
from singd_optax._validate import check_choice, check_size
from singd_optax.curvature._batches import check_batch, check_examples
from singd_optax.curvature._curvature import Curvature
from singd_optax.curvature._examples import each_example
from singd_optax.curvature._laplace import Laplace
from singd_optax.layers._tree import Leaves
from singd_optax.placement import axes_of_first, on_auto_axes
from singd_optax.structures._in_turn import decomposed

Likelihood = Literal["categorical", "bernoulli", "gaussian"]
LIKELIHOODS: tuple[Likelihood, ...] = ("categorical", "bernoulli", "gaussian")
Method = Literal["linearized", "sampled"]
METHODS: tuple[Method, ...] = ("linearized", "sampled")
Link = Literal["probit", "bridge", "samples"]
LINKS: tuple[Link, ...] = ("probit", "bridge", "samples")

#: Outputs (examples, outputs) of parameters and inputs.
Model = Callable[[PyTree, PyTree], jax.Array]


class Gaussian(NamedTuple):
    """Gaussians of the outputs of several examples.

    Attributes:
      mean: (examples, outputs).
      covariance: (examples, outputs, outputs).
    """

    mean: jax.Array
    covariance: jax.Array


def output_distribution(
    posterior: Laplace, model: Model, inputs: PyTree, *, chunk: int = 32
) -> Gaussian:
    """The outputs of the model that is linearized at the mean: f + J (θ - mean).

    Their covariance is J Σ Jᵀ, exactly, with J the Jacobian of one example's outputs (Immer et
    al., 2021, arXiv 2008.08217).

    Args:
      posterior: From ``laplace``.
      model: ``model(params, inputs)`` returns outputs (examples, outputs): logits or means.
      inputs: An array, or a tree of them, with examples along the first axis.
      chunk: How many examples have their Jacobian, of outputs x parameters with a block, in memory
        at a time.

    Returns:
      Mean and covariance of each example's outputs, without the noise of a likelihood.

    Raises:
      ValueError: The model returns something else, or ``chunk`` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal, laplace
      >>> posterior = laplace(from_diagonal({"w": jnp.ones((2, 1))}), {"w": jnp.zeros((2, 1))})
      >>> output_distribution(posterior, lambda p, x: x @ p["w"], jnp.ones((3, 2))).covariance.shape
      (3, 1, 1)
    """
    check_size("chunk", chunk)
    _check_model(posterior, model, inputs)
    curvature = posterior.likelihood_curvature
    dampings = curvature.dampings(posterior.prior_precision, inverted=True)
    paths = [path for view in curvature.views for path in view.shapes]

    def covariance(
        jacobian: dict[str, jax.Array], curvature: Curvature, dampings: dict[str, ArrayLike]
    ) -> jax.Array:
        parts = []
        for view in curvature.views:
            block = curvature.blocks[view.path]
            arrays = (jacobian[path] for path in view.shapes)
            rows = jax.vmap(view.to_matrix)(*arrays).astype(block.values.dtype)
            half = block.into(rows) * block.powers(-0.5, dampings[view.path])
            half = half.reshape(half.shape[0], -1)
            parts.append(jnp.einsum("ip,jp->ij", half, half, precision="highest"))
        return sum(parts, jnp.zeros([]))

    def one(params: PyTree, example: PyTree) -> Gaussian:
        leaves = Leaves(params)

        def outputs(values: dict[str, jax.Array]) -> jax.Array:
            return model(leaves.replaced(values), example)[0]

        values = {path: leaves[path] for path in paths}
        jacobian = jax.jacrev(outputs)(values)
        return Gaussian(outputs(values), on_auto_axes(covariance, jacobian, curvature, dampings))

    return each_example(one, posterior.mean, inputs, chunk=chunk)


def predict(
    posterior: Laplace,
    model: Model,
    inputs: PyTree,
    *,
    likelihood: Likelihood = "categorical",
    method: Method = "linearized",
    link: Link = "probit",
    samples: int = 100,
    key: jax.Array | None = None,
    chunk: int = 32,
) -> jax.Array | Gaussian:
    """The posterior's predictive distribution. Jit it: each call by itself is compiled anew.

    Logits z ~ N(m, V) of the linearized model become probabilities by one of::

        "probit"    softmax(m / sqrt(1 + π/8 diag V))                  (MacKay, 1992)
        "bridge"    the mean of the Dirichlet with
                    α_k = (1 - 2/K + e^{m_k} Σ_j e^{-m_j} / K²) / V_kk, for m and V on the plane
                    where logits sum to zero                           (arXiv 2003.01227)
        "samples"   the mean of softmax(z) over draws

    Args:
      posterior: From ``laplace``.
      model: ``model(params, inputs)`` returns outputs (examples, outputs).
      inputs: An array, or a tree of them, with examples along the first axis.
      likelihood: What the outputs are: logits of ``"categorical"`` or ``"bernoulli"`` (for each
        output by itself), or means of ``"gaussian"``.
      method: ``"linearized"``, which suits a Gauss-Newton matrix; or ``"sampled"``, the mean over
        draws of parameters of what the model itself predicts.
      link: How Gaussian logits become probabilities; ``"bridge"`` is for ``"categorical"``.
      samples: How many draws, where there are any.
      key: A random key, where there are draws.
      chunk: Examples at a time (parameters at a time if sampled).

    Returns:
      Probabilities (examples, outputs); for ``"gaussian"`` a ``Gaussian``, of the means of what is
      observed: add σ² to the diagonal for the noise.

    Raises:
      ValueError: The likelihood, method or link is not one of these, or they do not go together; a
        key is missing; the model returns something else; or on a mesh with Explicit axes it does
        not run with one example, as ``out_sharding`` names the mesh axis of examples.

    Example:
      >>> import jax.numpy as jnp
      >>> from singd_optax.curvature import from_diagonal, laplace
      >>> posterior = laplace(from_diagonal({"w": jnp.ones((2, 2))}), {"w": jnp.eye(2)})
      >>> predict(posterior, lambda p, x: x @ p["w"], jnp.array([[3.0, 0.0]])).shape
      (1, 2)
    """
    check_choice("likelihood", likelihood, LIKELIHOODS)
    check_choice("method", method, METHODS)
    check_choice("link", link, LINKS)
    check_size("samples", samples)
    check_size("chunk", chunk)
    if key is None and (method == "sampled" or (link == "samples" and likelihood != "gaussian")):
        raise ValueError(
            f"`key` must be a random key for method={method!r} with link={link!r}, which draw, got "
            "None. Pass key=jax.random.key(0)."
        )
    if link == "bridge" and likelihood == "bernoulli":
        raise ValueError(
            "link='bridge' is for a categorical likelihood, got likelihood='bernoulli'. Use "
            "link='probit' or 'samples'."
        )
    if method == "sampled":
        assert key is not None
        return _sampled(posterior, model, inputs, likelihood, samples, key, chunk)
    found = output_distribution(posterior, model, inputs, chunk=chunk)
    if likelihood == "gaussian":
        return found
    to_probabilities = _links(likelihood)

    def of_gaussians(found: Gaussian, key: jax.Array | None) -> jax.Array:
        if link == "bridge":
            return _bridge(found)
        if link == "probit":
            variance = jnp.diagonal(found.covariance, axis1=-2, axis2=-1)
            return to_probabilities(found.mean / jnp.sqrt(1 + math.pi / 8 * variance))
        assert key is not None
        return to_probabilities(_draws(found, key, samples)).mean(0)

    return on_auto_axes(of_gaussians, found, key, split=axes_of_first(found))


def _check_model(posterior: Laplace, model: Model, inputs: PyTree) -> None:
    check_examples((inputs,))
    check_batch(model, posterior.mean, (inputs,), None, what="The model")
    found = jax.eval_shape(model, posterior.mean, inputs)
    shape = getattr(found, "shape", type(found).__name__)
    count = jax.tree.leaves(inputs)[0].shape[0]
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[0] != count:
        raise ValueError(
            f"The model must return outputs (examples, outputs), here ({count}, ...), got shape "
            f"{shape}. For sequences, predict one position: model=lambda params, x: "
            "model.apply(params, x)[:, -1]."
        )


def _links(likelihood: Likelihood) -> Callable[[jax.Array], jax.Array]:
    return jax.nn.softmax if likelihood == "categorical" else jax.nn.sigmoid


def _sampled(
    posterior: Laplace,
    model: Model,
    inputs: PyTree,
    likelihood: Likelihood,
    samples: int,
    key: jax.Array,
    chunk: int,
) -> jax.Array | Gaussian:
    _check_model(posterior, model, inputs)

    def one(key: jax.Array) -> jax.Array:
        outputs = model(posterior.sample(key), inputs)
        return outputs if likelihood == "gaussian" else _links(likelihood)(outputs)

    found = jax.lax.map(one, jax.random.split(key, samples), batch_size=chunk)

    def moments(found: jax.Array) -> jax.Array | Gaussian:
        mean = found.mean(0)
        if likelihood != "gaussian":
            return mean
        off = found - mean
        return Gaussian(mean, jnp.einsum("sni,snj->nij", off, off, precision="highest") / samples)

    return on_auto_axes(moments, found, split=axes_of_first(found[0]))


@jax.jit  # called without jit, the loop over matrices would be compiled on each call
def _eigh(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors of (..., k, k)."""
    values, vectors = decomposed(jnp.linalg.eigh, matrices)
    return values, vectors


def _draws(found: Gaussian, key: jax.Array, samples: int) -> jax.Array:
    """(samples, examples, outputs); the root is symmetric, as a covariance may be singular."""
    values, vectors = _eigh(found.covariance)
    half = vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]
    normal = jax.random.normal(key, (samples, *found.mean.shape), half.dtype)
    return found.mean + jnp.einsum("nij,snj->sni", half, normal, precision="highest")


def _bridge(found: Gaussian) -> jax.Array:
    """The Laplace bridge, after the projection onto logits that sum to zero."""
    m, V = found
    total = V.sum((1, 2))
    rows = V.sum(-1)
    safe = jnp.where(total > 0, total, 1)
    m = m - rows * (m.sum(-1) / safe)[:, None]
    V = V - rows[:, :, None] * rows[:, None, :] / safe[:, None, None]
    K = m.shape[-1]
    diagonal = jnp.diagonal(V, axis1=-2, axis2=-1)
    # Both are divided by e^{max m}, so that nothing overflows; the Dirichlet's mean is a ratio.
    pairs = jnp.exp(jax.nn.logsumexp(-m, axis=-1)[:, None] + m)
    alpha = (1 - 2 / K + pairs / K**2) / diagonal
    return alpha / alpha.sum(-1, keepdims=True)
