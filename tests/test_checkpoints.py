"""A run that was interrupted goes on as if it had not been."""

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from contract import TRANSFORMATIONS, assert_equal, make_step, problem

import singd_optax
from singd_optax.structures import STRUCTURES
from singd_optax.training import check_opt_state

EXAMPLES = [example for entry in STRUCTURES for example in entry.examples]


class Tower(nn.Module):
    """One Dense layer for each structure."""

    @nn.compact
    def __call__(self, x):
        for index in range(len(EXAMPLES)):
            x = nn.tanh(nn.Dense(7, name=f"layer_{index:02d}")(x)) + x
        return x


def tower_loss(params, x, y):
    return jnp.mean((Tower().apply({"params": params}, x) - y[:, None]) ** 2)


@pytest.fixture
def tower():
    """A model in which every structure is K of one layer and C of another; bfloat16 on one side."""
    x = jax.random.normal(jax.random.key(0), (16, 7))
    y = jnp.sin(jnp.arange(16.0))
    params = Tower().init(jax.random.key(1), x)["params"]
    layers = singd_optax.find_layers(tower_loss, params, x, y)
    for index, path in enumerate(sorted(layers)):
        pair = EXAMPLES[index], EXAMPLES[(index + 3) % len(EXAMPLES)]
        layers = layers.replace(path, structures=pair, factor_dtype=("bfloat16", "float32"))
    tx = optax.chain(
        singd_optax.scale_by_singd(layers, refresh_every=2), optax.trace(0.9), optax.scale(-1e-3)
    )
    step = make_step(tx, layers, tower_loss)
    carry = (params, tx.init(params))
    trajectory = [carry]
    for _ in range(5):
        *carry, _ = step(*carry, x, y)
        trajectory.append(tuple(carry))
    return tx, step, x, y, trajectory


def by_orbax(path, saved, like):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, saved)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, jax.tree.map(ocp.utils.to_shape_dtype_struct, like))


def by_flax(path, saved, like):
    path.write_bytes(flax.serialization.to_bytes(saved))
    return flax.serialization.from_bytes(like, path.read_bytes())


def test_goes_on_bit_for_bit(tower, tmp_path):
    tx, step, x, y, trajectory = tower
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(singd_optax.factors(trajectory[0][1]))}
    assert dtypes == {jnp.dtype("bfloat16"), jnp.dtype("float32")}
    for library in (by_orbax, by_flax):
        carry = library(tmp_path / library.__name__, trajectory[3], trajectory[0])
        assert_equal(carry, trajectory[3])
        check_opt_state(carry[1], tx, carry[0])
        # Restored arrays are bound to a device, for which a step is compiled anew: not here.
        carry = jax.tree.map(np.asarray, carry)
        for want in trajectory[4:]:
            *carry, _ = step(*carry, x, y)
            assert_equal(tuple(carry), want)


CHANGES = {
    "structures": ({"structures": "diagonal"}, ["Dense", "Diagonal"]),
    "factor_dtype": ({"factor_dtype": "bfloat16"}, ["float32", "bfloat16"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_state_of_other_layers_is_refused_with_what_differs(change):
    params, layers, x, y = problem()
    options, words = CHANGES[change]
    opt_state = TRANSFORMATIONS["singd"](layers).init(params)
    other = layers.replace("first", **options)
    tx = singd_optax.singd(0.1, other)
    pattern = "(?s)'first'.*" + ".*".join(words)
    with pytest.raises(ValueError, match=pattern):
        check_opt_state(opt_state, tx, params)
    with pytest.raises(ValueError, match=r"(?s)'first'.*checkpoint"):
        tx.update(params, opt_state, params, curvature={})
    grad_fn = singd_optax.value_and_grad(lambda params, x, y: 0.0, other)
    with pytest.raises(ValueError, match=r"(?s)'first'.*checkpoint"):
        grad_fn(params, x, y, opt_state=opt_state)


def test_other_differences():
    params, layers, *_ = problem()
    tx = TRANSFORMATIONS["singd"](layers)
    opt_state = tx.init(params)
    check_opt_state(opt_state, tx, params)
    fewer = singd_optax.singd(0.1, layers.without("second"))
    with pytest.raises(ValueError, match=r"'second': has factors, expected none"):
        check_opt_state(opt_state, fewer, params)
    with pytest.raises(ValueError, match=r"'second': has no factors, expected some"):
        check_opt_state(fewer.init(params), tx, params)
    with pytest.raises(ValueError, match=r"(?s)\['second'\].*have not.*checkpoint"):
        fewer.update(params, opt_state, params, curvature={})
    schedule = singd_optax.singd(lambda count: 0.1, layers)
    with pytest.raises(ValueError, match=r"(?s)count: is missing, expected int32\[\]"):
        check_opt_state(opt_state, schedule, params)
    # flax restores arrays of any shape.
    wide = {"layer": {"kernel": jnp.ones((9, 4)), "bias": jnp.ones(4)}}
    narrow = jax.tree.map(lambda leaf: leaf[..., :3], wide)
    model = nn.Dense
    states = []
    for current in (wide, narrow):
        features = current["layer"]["kernel"].shape[1]
        apply = lambda p, x, n=features: model(n).apply({"params": p["layer"]}, x).sum()
        found = singd_optax.find_layers(apply, current, jnp.ones((2, 9)))
        tx = singd_optax.ikfac(0.1, found)
        states.append(tx.init(current))
    data = flax.serialization.to_bytes(states[0])
    restored = flax.serialization.from_bytes(states[1], data)
    with pytest.raises(ValueError, match=r"C is Dense\(\) 4 x 4 float32, expected Dense\(\) 3 x 3"):
        check_opt_state(restored, tx, narrow)
