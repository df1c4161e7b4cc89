"""Does this state of a rule match this layer?"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.layers._by_path import ByPath
from singd_optax.layers._groups import grouped
from singd_optax.layers._roles import roles_of
from singd_optax.layers._view import MatrixView
from singd_optax.structures import Identity, Structure, StructuredMatrix


def check_stacks(views: Mapping[str, MatrixView], states: Mapping[str, PyTree]) -> None:
    """``check_factors`` of all layers of a state, those of a group at once.

    Args:
      views: The layers, by path.
      states: What one rule keeps of them, by path.
    """
    by_path = ByPath.each(states)
    for group, view in grouped(views, by_path.groups).items():
        check_factors(view, by_path.of_group(group))


def check_factors(view: MatrixView, state: PyTree) -> None:
    """Raise unless the factors of a layer are of its structures, sizes and dtypes.

    Args:
      view: The layer, or parameter.
      state: What a rule keeps of it, in an optimizer state.

    Raises:
      ValueError: They are of another layer, or the state was saved with other layers.
    """
    for name, role in roles_of(type(state)).items():
        factor = getattr(state, name)
        is_matrix = role.has_factor_dtype and role.kind != "blocks"
        if not is_matrix or role.side is None or factor is None:
            continue
        structure, dim = view.structures[role.side], view.dims[role.side]
        dtype = view.factor_dtype[role.side]
        got = describe_factor(factor)
        expected = _describe(structure, dim, view.stack_shape, dtype)
        if got != expected:
            raise ValueError(
                f"The factors of layer {view.path!r} in `opt_state` do not match `layers`: got "
                f"{name} {got}, and the layer has {expected}. Use the same layers for the "
                "optimizer and for value_and_grad, and a state from tx.init, or from a checkpoint "
                "that was written with these layers."
            )


def describe_factor(factor: StructuredMatrix) -> str:
    """Structure, size and dtype of a factor, of arrays or of shapes, in words."""
    found: list[str] = []

    def describe(factor: StructuredMatrix) -> None:
        dtype = jnp.dtype(factor.dtype).name
        found.append(_describe(factor.structure, factor.dim, factor.batch_shape, dtype))

    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(factor)):
        jax.eval_shape(describe, factor)
    else:
        describe(factor)
    return found[0]


def _describe(structure: Structure, dim: int, stack: tuple[int, ...], dtype: str) -> str:
    stacked = f" stacked {tuple(stack)}" if stack and structure != Identity() else ""
    return f"{structure!r} {dim} x {dim} {dtype}{stacked}"
