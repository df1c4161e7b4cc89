"""What the contract suite runs over: one list, and one small problem.

A new alias or ``scale_by_*`` is tested by one entry in ``TRANSFORMATIONS``.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import singd_optax
from singd_optax.layers import measured_states
from singd_optax.optimizers import CASPR, IKFAC, KFAC, InverseFreeShampoo
from singd_optax.rules import ConjugateGradients, Polar, Rule
from singd_optax.testing._compile import _known_options
from singd_optax.transforms import KLClip


class Net(nn.Module):
    """Two Dense layers, one without a bias, and parameters that are no Kronecker layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm")(x)
        x = nn.tanh(nn.Dense(4, name="first")(x))
        return nn.Dense(3, use_bias=False, name="second")(x)


def loss_fn(params, x, y):
    logits = Net().apply({"params": params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@functools.cache
def problem(dtype="float32"):
    """params, layers, x, y."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(32, 5)), dtype)
    y = jnp.asarray(rng.integers(3, size=32), jnp.int32)  # whichever test asks first
    params = Net().init(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    return params, singd_optax.find_layers(loss_fn, params, x, y, structures="dense"), x, y


class NothingKept(NamedTuple):
    """The state of a rule that keeps nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passing(Rule):
    """The rule that changes nothing: what is left is momentum and size."""

    State: ClassVar[type] = NothingKept

    def init(self, view):
        return NothingKept()

    def refresh(self, view, state, statistics, gradient, count, key):
        return state, True

    def direction(self, view, state, vector, gradient, count):
        return vector, state


def _scaled(scale):
    return lambda layers: optax.chain(scale(layers), optax.sgd(0.05))


#: Of the literature, which rest on a layer's inputs and output gradients.
CURVATURE = (
    *("adafisher", "ekfac", "eva", "eva_f", "foof"),
    *("kpsvd", "locoprop", "mkor", "rs_kfac", "skfac", "tekfac", "tkfac"),
)

#: Those that keep vectors in the place of factors, and in which fields.
VECTORS = {"eva": "mean_K", "eva_f": "mean_K", "adafisher": "values_K"}
VECTORS |= {"rs_kfac": "vectors_K", "skfac": "vectors_K"}
VECTORS |= {"eva_s": "mean_K", "sketchy": "vectors_K", "sm3": "values_K", "normuon": "values_C"}

#: One gradient of the small problem has less rank than rows: which eigenvectors its null space gets
#: is up to roundings, and is not the same in two programs. Its columns leave nothing open.
DEFINED = {"structures": ("identity", "dense")}

#: Name in the package -> an optimizer made with it, with a learning rate for the small problem.
TRANSFORMATIONS = {
    "singd": lambda layers: singd_optax.singd(0.05, layers),
    "ingd": lambda layers: singd_optax.ingd(0.05, layers),
    "ikfac": lambda layers: singd_optax.ikfac(0.05, layers),
    "kfac": lambda layers: singd_optax.kfac(0.05, layers),
    "scale_by_kfac": _scaled(singd_optax.scale_by_kfac),
    "scale_by_singd": _scaled(singd_optax.scale_by_singd),
    "scale_by_ikfac": _scaled(singd_optax.scale_by_ikfac),
    "scale_by_rule": _scaled(
        lambda layers: singd_optax.scale_by_rule(
            IKFAC.paper(damping=1e-3, factor_learning_rate=1e-2), layers
        )
    ),
    "scale_by_rule with update_rms": _scaled(
        lambda layers: singd_optax.scale_by_rule(IKFAC(), layers, update_rms=0.8)
    ),
    "scale_by_rule with kl_clip": _scaled(
        lambda layers: singd_optax.scale_by_rule(
            KFAC.paper(), layers, kl_clip=KLClip(1e-3, learning_rate=0.05)
        )
    ),
    "scale_by_rule with momentum": _scaled(
        lambda layers: singd_optax.scale_by_rule(
            IKFAC(), layers, momentum=0.85, nesterov=True, update_rms=0.8
        )
    ),
    "optimizer": lambda layers: singd_optax.optimizer(0.05, KFAC(factor_learning_rate=0.1), layers),
    # Roots of nearly singular moments would magnify roundings: hence the larger ridge.
    "shampoo": lambda layers: singd_optax.shampoo(0.05, eps=0.03),
    "caspr": lambda layers: singd_optax.caspr(0.05, eps=0.03),
    "inverse_free_shampoo": lambda layers: singd_optax.inverse_free_shampoo(0.05),
    "soap": lambda layers: singd_optax.soap(0.05, **DEFINED, eps=0.03),
    "kl_shampoo": lambda layers: singd_optax.kl_shampoo(0.05, **DEFINED, eps=0.03),
    "kl_soap": lambda layers: singd_optax.kl_soap(0.05, **DEFINED, eps=0.03, adam_eps=0.1),
    "psgd_kron": lambda layers: singd_optax.psgd_kron(0.05),
    "normuon": lambda layers: singd_optax.normuon(0.05, eps=0.03),
    "inverse_free_kl_shampoo": lambda layers: singd_optax.inverse_free_kl_shampoo(0.05),
    "splus": lambda layers: singd_optax.splus(0.05, **DEFINED),
    "sm3": lambda layers: singd_optax.sm3(0.05, eps=0.03),
    "sketchy": lambda layers: singd_optax.sketchy(0.05, eps=0.03, rank=3),
    "jorge": lambda layers: singd_optax.jorge(0.05, initial_moment=1e-2),
    "tnt": lambda layers: singd_optax.tnt(0.05, eps=0.03),
    "eva_s": lambda layers: singd_optax.eva_s(0.05),
    "mini_block_fisher": lambda layers: singd_optax.mini_block_fisher(0.05),
    "scale_by_inverse_free_kl_shampoo": _scaled(
        lambda layers: singd_optax.scale_by_inverse_free_kl_shampoo(structures="dense")
    ),
    "scale_by_splus": _scaled(lambda layers: singd_optax.scale_by_splus(**DEFINED, grafting="sgd")),
    "scale_by_sm3": _scaled(lambda layers: singd_optax.scale_by_sm3(b2=0.9)),
    "scale_by_sketchy": _scaled(lambda layers: singd_optax.scale_by_sketchy(eps=0.03)),
    "scale_by_jorge": _scaled(lambda layers: singd_optax.scale_by_jorge(grafting="sgd")),
    "scale_by_tnt": _scaled(lambda layers: singd_optax.scale_by_tnt(eps=0.1, update_rms=0.2)),
    "scale_by_eva_s": _scaled(lambda layers: singd_optax.scale_by_eva_s(grafting="sgd")),
    "scale_by_mini_block_fisher": _scaled(
        lambda layers: singd_optax.scale_by_mini_block_fisher(grafting="sgd")
    ),
    "shampoo that whitens": lambda layers: singd_optax.shampoo(
        0.05, eps=0.03, root=2, trace_scaled=True, grafting=None
    ),
    "scale_by_soap": _scaled(
        lambda layers: singd_optax.scale_by_soap(**DEFINED, eps=0.1, second_moment="factored")
    ),
    "scale_by_kl_shampoo": _scaled(lambda layers: singd_optax.scale_by_kl_shampoo(**DEFINED)),
    "scale_by_kl_soap": _scaled(
        lambda layers: singd_optax.scale_by_kl_soap(**DEFINED, adam_eps=0.1)
    ),
    "scale_by_psgd_kron": _scaled(lambda layers: singd_optax.scale_by_psgd_kron(geometry="QUAD")),
    "scale_by_normuon": _scaled(lambda layers: singd_optax.scale_by_normuon(grafting="adam")),
    "scale_by_shampoo": _scaled(
        lambda layers: singd_optax.scale_by_shampoo(eps=0.03, grafting="sgd")
    ),
    "scale_by_caspr": _scaled(lambda layers: singd_optax.scale_by_caspr(eps=0.03, grafting="sgd")),
    "scale_by_inverse_free_shampoo": _scaled(
        lambda layers: singd_optax.scale_by_inverse_free_shampoo(grafting="sgd")
    ),
    "scale_by_rule without layers": _scaled(
        lambda layers: singd_optax.scale_by_rule(
            CASPR(eps=0.03), structures="dense", grafting="adam"
        )
    ),
    "scale_by_shampoo with update_rms": _scaled(
        lambda layers: singd_optax.scale_by_shampoo(eps=0.03, update_rms=0.8)
    ),
    "singd with polar directions": lambda layers: singd_optax.singd(
        0.05, layers, direction="polar", softness=0.5
    ),
    "kfac with polar directions": lambda layers: singd_optax.kfac(0.05, layers, direction="polar"),
    "scale_by_rule with Polar": _scaled(
        lambda layers: singd_optax.scale_by_rule(
            Polar(InverseFreeShampoo(), softness=0.5), grafting="sgd"
        )
    ),
    "kfac by conjugate gradients": lambda layers: singd_optax.kfac(
        0.05, layers, inverse_method=ConjugateGradients(warm_start=True)
    ),
    "kpsvd with two terms": lambda layers: singd_optax.kpsvd(0.05, layers, second_term=True),
    "singd with cross moments": lambda layers: singd_optax.singd(0.05, layers, cross_moments=True),
    "scale_by_ekfac of gradients": _scaled(
        lambda layers: singd_optax.scale_by_ekfac(layers, scale_source="gradients", update_rms=0.8)
    ),
    **{
        name: lambda layers, name=name: getattr(singd_optax, name)(0.05, layers)
        for name in CURVATURE
    },
    **{
        f"scale_by_{name}": _scaled(
            lambda layers, name=name: getattr(singd_optax, f"scale_by_{name}")(
                layers, grafting="sgd"
            )
        )
        for name in CURVATURE
    },
    "shampoo on layers": lambda layers: singd_optax.shampoo(0.05, layers, eps=0.03),
}

#: What takes a learning rate: by layers and curvature, and by gradients alone.
ALIASES = ("singd", "ingd", "ikfac", "kfac", *CURVATURE)
GRADIENT_ALIASES = (
    *("shampoo", "caspr", "inverse_free_shampoo"),
    *("soap", "kl_shampoo", "kl_soap", "psgd_kron", "normuon"),
    *("inverse_free_kl_shampoo", "splus", "sm3"),
    *("sketchy", "jorge", "tnt", "eva_s", "mini_block_fisher"),
)


def plain_step(tx, layers, loss_fn=loss_fn):
    """A step (params, opt_state, x, y) -> (params, opt_state, value)."""
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    if isinstance(tx, optax.GradientTransformation):
        tx = optax.with_extra_args_support(tx)

    def step(params, opt_state, x, y):
        extra = {"unrelated": 1}
        if measured_states(opt_state):
            value, grads, extra["curvature"] = grad_fn(params, x, y, opt_state=opt_state)
        else:  # needs gradients only
            value, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params, value=value, **extra)
        return optax.apply_updates(params, updates), opt_state, value

    return step


def jit(function, **options):
    """``jax.jit`` that compiles fast: that is what this suite spends its time on."""
    return jax.jit(function, compiler_options=dict(_known_options()), **options)


def make_step(tx, layers, loss_fn=loss_fn, **jit_options):
    """A jitted ``plain_step``."""
    return jit(plain_step(tx, layers, loss_fn), **jit_options)


def describe(tree):
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def assert_close(got, want, rtol=2e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


def assert_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def run(tx, layers, params, x, y, steps=2, opt_state=None):
    """Params, state and values after some steps, which compiled once and kept the state's form."""
    step = make_step(tx, layers)
    opt_state = tx.init(params) if opt_state is None else opt_state
    form = describe(opt_state)
    values = []
    for _ in range(steps):
        params, opt_state, value = step(params, opt_state, x, y)
        values.append(float(value))
    assert describe(opt_state) == form
    assert step._cache_size() == 1
    return params, opt_state, values
