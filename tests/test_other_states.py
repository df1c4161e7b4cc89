"""States of another rule, of other options, or with numbers of no use: each is told."""

import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from contract import (
    TRANSFORMATIONS,
    assert_equal,
    loss_fn,
    make_step,
    problem,
)

import singd_optax
from singd_optax.layers import RuleState
from singd_optax.training import check_opt_state

#: Optimizers by name: of other rules, and of options that change the form of the state.
MAKERS = {
    "singd": lambda layers: singd_optax.singd(0.05, layers),
    "factor_momentum": lambda layers: singd_optax.singd(0.05, layers, factor_momentum=0.5),
    "no products": lambda layers: singd_optax.singd(0.05, layers, cache_products=False),
    "no rms": lambda layers: singd_optax.singd(0.05, layers, update_rms=None),
    "schedule": lambda layers: singd_optax.singd(optax.constant_schedule(0.05), layers),
    "sgd": lambda layers: singd_optax.singd(0.05, layers, fallback=optax.sgd(0.1)),
    "ikfac": lambda layers: singd_optax.ikfac(0.05, layers),
    "kfac": lambda layers: singd_optax.kfac(0.05, layers),
    "eigh": lambda layers: singd_optax.kfac(0.05, layers, inverse_method="eigh"),
    "shampoo": lambda layers: singd_optax.shampoo(0.05),
    "caspr": lambda layers: singd_optax.caspr(0.05),
    "no grafting": lambda layers: singd_optax.shampoo(0.05, grafting=None),
    "ifs": lambda layers: singd_optax.inverse_free_shampoo(0.05),
}
PARTS = {
    "scale_by_singd": singd_optax.scale_by_singd,
    "scale_by_singd momentum": lambda layers: singd_optax.scale_by_singd(
        layers, factor_momentum=0.5
    ),
    "scale_by_ikfac": singd_optax.scale_by_ikfac,
    "scale_by_kfac": singd_optax.scale_by_kfac,
    "scale_by_shampoo": lambda layers: singd_optax.scale_by_shampoo(),
    "scale_by_shampoo adam": lambda layers: singd_optax.scale_by_shampoo(grafting="adam"),
    "scale_by_caspr": lambda layers: singd_optax.scale_by_caspr(),
    "scale_by_ifs": lambda layers: singd_optax.scale_by_inverse_free_shampoo(structures="dense"),
}


def refuses(makers, kinds):
    params, layers, *_ = problem()
    made = {name: makers[name](layers) for name in kinds}
    states = {name: tx.init(params) for name, tx in made.items()}
    for of, state in states.items():
        for name, tx in made.items():
            if name == of:
                check_opt_state(state, tx, params)
                continue
            update = lambda state, tx=tx: tx.update(params, state, params, curvature={})
            for call in (update, lambda state, u=update: jax.eval_shape(u, state)):
                with pytest.raises(ValueError, match=r"`opt_state`.*tx\.init\(params\)"):
                    call(state)
            with pytest.raises(ValueError, match="The optimizer state is not one of this optim"):
                check_opt_state(state, tx, params)


def test_states_of_other_optimizers():
    refuses(
        MAKERS, [name for name in MAKERS if name not in ("shampoo", "caspr", "no grafting", "ifs")]
    )
    refuses(MAKERS, ["shampoo", "caspr", "no grafting", "ifs"])


def test_states_of_other_transformations():
    refuses(PARTS, [name for name in PARTS if name.endswith(("d", "fac", "momentum"))])
    refuses(PARTS, ["scale_by_shampoo", "scale_by_shampoo adam", "scale_by_caspr", "scale_by_ifs"])


def test_files_of_other_rules(tmp_path):
    """By flax, by orbax and by pickle; a file of the own rule comes back as it was."""
    params, layers, *_ = problem()
    made = {name: MAKERS[name](layers) for name in ("singd", "ikfac", "kfac")}
    states = {name: tx.init(params) for name, tx in made.items()}
    for of, state in states.items():
        data = flax.serialization.to_bytes(state)
        kept = pickle.loads(pickle.dumps(state))
        assert_equal(kept, state)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / of, state)
            checkpointer.wait_until_finished()
            for name, tx in made.items():
                if name == of:
                    assert_equal(flax.serialization.from_bytes(states[name], data), state)
                    assert_equal(checkpointer.restore(tmp_path / of, states[name]), state)
                    continue
                with pytest.raises(ValueError, match=r"(?i)rule|structure|keys|field|match"):
                    flax.serialization.from_bytes(states[name], data)
                with pytest.raises(ValueError):  # noqa: PT011  (the words are orbax's)
                    checkpointer.restore(tmp_path / of, states[name])
                with pytest.raises(ValueError, match="is not of this optimizer"):
                    tx.update(params, kept, params, curvature={})


def test_the_name_of_a_rule_costs_nothing():
    params, layers, *_ = problem()
    state = singd_optax.scale_by_singd(layers).init(params)
    assert isinstance(state, RuleState)
    assert state.rule_tag.name == "SINGD"
    assert jax.tree.leaves(state.rule_tag) == []
    state = singd_optax.scale_by_caspr().init(params)
    assert isinstance(state, RuleState)
    assert optax.tree.get(state, "rule_tag").name == "CASPR"


def changed(tree, fields, function):
    """The tree with the numbers of these fields of the rules' states changed."""

    def is_one(path):
        names = [getattr(key, "name", "") for key in path]
        return "rule_states" in names and bool(set(fields) & set(names))

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(leaf) if is_one(path) else leaf, tree
    )


@pytest.mark.parametrize("name", ["singd", "kfac", "eigh", "shampoo", "ifs"])
def test_numbers_of_no_use(name):
    params, layers, *_ = problem()
    tx = MAKERS[name](layers)
    state = tx.init(params)
    for function, words in (
        (lambda x: x * jnp.nan, "K is not finite"),
        (lambda x: x * 0, "K is zero"),
    ):
        with pytest.raises(ValueError, match=f"(?s)damaged:.*'(first|second).*{words}.*earlier"):
            check_opt_state(changed(state, ("K", "C"), function), tx, params)
    if name == "eigh":
        with pytest.raises(ValueError, match="values_K beside the factors is not finite"):
            check_opt_state(changed(state, ("values_K",), lambda x: x * jnp.inf), tx, params)
    if name in ("kfac", "shampoo"):
        moments = ("S_K",) if name == "kfac" else ("L",)
        with pytest.raises(ValueError, match="beside the factors is not finite"):
            check_opt_state(changed(state, moments, lambda x: x + jnp.nan), tx, params)


def test_stale_products():
    params, layers, x, y = problem()
    tx = MAKERS["singd"](layers)
    state = tx.init(params)
    _, trained, _ = make_step(tx, layers)(params, state, x, y)
    check_opt_state(trained, tx, params)
    for bad in (
        changed(trained, ("K", "C"), lambda leaf: leaf * 1.1),
        changed(trained, ("product_K", "product_C"), lambda leaf: leaf * 0),
    ):
        with pytest.raises(ValueError, match="the cached product of K is not that of K"):
            check_opt_state(bad, tx, params)


@pytest.mark.parametrize("name", ["singd", "shampoo"])
def test_counts_that_became_ints(name):
    """Some ways to restore a checkpoint make Python numbers of scalars: a step takes them."""
    params, layers, x, y = problem()
    tx = TRANSFORMATIONS[name](layers)
    state = tx.init(params)
    ints = jax.tree.map(
        lambda leaf: int(leaf) if leaf.ndim == 0 and leaf.dtype == jnp.int32 else leaf, state
    )
    check_opt_state(ints, tx, params)
    step = make_step(tx, layers)
    got, want = step(params, ints, x, y), step(params, state, x, y)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    if name == "singd":
        grad_fn = singd_optax.value_and_grad(loss_fn, layers)
        _, grads, curvature = grad_fn(params, x, y, opt_state=ints)
        jax.eval_shape(lambda g: tx.update(g, ints, params, curvature=curvature), grads)
