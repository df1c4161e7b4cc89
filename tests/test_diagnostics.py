"""Numbers about layers, against the same numbers by dense arithmetic."""

import html
import pickle
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import GRADIENT_ALIASES, assert_close, jit, loss_fn, problem

import singd_optax
from singd_optax import diagnostics
from singd_optax.structures import STRUCTURES, Dense


def with_momentum(layers):
    return singd_optax.singd(0.05, layers, factor_momentum=0.5)


@pytest.fixture(scope="module")
def stepped():
    params, layers, x, y = problem()
    tx = with_momentum(layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)

    @jit
    def step(params, opt_state):
        _, grads, curvature = grad_fn(params, x, y, opt_state=opt_state)
        updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
        numbers = diagnostics.metrics(layers, opt_state, grads=grads, updates=updates)
        return optax.apply_updates(params, updates), opt_state, grads, updates, numbers

    carry = (params, tx.init(params))
    for _ in range(3):
        *carry, grads, updates, numbers = step(*carry)
    return layers, carry[1], grads, updates, numbers


def test_metrics_inside_of_jit(stepped):
    layers, opt_state, grads, updates, numbers = stepped
    assert all(value.shape == () for value in numbers.values())
    K, C = (factor.to_dense() for factor in singd_optax.factors(opt_state)["first"])
    m_K = optax.tree.get(opt_state, "rule_states")["first"].m_K.to_dense()
    g, u = (
        np.concatenate([tree["first"]["kernel"], tree["first"]["bias"][None]])
        for tree in (grads, updates)
    )
    want = {
        "norm_K": np.linalg.norm(K),
        "norm_C": np.linalg.norm(C),
        "condition_K": np.linalg.cond(K),
        "condition_C": np.linalg.cond(C),
        "norm_m_K": np.linalg.norm(m_K),
        "skipped_refreshes": 0,
        "gradient_rms": np.sqrt(np.mean(g**2)),
        "update_rms": np.sqrt(np.mean(u**2)),
        "alignment": -np.sum(g * u) / np.linalg.norm(g) / np.linalg.norm(u),
    }
    for name, value in want.items():
        np.testing.assert_allclose(numbers[f"singd_optax/first/{name}"], value, rtol=1e-3)
    assert numbers["singd_optax/first/alignment"] > 0
    assert {key.split("/")[1] for key in numbers} == {"first", "second"}
    without = diagnostics.metrics(layers, opt_state, prefix="")
    assert "first/norm_K" in without
    assert not any("rms" in name or "alignment" in name for name in without)


def test_alignment_of_gradient_descent_and_of_nothing(stepped):
    layers, opt_state, grads, *_ = stepped
    tiny = jax.tree.map(lambda g: 1e-30 * g, grads)
    descent = jax.tree.map(lambda g: -1e-30 * g, grads)
    zeros = jax.tree.map(jnp.zeros_like, grads)
    for updates, want in ((descent, 1), (tiny, -1), (zeros, 0)):
        numbers = diagnostics.layer_diagnostics(layers, opt_state, grads=tiny, updates=updates)
        np.testing.assert_allclose(numbers["second"]["alignment"], want, rtol=1e-5)


def test_condition_number():
    for entry in STRUCTURES:
        for example in entry.examples[:1]:
            rows = jnp.asarray(np.random.default_rng(0).normal(size=(60, 12)), jnp.float32)
            matrix = example.project_gram(rows) * (1 / 60)
            exact = diagnostics.condition_number(matrix)
            np.testing.assert_allclose(exact, np.linalg.cond(matrix.to_dense()), rtol=1e-2)
            estimate = diagnostics.condition_number(matrix, exact_dim=1)
            assert 0.5 * exact < estimate < 1.05 * exact
    stacked = jax.vmap(Dense().project)(jnp.stack([jnp.eye(3), jnp.diag(jnp.array([1.0, 2, 4]))]))
    assert_close(diagnostics.condition_number(stacked), jnp.array([1.0, 4.0]))
    assert_close(diagnostics.condition_number(stacked, exact_dim=1)[1], jnp.array(4.0), 0.02)
    with pytest.raises(ValueError, match="exact_dim"):
        diagnostics.condition_number(stacked, exact_dim=0)


def test_stacked_layers_are_told_apart():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.tanh(nn.Dense(4, name="layer")(x)), None

    model = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()
    x = jnp.ones((5, 4))
    params = model.init(jax.random.key(0), x, None)["params"]
    fn = lambda params, x: (model.apply({"params": params}, x, None)[0] ** 2).mean()
    layers = singd_optax.find_layers(fn, params, x)
    state = singd_optax.scale_by_ikfac(layers).init(params)
    numbers = diagnostics.metrics(layers, state, grads=params)
    assert {"singd_optax/layer[0]/gradient_rms", "singd_optax/layer[2]/norm_K"} <= set(numbers)
    want = np.sqrt(
        np.mean(np.concatenate([params["layer"]["kernel"][1].ravel(), np.zeros(4)]) ** 2)
    )
    np.testing.assert_allclose(numbers["singd_optax/layer[1]/gradient_rms"], want, rtol=1e-5)
    names = {name.rsplit("/", 1)[1] for name in numbers if "/norm_" in name}
    assert names == {"norm_K", "norm_C", "norm_product_K", "norm_product_C"}


@pytest.mark.parametrize("inverse_method", ["cholesky", "eigh"])
def test_kfac(inverse_method):
    """Another kind of factors, and of what is beside them."""
    params, layers, *_ = problem()
    state = singd_optax.scale_by_kfac(layers, inverse_method=inverse_method).init(params)
    numbers = diagnostics.layer_diagnostics(layers, state)["first"]
    beside = {"norm_S_K", "norm_S_C"}
    if inverse_method == "eigh":
        beside |= {"norm_values_K", "norm_values_C", "norm_damping"}
    names = {name for name in numbers if name.startswith("norm_")}
    assert names - {"norm_K", "norm_C"} == beside
    assert numbers["condition_K"] == 1
    assert "Dense() 6 x 6 float32" in diagnostics.summary(state)
    assert len(diagnostics.plot_spectra(state).axes) == 2
    tx = singd_optax.scale_by_kfac(layers, inverse_method=inverse_method)
    singd_optax.training.check_opt_state(state, tx, params)
    with pytest.raises(ValueError, match="not one of this optimizer"):
        singd_optax.training.check_opt_state(state, singd_optax.scale_by_singd(layers), params)


#: What is shown beside the factors.
BESIDE = {
    "shampoo": {"norm_L", "norm_R"},
    "caspr": {"norm_L", "norm_R"},
    "inverse_free_shampoo": {"norm_m_K", "norm_m_C"},
    "soap": {"norm_L", "norm_R", "norm_second_moment"},
    "kl_shampoo": {"norm_S_K", "norm_values_C"},
    "kl_soap": {"norm_S_C", "norm_second_moment"},
    "psgd_kron": {"norm_curvature_K"},
    "normuon": {"norm_values_C"},
    "inverse_free_kl_shampoo": set(),
    "splus": {"norm_L", "norm_R"},
    "sm3": {"norm_values_K", "norm_values_C"},
    "sketchy": {"norm_vectors_K", "norm_values_C"},
    "jorge": {"norm_K"},
    "tnt": {"norm_L", "norm_R"},
    "eva_s": {"norm_mean_K", "norm_mean_C"},
    "mini_block_fisher": {"norm_K", "norm_S_K"},
}


@pytest.mark.parametrize("name", GRADIENT_ALIASES)
@pytest.mark.parametrize("whole", [True, False])
def test_rules_of_gradients_alone(name, whole):
    """On layers, and on the matrices that they find by themselves."""
    params, layers, x, y = problem()
    if whole:
        tx = getattr(singd_optax, name)(0.05, layers)
    else:
        layers, tx = singd_optax.find_matrices(params), getattr(singd_optax, name)(0.05)
    has_factors = name not in ("normuon", "sm3", "sketchy", "eva_s")

    @jit
    def look(params, state):
        grads = jax.grad(loss_fn)(params, x, y)
        updates, state = tx.update(grads, state, params)
        numbers = diagnostics.layer_diagnostics(layers, state, grads=grads, updates=updates)
        pairs = singd_optax.factors(state) if has_factors else {}
        dense = {path: [factor.to_dense() for factor in pair] for path, pair in pairs.items()}
        return numbers, state, dense

    numbers, state, factors = look(params, tx.init(params))
    assert set(numbers) == set(layers)
    assert all(BESIDE[name] <= set(numbers[path]) for path in layers)
    assert all(path in diagnostics.summary(state) for path in layers)
    assert set(factors) == (set(layers) if has_factors else set())
    for path, (K, C) in factors.items():
        np.testing.assert_allclose(numbers[path]["norm_K"], np.linalg.norm(K), rtol=1e-5)
        np.testing.assert_allclose(numbers[path]["norm_C"], np.linalg.norm(C), rtol=1e-5)
        assert numbers[path]["alignment"] > 0
        assert numbers[path]["skipped_refreshes"] == 0


def test_summary_counts_every_byte(stepped):
    params, layers, *_ = problem()
    opt_state = stepped[1]
    text = diagnostics.summary(opt_state)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state))
    assert (
        f"{whole} B" in text.splitlines()[-1] or f"{whole / 1000:.1f} kB" in text.splitlines()[-1]
    )
    assert all(path in text for path in layers)
    assert "Dense() 6 x 6 float32" in text
    shapes = jax.eval_shape(with_momentum(layers).init, params)
    assert diagnostics.summary(shapes) == text


def test_step_memory():
    """The state is among the arguments; donated arguments are not counted again as outputs."""
    params, layers, x, y = problem()
    shapes = jax.eval_shape(lambda: (params, x, y))
    bytes_of = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    tx = singd_optax.singd(0.05, layers)
    memory = diagnostics.step_memory(loss_fn, layers, tx, *shapes)
    for program, optimizer in ((memory.step, tx), (memory.adamw, optax.adamw(1e-3))):
        taken = bytes_of((params, optimizer.init(params), x, y))
        assert 0 <= program.arguments - taken <= 8  # an empty array may take a place
        assert program.arguments + program.temporaries <= program.peak
        outputs = bytes_of((params, optimizer.init(params)))
        assert program.peak < program.arguments + program.temporaries + outputs
    assert memory.ratio == memory.step.peak / memory.adamw.peak > 1
    lines = str(memory).splitlines()
    assert [line.split("  ")[1].strip() for line in lines[1:]] == ["this step", "optax.adamw"]
    assert f"{memory.ratio:.2f}" in lines[1]


def test_step_memory_of_other_steps():
    """A loss with more than a loss, programs without a branch, and rules of gradients alone."""
    params, layers, x, y = problem()
    with_aux = lambda params, x, *, y: (loss_fn(params, x, y), x)
    tx = singd_optax.singd(0.05, layers)
    with_refresh, without = (
        diagnostics.step_memory(with_aux, layers, tx, params, x, y=y, has_aux=True, refresh=refresh)
        for refresh in (True, False)
    )
    assert without.step.temporaries < with_refresh.step.temporaries
    assert without.adamw == with_refresh.adamw
    shampoo = diagnostics.step_memory(loss_fn, None, singd_optax.shampoo(0.05), params, x, y)
    adamw = diagnostics.step_memory(loss_fn, None, optax.adamw(0.1), params, x, y)
    assert shampoo.ratio > adamw.ratio == 1


def test_step_memory_errors(monkeypatch):
    params, layers, x, y = problem()
    tx = singd_optax.singd(0.05, layers)
    with pytest.raises(TypeError, match=r"`tx` must be.*got a Layers.*\(loss_fn, layers, tx"):
        diagnostics.step_memory(loss_fn, tx, layers, params, x, y)
    with pytest.raises(TypeError, match="`layers`"):
        diagnostics.step_memory(loss_fn, [], tx, params, x, y)
    with pytest.raises(TypeError, match="`refresh` must be True or False"):
        diagnostics.step_memory(loss_fn, layers, tx, params, x, y, refresh=1)
    with pytest.raises(TypeError, match="`has_aux` must be True or False"):
        diagnostics.step_memory(loss_fn, layers, tx, params, x, y, has_aux=None)
    with pytest.raises(ValueError, match="do not match `layers`"):
        diagnostics.step_memory(loss_fn, layers, tx, {"other": x}, x, y)
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda self: None)
    with pytest.raises(RuntimeError, match=r"'cpu' does not say.*JAX_PLATFORMS=cpu.*summary"):
        diagnostics.step_memory(loss_fn, layers, tx, params, x, y)


def test_plot_spectra(stepped, tmp_path):
    pytest.importorskip("matplotlib")
    opt_state = stepped[1]
    figure = diagnostics.plot_spectra(opt_state)
    figure.savefig(tmp_path / "spectra.png")
    drawn = [axis for axis in figure.axes if axis.lines]
    assert [axis.get_title() for axis in drawn] == ["first", "second"]
    K = singd_optax.factors(opt_state)["first"].K.to_dense()
    spectrum = drawn[0].lines[0].get_ydata()
    np.testing.assert_allclose(spectrum, np.linalg.svd(K, compute_uv=False), rtol=1e-5)
    assert len(diagnostics.plot_spectra(opt_state, "sec").axes) == 1
    with pytest.raises(ValueError, match=r"(?s)'nothing'.*first"):
        diagnostics.plot_spectra(opt_state, "nothing")


def test_errors(stepped):
    layers, opt_state, *_ = stepped
    for function in (diagnostics.summary, diagnostics.plot_spectra):
        with pytest.raises(ValueError, match=r"no Kronecker factors.*tx\.init"):
            function(())
    with pytest.raises(ValueError, match="no Kronecker factors"):
        diagnostics.metrics(layers, ())
    with pytest.raises(ValueError, match="`gradient` do not match"):
        diagnostics.metrics(layers, opt_state, grads={"other": jnp.ones(3)})
    with pytest.raises(TypeError, match="`layers`"):
        diagnostics.metrics(None, opt_state)


def test_plot_run(stepped):
    pytest.importorskip("matplotlib")
    numbers = stepped[-1]
    figure = diagnostics.plot_run([3.0, 2.0, 1.5], {2: numbers, 0: numbers})
    loss, sizes, skipped, condition = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [3.0, 2.0, 1.5])
    assert [line.get_label() for line in sizes.lines] == ["first", "second"]
    of_first = numbers["singd_optax/first/update_rms"]
    np.testing.assert_allclose(sizes.lines[0].get_xydata(), [[0, of_first], [2, of_first]])
    assert not np.any(skipped.lines[0].get_ydata())
    drawn = {(line.get_color(), line.get_linestyle()) for line in condition.lines}
    assert drawn == {("C0", "-"), ("C0", "--"), ("C1", "-"), ("C1", "--")}
    one_layer = {name: x for name, x in numbers.items() if "/first/update" in name}
    ((_, sizes),) = (diagnostics.plot_run(jnp.ones(2), {0: one_layer}).axes,)
    assert [line.get_label() for line in sizes.lines] == ["singd_optax/first"]
    with pytest.raises(ValueError, match="one step or more"):
        diagnostics.plot_run([])


def test_tables_in_a_notebook(stepped):
    """HTML has the cells of the text, one for one, and nothing in it is taken for a tag."""
    layers, opt_state, *_ = stepped
    excluded = layers.without("second<s>|second")
    memory = diagnostics.StepMemory(*[diagnostics.ProgramMemory(1000, 2000, 3000)] * 2)
    for shown in (layers, excluded, diagnostics.summary(opt_state), memory):
        found = shown._repr_html_()
        cells = re.findall(r"<t[dh] [^>]*>(.*?)</t[dh]>", found)
        captions = re.findall(r"<p>(.*?)</p>", found)
        words = " ".join(map(html.unescape, [*captions, *cells])).split()
        assert sorted(words) == sorted(str(shown).split())
        assert found.count("<table>") == found.count("</table>") == max(len(captions), 1)
    assert "second&lt;s&gt;" in excluded._repr_html_()
    summary = diagnostics.summary(opt_state)
    assert repr(summary) == summary == pickle.loads(pickle.dumps(summary))
