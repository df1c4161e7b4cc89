"""Which rule an optimizer state is of, as a part of the state that has no numbers."""

import dataclasses
from typing import Any

import flax.serialization
import jax
import numpy as np


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class RuleName:
    """The class of the rule that a state was made by: static, so it costs a step nothing.

    States of two rules have two tree structures. In files of ``flax.serialization``, where only
    arrays are kept, it is spelt in bytes.

    >>> jax.tree.leaves(RuleName("SINGD"))
    []
    """

    name: str


def _to_state_dict(rule: RuleName) -> dict[str, Any]:
    return {"name": np.frombuffer(rule.name.encode(), np.uint8)}


def _from_state_dict(rule: RuleName, state: dict[str, Any]) -> RuleName:
    written = np.asarray(state.get("name", []), np.uint8).tobytes().decode()
    if written != rule.name:
        raise ValueError(
            f"The checkpoint was written by the rule {written!r}, this optimizer has "
            f"{rule.name!r}. Use the optimizer that wrote it, or a new state from tx.init(params)."
        )
    return rule


flax.serialization.register_serialization_state(RuleName, _to_state_dict, _from_state_dict)
