"""What a compiled step takes in memory, beside AdamW's."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from singd_optax._types import LossFunction, PyTree
from singd_optax._validate import check_flag
from singd_optax.capture import value_and_grad
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers
from singd_optax.layers._rendered import Part, Table
from singd_optax.layers._table import format_bytes


class ProgramMemory(NamedTuple):
    """The bytes that a compiled step takes on its device, parameters and state being donated.

    Attributes:
      arguments: The bytes of parameters, the optimizer's state and the batch.
      temporaries: The bytes of activations, gradients, statistics, and all else that is made on the
        way.
      peak: The bytes of all at once: arguments, temporaries, and outputs that take no argument's
        place.
    """

    arguments: int
    temporaries: int
    peak: int


class StepMemory(NamedTuple):
    """What ``step_memory`` found; ``print`` shows it as a table, and so does a notebook.

    Attributes:
      step: The memory of the step with your optimizer.
      adamw: The memory of a step with ``optax.adamw`` for the same loss.
    """

    step: ProgramMemory
    adamw: ProgramMemory

    @property
    def ratio(self) -> float:
        """The peak of your step, divided by that of the step with AdamW."""
        return self.step.peak / self.adamw.peak

    def __str__(self) -> str:
        """The table, as text."""
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        rows = [["", "arguments", "temporaries", "peak", "peak to AdamW's"]]
        for name, memory in (("this step", self.step), ("optax.adamw", self.adamw)):
            ratio = memory.peak / self.adamw.peak
            rows.append([name, *map(format_bytes, memory), f"{ratio:.2f}"])
        return Table.of([Part("", rows)])


def step_memory(
    loss_fn: LossFunction,
    layers: Layers | None,
    tx: optax.GradientTransformation,
    params: PyTree,
    *args: PyTree,
    has_aux: bool = False,
    refresh: bool | None = None,
    **kwargs: PyTree,
) -> StepMemory:
    """The memory that a training step takes, beside that of the same loss with ``optax.adamw``.

    Two steps are compiled, and neither is run: loss, gradients, update and new parameters, with
    parameters and state donated. What the state alone takes is in ``summary``; a step also holds
    activations, gradients, statistics, and what a refresh computes on the way.

    Args:
      loss_fn: ``loss_fn(params, *args, **kwargs)``, as for ``find_layers``.
      layers: The layers that ``find_layers`` found; None for optimizers that need gradients only.
      tx: The optimizer.
      params: The parameters; arrays or ``jax.ShapeDtypeStruct``s.
      *args: What ``loss_fn`` is called with after ``params``, arrays or ``jax.ShapeDtypeStruct``s:
        the shapes of a batch matter.
      has_aux: Whether ``loss_fn`` returns ``(loss, aux)``.
      refresh: Whether the step refreshes factors: None for the step that decides by itself; True or
        False for one of the two programs of ``singd_optax.refresh_due``.
      **kwargs: What ``loss_fn`` is called with by name.

    Returns:
      The bytes of both steps, on one device: placement on a mesh is not looked at.

    Raises:
      TypeError: ``tx``, ``layers`` or a flag is something else.
      ValueError: ``params`` do not match ``layers``.
      RuntimeError: The backend does not say what its programs take.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(64)
      >>> x = jnp.ones((8, 63))
      >>> params = model.init(jax.random.key(0), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x, structures="diagonal")
      >>> tx = singd_optax.singd(0.1, layers)
      >>> memory = singd_optax.diagnostics.step_memory(loss_fn, layers, tx, params, x)
      >>> print(memory)
                   arguments  temporaries  peak     peak to AdamW's
      this step    ...
      optax.adamw  51.2 kB    ...                   1.00
      >>> memory.step.arguments < memory.adamw.arguments
      True
    """
    if not callable(getattr(tx, "update", None)):
        raise TypeError(
            "`tx` must be an optax transformation, such as singd_optax.singd(1e-3, layers), got a "
            f"{type(tx).__name__}. The order is step_memory(loss_fn, layers, tx, params, batch)."
        )
    check_flag("has_aux", has_aux)
    if refresh is not None:
        check_flag("refresh", refresh)
    static: dict[str, PyTree] = {} if refresh is None else {"refresh": refresh}
    if layers is None:
        own = _plain_gradients(loss_fn, has_aux, static)
    else:
        check_layers(layers)
        own = _measured_gradients(loss_fn, layers, has_aux, static)
    adamw = _plain_gradients(loss_fn, has_aux, {})
    return StepMemory(
        _memory(own, tx, params, args, kwargs),
        _memory(adamw, optax.adamw(1e-3), params, args, kwargs),
    )


#: (opt_state, params, *args, **kwargs) -> value, gradients, and what ``update`` takes beside them.
_Gradients = Callable[..., tuple[PyTree, PyTree, dict[str, PyTree]]]


def _plain_gradients(loss_fn: LossFunction, has_aux: bool, static: dict[str, PyTree]) -> _Gradients:
    grad_fn = jax.value_and_grad(loss_fn, has_aux=has_aux)

    def gradients(
        opt_state: PyTree, *args: PyTree, **kwargs: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, PyTree]]:
        del opt_state
        value, grads = grad_fn(*args, **kwargs)
        return value, grads, static

    return gradients


def _measured_gradients(
    loss_fn: LossFunction, layers: Layers, has_aux: bool, static: dict[str, PyTree]
) -> _Gradients:
    grad_fn = value_and_grad(loss_fn, layers, has_aux=has_aux)

    def gradients(
        opt_state: PyTree, *args: PyTree, **kwargs: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, PyTree]]:
        value, grads, curvature = grad_fn(*args, opt_state=opt_state, **static, **kwargs)
        return value, grads, {"curvature": curvature, **static}

    return gradients


def _memory(
    gradients: _Gradients,
    tx: optax.GradientTransformation,
    params: PyTree,
    args: tuple[PyTree, ...],
    kwargs: dict[str, PyTree],
) -> ProgramMemory:
    """Of a step that is compiled here."""
    tx = optax.with_extra_args_support(tx)

    def step(
        params: PyTree, opt_state: PyTree, args: tuple[PyTree, ...], kwargs: dict[str, PyTree]
    ) -> tuple[PyTree, PyTree, PyTree]:
        value, grads, extra = gradients(opt_state, params, *args, **kwargs)
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state = jax.eval_shape(tx.init, params)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state, args, kwargs)
    taken = lowered.compile().memory_analysis()
    if taken is None:
        raise RuntimeError(
            f"The backend {jax.default_backend()!r} does not say what its programs take in memory. "
            "Ask on another one, for example with JAX_PLATFORMS=cpu. The bytes of the state alone "
            "are in singd_optax.diagnostics.summary(jax.eval_shape(tx.init, params))."
        )
    arguments, temporaries = taken.argument_size_in_bytes, taken.temp_size_in_bytes
    new_outputs = taken.output_size_in_bytes - taken.alias_size_in_bytes
    return ProgramMemory(arguments, temporaries, arguments + temporaries + new_outputs)
