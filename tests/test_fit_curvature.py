"""The curvature of a data set: explicit Gauss-Newton matrices, dense arithmetic, and whole runs."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import singd_optax
from singd_optax.curvature import Curvature, fit, from_diagonal, from_opt_state
from singd_optax.curvature._blocks import moments_block
from singd_optax.curvature._make import make_curvature
from singd_optax.layers import find_matrices
from singd_optax.structures import BlockDiagonal, Dense, Diagonal

pytestmark = pytest.mark.usefixtures("x64")

EXAMPLES, CLASSES = 12, 3


class Net(nn.Module):
    """Two layers, and a norm between them that is none."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(param_dtype=float, name="norm")(
            jnp.tanh(nn.Dense(4, param_dtype=float, name="first")(x))
        )
        return nn.Dense(CLASSES, param_dtype=float, name="last")(x)


def loss_fn(params, x, y):
    logits = Net().apply({"params": params}, x)
    logits = singd_optax.tag_distribution(logits, "categorical")
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@functools.cache
def problem():
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, 5), float)
    y = jnp.arange(EXAMPLES) % CLASSES
    params = Net().init(jax.random.key(1), x)["params"]
    return params, x, y, singd_optax.find_layers(loss_fn, params, x, y)


def cut(x, y):
    """Batches of several sizes."""
    return [(x[a:b], y[a:b]) for a, b in ((0, 5), (5, 12))]


def gauss_newton(params, x):
    """Each example's roots of the Gauss-Newton matrix by layer, (n, classes, rows, columns)."""
    outputs = lambda params: Net().apply({"params": params}, x)
    probabilities = jax.nn.softmax(outputs(params))
    roots = jax.vmap(lambda p: (jnp.eye(CLASSES) - p) * jnp.sqrt(p)[:, None])(probabilities)
    jacobian = jax.jit(jax.jacobian(outputs))(params)
    turned = jax.tree.map(lambda leaf: jnp.einsum("nkc,nc...->nk...", roots, leaf), jacobian)
    layers = {
        path: jnp.concatenate([turned[path]["kernel"], turned[path]["bias"][:, :, None]], 2)
        for path in ("first", "last")
    }
    return layers, turned["norm"]


def dense_of(block):
    return np.kron(block.K.to_dense(), block.C.to_dense())


@pytest.mark.parametrize("kind", ["kfac", "ekfac", "diagonal"])
def test_exact_quantities(kind):
    """Of a batch in three cuts: factors, diagonals in the basis, and parameters without a layer."""
    params, x, y, layers = problem()
    found = fit(loss_fn, layers, params, cut(x, y), kind=kind, fisher="ggn", others="diagonal")
    roots, norm = gauss_newton(params, x)
    for path, rows in roots.items():
        flat = np.asarray(rows).reshape(EXAMPLES * CLASSES, -1)
        whole, block = flat.T @ flat, found[path]
        Q = dense_of(block)
        if kind == "kfac":
            # A row is a gᵀ with a's last entry 1: so g is the last row, and a is read off.
            g = np.asarray(rows[:, :, -1])
            a = np.einsum("nkic,nkc->ni", rows, g) / np.einsum("nkc,nkc->n", g, g)[:, None]
            expected = np.kron(a.T @ a / EXAMPLES, np.einsum("nki,nkj->ij", g, g))
            np.testing.assert_allclose(Q * block.values.reshape(-1) @ Q.T, expected, atol=1e-10)
        else:
            np.testing.assert_allclose(
                block.values.reshape(-1), np.diag(Q.T @ whole @ Q), atol=1e-10
            )
            np.testing.assert_allclose(block.trace(), np.trace(whole))
    for name in ("scale", "bias"):
        expected = (norm[name] ** 2).sum((0, 1))
        np.testing.assert_allclose(found.diagonal()["norm"][name], expected, rtol=1e-9)
    np.testing.assert_allclose(found.nll, EXAMPLES * loss_fn(params, x, y))
    assert found.terms == EXAMPLES


def test_labels_that_are_drawn():
    """One label for each example is right on average, of layers and of all others."""
    params, x, y, layers = problem()
    options = {"kind": "diagonal", "others": "diagonal"}
    exact = fit(loss_fn, layers, params, [(x, y)], fisher="ggn", **options).diagonal()
    drawn = fit(loss_fn, layers, params, [(x, y)] * 400, fisher="mc", **options).diagonal()
    for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(drawn), strict=True):
        assert np.linalg.norm(other / 400 - one) < 0.1 * np.linalg.norm(one)


def test_empirical_squares():
    params, x, y, layers = problem()
    options = {"kind": "diagonal", "others": "diagonal", "fisher": "empirical"}
    found = fit(loss_fn, layers, params, cut(x, y), **options).diagonal()
    each = jax.vmap(lambda x, y: jax.grad(loss_fn)(params, x[None], y[None]))(x, y)
    for one, other in zip(jax.tree.leaves(each), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(other, (one**2).sum(0), rtol=1e-9)


class Sequence(nn.Module):
    """A language model with tied embeddings: one kernel in two uses, several positions."""

    @nn.compact
    def __call__(self, tokens):
        table = nn.Embed(CLASSES, 4, param_dtype=float, name="table")
        h = nn.Dense(4, param_dtype=float, name="mix")(jnp.tanh(table(tokens)))
        return table.attend(h + jnp.cumsum(h, axis=1))


def test_sequences_and_tied_kernels():
    """Traces are those of the Gauss-Newton matrix: exact squares know what positions share."""
    tokens = jax.random.randint(jax.random.key(0), (5, 3), 0, CLASSES)
    mask = jnp.arange(3) < jnp.array([3, 2, 3, 1, 2])[:, None]
    model = Sequence()
    params = model.init(jax.random.key(1), tokens)["params"]

    def loss_fn(params, tokens, mask):
        with singd_optax.position_weights(mask):
            logits = model.apply({"params": params}, tokens)
            logits = singd_optax.tag_distribution(logits)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
        return (losses * mask).sum() / mask.sum()

    layers = singd_optax.find_layers(loss_fn, params, tokens, mask, loss_average="batch+sequence")
    assert layers["table"].tied
    batches = [(tokens[:3], mask[:3]), (tokens[3:], mask[3:])]
    found = fit(loss_fn, layers, params, batches, kind="ekfac", fisher="ggn")
    np.testing.assert_allclose(found.nll, loss_fn(params, tokens, mask) * mask.sum())

    outputs = lambda params: model.apply({"params": params}, tokens)
    p = jax.nn.softmax(outputs(params))
    roots = jax.vmap(jax.vmap(lambda p: (jnp.eye(CLASSES) - p) * jnp.sqrt(p)[:, None]))(p)
    rows = jax.tree.map(
        lambda leaf: jnp.einsum("nt,ntkc,ntc...->ntk...", mask, roots, leaf),
        jax.jit(jax.jacobian(outputs))(params),
    )
    exact = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(rows["mix"]))
    np.testing.assert_allclose(found["mix"].trace(), exact)
    # Of the table each use is exact, and what they have in common is left out.
    frozen = jax.lax.stop_gradient(params["table"]["embedding"])
    assert found["table"].values.shape == frozen.shape
    assert found["table"].trace() > 0


def test_resumed():
    """Stopped in the second pass and in the first, by a state that was saved."""
    params, x, y, layers = problem()
    saved = []
    options = {"kind": "ekfac", "fisher": "mc"}
    keep = lambda state: saved.append(jax.tree.map(np.array, state))
    whole = fit(loss_fn, layers, params, cut(x, y), on_batch=keep, **options)
    assert [(int(s.passed), int(s.seen)) for s in saved] == [(p, n) for p in (0, 1) for n in (1, 2)]
    for state in (saved[0], saved[2]):
        again = fit(loss_fn, layers, params, cut(x, y), state=state, **options)
        for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


def test_one_compilation_for_each_shape():
    params, x, y, layers = problem()
    traced = []

    def counted(params, x, y):
        traced.append(x.shape)
        return loss_fn(params, x, y)

    seen = []
    note = lambda state: seen.append(len(traced))
    fit(counted, layers, params, iter([(x[:5], y[:5])] * 6), on_batch=note)
    assert seen == seen[:1] * 6


def test_on_a_mesh():
    params, x, y, layers = problem()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    put = lambda spec: lambda leaf: jax.device_put(leaf, jax.NamedSharding(mesh, spec))
    sharded = jax.tree.map(put(jax.P("data")), (x, y))
    everywhere = jax.tree.map(put(jax.P()), params)
    one = fit(loss_fn, layers, params, [(x, y)], fisher="ggn")
    many = fit(loss_fn, layers, everywhere, [sharded], fisher="ggn")
    np.testing.assert_allclose(many.spectrum(), one.spectrum(), atol=1e-10)


def test_nnx():
    """A model of the same numbers has the same curvature."""
    params, x, y, layers = problem()

    class Model(nnx.Module):
        def __init__(self):
            options = {"param_dtype": float, "rngs": nnx.Rngs(0)}
            self.first, self.last = nnx.Linear(5, 4, **options), nnx.Linear(4, CLASSES, **options)
            self.norm = nnx.LayerNorm(4, **options)

        def __call__(self, x):
            return self.last(self.norm(jnp.tanh(self.first(x))))

    model = Model()
    for name, own in params.items():
        for key, value in own.items():
            setattr(getattr(model, name), key, nnx.Param(value))

    def loss_of_model(model, x, y):
        logits = singd_optax.tag_distribution(model(x), "categorical")
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    found = singd_optax.nnx.find_layers(loss_of_model, model, x, y)
    options = {"kind": "diagonal", "fisher": "ggn", "others": "diagonal"}
    got = fit(loss_of_model, found, model, [(x, y)], **options)
    expected = fit(loss_fn, layers, params, [(x, y)], **options)
    np.testing.assert_allclose(got.spectrum(), expected.spectrum(), atol=1e-10)
    np.testing.assert_allclose(got.nll, expected.nll)


# -- from an optimizer's state ------------------------------------------------------------------


def test_state_of_kfac():
    """After one batch it is what `fit` finds."""
    params, x, y, layers = problem()
    tx = singd_optax.kfac(1e-3, layers)
    opt_state = tx.init(params)
    with pytest.raises(ValueError, match="no statistics yet"):
        from_opt_state(opt_state, layers, params, terms=EXAMPLES)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers, fisher="ggn")
    _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
    _, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
    found = from_opt_state(opt_state, layers, params, terms=EXAMPLES)
    expected = fit(loss_fn, layers, params, [(x, y)], fisher="ggn")
    np.testing.assert_allclose(found.spectrum(), expected.spectrum(), atol=1e-9)
    vector = jax.tree.map(jnp.ones_like, params)
    for one, other in zip(
        jax.tree.leaves(found.matvec(vector)),
        jax.tree.leaves(expected.matvec(vector)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_state_of_singd():
    """The inverse of its curvature is its preconditioner."""
    params, x, y, layers = problem()
    layers = layers.replace(".*", structures=("hierarchical:2,1", "block_diagonal:2"))
    kept = []
    found = fit(loss_fn, layers, params, cut(x, y), kind="singd", on_batch=kept.append)
    factors = singd_optax.factors(kept[-1].sums[0])
    count = lambda leaf: jnp.arange(leaf.size, dtype=float).reshape(leaf.shape)
    vector = jax.tree.map(count, params)
    solved = found.inverse_matvec(vector)
    for path, (K, C) in factors.items():
        matrix = layers[path].to_matrix(vector[path]["kernel"], vector[path]["bias"])
        K, C = K.to_dense(), C.to_dense()
        expected = K @ K.T @ matrix @ C @ C.T / EXAMPLES
        got = layers[path].to_matrix(solved[path]["kernel"], solved[path]["bias"])
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert not solved["norm"]["scale"].any()
    assert found.terms == EXAMPLES
    resumed = fit(loss_fn, layers, params, cut(x, y), kind="singd", state=kept[0])
    np.testing.assert_allclose(resumed.spectrum(), found.spectrum())


def test_singd_comes_to_the_curvature_of_kfac():
    """With many refreshes on the same data: K Kᵀ ⊗ C Cᵀ of dense SINGD is (U ⊗ G)^-1."""
    params, x, y, layers = problem()
    layers = layers.without("last")
    options = {"damping": 1e-6, "factor_learning_rate": 0.2, "damping_mode": "absolute"}
    singd = fit(
        loss_fn, layers, params, [(x, y)] * 200, kind="singd", fisher="ggn", singd_options=options
    )
    kfac = fit(loss_fn, layers, params, [(x, y)], fisher="ggn")
    top = slice(0, 12)  # for 200 times the data
    np.testing.assert_allclose(singd.spectrum()[top] / 200, kfac.spectrum()[top], rtol=0.02)


TWO = (Dense(), BlockDiagonal(2))


# -- operations ---------------------------------------------------------------------------------


def some_curvature(structures=TWO, stack=()):
    """Of one layer "a" (stacked or not), and an array "b" without a block."""
    params = {"a": jnp.ones((*stack, 3, 4)), "b": jnp.ones(2)}
    axes = {"a": ((-2,), (-1,))}
    view = find_matrices(params, structures=structures, matrix_axes=axes)["a"]
    sides = []
    for seed, (structure, dim) in enumerate(zip(structures, (3, 4), strict=True)):
        rows = jax.random.normal(jax.random.key(seed), (*stack, 9, dim), float)
        sides.append(structure.project_gram(rows))
    return make_curvature({"a": moments_block(*sides)}, {"a": view}, params), sides, params


@pytest.mark.parametrize("structures", [TWO, (Diagonal(), Dense())], ids=str)
def test_operations_are_those_of_a_dense_matrix(structures):
    curvature, (S_K, S_C), _ = some_curvature(structures)
    H = np.kron(S_K.to_dense(), S_C.to_dense())
    np.testing.assert_allclose(curvature.trace(), np.trace(H))
    np.testing.assert_allclose(curvature.spectrum(), np.linalg.eigvalsh(H)[::-1], atol=1e-9)
    vector = {"a": jax.random.normal(jax.random.key(5), (3, 4), float), "b": jnp.ones(2)}
    v, d = np.asarray(vector["a"]).reshape(-1), 0.3
    damped = H + d * np.eye(12)
    values, vectors = np.linalg.eigh(damped)
    power = lambda p: vectors * values**p @ vectors.T
    for got, p in (
        (curvature.matvec(vector, d), 1.0),
        (curvature.inverse_matvec(vector, d), -1.0),
        (curvature.sqrt_matvec(vector, d), 0.5),
        (curvature.inverse_sqrt_matvec(vector, d), -0.5),
    ):
        np.testing.assert_allclose(got["a"].reshape(-1), power(p) @ v, rtol=1e-8)
        assert not got["b"].any()
    np.testing.assert_allclose(curvature.logdet(d), np.linalg.slogdet(damped)[1])
    np.testing.assert_allclose(curvature.quadratic(vector, d), v @ damped @ v)
    np.testing.assert_allclose(
        curvature.diagonal(-1.0, d)["a"].reshape(-1), np.diag(power(-1.0)), rtol=1e-8
    )
    np.testing.assert_allclose(
        curvature.effective_dimension(d), np.trace(H @ np.linalg.inv(damped))
    )
    drawn = curvature.sample(jax.random.key(0), d, (20_000,))
    assert not drawn["b"].any()
    a = np.asarray(drawn["a"]).reshape(-1, 12)
    assert np.linalg.norm(a.T @ a / len(a) - power(-1.0)) < 0.05 * np.linalg.norm(power(-1.0))


def test_stacks():
    """As one layer after the other."""
    curvature, (S_K, S_C), params = some_curvature(stack=(2,))
    got = curvature.inverse_matvec(params, {"a": 0.1})["a"]
    for i in range(2):
        H = np.kron(S_K.to_dense()[i], S_C.to_dense()[i]) + 0.1 * np.eye(12)
        np.testing.assert_allclose(got[i].reshape(-1), np.linalg.solve(H, np.ones(12)), rtol=1e-8)
    assert curvature.sample(jax.random.key(0), 1.0, (5, 6))["a"].shape == (5, 6, 2, 3, 4)
    assert curvature.diagonal(-1.0, 1.0)["a"].shape == (2, 3, 4)


def test_as_an_argument_of_jit():
    curvature, _, params = some_curvature()
    solve = jax.jit(lambda curvature, params, d: curvature.inverse_matvec(params, d))
    np.testing.assert_allclose(
        solve(curvature, params, 0.5)["a"], curvature.inverse_matvec(params, 0.5)["a"]
    )
    solve(curvature.scaled(2.0), params, 0.7)
    assert solve._cache_size() == 1


# -- errors -------------------------------------------------------------------------------------


def test_errors():
    params, x, y, layers = problem()
    run = lambda batches, loss=loss_fn, **options: fit(loss, layers, params, batches, **options)
    with pytest.raises(ValueError, match=r"`kind` must be one of .* Did you mean 'ekfac'"):
        run([(x, y)], kind="ekfacs")
    with pytest.raises(ValueError, match="no batch in pass 1"):
        run([])
    with pytest.raises(ValueError, match=r"no batch in pass 2 .* goes through the data twice"):
        run(iter([(x, y)]), kind="ekfac")
    with pytest.raises(TypeError, match=r"iterable of batches.*write \[\(x, y\)\]"):
        run((x, y))
    with pytest.raises(ValueError, match=r"with 1 argument\(s\) of shapes .*a tuple"):
        run([x])
    with pytest.raises(ValueError, match=r"cannot be called with a batch.*\(4, 3\)"):
        run([(x, y), (x[:4, :3], y[:4])], fisher="empirical")
    scaled = lambda params, x, y, scale: loss_fn(params, x, y) * scale
    with pytest.raises(ValueError, match=r"every array has the examples along its first axis"):
        run([(x, y, jnp.ones([]))], loss=scaled, others="diagonal")
    with pytest.raises(ValueError, match="must return a scalar, got"):
        run([(x, y)], loss=lambda params, x, y: Net().apply({"params": params}, x)[:, 0])
    with pytest.raises(ValueError, match="named none"):
        run([(x, y)], loss=lambda p, x, y: (Net().apply({"params": p}, x) ** 2).mean())
    with pytest.raises(ValueError, match="no array at 'first/kernel'"):
        fit(loss_fn, layers, {"last": params["last"]}, [(x, y)])
    with pytest.raises(ValueError, match=r"structure TriangularToeplitz.*kind='singd'"):
        fit(loss_fn, layers.replace("last", structures="lower_toeplitz"), params, [(x, y)])
    with pytest.raises(ValueError, match=r"`singd_options` are for kind='singd', got kind='kfac'"):
        run([(x, y)], singd_options={"damping": 1.0})
    with pytest.raises(ValueError, match=r"no batch in `batches` .*got list"):
        run([], kind="singd")
    with pytest.raises(ValueError, match=r"cannot be called with a batch.*\(4, 3\)"):
        run([(x, y), (x[:4, :3], y[:4])], kind="singd", fisher="empirical")
    saved = []
    run([(x, y)], on_batch=saved.append)
    with pytest.raises(ValueError, match=r"is of a fit with other arguments: .*and this fit has"):
        run([(x, y)], state=saved[0], kind="diagonal")
    with pytest.raises(ValueError, match=r"other arguments: it is in pass 2 of 1"):
        run([(x, y)], state=saved[0]._replace(passed=1))
    with pytest.raises(TypeError, match=r"`state` must be a FitState.*type dict"):
        run([(x, y)], state={"sums": 0})
    with pytest.raises(ValueError, match="has no curvature of parameters outside"):
        run([(x, y)], kind="singd", others="diagonal")


def test_errors_of_a_curvature():
    curvature, _, params = some_curvature()
    singular = make_curvature(
        {"a": curvature["a"].scaled(0.0)}, dict(zip("a", curvature.views, strict=True)), params
    )
    for use in (
        lambda c: c.inverse_matvec(params),
        lambda c: c.logdet(),
        lambda c: c.sample(jax.random.key(0), 0.0),
        lambda c: c.diagonal(-1.0),
    ):
        use(curvature)
        with pytest.raises(ValueError, match=r"'a' is singular.*damping is 0. Pass a damping"):
            use(singular)
    with pytest.raises(ValueError, match=r"damping.*got -1"):
        curvature.matvec(params, -1.0)
    with pytest.raises(ValueError, match=r"one for each block, got one that differs in \['c'\]"):
        curvature.matvec(params, {"a": 1.0, "c": 1.0})
    with pytest.raises(ValueError, match="no array at 'a'"):
        curvature.matvec({"b": params["b"]})
    with pytest.raises(ValueError, match="'a' has shape"):
        curvature.matvec({"a": jnp.ones((4, 3)), "b": params["b"]})
    with pytest.raises(ValueError, match="No block's path matches 'x'"):
        curvature.select("x")
    with pytest.raises(ValueError, match=r"`factor` must be a finite number >= 0, got -1"):
        curvature.scaled(-1.0)
    with pytest.raises(ValueError, match=r"`diagonal` must be >= 0, got -2 at 'b'. Pass"):
        from_diagonal({"a": jnp.ones(3), "b": jnp.array([1.0, -2.0])})
    with pytest.raises(KeyError, match="There are"):
        curvature["x"]
    assert isinstance(curvature.select("a"), Curvature)


def test_errors_of_states():
    params, _, _, layers = problem()
    soap = singd_optax.soap(1e-3).init(params)
    with pytest.raises(ValueError, match="other layers"):
        from_opt_state(soap, layers, params, terms=1)
    other = singd_optax.singd(1e-3, layers.replace(".*", structures="diagonal")).init(params)
    with pytest.raises(ValueError, match="do not match `layers`"):
        from_opt_state(other, layers, params, terms=1)
    eva = singd_optax.eva(1e-3, layers).init(params)
    with pytest.raises(ValueError, match="must be of singd, ingd, ikfac, kfac or ekfac"):
        from_opt_state(eva, layers, params, terms=1)
