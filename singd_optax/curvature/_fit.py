"""The curvature of a loss over a data set."""

import itertools
from collections.abc import Hashable

import jax
import jax.numpy as jnp

from singd_optax._types import LossFunction, PyTree
from singd_optax._validate import check_choice, check_flag, check_precision, check_seed
from singd_optax.capture._fisher import FISHERS, Fisher
from singd_optax.capture._nnx_functional import functional
from singd_optax.curvature._batches import (
    Batches,
    arguments,
    check_batch,
    check_examples,
    copied_to,
    form_of,
    whole_beside,
)
from singd_optax.curvature._block import Block, diagonal_block
from singd_optax.curvature._blocks import (
    bases_of,
    eigen_corrected_block,
    kfac_block,
    squares_block,
)
from singd_optax.curvature._curvature import Curvature
from singd_optax.curvature._estimate import (
    KINDS,
    OTHERS,
    Bases,
    Estimate,
    Kind,
    Others,
    Sums,
    whole_data,
)
from singd_optax.curvature._fit_singd import fit_singd
from singd_optax.curvature._fit_state import FitState, OnBatch, check_fit_state
from singd_optax.curvature._make import make_curvature
from singd_optax.curvature._views import Single, View
from singd_optax.layers import Layers
from singd_optax.layers._check import check_layers, check_params
from singd_optax.layers._tree import Leaves
from singd_optax.placement import check_mesh_is_set
from singd_optax.rules._inverse import INVERTIBLE
from singd_optax.structures import Precision


def fit(
    loss_fn: LossFunction,
    layers: Layers,
    params: PyTree,
    batches: Batches,
    *,
    kind: Kind = "kfac",
    fisher: Fisher = "mc",
    others: Others = "none",
    exact_squares: bool = True,
    seed: int = 0,
    precision: Precision = "highest",
    singd_options: PyTree = None,
    on_batch: OnBatch | None = None,
    state: FitState | None = None,
) -> Curvature:
    """The curvature of a loss at these parameters, summed over a data set.

    With a the inputs of a layer and g the gradients of its outputs, of the summed negative
    log-likelihood, the layer's Gauss-Newton matrix Σ vec(a gᵀ) vec(a gᵀ)ᵀ is approximated by::

        "kfac"       (Σ a aᵀ / count) ⊗ (Σ g gᵀ)                  (arXiv 1503.05671, 2311.00636)
        "ekfac"      (Q ⊗ R) Diag(Σ (Qᵀ a gᵀ R)²) (Q ⊗ R)ᵀ        (arXiv 1806.03884)
        "diagonal"   Diag(Σ (a gᵀ)²)
        "singd"      terms * (K Kᵀ ⊗ C Cᵀ)^-1                     (arXiv 2312.05705)

    with Q and R the eigenvectors of KFAC's factors, and K, C SINGD's, of any structure. The first
    three are plain sums, in float32 (float64 where that is on), so that it does not matter how the
    data are cut into batches; "ekfac" goes through the data twice. "singd" makes one refresh of its
    factors on each batch, so there it does, and its damping is a part of the result. Structures of
    "kfac" and "ekfac" are those of ``layers``, dense, block-diagonal or diagonal.

    The step is jitted, and compiled once for each shape of a batch. On a mesh, put ``params`` and
    batches where they belong; sums are over all devices. Axes may be Auto or, under
    ``jax.set_mesh``, Explicit.

    Args:
      loss_fn: ``loss_fn(params, *batch)``, the mean negative log-likelihood, over what the layers'
        ``loss_average`` says. It must name its distribution (``tag_distribution``), but for
        ``fisher="empirical"``. Penalties do not matter but for ``nll``.
      layers: From ``find_layers`` for this loss; ``layers.without(...)`` for a part of them.
        All positions are used unless ``curvature_fraction`` is a number.
      params: Where. For Flax NNX the model, of which ``loss_fn`` is a function: then trees are
        the raw values of ``nnx.state(model, nnx.Param)``.
      batches: Tuples of what ``loss_fn`` takes after ``params`` (anything else than a tuple is one
        argument), in any iterable; for "ekfac" one that can be gone through twice, as a list or a
        data loader, or a function that returns an iterator.
      kind: Which approximation.
      fisher: ``"mc"``: labels drawn from the model, one for each example, unbiased; ``"ggn"``:
        the Gauss-Newton matrix itself, for a backward pass for each output; ``"empirical"``: the
        data's own labels, which is no Gauss-Newton matrix, and small where the fit is good.
      others: Of parameters outside of layers: ``"none"`` takes them for fixed, ``"diagonal"``
        gives them a diagonal curvature, from gradients of one example each, by ``jax.vmap``
        over the first axis of every array of a batch.
      exact_squares: For "ekfac" and "diagonal" with several positions (tokens, pixels): whether
        squares are those of an example's gradient, or of each position's, which is cheaper.
      seed: Of the labels; batch k of a pass has its own, the same in each run.
      precision: Of all products.
      singd_options: Of ``scale_by_singd``, for "singd", a dict; by default
        ``dict(damping=1e-3, factor_learning_rate=0.05)``.
      on_batch: Called after each batch with the state so far, for progress or to save it. The
        state's arrays are donated to the next batch: copy what is to be kept.
      state: From ``on_batch``, to go on from there with the same arguments; batches that it has
        seen are skipped.

    Returns:
      A ``Curvature``.

    Raises:
      TypeError: ``layers`` is something else, or an option is of another type.
      ValueError: An option is not legal; ``params`` do not match ``layers``; there is no batch, or
        too few for a second pass; the loss cannot be called with a batch, or names no distribution;
        a structure has no eigenvectors; ``state`` is of a fit with other arguments.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> model = nn.Dense(3)
      >>> x = jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)
      >>> def loss_fn(params, x):
      ...   y = singd_optax.tag_distribution(model.apply(params, x), "gaussian")
      ...   return 0.5 * jnp.sum(y ** 2, axis=-1).mean()
      >>> layers = singd_optax.find_layers(loss_fn, params, x)
      >>> curvature = singd_optax.curvature.fit(loss_fn, layers, params, [(x[:4],), (x[4:],)],
      ...                                       fisher="ggn")
      >>> round(float(curvature.trace()), 3)  # 8 examples, 3 outputs, 5 inputs and the bias
      144.0
    """
    check_layers(layers)
    check_choice("kind", kind, KINDS)
    check_choice("fisher", fisher, FISHERS)
    check_choice("others", others, OTHERS)
    check_flag("exact_squares", exact_squares)
    check_seed("seed", seed)
    check_precision("precision", precision)
    loss = functional(loss_fn, params)
    params = loss.params
    leaves = Leaves(params)
    check_params(layers.values(), leaves, "params")
    check_mesh_is_set(params, "params")
    inside = {path for spec in layers.values() for path in spec.shapes}
    outside = tuple(
        path
        for path in leaves
        if path not in inside and jnp.issubdtype(jnp.result_type(leaves[path]), jnp.floating)
    )
    other_paths = outside if others == "diagonal" else ()
    layers = whole_data(layers)
    if kind in ("kfac", "ekfac"):
        _check_structures(layers, kind)
    if kind == "singd" and other_paths:
        raise ValueError(
            "kind='singd' has no curvature of parameters outside of layers, got "
            "others='diagonal'. Use others='none', or another kind."
        )
    if singd_options is not None and kind != "singd":
        raise ValueError(
            f"`singd_options` are for kind='singd', got kind={kind!r} with {singd_options!r}. "
            "Leave them out, or fit with kind='singd'."
        )
    estimate = Estimate(loss, layers, kind, fisher, other_paths, seed, precision, exact_squares)
    if kind == "singd":
        return fit_singd(estimate, params, batches, dict(singd_options or {}), on_batch, state)
    average = estimate.loss_average
    if other_paths and fisher == "empirical" and average == "batch+sequence":
        raise ValueError(
            "others='diagonal' with fisher='empirical' needs a loss that is a mean over examples: "
            "got loss_average='batch+sequence', of which one example does not say how many "
            "positions it has. Use fisher='mc', or others='none'."
        )
    passes = 2 if kind == "ekfac" else 1
    now = FitState(0, 0, estimate.zeros(params, False)) if state is None else state
    in_second = isinstance(now, FitState) and bool(now.passed)
    check_fit_state(now, estimate.zeros(params, in_second), passes)
    now = FitState(int(now.passed), int(now.seen), *now[2:])
    while now.passed < passes:
        now = _one_pass(estimate, params, batches, now, on_batch)
        if now.passed < passes:  # the sums of the first pass have the bases of the second
            bases = jax.jit(_all_bases)(now.sums.layers)
            bases = {
                path: _as_dtype(pair, layers[path].statistics_dtype) for path, pair in bases.items()
            }
            now = FitState(now.passed, 0, estimate.zeros(params, True), now.sums, bases)
    return _finished(estimate, params, now)


def _one_pass(
    estimate: Estimate,
    params: PyTree,
    batches: Batches,
    state: FitState,
    on_batch: OnBatch | None,
) -> FitState:
    in_basis = bool(state.passed)
    where = whole_beside(params)
    step = estimate.step(in_basis, where)
    # A copy, as the step takes its arrays.
    sums = copied_to(state.sums, where)
    seen = int(state.seen)
    forms: set[Hashable] = set()
    for batch in itertools.islice(arguments(batches), seen, None):
        form = form_of(batch)
        if form not in forms:
            forms.add(form)
            check_batch(estimate.loss.loss_fn, params, batch)
            if estimate.other_paths:
                check_examples(batch)
        sums = Sums(*step(params, state.bases or {}, sums, jnp.int32(seen), batch))
        seen += 1
        if on_batch is not None:
            on_batch(state._replace(seen=seen, sums=sums))
    if seen == 0:
        raise ValueError(
            f"There is no batch in pass {int(state.passed) + 1} over `batches`, got "
            f"{type(batches).__name__}. Pass a list or a data loader with at least one batch, or a "
            "function that returns a new iterator: kind='ekfac' goes through the data twice."
        )
    return state._replace(passed=int(state.passed) + 1, seen=seen, sums=sums)


def _all_bases(sums: dict[str, PyTree]) -> Bases:
    return {path: bases_of(uses) for path, uses in sums.items()}


def _as_dtype(tree: PyTree, dtype: jnp.dtype) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _finished(estimate: Estimate, params: PyTree, state: FitState) -> Curvature:
    first = Sums(*(state.sums if state.first is None else state.first))
    sums = Sums(*state.sums)
    blocks: dict[str, Block] = {}
    make = jax.jit(kfac_block)
    for path, spec in estimate.layers.items():
        uses = tuple(sums.layers[path])
        if estimate.kind == "kfac":
            block = make(uses)
        elif estimate.kind == "ekfac":
            block = eigen_corrected_block(state.bases[path], uses)
        else:
            block = squares_block(uses)
        blocks[path] = _as_dtype(block, spec.statistics_dtype)
    leaves = Leaves(params)
    views: dict[str, View] = dict(estimate.layers.items())
    for path in estimate.other_paths:
        views[path] = single = Single(path, jnp.shape(leaves[path]))
        dtype = jnp.promote_types(jnp.float32, jnp.result_type(leaves[path]))
        blocks[path] = diagonal_block(single.to_matrix(first.others[path].astype(dtype)))
    return make_curvature(blocks, views, params, first.nll, first.terms)


def _check_structures(layers: Layers, kind: str) -> None:
    """Raise unless both sides of all layers have eigenvectors in their structures."""
    for path, spec in layers.items():
        for structure in spec.structures:
            if not isinstance(structure, INVERTIBLE):
                raise ValueError(
                    f"kind={kind!r} takes eigenvectors of both sides of a layer, and layer "
                    f"{path!r} has the structure {structure!r}: legal are 'dense', 'diagonal' and "
                    "'block_diagonal:k'. Use layers.replace('.*', structures='dense'), or "
                    "kind='singd', which takes any structure."
                )
