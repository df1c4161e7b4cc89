"""Flax Linen: which module calls are Kronecker layers, and how to tap them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp

from singd_optax.capture._linen_kinds import multiplied, read
from singd_optax.capture._params import ENTRY
from singd_optax.capture._sighting import Sighting
from singd_optax.capture._use import Use, tap_named


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


@contextlib.contextmanager
def sightings(token: int, seen: list[Sighting]) -> Iterator[None]:
    """Collect the calls of modules whose parameters have a probe with this token beside them."""

    def interceptor(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Any,
    ) -> Any:
        module = context.module
        probe = _entry(module)
        if (
            not isinstance(probe, Probe)
            or probe.token != token
            or not _is_call(context, args, kwargs)
        ):
            return next_fun(*args, **kwargs)
        output = next_fun(*args, **kwargs)
        inputs, others = _split(args, kwargs)
        use = read(module, context.method_name, inputs, others)
        name = type(module).__name__
        if isinstance(use, Use):
            if not use.fits(jnp.asarray(inputs), output):
                use = f"{name}: its outputs are no product of its inputs with the kernel"
            else:
                use.weights(jnp.asarray(inputs), output, name)
        seen.append(Sighting(probe.index, probe.removed, jnp.shape(probe.value), name, use))
        return output

    with nn.intercept_methods(interceptor):
        yield


@contextlib.contextmanager
def tapped() -> Iterator[None]:
    """Tap every call of a module whose parameters have a ``Tap`` beside them."""

    def interceptor(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Any,
    ) -> Any:
        module = context.module
        taps = _entry(module)
        if not isinstance(taps, tuple) or not _is_call(context, args, kwargs):
            return next_fun(*args, **kwargs)
        inputs, (others, named) = _split(args, kwargs)
        use = read(module, context.method_name, inputs, (others, named))
        tap = tap_named(taps, use.kernel) if isinstance(use, Use) else None
        if tap is None or isinstance(use, str):
            return next_fun(*args, **kwargs)
        inputs = multiplied(module, use, inputs)
        outputs = next_fun(inputs, *others, **named)
        return use.attach(tap, inputs, outputs, type(module).__name__)

    with nn.intercept_methods(interceptor):
        yield


def _entry(module: nn.Module) -> Any:
    if module.scope is None:
        return None
    return module.get_variable("params", ENTRY, None)


def _is_call(context: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this is a method that is called with inputs, and no setup or private helper."""
    name = context.method_name
    public = name == "__call__" or not name.startswith("_")
    return public and name != "setup" and bool(args or kwargs)


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, Any]]:
    """The inputs, which come first by place or by name, and (other args, other kwargs)."""
    if args:
        return args[0], (args[1:], kwargs)
    named = dict(kwargs)
    name = next((n for n in ("inputs", "query") if n in named), next(iter(named)))
    return named.pop(name), ((), named)
