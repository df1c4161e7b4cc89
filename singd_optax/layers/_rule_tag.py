"""Which rule an optimizer state is of, as a part of the state that has no numbers."""

import dataclasses

import flax.serialization
import jax
import numpy as np

from singd_optax._types import PyTree


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class RuleTag:
    """The rule that a state was made by: static, so it costs a step nothing.

    States of two rules have two tree structures. In files of ``flax.serialization``, where only
    arrays are kept, the name is spelt in bytes.

    Attributes:
      name: The class of the rule.
      measures: What the rule wants to know of each layer: so the gradient function needs the state
        and no rule.

    >>> jax.tree.leaves(RuleTag("SINGD"))
    []
    """

    name: str
    measures: tuple[PyTree, ...] = ()


def _to_state_dict(rule: RuleTag) -> dict[str, np.ndarray]:
    return {"name": np.frombuffer(rule.name.encode(), np.uint8)}


def _from_state_dict(rule: RuleTag, state: dict[str, np.ndarray]) -> RuleTag:
    written = np.asarray(state.get("name", []), np.uint8).tobytes().decode()
    if written != rule.name:
        raise ValueError(
            f"The checkpoint was written by the rule {written!r}, and this optimizer has "
            f"{rule.name!r}. Use the optimizer that wrote it, or a new state from tx.init(params)."
        )
    return rule


flax.serialization.register_serialization_state(RuleTag, _to_state_dict, _from_state_dict)
