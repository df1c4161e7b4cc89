"""optax.MultiSteps for gradients and statistics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from singd_optax._types import PyTree
from singd_optax._validate import check_interval
from singd_optax.layers import Layers, measured_states
from singd_optax.layers._check import check_layers
from singd_optax.layers._states import AccumulatedState
from singd_optax.measures import Statistics, by_origin
from singd_optax.training._microbatch import is_sum_loss


class MultiSteps:
    """An ``optax.MultiSteps`` that accumulates statistics beside gradients.

    It is for micro-batches that come one a step. Where the whole batch is at hand, ``microbatch``
    does the same within one step, and without a second copy of gradients and statistics in the
    state.

    Each call of ``update`` takes the gradients and the curvature (the statistics of layers) of one
    micro-batch; on every k-th call the optimizer gets the mean of both over the k (for a sum loss
    the sum of gradients and of the second moments G of output gradients, see ``microbatch``), on
    all others the updates are zeros. Micro-batches that
    ``should_skip_update_fn`` rejects count for neither.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jax.random.normal(jax.random.key(0), (32, 5))
      >>> params = model.init(jax.random.key(1), x)
      >>> loss_fn = lambda params, x: jnp.mean(model.apply(params, x) ** 2)
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> grad_fn = singd_optax.value_and_grad(loss_fn, layers)
      >>> tx = singd_optax.training.MultiSteps(singd_optax.singd(0.1, layers), 4, layers)
      >>> opt_state = tx.init(params)
      >>> for part in jnp.split(x, 4):
      ...   value, grads, curvature = grad_fn(params, part, opt_state=opt_state)
      ...   updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
      ...   params = optax.apply_updates(params, updates)
      >>> bool(tx.has_updated(opt_state))
      True
    """

    def __init__(
        self,
        opt: optax.GradientTransformation,
        every_k_schedule: int | Callable[[PyTree], PyTree],
        layers: Layers,
        *,
        should_skip_update_fn: PyTree = None,
        accumulator_dtype: DTypeLike = jnp.float32,
    ):
        """Take the arguments of ``optax.MultiSteps``, and the layers.

        Args:
          opt: The optimizer.
          every_k_schedule: The number of micro-batches that make a step, an int >= 1, or a schedule
            step -> int.
          layers: The layers that ``find_layers`` found; their ``loss_average`` says what is added
            up.
          should_skip_update_fn: A function that says whether to skip a micro-batch, as in
            ``optax.MultiSteps``, for example ``optax.skip_not_finite``; None skips none.
          accumulator_dtype: The dtype of the accumulated gradients.

        Raises:
          TypeError: ``layers`` or ``every_k_schedule`` is something else.
          ValueError: ``every_k_schedule`` is below 1, or some layers have a sum loss and others a
            mean.
        """
        check_layers(layers)
        check_interval("every_k_schedule", every_k_schedule)
        self._is_sum = is_sum_loss(layers)
        self._layers = layers
        self._skip = should_skip_update_fn
        self._multi_steps = optax.MultiSteps(
            opt,
            every_k_schedule,
            use_grad_mean=not self._is_sum,
            should_skip_update_fn=should_skip_update_fn,
            accumulator_dtype=accumulator_dtype,
        )

    def init(self, params: PyTree) -> AccumulatedState:
        """The state before the first step: that of ``optax.MultiSteps``, and zero statistics.

        Args:
          params: The parameters.
        """
        state = self._multi_steps.init(params)
        zeros = {
            path: Statistics.zeros(self._layers[path], inner.rule_tag.measures)
            for inner in measured_states(state)
            for path in inner.rule_states
        }
        return AccumulatedState(state, zeros)

    def update(
        self,
        updates: PyTree,
        state: AccumulatedState,
        params: PyTree = None,
        *,
        curvature: dict[str, Statistics] | None = None,
        refresh: bool | None = None,
        **extra_args: PyTree,
    ) -> tuple[PyTree, AccumulatedState]:
        """Take one micro-batch's gradients and curvature.

        Args:
          updates: The gradients of the micro-batch, a tree like ``params``.
          state: The state from ``init`` or the last ``update``.
          params: The parameters.
          curvature: The curvature that ``value_and_grad`` returned, called with this ``state`` for
            ``opt_state``.
          refresh: Whether this step refreshes the factors, static, the same for all its
            micro-batches; None for what the optimizer's state says.
          **extra_args: More arguments for the optimizer's ``update``.

        Returns:
          The updates, which are zeros but on the last micro-batch of a step, and the next state.

        Raises:
          ValueError: ``curvature`` is missing, of other layers, or of another step.
        """
        inner, old = state
        multi_steps = self._multi_steps
        extra_args = extra_args if refresh is None else {**extra_args, "refresh": refresh}
        if refresh is False:
            result, new_inner = multi_steps.update(updates, inner, params, **extra_args)
            return result, AccumulatedState(new_inner, old)
        if curvature is None or any(path not in curvature for path in old):
            multi_steps.inner_opt.update(
                updates, inner.inner_opt_state, params, curvature=curvature, **extra_args
            )
        given = (
            {path: curvature[path]._replace(measured_at=None) for path in old} if curvature else {}
        )
        new = self._accumulated(old, given, inner.mini_step)
        counted = {
            path: one._replace(measured_at=curvature[path].measured_at if curvature else None)
            for path, one in new.items()
        }
        result, new_inner = multi_steps.update(
            updates, inner, params, curvature=counted, **extra_args
        )
        emitted = new_inner.gradient_step != inner.gradient_step
        skipped = jnp.asarray(False)
        if self._skip is not None:
            skipped, _ = self._skip(updates, inner.gradient_step, params)

        def kept(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(skipped, old, jnp.where(emitted, jnp.zeros_like(new), new))

        return result, AccumulatedState(new_inner, jax.tree.map(kept, old, new))

    def has_updated(self, state: AccumulatedState) -> PyTree:
        """Whether the last call of ``update`` was the last of a step, on which parameters change.

        Args:
          state: The state that this call returned.
        """
        return self._multi_steps.has_updated(state.multi_steps)

    def gradient_transformation(self) -> optax.GradientTransformationExtraArgs:
        """The same as an optax transformation, for ``optax.chain`` and others."""
        return optax.GradientTransformationExtraArgs(self.init, self.update)

    def _accumulated(
        self, old: dict[str, Statistics], given: dict[str, Statistics], count: jax.Array
    ) -> dict[str, Statistics]:
        def mean(old: PyTree, new: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: a + (b - a) / (count + 1).astype(a.dtype), old, new)

        def total(old: PyTree, new: PyTree) -> PyTree:
            return jax.tree.map(jnp.add, old, new)

        rules = {
            path: by_origin(
                self._layers[path],
                tuple(other.measure for other in one.others),
                mean,
                total if self._is_sum else mean,
                total,
            )
            for path, one in old.items()
        }
        return jax.tree.map(lambda rule, a, b: rule(a, b), rules, old, given)
