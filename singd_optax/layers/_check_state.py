"""Do these factors match these layers?"""

from typing import Any

import jax
import jax.numpy as jnp

from singd_optax.layers._spec import LayerSpec


def check_factors(spec: LayerSpec, factors: Any) -> None:
    """Raise unless the factors of a layer are of its structures, sizes and dtypes.

    Args:
      spec: The layer.
      factors: (K, C) in an optimizer state.

    Raises:
      ValueError: They are of another layer, or the state was saved with other layers.
    """
    got = [describe_factor(factor) for factor in (factors.K, factors.C)]
    expected = [
        _describe(structure, dim, spec.stack_shape, dtype)
        for structure, dim, dtype in zip(spec.structures, spec.dims, spec.factor_dtype, strict=True)
    ]
    if got != expected:
        raise ValueError(
            f"The factors of layer {spec.path!r} in `opt_state` do not match `layers`: got K "
            f"{got[0]} and C {got[1]}, the layer has K {expected[0]} and C {expected[1]}. Use the "
            "same layers for the optimizer and for value_and_grad, and a state from tx.init, or "
            "from a checkpoint that was written with these layers."
        )


def describe_factor(factor: Any) -> str:
    """Structure, size and dtype of a factor, of arrays or of shapes, in words."""
    found: list[str] = []

    def describe(factor: Any) -> None:
        dtype = jnp.dtype(factor.dtype).name
        found.append(_describe(factor.structure, factor.dim, factor.batch_shape, dtype))

    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(factor)):
        jax.eval_shape(describe, factor)
    else:
        describe(factor)
    return found[0]


def _describe(structure: Any, dim: int, stack: tuple[int, ...], dtype: str) -> str:
    stacked = f" stacked {tuple(stack)}" if stack else ""
    return f"{structure!r} {dim} x {dim} {dtype}{stacked}"
