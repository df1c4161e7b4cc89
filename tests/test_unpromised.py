"""Canaries: each names a place of ``singd_optax.capture._unpromised`` that a release may change."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import singd_optax
from singd_optax.capture import _analysis, _dependence, _origins, _recording
from singd_optax.capture._jaxprs import equations, inner_programs
from singd_optax.capture._markers import CALL_MARKER, insert_marker

x = jnp.ones((4, 3))


def names(function, *args):
    """The names of all primitives in a program, inner ones too."""
    found = []

    def walk(program):
        for equation in equations(program):
            found.append(equation.primitive.name)
            for inner in inner_programs(equation):
                walk(inner)

    walk(jax.make_jaxpr(function)(*args))
    return found


PRIMITIVES = {
    "scan": lambda x: jax.lax.scan(lambda c, a: (c + a, c), x[0], x)[0],
    "while": lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x),
    "cond": lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    "stop_gradient": jax.lax.stop_gradient,
    "custom_jvp_call": jax.nn.relu,
    "custom_vjp_call": lambda x: _identity(x),
    "transpose": lambda x: x.T,
    "squeeze": lambda x: x[0],
    "slice": lambda x: x[1:],
    "broadcast_in_dim": lambda x: x[None],
    "reshape": lambda x: x.reshape(-1),
    "concatenate": lambda x: jnp.concatenate([x, x]),
    "split": lambda x: jnp.split(x, 2),
    "dynamic_slice": lambda x: jax.lax.dynamic_slice(x, (1, 0), (1, 3)),
    "convert_element_type": lambda x: x.astype(jnp.bfloat16),
}


@jax.custom_vjp
def _identity(x):
    return x


_identity.defvjp(lambda x: (x, None), lambda _, g: (g,))


@pytest.mark.parametrize("name", PRIMITIVES)
def test_names_of_primitives(name):
    assert name in names(PRIMITIVES[name], x)


@pytest.mark.parametrize(
    ("layout", "axes", "taken"),
    [
        (lambda k: k.transpose(2, 0, 1), (2, 0, 1), ()),
        (lambda k: k[1], (1, 2), ((0, 1),)),
        (lambda k: k[:, 2], (0, 2), ((1, 2),)),
        (lambda k: jnp.unstack(k)[1], (1, 2), ((0, 1),)),
        (lambda k: jnp.split(k, 3, axis=1)[2][:, 0], (0, 2), ((1, 2),)),
        (lambda k: jnp.squeeze(k[None], 0), (0, 1, 2), ()),
        (lambda k: jnp.moveaxis(k, 0, -1).T.T, (1, 2, 0), ()),
        (lambda k: k.reshape(-1).reshape(2, 3, 4), (0, 1, 2), ()),
        (
            lambda k: jnp.split(jnp.concatenate([k.ravel()] * 2), 2)[1].reshape(2, 3, 4),
            (0, 1, 2),
            (),
        ),
    ],
)
def test_layout_changes_are_followed(layout, axes, taken):
    session = _recording.RecordingSession()

    def trace(leaves, carriers, arrays):
        del carriers, arrays
        session.recorded.append(_recording.RecordedRoot("root", ("k",)))
        return insert_marker(0, [layout(leaves["k"])])

    program = types.SimpleNamespace(trace=trace, leaves={"k": jnp.ones((2, 3, 4))}, arrays=[])
    analysis = _analysis.analyse_loss(program, session)
    ((_, (seen,)),) = analysis.roots
    assert seen.operands[0].origin == _origins.Origin(0, axes, taken)


def test_operands_of_loops():
    """Constants, carry and slices of a scan; constants of condition and body of a while loop."""
    seen = []

    class Noting(_dependence.DependenceAnalysis):
        def equation(self, equation, inputs):
            if equation.primitive.name == "mul":
                seen.append([value.origin and value.origin.parameter for value in inputs])
            return super().equation(equation, inputs)

    from singd_optax.capture._dataflow import run_dataflow

    def program(constant, carry, scanned):
        carry, _ = jax.lax.scan(lambda c, a: (c, a * constant), carry, scanned)
        stop = lambda c: (c * constant).sum() < 9
        return jax.lax.while_loop(stop, lambda c: c, carry)

    arrays = [jnp.ones(3), jnp.ones(3), jnp.ones((4, 3))]
    inputs = [
        _dependence.Dependence(1 << i, origin=_origins.Origin(i, tuple(range(a.ndim))))
        for i, a in enumerate(arrays)
    ]
    run_dataflow(jax.make_jaxpr(program)(*arrays), inputs, Noting())
    assert [2, 0] in seen
    assert [1, 0] in seen


@pytest.mark.parametrize("around", ["scan", "jit", "checkpoint", "vmap", "grad", "grad of scan"])
def test_marks(around):
    def marked(x):
        return x.sum() * (1 + insert_marker(0, [x]))

    programs = {
        "scan": lambda x: jax.lax.scan(lambda c, a: (c + marked(a), None), 0.0, x)[0],
        "jit": jax.jit(marked),
        "checkpoint": jax.grad(jax.checkpoint(marked)),
        "vmap": jax.vmap(marked),
        "grad": jax.grad(marked),
        "grad of scan": jax.grad(
            lambda x: jax.lax.scan(lambda c, a: (c + marked(a), None), 0.0, x)[0]
        ),
    }
    assert CALL_MARKER.name in names(programs[around], x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.Dense(3, name="d")(x), None


def test_the_dict_of_a_scope():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            variables = self.scope.root.variables()
            variables["params"] = {"d": jax.tree.map(lambda w: w * 0, variables["params"]["d"])}
            return nn.Dense(3, name="d")(x)

    params = nn.Dense(3).init(jax.random.key(0), x)["params"]
    assert not Net().apply({"params": {"d": params}}, x).any()


@pytest.mark.parametrize("lift", ["scan", "vmap", "remat", "jit"])
def test_interceptors_inside_of_lifted_transforms(lift):
    stacked = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    lifted = {
        "scan": lambda: nn.scan(Block, length=2, **stacked)(name="b"),
        "vmap": lambda: nn.vmap(Block, in_axes=None, axis_size=2, **stacked)(name="b"),
        "remat": lambda: nn.remat(Block)(name="b"),
        "jit": lambda: nn.jit(Block)(name="b"),
    }[lift]

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return lifted()(x, None)[0]

    params = Net().init(jax.random.key(0), x)
    seen = []

    def interceptor(next_fun, args, kwargs, context):
        root = context.module.scope.root
        seen.append((type(context.module).__name__, id(root), context.module.scope.path))
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        Net().apply(params, x)
    assert [name for name, *_ in seen][-1] == "Dense"
    assert seen[-1][2][-1] == "d"
    assert seen[0][1] != seen[-1][1]


@pytest.mark.parametrize(
    "layer",
    [nn.Dense(3), nn.DenseGeneral(3), nn.Conv(3, (1,)), nn.Embed(3, 3)],
    ids=lambda layer: type(layer).__name__,
)
def test_defaults_of_linen(layer):
    from flax.linen.dtypes import promote_dtype

    assert layer.promote_dtype is promote_dtype
    for name in ("dot_general", "dot_general_cls", "conv_general_dilated"):
        assert getattr(layer, name, None) is None


def test_raw_values_of_nnx():
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    model.kernel.set_raw_value((model.kernel.get_raw_value(), jnp.ones(2)))

    @nnx.jit
    def second(model):
        return model.kernel.get_raw_value()[1]

    assert second(model).shape == (2,)


def test_classes_of_nnx():
    model = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
    kind = type(nnx.Linear)("Linear", (nnx.Linear,), {"__call__": lambda self, x: x})
    object.__setattr__(model, "__class__", kind)
    assert type(nnx.merge(*nnx.split(model))) is kind


def test_the_state_of_multi_steps():
    state = optax.MultiSteps(optax.sgd(0.1), 2).init({"w": x})
    assert {"mini_step", "acc_grads", "inner_opt_state"} <= set(state._fields)


def test_masked_nodes():
    seen = []
    look = optax.stateless(lambda updates, _: seen.append(updates) or updates)
    masked = optax.masked(look, {"v": True, "w": False})
    masked.update({"v": x, "w": x}, masked.init({"v": x, "w": x}))
    assert len(jax.tree.leaves(seen)) == 1


def test_a_program_that_cannot_be_read_is_said_with_the_versions(monkeypatch):
    """Layers that get their parameters themselves are found all the same."""

    def broken(*_):
        raise KeyError("num_consts")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.tanh(nn.Dense(3, name="a")(x))
            return nn.remat(nn.Dense)(3, name="b")(x)

    params = Net().init(jax.random.key(0), x)["params"]
    loss = lambda p, x: jnp.mean(Net().apply({"params": p}, x) ** 2)
    whole = singd_optax.find_layers(loss, params, x)
    monkeypatch.setattr(_analysis, "run_dataflow", broken)
    with pytest.warns(UserWarning, match=r"could not be read \(jax \d.*flax \d.*KeyError"):
        layers = singd_optax.find_layers(loss, params, x)
    assert list(whole) == ["a", "b"]
    assert layers["a"] == whole["a"]
    assert "b" not in layers
    state = singd_optax.scale_by_singd(layers).init(params)
    with pytest.warns(UserWarning, match="could not be read"):
        _, _, curvature = singd_optax.value_and_grad(loss, layers)(params, x, opt_state=state)
    rows = jnp.concatenate([x, jnp.ones((4, 1))], axis=1)
    assert jnp.allclose(curvature["a"].H_K.to_dense(), rows.T @ rows / 4)
