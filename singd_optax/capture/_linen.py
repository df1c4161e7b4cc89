"""Flax Linen: which module calls are Kronecker layers, and how to tap them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from singd_optax.capture._params import ENTRY
from singd_optax.capture._tap import Tap, attach


@flax.struct.dataclass
class Probe(nn.meta.AxisMetadata):
    """Rides beside parameters while layers are found, and tells at each call what it was beside.

    Static fields travel through every transform. Lifted transforms announce to boxes like this
    one which axis they take off; others show in the shape of ``value``. The token makes each
    search new to every jit cache.
    """

    value: Any
    index: int = flax.struct.field(pytree_node=False)
    token: int = flax.struct.field(pytree_node=False)
    removed: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())

    def unbox(self) -> Any:
        """The array."""
        return self.value

    def replace_boxed(self, val: Any) -> "Probe":
        """The same box around another array."""
        return self.replace(value=val)  # type: ignore[attr-defined]

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Probe":
        """A lifted transform stacks."""
        del index, params
        return self.replace(removed=self.removed[:-1])  # type: ignore[attr-defined]

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Probe":
        """A lifted transform takes one slice along ``index``."""
        del params
        return self.replace(removed=(*self.removed, index))  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Sighting:
    """One call of a module that owns parameters, seen while layers are found.

    Attributes:
      index: Of the probe beside its parameters.
      removed: Axes that lifted transforms took off before the call.
      value_shape: The shape of the probe's array inside the call.
      module: The class, by name.
      kind: The kind of Kronecker layer, or None if the module is none.
      reason: Why it is none.
    """

    index: int
    removed: tuple[int, ...]
    value_shape: tuple[int, ...]
    module: str
    kind: str | None
    reason: str = ""


def box_value(leaf: Any) -> Any:
    """A parameter without the box around it."""
    return leaf.unbox() if isinstance(leaf, nn.meta.AxisMetadata) else leaf


@contextlib.contextmanager
def sightings(token: int) -> Iterator[list[Sighting]]:
    """Collect the calls of modules whose parameters have a probe with this token beside them."""
    seen: list[Sighting] = []

    def interceptor(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Any,
    ) -> Any:
        probe = _entry(context.module)
        if not isinstance(probe, Probe) or probe.token != token:
            return next_fun(*args, **kwargs)
        module = context.module
        output = next_fun(*args, **kwargs)
        kind, reason = _classify(module, context.method_name, args, kwargs, output)
        seen.append(
            Sighting(
                probe.index,
                probe.removed,
                jnp.shape(probe.value),
                type(module).__name__,
                kind,
                reason,
            )
        )
        return output

    with nn.intercept_methods(interceptor):
        yield seen


@contextlib.contextmanager
def tapped() -> Iterator[None]:
    """Tap every call of a module whose parameters have a ``Tap`` beside them."""

    def interceptor(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Any,
    ) -> Any:
        tap = _entry(context.module)
        if not isinstance(tap, Tap) or _kind(context.module, context.method_name) is None:
            return next_fun(*args, **kwargs)
        inputs = _multiplied(context.module, _first(args, kwargs))
        return attach(tap.squeeze(), inputs, next_fun(inputs))

    with nn.intercept_methods(interceptor):
        yield


def _entry(module: nn.Module) -> Any:
    if module.scope is None:
        return None
    return module.get_variable("params", ENTRY, None)


def _kind(module: nn.Module, method: str) -> str | None:
    # A sub-class that keeps Dense.__call__ is a Dense layer; one that has its own may be anything.
    if method == "__call__" and getattr(type(module), method) is nn.Dense.__call__:
        return "dense"
    return None


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["inputs"]


def _classify(
    module: nn.Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> tuple[str | None, str]:
    name = type(module).__name__
    kind = _kind(module, method)
    if kind is None:
        call = name if method == "__call__" else f"{name}.{method}"
        return None, f"{call}: not a kind of layer that has Kronecker factors here"
    inputs = _first(args, kwargs)
    if jnp.shape(output) != (*jnp.shape(inputs)[:-1], module.features):
        return None, f"{name}: its outputs are no product of its inputs with the kernel"
    return kind, ""


def _multiplied(module: Any, inputs: Any) -> jax.Array:
    """The inputs in the dtype in which the module multiplies them with its kernel."""
    kernel = jnp.asarray(box_value(module.get_variable("params", "kernel")))
    bias = module.get_variable("params", "bias", None)
    bias = None if bias is None else jnp.asarray(box_value(bias))
    promoted, *_ = module.promote_dtype(jnp.asarray(inputs), kernel, bias, dtype=module.dtype)
    return promoted
