"""On a mesh the trajectory is the single device's, wherever the factors are."""

import contextlib
import functools
import json
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import meshes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import singd_optax
from singd_optax.optimizers import SINGD
from singd_optax.sharding import named_shardings, spread, state_shardings

#: What float32 leaves of 20 steps: parameters; the optimizer's state.
CLOSE, STATE_CLOSE = 3e-6, 3e-4

RUNS = [
    ("data", "Auto", "follow"),
    ("fsdp", "Auto", "rows"),
    ("tensor", "Auto", "layers"),
    ("data x tensor", "Explicit", "rows"),
]


def check(params, state, losses):
    want = meshes.alone()
    np.testing.assert_allclose(losses, want[2], rtol=1e-5)
    assert want[2][-1] < 0.3 * want[2][0]
    assert meshes.difference(params, want[0]) < CLOSE
    assert meshes.difference(state, want[1]) < STATE_CLOSE


@pytest.mark.parametrize(("layout", "kind", "strategy"), RUNS)
def test_trajectory(layout, kind, strategy):
    setup = meshes.setup(layout, kind, strategy)
    with setup.context():
        params, state, losses = setup.run(*setup.start())
    check(params, state, losses)
    assert setup.step._cache_size() == 1
    found = jax.tree.map(lambda leaf: leaf.sharding, state)
    same = jax.tree.map(
        lambda leaf, a, b: a.is_equivalent_to(b, leaf.ndim), state, found, setup.of_state
    )
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("is_spread", [False, True])
def test_shard_map(is_spread):
    """Data parallel with pmean, written by hand; there placements split nothing."""
    params, batch, layers = meshes.problem()
    mesh = meshes.make_mesh({"data": 8}, "Auto")
    if is_spread:
        layers = spread(layers, jax.tree.map(lambda _: NamedSharding(mesh, P()), params))
    tx = meshes.make_tx(layers)
    step = jax.jit(
        jax.shard_map(
            meshes.make_step(tx, layers, pmean="data"),
            mesh=mesh,
            in_specs=(P(), P(), P("data"), P("data")),
            out_specs=P(),
            check_vma=False,
        ),
        compiler_options=meshes.QUICK,
    )
    check(*meshes.run(step, params, tx.init(params), batch))


def test_checkpoint_on_other_meshes(tmp_path):
    """Saved on eight devices; resumed on two with another layout, and on one."""
    eight = meshes.setup("fsdp", "Auto", "rows")
    saved = eight.run(*eight.start(), steps=10)[:2]
    two = meshes.setup("data x tensor", "Auto", "rows", (("data", 1), ("model", 2)))
    one = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), saved)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved)
        checkpointer.wait_until_finished()
        for shardings in ((two.shardings, two.of_state), one):
            like = jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=sharding
                ),
                saved,
                shardings,
            )
            params, state = checkpointer.restore(tmp_path / "state", like)
            if shardings is one:
                params, state, losses = meshes.run(
                    meshes.step_alone(), params, state, meshes.problem()[1], 10
                )
            else:
                params, state, losses = two.run(params, state, 10)
            np.testing.assert_allclose(losses, meshes.alone()[2][10:], rtol=1e-5)
            assert meshes.difference(params, meshes.alone()[0]) < CLOSE


def test_two_processes():
    """Each with its own half of the data, by collectives between processes."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    script = Path(__file__).with_name("two_processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), port, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    losses = json.loads(outputs[0][0].splitlines()[-1])
    np.testing.assert_allclose(losses, meshes.alone()[2][: len(losses)], rtol=1e-5)


def per_device(shapes, shardings):
    return sum(
        int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    )


class Stack(nn.Module):
    """A stack of square layers."""

    depth: int = 8

    @nn.compact
    def __call__(self, x):
        def body(module, x, _):
            return nn.tanh(nn.Dense(32, use_bias=False, name="dense")(x)), None

        scan = nn.scan(
            body, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
        )
        return scan(self, x, None)[0]


@functools.cache
def stack_problem(structures="dense", depth=8):
    model = Stack(depth)
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    loss_fn = lambda params, x: jnp.mean(model.apply({"params": params}, x) ** 2)
    return params, singd_optax.find_layers(loss_fn, params, x, structures=structures)


@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 2, "model": 4}, {"a": 3, "b": 2}])
def test_memory_falls_with_devices(sizes):
    """Every factor is split over all devices that divide something of it."""
    params, layers = stack_problem()
    mesh = meshes.make_mesh(sizes, "Auto")
    shardings = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    layers = spread(layers, shardings)
    init = singd_optax.scale_by_singd(layers).init
    state = jax.eval_shape(init, params)
    of_state = state_shardings(init, params, shardings, layers)
    whole = per_device(state, jax.tree.map(lambda _: NamedSharding(mesh, P()), state))
    devices = 2 if "a" in sizes else mesh.size
    assert per_device(state, of_state) < 1.01 * whole / devices


def compiled_update(layers, params, shardings, due):
    """The compiled update of all layers, with or without a refresh."""
    tx = singd_optax.scale_by_rule(SINGD.paper(), layers)
    of_state = state_shardings(tx.init, params, shardings, layers)
    state = jax.eval_shape(tx.init, params)
    curvature = {
        path: jax.eval_shape(lambda spec=spec: singd_optax.measures.Statistics.zeros(spec))
        for path, spec in layers.items()
    }

    def update(grads, state, curvature):
        state = state._replace(refresh_due=jnp.full((), due, jnp.int32))
        return tx.update(grads, state, curvature=curvature)

    jitted = jax.jit(
        update, in_shardings=(shardings, of_state, None), out_shardings=(shardings, of_state)
    )
    return jitted.lower(params, state, curvature).compile(meshes.QUICK)


def test_work_is_split():
    """Of a refresh, and of preconditioning; and no factor travels without a refresh."""
    params, layers = stack_problem()
    flops, text = {}, {}
    for devices in (1, 8):
        mesh = meshes.make_mesh({"data": devices}, "Auto")
        shardings = jax.tree.map(lambda _, m=mesh: NamedSharding(m, P(None, "data", None)), params)
        placed = spread(layers, shardings)
        for due in (0, 1):
            compiled = compiled_update(placed, params, shardings, due)
            flops[devices, due] = compiled.cost_analysis()["flops"]
            text[devices, due] = compiled.as_text()
    for due in (0, 1):
        assert flops[8, due] < 0.15 * flops[1, due]
    assert "all-gather" not in text[8, 0]
    assert "all-to-all" in text[8, 0]


@pytest.mark.parametrize(
    ("structures", "moves"), [("dense", 4), ("block_diagonal:8", 2), (("dense", "diagonal"), 2)]
)
def test_what_is_smaller_travels(structures, moves):
    """Gradients go to the factors and home; between K and C only where both are dense."""
    params, layers = stack_problem(structures, 6)
    mesh = meshes.make_mesh({"data": 2, "model": 4}, "Auto")
    split = P(None, ("model", "data"), None)
    shardings = jax.tree.map(lambda _: NamedSharding(mesh, split), params)
    text = compiled_update(spread(layers, shardings), params, shardings, 0).as_text()
    assert text.count(" all-to-all(") == moves


@pytest.mark.parametrize("name", ["soap", "sketchy", "sm3"])
def test_no_device_has_all_of_a_stack(name):
    """Where gradients are observed, too: each layer of the stack is on two of eight devices."""
    params = {"kernel": jax.ShapeDtypeStruct((4, 64, 64), jnp.float32)}
    mesh = meshes.make_mesh({"data": 4, "model": 2}, "Auto")
    shardings = {"kernel": NamedSharding(mesh, P(None, None, ("model", "data")))}
    axes = {".*": ((1,), (2,))}
    matrices = singd_optax.find_matrices(params, structures="dense", matrix_axes=axes)
    layers = spread(matrices, shardings)
    tx = getattr(singd_optax, name)(1e-3, layers)
    of_state = state_shardings(tx.init, params, shardings, layers)
    step = jax.jit(
        functools.partial(tx.update, refresh=False),
        in_shardings=(shardings, of_state, shardings),
        out_shardings=(shardings, of_state),
    )
    state = jax.eval_shape(tx.init, params)
    text = step.lower(params, state, params).compile(meshes.QUICK).as_text()
    assert "all-to-all" in text
    assert not re.findall(r"f32\[4,64,64\]\S* all-(?:gather|reduce)\(", text)


def test_boxes_and_rules():
    """Logical names become shardings, of boxed parameters and of the state that has their boxes."""
    mesh = meshes.make_mesh({"data": 4, "model": 2}, "Auto")
    init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
    model = nn.Dense(8, use_bias=False, kernel_init=init)
    x = jnp.ones((4, 8))
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    rules = [("embed", "data"), ("mlp", "model")]
    shardings = named_shardings(params, mesh, rules)
    assert shardings["kernel"].value.spec == P("data", "model")
    flax_says = nn.logical_to_mesh_sharding(nn.get_partition_spec(params), mesh, rules)
    assert flax_says["kernel"] == shardings["kernel"].value
    loss_fn = lambda params, x: jnp.mean(model.apply({"params": params}, x) ** 2)
    layers = spread(singd_optax.find_layers(loss_fn, params, x), shardings, strategy="follow")
    tx = singd_optax.singd(1e-2, layers)
    state = state_shardings(tx.init, params, shardings, layers)
    assert singd_optax.factors(state)[""].K.entries.spec == P("data", None)
    assert singd_optax.factors(state)[""].C.entries.spec == P("model", None)
    momentum = optax.tree.get(state, "rule_momentum")
    assert momentum["kernel"].value.spec == P("data", "model")
    params = jax.jit(model.init, out_shardings={"params": shardings})(jax.random.key(0), x)
    assert jax.jit(tx.init, out_shardings=state)(params["params"]) is not None


def test_errors():
    params, layers = stack_problem()
    mesh = meshes.make_mesh({"data": 8}, "Auto")
    good = jax.tree.map(lambda _: NamedSharding(mesh, P()), params)
    with pytest.raises(ValueError, match="`strategy` must be"):
        spread(layers, good, strategy="everywhere")
    with pytest.raises(TypeError, match=r"must be a jax\.sharding\.NamedSharding, got P"):
        spread(layers, jax.tree.map(lambda _: P(), params))
    with pytest.raises(ValueError, match="have nothing for the parameter"):
        spread(layers, {})
    boxed = {"kernel": nn.LogicallyPartitioned(jnp.ones((4, 8)), ("embed", "mlp"))}
    with pytest.raises(ValueError, match="'mlp' of a parameter is in no rule"):
        named_shardings(boxed, mesh, [("embed", "data")])
    with pytest.raises(ValueError, match=r"is to be split over \['embed'\]"):
        named_shardings(boxed, mesh)


def family(name):
    """The relatives of SINGD: an optimizer and its step, and layers if it has some."""
    layers = meshes.problem()[2]
    if name == "kfac":
        layers = layers.replace("down", structures=("diagonal", "dense"))
        tx = singd_optax.kfac(2.5e-3, layers, refresh_every=2)
        return tx, meshes.make_step(tx, layers)
    tx = getattr(singd_optax, name)(2.5e-3, refresh_every=2)
    return tx, plain_step(tx)


def plain_step(tx):
    def step(params, state, x, y):
        loss, grads = jax.value_and_grad(meshes.loss_fn)(params, x, y)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


@functools.cache
def family_alone(name):
    """Steps on one device."""
    tx, step = family(name)
    params, batch, _ = meshes.problem()
    step = jax.jit(step, compiler_options=meshes.QUICK)
    return meshes.run(step, params, jax.jit(tx.init)(params), batch, steps=4)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("name", ["kfac", "shampoo", "caspr", "inverse_free_shampoo"])
def test_family(name, kind):
    """Parameters split over the data axis; factors are where the compiler puts them."""
    params, batch, _ = meshes.problem()
    tx, step = family(name)
    quick = {"compiler_options": meshes.QUICK}
    want = family_alone(name)
    setup = meshes.setup("fsdp", kind, "rows")
    with setup.context():
        of_state = state_shardings(tx.init, params, setup.shardings)
        split = jax.jit(step, out_shardings=(setup.shardings, of_state, None), **quick)
        placed = jax.device_put(params, setup.shardings)
        state = jax.jit(tx.init, out_shardings=of_state)(placed)
        got = meshes.run(split, placed, state, jax.device_put(batch, setup.of_batch), steps=4)
    # Inverse roots of the first, singular moments amplify rounding.
    rounding = 1e-3 if name in ("shampoo", "caspr") else 1e-5
    np.testing.assert_allclose(got[2], want[2], rtol=rounding)
    assert meshes.difference(got[0], want[0]) < 10 * rounding
    assert split._cache_size() == 1


@pytest.mark.parametrize(("kind", "is_set"), [("Auto", False), ("Auto", True), ("Explicit", True)])
def test_layers_without_devices(kind, is_set):
    """Layers that were spread are static data: pickled, and the same on any mesh of this form."""
    setup = meshes.setup("data x tensor", kind, "rows")
    layers = pickle.loads(pickle.dumps(setup.layers))
    assert layers == setup.layers
    assert hash(layers) == hash(setup.layers)
    others = meshes.make_mesh({"data": 4, "model": 2}, "Auto", jax.devices()[::-1])
    shardings = jax.tree.map(lambda own: NamedSharding(others, own.spec), setup.shardings)
    assert spread(meshes.problem()[2], shardings) == layers
    step = jax.jit(
        meshes.make_step(meshes.make_tx(layers), layers),
        out_shardings=(setup.shardings, setup.of_state, None),
        compiler_options=meshes.QUICK,
    )
    batch = jax.device_put(setup.batch, setup.of_batch)
    with jax.set_mesh(setup.mesh) if is_set else contextlib.nullcontext():
        losses = meshes.run(step, *setup.start(), batch, steps=4)[2]
    np.testing.assert_allclose(losses, meshes.alone()[2][:4], rtol=1e-5)


@pytest.mark.parametrize("strategy", ["rows", "layers"])
def test_gradients_only(strategy):
    """Matrices that are no layers are spread too: here the state of a rule that has them."""
    params, batch, _ = meshes.problem()
    axes = {"blocks/.*": ((1,), (2,))}
    matrices = singd_optax.find_matrices(params, structures="dense", matrix_axes=axes)
    setup = meshes.setup("data x tensor", "Auto", "rows")
    layers = spread(matrices, setup.shardings, strategy=strategy)
    assert pickle.loads(pickle.dumps(layers)) == layers
    shampoo = lambda layers: optax.chain(
        singd_optax.scale_by_shampoo(layers, grafting="rmsprop"), optax.scale(-2.5e-3)
    )
    tx = shampoo(layers)
    of_state = state_shardings(tx.init, params, setup.shardings, layers)
    (found,) = singd_optax.layers.rule_states(of_state)
    up = found.rule_states["blocks/up/kernel"].K.entries.spec
    assert up == P(("data", "model"), None, None)  # eight blocks, eight devices
    head = P(("data", "model"), None) if strategy == "rows" else P(None, None)
    assert found.rule_states["head/kernel"].K.entries.spec == head
    assert found.rule_states["head/kernel"].L.entries.spec == head
    alone = shampoo(matrices)
    want = meshes.run(jax.jit(plain_step(alone)), params, alone.init(params), batch, steps=4)
    split = jax.jit(plain_step(tx), out_shardings=(setup.shardings, of_state, None))
    state = jax.jit(tx.init, out_shardings=of_state)(params)
    placed = jax.device_put(params, setup.shardings)
    got = meshes.run(split, placed, state, jax.device_put(batch, setup.of_batch), steps=4)
    np.testing.assert_allclose(got[2], want[2], rtol=1e-3)  # roots amplify rounding


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_without_jit(kind):
    """A step by hand, with arrays on the mesh; and with arrays on one device, where it is none."""
    setup = meshes.setup("fsdp", kind, "rows")
    grads = jax.tree.map(jnp.ones_like, meshes.problem()[0])
    curvature = {
        path: jax.tree.map(jnp.ones_like, singd_optax.measures.Statistics.zeros(spec))
        for path, spec in setup.layers.items()
    }
    tx = singd_optax.scale_by_rule(SINGD.paper(), setup.layers)
    want, _ = tx.update(grads, tx.init(grads), curvature=curvature)
    assert len(jax.tree.leaves(want)[0].devices()) == 1
    of_state = state_shardings(tx.init, grads, setup.shardings, setup.layers)
    with setup.context():
        state = jax.jit(tx.init, out_shardings=of_state)(grads)
        got, _ = tx.update(jax.device_put(grads, setup.shardings), state, curvature=curvature)
    assert meshes.difference(got, want) < CLOSE
    same = jax.tree.map(
        lambda x, own: x.sharding.is_equivalent_to(own, x.ndim), got, setup.shardings
    )
    assert all(jax.tree.leaves(same))
