"""The conformance kit of rules: what must hold for each of them, whatever it computes."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from singd_optax._types import PyTree
from singd_optax._validate import check_choice
from singd_optax.layers import RuleState
from singd_optax.layers._roles import roles_of
from singd_optax.rules import Rule
from singd_optax.structures import StructuredMatrix
from singd_optax.testing._compile import quick_jit
from singd_optax.testing._rule_problem import (
    RuleRuns,
    Setup,
    Step,
    copied,
    directions_of,
    gradients_of,
    layers_of,
    params_of,
    step_of,
    steps_of,
)

#: From the steps of one layer to the direction of each: a few lines of NumPy in float64.
Oracle = Callable[[Sequence[Step]], Sequence[np.ndarray]]

#: "scale": a loss that is 8 times larger changes the length of directions alone. "orthogonal":
#: turned inputs and outputs turn the direction (dense factors). "permutation": likewise, if they
#: are exchanged (dense and diagonal ones). "transpose": exchanged sides of gradients exchange those
#: of directions.
Symmetry = Literal["scale", "orthogonal", "permutation", "transpose"]
SYMMETRIES: tuple[Symmetry, ...] = ("scale", "orthogonal", "permutation", "transpose")

#: The structures in which a symmetry holds, where it does not in all.
_WHERE: dict[Symmetry, tuple[str | tuple[str, str], ...]] = {
    "orthogonal": ("dense",),
    "permutation": ("dense", "diagonal"),
}

_STEPS = 3


def check_rule(
    rule: Rule,
    *,
    oracle: Oracle | None = None,
    equal_to: Sequence[Rule] = (),
    symmetries: Sequence[Symmetry] = (),
    structures: Sequence[str | tuple[str, str]] = ("dense", "diagonal"),
    tolerance: float = 1e-10,
) -> None:
    """Check all that ``scale_by_rule`` relies on of a rule, on a small problem.

    This is always checked: every field of the state has a role, and is kept in its dtype and in a
    constant form; a step compiles once, and can be vmapped, scanned, donated, pickled and
    serialized; the matrices of a stack are as separate ones; gradients and statistics that are not
    finite leave the state as it is, and count; gradients of zero give finite directions; with
    factors in bfloat16 the directions follow those in float32; on a mesh (if there is more than one
    device) they are those of one device.

    Args:
      rule: The rule, with its options.
      oracle: What directions must be with dense factors, in float64, refreshed on every step: a
        function from the list of a layer's ``Step``s to the direction of each, (*stack, rows,
        columns); None for no such check.
      equal_to: Rules that must give the same directions.
      symmetries: What must hold besides: "scale" (a larger loss changes the length of directions
        alone), "orthogonal" (turned inputs and outputs turn the direction, with dense factors),
        "permutation" (exchanged ones exchange its rows and columns), "transpose" (exchanged sides
        of gradients exchange those of directions).
      structures: The structures of factors that the rule can have, each one name for both sides or
        a pair.
      tolerance: The largest error of comparisons in float64, relative to the largest entry.

    Raises:
      AssertionError: Something does not hold; the message says what.
      TypeError: The state is no NamedTuple with roles.
      ValueError: A symmetry is unknown.

    Example:
      >>> from singd_optax.optimizers import SINGD
      >>> check_rule(SINGD(), symmetries=["scale"], structures=["diagonal"])
    """
    for symmetry in symmetries:
        check_choice("symmetries", symmetry, SYMMETRIES)
    with jax.enable_x64(True):
        steps = steps_of(0, _STEPS)
        runs = RuleRuns(rule)
        for each in structures:
            setup = Setup(each)
            got, state = runs.directions(setup, steps)
            _check_form(rule, setup, state)
            if each == structures[0]:
                _check_transforms(runs, setup, steps, got, tolerance)
            for other in equal_to:
                want, _ = directions_of(other, setup, steps)
                _assert_equal(got, want, f"as {type(other).__name__} with {each!r}", tolerance)
            for symmetry in symmetries:
                if each in _WHERE.get(symmetry, (each,)):
                    _check_symmetry(runs, setup, steps, got, symmetry, tolerance)
        if oracle is not None:
            got, _ = runs.directions(Setup("dense"), steps)
            want = {path: list(oracle(several)) for path, several in steps.items()}
            _assert_equal(got, want, "as the oracle", tolerance)
        _check_not_finite(runs, Setup(structures[0]), steps)
        wide, _ = runs.directions(Setup(structures[0], "float32", "float32"), steps)
        _check_narrow(runs, structures[0], steps, wide)
    _check_mesh(rule, structures[0], steps, wide)


def _assert_equal(
    got: Mapping[str, Sequence[np.ndarray]],
    want: Mapping[str, Sequence[np.ndarray]],
    what: str,
    tolerance: float,
) -> None:
    for path, several in want.items():
        for index, array in enumerate(several):
            largest = max(float(np.max(np.abs(array))), 1e-30)
            off = float(np.max(np.abs(got[path][index] - array))) / largest
            assert off <= tolerance, (
                f"The direction of {path!r} in step {index} is not {what}: off by {off:.1e} of its "
                f"largest entry, allowed are {tolerance:.1e}."
            )


def _check_form(rule: Rule, setup: Setup, state: RuleState) -> None:
    """Roles, dtypes, and a form that does not change."""
    layers = layers_of(setup)
    for path, own in state.rule_states.items():
        roles = roles_of(type(own))
        for name, role in roles.items():
            part = getattr(own, name)
            factor = role.has_factor_dtype or role.kind == "moment"
            if isinstance(part, StructuredMatrix) and factor and role.side is not None:
                structure = layers[path].structures[role.side]
                assert part.structure == structure, (
                    f"The field {name!r} of {path!r} has the structure {part.structure!r}, and its "
                    f"side has {structure!r}."
                )
            if role.kind == "counter":
                dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(part)}
                assert dtypes <= {"int32"}, f"The counter {name!r} of {path!r} is {dtypes}."
    initial = jax.eval_shape(step_of(rule, layers)[1], params_of(setup))
    forms = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), s) for s in (initial, state)]
    assert forms[0] == forms[1], f"The state changed its form: {forms[0]}, then {forms[1]}."


def _check_transforms(
    runs: RuleRuns,
    setup: Setup,
    steps: Mapping[str, Sequence[Step]],
    got: Mapping[str, Sequence[np.ndarray]],
    tolerance: float,
) -> None:
    """One compilation, scan, vmap, donation, pickle and serialization."""
    step, init = step_of(runs.rule, layers_of(setup))
    stacked = {
        path: jax.tree.map(lambda *x: np.stack(x), *several) for path, several in steps.items()
    }
    gradients = [
        gradients_of({p: s[i] for p, s in steps.items()}, setup.dtype) for i in range(_STEPS)
    ]
    all_gradients = jax.tree.map(lambda *x: np.stack(x), *gradients)

    def train(scale: jax.Array) -> jax.Array:
        def body(state: RuleState, now: PyTree) -> PyTree:
            mine, own = now
            mine = jax.tree.map(lambda g: g * scale, mine)
            updates, state = step(mine, state, own)
            return state, updates["stack"]["kernel"]

        return jax.lax.scan(body, init(params_of(setup)), (all_gradients, stacked))[1]

    ensemble = quick_jit(jax.vmap(train))(jnp.ones(2))
    for member in ensemble:
        found = {"stack": list(np.asarray(member, float))}
        _assert_equal(found, {"stack": got["stack"]}, "the same under scan and vmap", tolerance)
    jitted, initial = runs.compiled(setup)
    _, state = runs.directions(setup, steps)
    assert jitted._cache_size() == 1, "A second step is compiled again."  # type: ignore[attr-defined]
    pickled = pickle.loads(pickle.dumps(state))
    written = flax.serialization.from_bytes(initial, flax.serialization.to_bytes(state))
    for restored in (pickled, written):
        same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), restored, state)
        assert all(jax.tree.leaves(same)), "The state is another one after it was written."
    other = {  # the second matrix of the stack, beside itself
        "single": steps["single"],
        "stack": [Step(*(np.stack([x[1]] * 2) for x in s)) for s in steps["stack"]],
    }
    alone, _ = runs.directions(setup, other)
    parts = {"stack": [d[0] for d in alone["stack"]]}
    want = {"stack": [d[1] for d in got["stack"]]}
    _assert_equal(parts, want, "what it is in another stack", tolerance)


def _check_not_finite(runs: RuleRuns, setup: Setup, steps: Mapping[str, Sequence[Step]]) -> None:
    """A step of NaN changes no factor and counts; one of zeros gives finite directions."""
    now = {path: several[0] for path, several in steps.items()}
    compiled, initial = runs.compiled(setup)
    _, state = compiled(gradients_of(now, setup.dtype), initial, now)
    state = jax.tree.map(np.asarray, state)
    bad = {path: Step(*(x * np.nan for x in one)) for path, one in now.items()}
    _, after = compiled(gradients_of(bad, setup.dtype), copied(state), bad)
    for path, own in state.rule_states.items():
        same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), own, after.rule_states[path])
        assert all(jax.tree.leaves(same)), f"A step of NaN changes the state of {path!r}."
        skipped = after.skipped_refreshes[path] - state.skipped_refreshes[path]
        assert np.all(skipped == 1), f"A step of NaN is not counted for {path!r}: {skipped}."
    zero = {path: Step(*(x * 0 for x in one)) for path, one in now.items()}
    updates, _ = compiled(gradients_of(zero, setup.dtype), copied(state), zero)
    finite = [bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(updates)]
    assert all(finite), "Gradients of zero give a direction that is not finite."


def _check_narrow(
    runs: RuleRuns,
    structures: str | tuple[str, str],
    steps: Mapping[str, Sequence[Step]],
    wide: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Factors in bfloat16 are kept so, and follow those in float32."""
    narrow, state = runs.directions(Setup(structures, "float32", "bfloat16"), steps)
    for path, own in state.rule_states.items():
        for name, role in roles_of(type(own)).items():
            dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(getattr(own, name))}
            if role.has_factor_dtype:
                assert dtypes <= {"bfloat16"}, f"{name!r} of {path!r} is kept in {dtypes}."
    _assert_equal(narrow, wide, "with factors in bfloat16 near that in float32", 0.2)


def _check_symmetry(
    runs: RuleRuns,
    setup: Setup,
    steps: Mapping[str, Sequence[Step]],
    got: Mapping[str, Sequence[np.ndarray]],
    symmetry: Symmetry,
    tolerance: float,
) -> None:
    """Of the layers in the stack, which have no bias."""
    rng = np.random.default_rng(1)
    rows, columns = got["stack"][0].shape[-2:]
    left, right = np.eye(rows), np.eye(columns)
    if symmetry == "orthogonal":
        left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (rows, columns))
    elif symmetry == "permutation":
        left, right = left[rng.permutation(rows)], right[rng.permutation(columns)]
    scale = 8.0 if symmetry == "scale" else 1.0

    def turned(one: Step) -> Step:
        a, g = one.inputs @ left, one.output_gradients @ right * scale
        return Step(np.swapaxes(a, -1, -2) @ g, a, g)

    def normalized(direction: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(direction, axis=(-2, -1), keepdims=True)
        return direction / (length if symmetry == "scale" else 1)

    if symmetry == "transpose":
        _check_transposed(runs, setup, steps, got, tolerance)
        return
    moved = {"single": steps["single"], "stack": [turned(one) for one in steps["stack"]]}
    found, _ = runs.directions(setup, moved)
    want = {"stack": [normalized(left.T @ d @ right) for d in got["stack"]]}
    _assert_equal(
        {"stack": [normalized(d) for d in found["stack"]]},
        want,
        f"of {symmetry} symmetry",
        max(tolerance, 1e-9),
    )


def _check_transposed(
    runs: RuleRuns,
    setup: Setup,
    steps: Mapping[str, Sequence[Step]],
    got: Mapping[str, Sequence[np.ndarray]],
    tolerance: float,
) -> None:
    """Each gradient as its transpose, with inputs and output gradients exchanged."""
    count, rows, columns = setup.stack

    def exchanged(one: Step) -> Step:
        a, g = one.output_gradients * one.inputs.shape[-2], one.inputs / one.inputs.shape[-2]
        return Step(np.swapaxes(a, -1, -2) @ g, a, g)

    moved = {"single": steps["single"], "stack": [exchanged(one) for one in steps["stack"]]}
    turned = setup._replace(stack=(count, columns, rows))
    if isinstance(setup.structures, tuple):
        turned = turned._replace(structures=setup.structures[::-1])
    found, _ = runs.directions(turned, moved)
    want = {"stack": [np.swapaxes(d, -1, -2) for d in got["stack"]]}
    _assert_equal({"stack": found["stack"]}, want, "transposed with its gradient", tolerance)


def _check_mesh(
    rule: Rule,
    structures: str | tuple[str, str],
    steps: Mapping[str, Sequence[Step]],
    want: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """On all devices as on one."""
    devices = jax.devices()
    if len(devices) < 2:
        return
    from singd_optax.sharding import spread, state_shardings

    setup = Setup(structures, "float32", "float32")
    axes = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("data",), axes, devices=devices[:2])
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    params = params_of(setup)
    shardings = jax.tree.map(lambda _: everywhere, params)
    layers = spread(layers_of(setup), shardings)
    step, init = step_of(rule, layers)
    of_state = state_shardings(init, params, shardings, layers)
    state = jax.device_put(init(params), of_state)
    jitted = quick_jit(step, out_shardings=(shardings, of_state))
    found: dict[str, list[np.ndarray]] = {"stack": []}
    for index in range(2):
        now = {path: several[index] for path, several in steps.items()}
        gradients = jax.device_put(gradients_of(now, setup.dtype), shardings)
        updates, state = jitted(gradients, state, now)
        found["stack"].append(np.asarray(updates["stack"]["kernel"], float))
    _assert_equal(found, {"stack": want["stack"][:2]}, "on a mesh that of one device", 1e-3)
