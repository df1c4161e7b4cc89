"""The factors as a product: curvature of a data set, for posteriors, influence and more.

Words: a *curvature* is the Gauss-Newton or Fisher matrix of the summed negative log-likelihood, by
*blocks*, one for each layer; the *damping* is what is added to its diagonal, the *prior precision*
where that is a Gaussian prior's.
"""

from singd_optax.curvature._block import Block
from singd_optax.curvature._curvature import Curvature
from singd_optax.curvature._fit import fit
from singd_optax.curvature._fit_state import FitState
from singd_optax.curvature._from_state import from_opt_state
from singd_optax.curvature._influence import influence, self_influence
from singd_optax.curvature._laplace import Laplace, laplace
from singd_optax.curvature._make import from_diagonal
from singd_optax.curvature._predict import Gaussian, output_distribution, predict
from singd_optax.curvature._prior import PriorState, add_prior, prior_state, tune_prior
from singd_optax.curvature._tune import tune
from singd_optax.curvature._uses import quadratic_penalty, remove, saliency

__all__ = [
    "Block",
    "Curvature",
    "FitState",
    "Gaussian",
    "Laplace",
    "PriorState",
    "add_prior",
    "fit",
    "from_diagonal",
    "from_opt_state",
    "influence",
    "laplace",
    "output_distribution",
    "predict",
    "prior_state",
    "quadratic_penalty",
    "remove",
    "saliency",
    "self_influence",
    "tune",
    "tune_prior",
]
