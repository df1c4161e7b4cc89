"""Every optimizer that the harness runs, and the ranges that its settings are drawn from.

A new one is one more entry of ``OPTIMIZERS``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from _tasks import Task

import singd_optax
from singd_optax.optimizers import KFAC

#: Log-uniform ranges; the same number of draws for every optimizer.
Ranges = dict[str, tuple[float, float]]
_DECAY = (1e-3, 3e-1)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How to make an optimizer.

    Attributes:
      make: (learning-rate schedule, layers or None, other settings) -> transformation.
      ranges: Setting -> range.
      structures: Of Kronecker layers; None for an optimizer that needs no layers.
      factor_dtype: Of factors, whatever that of the run.
      needs_objective: Whether ``update`` wants the loss of this batch as ``obj_fn`` (Sophia).
      fisher: Whose output gradients the statistics are made of, for ``value_and_grad``.
    """

    make: Callable[..., Any]
    ranges: Ranges
    structures: Any = None
    factor_dtype: str | None = None
    needs_objective: bool = False
    fisher: str = "empirical"


def _ranges(low: float, high: float) -> Ranges:
    return {"learning_rate": (low, high), "weight_decay": _DECAY}


def _alone(factory: Callable[..., Any], low: float, high: float, **fixed: Any) -> Optimizer:
    """One that needs no layers."""
    objective = factory is optax.contrib.sophia

    def make(rate: Any, layers: Any, **settings: Any) -> Any:
        del layers
        return factory(rate, **fixed, **settings)

    return Optimizer(make, _ranges(low, high), needs_objective=objective)


def _layered(
    factory: Callable[..., Any], structures: Any, factor_dtype: str | None = None, **fixed: Any
) -> Optimizer:
    """One of this package; all of them share a recipe, and so a range."""

    def make(rate: Any, layers: Any, **settings: Any) -> Any:
        return factory(rate, layers, **fixed, **settings)

    return Optimizer(make, _ranges(1e-3, 3e-2), structures, factor_dtype)


class _RoundedKFAC(KFAC):
    """KFAC with moments rounded to bfloat16, as one that keeps them in it inverts them."""

    def _inverted(self, view: Any, state: Any, S_K: Any, S_C: Any, *rest: Any) -> Any:
        S_K, S_C = (S.astype(jnp.bfloat16).astype(S.dtype) for S in (S_K, S_C))
        return super()._inverted(view, state, S_K, S_C, *rest)


def _rounded_kfac(rate: Any, layers: Any, **options: Any) -> Any:
    return singd_optax.optimizer(rate, _RoundedKFAC(), layers, **options)


def _sgd(rate: Any, weight_decay: Any) -> Any:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum=0.9))


def _adafactor(rate: Any, weight_decay: Any) -> Any:
    # Its decay is not multiplied by the learning rate, as that of the others is.
    return optax.adafactor(rate, weight_decay_rate=weight_decay * 1e-2)


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": _alone(optax.adamw, 1e-3, 3e-2),
    "sgd": dataclasses.replace(
        _alone(_sgd, 3e-3, 1.0),
        ranges={"learning_rate": (3e-3, 1.0), "weight_decay": (1e-6, 1e-3)},
    ),
    "muon": _alone(optax.contrib.muon, 2e-3, 6e-2, consistent_rms=0.2),
    "lion": _alone(optax.lion, 1e-4, 3e-3),
    "sophia": _alone(optax.contrib.sophia, 1e-4, 1e-2),
    "adafactor": _alone(_adafactor, 1e-3, 1e-1),
    "singd": _layered(singd_optax.singd, "dense"),
    "singd_auto": _layered(singd_optax.singd, "auto"),
    "singd_block": _layered(singd_optax.singd, "block_diagonal:32"),
    "singd_hierarchical": _layered(singd_optax.singd, "hierarchical:16,16"),
    "singd_rank_k": _layered(singd_optax.singd, "lower_triangular:16"),
    "singd_toeplitz": _layered(singd_optax.singd, "lower_toeplitz"),
    "singd_diagonal": _layered(singd_optax.singd, "diagonal"),
    "singd_dense_diagonal": _layered(singd_optax.singd, ("dense", "diagonal")),
    "singd_polar": _layered(singd_optax.singd, "dense", direction="polar"),
    "singd_block_polar": _layered(singd_optax.singd, "block_diagonal:32", direction="polar"),
    "singd_block256_polar": _layered(singd_optax.singd, "block_diagonal:256", direction="polar"),
    "singd_hierarchical_polar": _layered(
        singd_optax.singd, "hierarchical:16,16", direction="polar"
    ),
    "singd_dense_diagonal_polar": _layered(
        singd_optax.singd, ("dense", "diagonal"), direction="polar"
    ),
    "singd_diagonal_polar": _layered(singd_optax.singd, "diagonal", direction="polar"),
    "ingd": _layered(singd_optax.ingd, "dense", factor_momentum=0.5),
    "ikfac": _layered(singd_optax.ikfac, "dense"),
    "kfac": _layered(singd_optax.kfac, "dense"),
    "kfac_float32_inverse": _layered(singd_optax.kfac, "dense", "float32"),
    "kfac_bfloat16_moments": _layered(_rounded_kfac, "dense", "bfloat16"),
    "singd_cross_moments": _layered(singd_optax.singd, "dense", cross_moments=True),
    "ekfac": _layered(singd_optax.ekfac, "dense"),
    "ekfac_of_gradients": _layered(singd_optax.ekfac, "dense", scale_source="gradients"),
    "tkfac": _layered(singd_optax.tkfac, "dense"),
    "tekfac": _layered(singd_optax.tekfac, "dense"),
    "kpsvd": _layered(singd_optax.kpsvd, "dense"),
    "kpsvd_two_terms": _layered(singd_optax.kpsvd, "dense", second_term=True),
    "kfac_cg": _layered(singd_optax.kfac, "dense", inverse_method="cg"),
    "foof": _layered(singd_optax.foof, "dense"),
    "locoprop": _layered(singd_optax.locoprop, "dense"),
    "eva": _layered(singd_optax.eva, "dense"),
    "eva_f": _layered(singd_optax.eva_f, "dense"),
    "mkor": _layered(singd_optax.mkor, "dense"),
    "adafisher": _layered(singd_optax.adafisher, "dense"),
    "rs_kfac": _layered(singd_optax.rs_kfac, "dense"),
    "rs_kfac_sketched": _layered(singd_optax.rs_kfac, "dense", sketched=True),
    "skfac": _layered(singd_optax.skfac, "dense"),
    "inverse_free_shampoo": _alone(singd_optax.inverse_free_shampoo, 1e-3, 3e-2),
    "shampoo": _alone(singd_optax.shampoo, 1e-3, 3e-2),
    "shampoo_one_sided": _alone(
        singd_optax.shampoo, 1e-3, 3e-2, structures=("dense", "identity"), root=2
    ),
    "caspr": _alone(singd_optax.caspr, 1e-3, 3e-2),
    "soap": _alone(singd_optax.soap, 1e-3, 3e-2),
    "soap_each_step": _alone(singd_optax.soap, 1e-3, 3e-2, refresh_every=1),
    "kl_shampoo": _alone(singd_optax.kl_shampoo, 1e-3, 3e-2),
    "kl_shampoo_each_step": _alone(singd_optax.kl_shampoo, 1e-3, 3e-2, refresh_every=1),
    "kl_soap": _alone(singd_optax.kl_soap, 1e-3, 3e-2),
    "kl_soap_each_step": _alone(singd_optax.kl_soap, 1e-3, 3e-2, refresh_every=1),
    "inverse_free_kl_shampoo": _alone(singd_optax.inverse_free_kl_shampoo, 1e-3, 3e-2),
    "psgd_kron": _alone(singd_optax.psgd_kron, 1e-3, 3e-2),
    "normuon": _alone(singd_optax.normuon, 2e-3, 6e-2),
    "splus": _alone(singd_optax.splus, 1e-3, 3e-2),
    "sketchy": _alone(singd_optax.sketchy, 1e-3, 3e-2),
    "jorge": _alone(singd_optax.jorge, 1e-3, 3e-2),
    "tnt": _alone(singd_optax.tnt, 1e-3, 3e-2),
    "eva_s": _alone(singd_optax.eva_s, 1e-3, 3e-2),
    "sm3": _alone(singd_optax.sm3, 1e-3, 3e-2),
    "mini_block_fisher": _alone(singd_optax.mini_block_fisher, 1e-3, 3e-2),
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """An optimizer on a task; settings are arguments, so that a whole search compiles once.

    Attributes:
      init: params -> optimizer state.
      step: (params, state, batch, settings) -> (params, state, loss).
    """

    init: Callable[..., Any]
    step: Callable[..., Any]


def compiled(task: Task, name: str, steps: int, factor_dtype: str | None = None) -> Compiled:
    """The jitted step, with a warm-up of a twentieth and a cosine to zero."""
    optimizer = OPTIMIZERS[name]
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = next(iter(task.batches(1, 0)))
    layers = grad_fn = None
    if optimizer.structures is not None:
        layers = singd_optax.find_layers(
            task.loss_fn,
            params,
            batch,
            structures=optimizer.structures,
            loss_average=task.loss_average,
            factor_dtype=optimizer.factor_dtype or factor_dtype,
        )
        grad_fn = singd_optax.value_and_grad(task.loss_fn, layers, fisher=optimizer.fisher)
    shape = optax.warmup_cosine_decay_schedule(0, 1.0, max(steps // 20, 1), steps)

    def transformation(settings: dict[str, Any]) -> Any:
        rest = {key: value for key, value in settings.items() if key != "learning_rate"}
        rate = settings["learning_rate"]
        tx = optimizer.make(lambda count: rate * shape(count), layers, **rest)
        return optax.with_extra_args_support(tx)

    def step(params: Any, state: Any, batch: Any, settings: dict[str, Any]) -> Any:
        extra: dict[str, Any] = {}
        if grad_fn is not None:
            value, grads, curvature = grad_fn(params, batch, opt_state=state)
            extra = {"curvature": curvature}
        else:
            value, grads = jax.value_and_grad(task.loss_fn)(params, batch)
            if optimizer.needs_objective:
                extra = {"obj_fn": lambda p: task.loss_fn(p, batch)}
        updates, state = transformation(settings).update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state, value

    any_setting = {key: jnp.float32(low) for key, (low, _) in optimizer.ranges.items()}
    init = jax.jit(lambda params: transformation(any_setting).init(params))
    return Compiled(init, jax.jit(step, donate_argnums=(0, 1)))
