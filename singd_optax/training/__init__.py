"""Around the optimizer: flax's TrainState, accumulation over micro-batches, checkpoints."""

from singd_optax.training._bind import bind_curvature
from singd_optax.training._check_refreshes import check_refreshes
from singd_optax.training._check_state import check_opt_state
from singd_optax.training._microbatch import microbatch
from singd_optax.training._multi_steps import MultiSteps
from singd_optax.training._pmean import pmean_curvature
from singd_optax.training._train_state import TrainState, train_step

__all__ = [
    "MultiSteps",
    "TrainState",
    "bind_curvature",
    "check_opt_state",
    "check_refreshes",
    "microbatch",
    "pmean_curvature",
    "train_step",
]
