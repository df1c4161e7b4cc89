"""Every kind of layer: statistics from explicit inputs and output gradients, by plain autodiff.

A layer is linear in its kernel, so its inputs are read off the Jacobian: the derivative of output
o at a position with respect to column o of the kernel is the input vector of that position.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomized

import singd_optax

pytestmark = pytest.mark.usefixtures("x64")

BATCH = 4
F64 = {"param_dtype": jnp.float64}


def conv(*args, **kwargs):
    return nn.Conv(*args, **kwargs, **F64)


def transpose(*args, **kwargs):
    return nn.ConvTranspose(*args, **kwargs, **F64)


def general(*args, **kwargs):
    return nn.DenseGeneral(*args, **kwargs, **F64)


def einsum(*args, **kwargs):
    return nn.Einsum(*args, **kwargs, **F64)


#: name -> module, input shape, axes of the kernel that run over matrices, their axes in the output
CASES = {
    "dense": (nn.Dense(3, **F64), (BATCH, 5, 4)),
    "conv1": (conv(3, 3), (BATCH, 7, 2)),
    "conv1_int_stride": (conv(3, (4,), strides=2), (BATCH, 7, 2)),
    "conv1_causal": (conv(3, (3,), padding="CAUSAL", kernel_dilation=2), (BATCH, 7, 2)),
    "conv2": (conv(3, (3, 2)), (BATCH, 5, 4, 2)),
    "conv2_valid_nobias": (conv(3, (2, 3), padding="VALID", use_bias=False), (BATCH, 4, 5, 2)),
    "conv2_strides": (conv(3, (3, 3), strides=(2, 1)), (BATCH, 6, 5, 2)),
    "conv2_dilation": (conv(2, (3, 2), kernel_dilation=(1, 2)), (BATCH, 5, 5, 2)),
    "conv2_circular": (conv(3, (3, 2), padding="CIRCULAR", strides=2), (BATCH, 5, 4, 2)),
    "conv2_reflect": (conv(3, (3, 3), padding="REFLECT"), (BATCH, 4, 4, 2)),
    "conv2_pads": (conv(3, (3, 3), padding=((2, 0), (1, 1))), (BATCH, 4, 4, 2)),
    "conv2_int_pad": (conv(3, (2, 2), padding=1), (BATCH, 3, 3, 2)),
    "conv2_crop": (conv(3, (2, 2), padding=((-1, 0), (0, 1))), (BATCH, 4, 3, 2)),
    "conv2_groups": (conv(6, (3, 3), feature_group_count=2), (BATCH, 4, 4, 4)),
    "conv2_depthwise": (conv(8, (3, 3), feature_group_count=4), (BATCH, 4, 4, 4)),
    "conv2_frames": (conv(2, (2, 2)), (BATCH, 3, 3, 3, 2)),
    "conv3": (conv(2, (2, 3, 2)), (BATCH, 3, 4, 3, 2)),
    "transpose1": (transpose(3, (3,), strides=(2,)), (BATCH, 5, 2)),
    "transpose2_valid": (transpose(3, (3, 2), strides=(2, 3), padding="VALID"), (BATCH, 3, 3, 2)),
    "transpose2_flipped": (
        transpose(3, (4, 3), strides=(2, 2), transpose_kernel=True),
        (BATCH, 3, 4, 2),
    ),
    "transpose2_pads": (
        transpose(2, (3, 3), padding=((1, 2), (2, 1)), kernel_dilation=(2, 1)),
        (BATCH, 4, 4, 2),
    ),
    "general_out": (general((2, 3)), (BATCH, 5, 4)),
    "general_in": (general(3, axis=(-2, -1)), (BATCH, 5, 2, 2)),
    "general_unsorted": (general(3, axis=(3, 1)), (BATCH, 2, 4, 3)),
    "general_middle": (general((2, 2), axis=(1, 3)), (BATCH, 2, 3, 2)),
    "general_batch": (general((2,), axis=-1, batch_dims=(0, 1)), (2, 3, BATCH, 5, 4)),
    "general_batch_nobias": (general(2, batch_dims=(0,), use_bias=False), (2, BATCH, 3, 4)),
    "einsum": (einsum((4, 2, 3), "...i,ihd->...hd"), (BATCH, 5, 4)),
    "einsum_in": (einsum((2, 4, 3), "nthi,hio->nto"), (BATCH, 5, 2, 4)),
    "einsum_batch": (einsum((2, 4, 3), "nthi,hio->ntho"), (BATCH, 5, 2, 4)),
    "einsum_bias_order": (einsum((3, 2, 4), "nthi,ohi->noth"), (BATCH, 5, 2, 4)),
    "embed": (nn.Embed(7, 3, **F64), (BATCH, 5)),
}

#: The matrices' axis in the kernel's matrix comes first; here, where it is in the outputs.
KERNEL_BATCH = {
    "general_batch": (0, 1),
    "general_batch_nobias": (0,),
    "einsum_batch": (2,),
    "einsum_bias_order": (3,),
}
#: Where the outputs are, if not last.
OUTPUTS = {
    "general_out": (-2, -1),
    "general_middle": (-2, -1),
    "einsum": (-2, -1),
    "einsum_bias_order": (1,),
}


def loss_of(y):
    weights = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
    return jnp.sum(jnp.sin(y) * weights) / BATCH


def rows_of(y, name):
    """(matrices, batch, shared, outputs) from outputs."""
    batch = KERNEL_BATCH.get(name, ())
    outputs = [axis % y.ndim for axis in OUTPUTS.get(name, (-1,))]
    leading = [axis for axis in range(y.ndim) if axis not in (*batch, *outputs)]
    y = jnp.transpose(y, (*batch, *leading, *outputs))
    matrices = int(np.prod(y.shape[: len(batch)]))
    examples = y.shape[len(batch)]
    features = int(np.prod(y.shape[y.ndim - len(outputs) :]))
    return y.reshape(matrices, examples, -1, features)


def inputs_of(matrices, spec):
    """(matrices, batch, shared, fan_in): the same for all outputs, or their mean over groups."""
    own = np.einsum("mnsomio->mnsoi", matrices)
    if spec.kind != "conv":  # groups see different inputs
        np.testing.assert_allclose(own, own[:, :, :, :1].repeat(own.shape[3], 3), atol=1e-12)
    others = np.einsum("mnsomip->mnsoip", matrices).sum(-1) - own
    np.testing.assert_allclose(others, 0, atol=1e-12)
    return own.mean(3)


@functools.cache
def explicit(name):
    """The parameters and inputs x of a case, its explicit inputs a and output gradients g.

    One program, and once for all tests of a case: options of a layer change none of these.
    """
    module, shape = CASES[name]
    random = np.random.default_rng(0)
    embed = isinstance(module, nn.Embed)
    x = random.integers(0, 7, shape) if embed else random.normal(size=shape)

    @jax.jit
    def initial(x):
        params = module.init(jax.random.key(1), x)["params"]
        return jax.tree.map(lambda p: p + 0.1, params)  # biases too

    x = jnp.asarray(x)
    params = initial(x)
    loss_fn = lambda tree, x: loss_of(module.apply({"params": tree["layer"]}, x))
    spec = singd_optax.find_layers(loss_fn, {"layer": params}, x, strict=True)["layer"]
    names = [path.split("/")[-1] for path in spec.shapes]

    @jax.jit
    def derivatives(params, x):
        def of_kernel(*arrays):
            return rows_of(module.apply({"params": dict(zip(names, arrays, strict=True))}, x), name)

        arrays = tuple(params[n] for n in names)
        jacobians = jax.jacobian(of_kernel, argnums=tuple(range(len(arrays))))(*arrays)
        positions = jacobians[0].shape[:4]
        flat = [j.reshape(-1, *array.shape) for j, array in zip(jacobians, arrays, strict=True)]
        matrices = jax.vmap(spec.to_matrix)(*flat)
        matrices = matrices.reshape(*positions, positions[0], spec.fan_in, spec.fan_out)
        y = module.apply({"params": params}, x)
        return matrices, rows_of(jax.grad(loss_of)(y), name)

    matrices, g = map(np.asarray, derivatives(params, x))
    return params, x, inputs_of(matrices, spec), g


def weights_of(weights, g):
    """Of all positions, (batch, shared), in float64; ones without weights."""
    if weights is None:
        return np.ones(g.shape[1:3])
    rest = [1] * (2 - np.ndim(weights))
    return np.broadcast_to(np.reshape(weights, (*np.shape(weights), *rest)), g.shape[1:3])


def dense(matrix, spec):
    """The entries of a structured matrix, (matrices, dim, dim)."""
    return flat(matrix.to_dense(), spec)


def flat(leaf, spec):
    """One leading axis over matrices in place of the layer's own."""
    return leaf.reshape(-1, *leaf.shape[len(spec.stack_shape) :])


@functools.cache
def projection(structure):
    """The dense form of the projection, compiled once for each shape."""
    return jax.jit(lambda matrix: structure.project(matrix).to_dense())


def expected(a, g, w, spec, K, C):
    """Statistics of one matrix from (batch, shared, features), by the table of scalings."""
    n, ns = (w > 0).any(1).sum(), w.sum()
    g = g * (w > 0)[..., None]
    if spec.kfac_approx == "reduce":
        keep = (w > 0).any(1)
        a = (np.einsum("ns,nsi->ni", w, a)[keep] / w.sum(1)[keep, None])[:, None]
        g, w, count = g.sum(1, keepdims=True), np.ones((keep.sum(), 1)), n
    else:
        count = ns
    U = np.einsum("nsi,nsj,ns->ij", a, a, w) / count
    G = np.einsum("nsi,nsj->ij", g, g)
    G = G * {"batch": n, "batch+sequence": ns, None: 1}[spec.loss_average]
    return K.T @ U @ K, C.T @ G @ C, np.trace(U) / len(U), np.trace(G) / len(G)


def close(got, want, scale=None, tolerance=1e-10):
    scale = np.abs(want).max() if scale is None else scale
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(scale, 1e-12))


def check(name, weights=None, **options):
    module = CASES[name][0]
    params, x, a, g = explicit(name)

    def loss_fn(params, x):
        with singd_optax.position_weights(*([] if weights is None else [jnp.asarray(weights)])):
            return loss_of(module.apply({"params": params["layer"]}, x))

    tree = {"layer": params}
    layers = singd_optax.find_layers(loss_fn, tree, x, strict=True, **options)
    spec = layers["layer"]
    tx = singd_optax.scale_by_singd(layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    arrays_of = lambda tree: [tree[path.split("/")[-1]] for path in spec.shapes]

    @jax.jit
    def run(tree, x):
        state = randomized(tx.init(tree))
        value, grads, curvature = grad_fn(tree, x, opt_state=state)
        found = curvature["layer"]
        moments = [dense(matrix, spec) for matrix in (found.H_K, found.H_C)]
        scalars = [flat(leaf, spec) for leaf in (found.mean_U, found.mean_G, found.rows)]
        factors = [dense(factor, spec) for factor in singd_optax.factors(state)["layer"]]
        matrix = flat(spec.to_matrix(*arrays_of(grads["layer"])), spec)
        parts = spec.from_matrix(spec.to_matrix(*arrays_of(tree["layer"])))
        plain = jax.value_and_grad(loss_fn)(tree, x)
        return (value, grads), plain, factors, moments, scalars, matrix, parts

    got, plain, factors, moments, scalars, matrix, parts = jax.tree.map(np.asarray, run(tree, x))
    jax.tree.map(lambda got, want: close(got, want, 1.0), got, plain)
    w = weights_of(weights, g)
    for i in range(len(a)):
        H_K, H_C, mean_U, mean_G = expected(a[i], g[i], w, spec, *(F[i] for F in factors))
        for found, full, structure in zip(moments, (H_K, H_C), spec.structures, strict=True):
            close(found[i], projection(structure)(full), np.abs(full).max())
        rows = (w > 0).any(1).sum() if spec.kfac_approx == "reduce" else w.sum()
        for found, want in zip(scalars, (mean_U, mean_G, rows), strict=True):
            close(found[i], want)

    # The sum over positions of a gᵀ is the gradient of the kernel: to_matrix and rows agree.
    if "groups" not in name and "depthwise" not in name:
        close(matrix, np.einsum("mnsi,mnso->mio", a, g))
    for part, whole in zip(parts, arrays_of(params), strict=True):
        np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize("name", CASES)
def test_statistics(name):
    check(name)


@pytest.mark.parametrize("loss_average", ["batch", "batch+sequence", None])
@pytest.mark.parametrize("name", ["conv2_strides", "transpose1", "einsum_batch", "embed"])
def test_reduce_and_averages(name, loss_average):
    check(name, kfac_approx="reduce", loss_average=loss_average)


@pytest.mark.parametrize(
    ("name", "structures"),
    [
        ("conv2", "diagonal"),
        ("conv2", "block_diagonal:4"),
        ("conv2", "block_diagonal:50"),
        ("conv2", "hierarchical:2,3"),
        ("conv2_valid_nobias", "block_diagonal:4"),
        ("conv2_groups", "diagonal"),
        ("conv2_groups", "hierarchical:2,3"),
        ("conv3", "block_diagonal:50"),
        ("conv3", "diagonal"),
    ],
)
def test_convolution_by_columns(name, structures):
    check(name, structures=structures)


@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
@pytest.mark.parametrize(
    ("name", "structures"),
    [
        *(
            (name, ("block_diagonal:4", "dense"))
            for name in ("dense", "conv2", "general_out", "embed")
        ),
        ("dense", "dense"),
        ("conv2", ("diagonal", "diagonal")),
    ],
    ids=str,
)
def test_position_weights(name, structures, kfac_approx):
    weights = np.ones((BATCH, 5))
    weights[0, 3:] = weights[2, 1:] = weights[3] = 0
    if name == "conv2":
        weights = np.array([1.0, 0.0, 1.0, 1.0])
    check(
        name,
        weights,
        structures=structures,
        kfac_approx=kfac_approx,
        loss_average="batch+sequence",
    )


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Conv(3, (2,), mask=jnp.ones((2, 2, 3))), "masked"),
        (nn.Conv(3, (2,), input_dilation=2, padding=((0, 0),)), "input dilation"),
        (nn.ConvLocal(3, (2,)), "not shared among positions"),
        (nn.ConvTranspose(3, (2,), strides=(1,), padding="CIRCULAR"), "circular"),
        (nn.ConvTranspose(3, (2,), mask=jnp.ones((2, 2, 3))), "masked"),
        (nn.Einsum((2, 3), "nti,io->no"), "sums over"),
        (nn.Einsum((4, 2), "nti,ti->nti", use_bias=False), "no matrix"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else None,
)
def test_reasons(module, reason):
    """What is refused is in the table with the reason; strict raises it."""
    head = nn.Dense(2)
    x = jnp.ones((BATCH, 4, 2))
    y, params = module.init_with_output(jax.random.key(0), x)
    params = {"layer": params["params"], "head": head.init(jax.random.key(1), y)["params"]}

    def loss_fn(params, x):
        y = module.apply({"params": params["layer"]}, x)
        return head.apply({"params": params["head"]}, y).mean()

    with pytest.warns(UserWarning, match=f"(?s)Only .*{reason}"):
        layers = singd_optax.find_layers(loss_fn, params, x)
    assert list(layers) == ["head"]
    reasons = {path: why for path, _, why in layers.others}
    assert reason in reasons["layer/kernel"]
    assert type(module).__name__ in reasons["layer/kernel"]
    assert reasons["layer/kernel"] in repr(layers)
    if np.ndim(params["layer"]["kernel"]) >= 2:
        with pytest.raises(
            ValueError, match=rf"(?s)strict=True.*rank >= 2:\n.*layer/kernel.*{reason}"
        ):
            singd_optax.find_layers(loss_fn, params, x, strict=True)


@pytest.mark.parametrize(
    "module",
    [
        nn.SelfAttention(2, deterministic=True),
        nn.MultiHeadDotProductAttention(2, normalize_qk=True),
        nn.MultiHeadAttention(2, use_bias=False),
    ],
    ids=lambda module: type(module).__name__,
)
def test_attention_by_its_projections(module):
    x = jax.random.normal(jax.random.key(0), (BATCH, 5, 4), jnp.float32)
    mask = nn.make_causal_mask(jnp.ones((BATCH, 5)))
    params = module.init(jax.random.key(1), x, mask=mask)["params"]
    loss_fn = lambda params, x: (module.apply({"params": params}, x, mask=mask) ** 2).mean()
    layers = singd_optax.find_layers(loss_fn, params, x, strict=True)
    assert set(layers) == {"query", "key", "value", "out"}
    assert {spec.kind for spec in layers.values()} == {"dense_general"}
    bias = getattr(module, "use_bias", True)
    assert {spec.dims for spec in layers.values()} == {(4 + bias, 4)}
    state = singd_optax.scale_by_singd(layers).init(params)
    grad_fn = jax.jit(singd_optax.value_and_grad(loss_fn, layers))
    _, grads, curvature = grad_fn(params, x, opt_state=state)
    plain = jax.jit(jax.grad(loss_fn))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, plain)
    rows = np.asarray(x).reshape(-1, 4)
    rows = np.append(rows, np.ones((len(rows), 1)), 1) if bias else rows
    np.testing.assert_allclose(curvature["key"].H_K.to_dense(), rows.T @ rows / len(rows), 1e-5)
