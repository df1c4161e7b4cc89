"""The momentum of gradients or of updates, kept like the parameters."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from singd_optax._types import PyTree
from singd_optax._validate import check_flag, check_number, concrete_number
from singd_optax.layers._tree import Leaves
from singd_optax.rules import Hyperparameter

Arrays = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Momentum:
    """A buffer for each parameter that a rule treats.

    Of gradients it is the heavy ball of ``optax.trace``, m <- d m + g. Where sizes have a meaning,
    those of updates or of gradients beside their second moments, it is their average with corrected
    bias, m <- d m + (1 - d) u over 1 - d^t.

    Attributes:
      decay: The decay d, in [0, 1).
      nesterov: Whether what comes out looks one step ahead.
      dtype: The dtype of the buffer; None for the parameter's.
    """

    decay: Hyperparameter
    nesterov: bool
    dtype: DTypeLike | None

    def __post_init__(self) -> None:
        check_number("momentum", self.decay, maximum=1, strict_maximum=True, schedule=False)
        check_flag("nesterov", self.nesterov)
        if self.dtype is not None and not jnp.issubdtype(jnp.dtype(self.dtype), jnp.floating):
            raise ValueError(
                "`accumulator_dtype` must be a dtype of floats, such as jnp.float32, or None, got "
                f"{self.dtype!r}."
            )

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to keep: a traced number may become another than 0."""
        return concrete_number(self.decay) == 0 and not isinstance(self.decay, jax.Array)

    def init(self, params: PyTree, paths: Iterable[str]) -> PyTree:
        """Zeros at these paths, and empty nodes at all others; None if nothing is kept."""
        leaves = Leaves(params)
        if self.is_none:
            return None
        if leaves.is_placeholder:
            return params
        chosen = set(paths)
        return leaves.replaced(
            {
                path: jnp.zeros_like(leaves[path], self.dtype)
                if path in chosen
                else optax.MaskedNode()
                for path in leaves
            }
        )

    def of_gradients(self, state: PyTree, gradients: Arrays) -> tuple[dict[str, jax.Array], PyTree]:
        """(What is preconditioned, the state) after these gradients, by path."""
        if state is None:
            return dict(gradients), None
        leaves = Leaves(state)
        decay = self.decay
        assert not callable(decay)
        new = {path: g + decay * leaves[path] for path, g in gradients.items()}
        ahead = {path: g + decay * new[path] for path, g in gradients.items()}
        return (ahead if self.nesterov else new), _stored(leaves, new)

    def average(
        self, state: PyTree, updates: Arrays, count: jax.Array
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """(The average, the state) after these updates, or gradients, by path."""
        if state is None:
            return dict(updates), None
        leaves = Leaves(state)
        decay = self.decay
        assert not callable(decay)
        new = {path: decay * leaves[path] + (1 - decay) * u for path, u in updates.items()}
        steps = count + 1
        out = new
        if self.nesterov:
            out = {path: decay * new[path] + (1 - decay) * u for path, u in updates.items()}
            steps = count + 2
        wide = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in out.values()))
        weight = 1 - jnp.asarray(decay, wide) ** steps
        return (
            {path: leaf / weight.astype(leaf.dtype) for path, leaf in out.items()},
            _stored(leaves, new),
        )


def _stored(leaves: Leaves, new: Arrays) -> PyTree:
    return leaves.replaced({path: leaf.astype(leaves[path].dtype) for path, leaf in new.items()})
