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
from singd_optax.curvature._make import from_diagonal

__all__ = [
    "Block",
    "Curvature",
    "FitState",
    "fit",
    "from_diagonal",
    "from_opt_state",
]
