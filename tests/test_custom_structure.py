"""A structure written outside of the package, from ``project`` and ``to_dense`` alone."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import singd_optax
from singd_optax.structures import PerformanceWarning, Structure, StructuredMatrix
from singd_optax.testing import check_structure


# -- what a user writes ----------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class EvenOdd(Structure):
    """Even indices see each other, and odd ones do."""

    def project(self, symmetric):
        parts = symmetric[..., ::2, ::2], symmetric[..., 1::2, 1::2]
        return EvenOddMatrix(parts[0], parts[1] if symmetric.shape[-1] > 1 else None)


@flax.struct.dataclass
class EvenOddMatrix(StructuredMatrix):
    even: jax.Array
    odd: jax.Array | None

    @property
    def structure(self):
        return EvenOdd()

    def to_dense(self):
        if self.odd is None:
            return self.even
        dim = self.even.shape[-1] + self.odd.shape[-1]
        dense = jnp.zeros((*self.even.shape[:-2], dim, dim), self.even.dtype)
        return dense.at[..., ::2, ::2].set(self.even).at[..., 1::2, 1::2].set(self.odd)


# ---------------------------------------------------------------------------------------------


def test_kit_passes():
    check_structure(EvenOdd(), dims=(1, 2, 5))


def test_other_numbers_than_entries():
    """Stored numbers may be scaled and repeated, and some never shown."""

    @flax.struct.dataclass
    class ScaledMatrix(StructuredMatrix):
        numbers: jax.Array

        @property
        def structure(self):
            return Scaled()

        def to_dense(self):
            pattern = jnp.eye(4).at[1, 1].set(-2.0)
            return self.numbers[..., :1, None] * pattern

    class Scaled(Structure):
        def project(self, symmetric):
            return ScaledMatrix(symmetric[..., 0, :2])

    matrix = ScaledMatrix(jnp.array([3.0, 9.0]))
    again = Scaled().from_dense(matrix.to_dense())
    np.testing.assert_allclose(again.numbers, jnp.array([3.0, 0.0]))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("EvenOdd.eye", lambda A: EvenOdd().eye(3)),
        ("EvenOdd.zeros", lambda A: EvenOdd().zeros(3)),
        ("EvenOdd.project_gram", lambda A: EvenOdd().project_gram(jnp.ones((2, 3)))),
        ("EvenOddMatrix.multiply", lambda A: A @ A),
        ("EvenOddMatrix.matmul", lambda A: A @ jnp.ones((3, 2))),
        ("EvenOddMatrix.transpose_matmul", lambda A: A.transpose_matmul(jnp.ones((3, 2)))),
        ("EvenOddMatrix.gram", lambda A: A.gram()),
        ("EvenOddMatrix.average_trace", lambda A: A.average_trace()),
        ("EvenOddMatrix.frobenius_norm", lambda A: A.frobenius_norm()),
    ],
)
def test_dense_arithmetic_warns_and_says_where(name, call):
    A = EvenOdd().project(jnp.eye(3))
    with pytest.warns(PerformanceWarning, match=rf"^{name} falls back on dense"):
        call(A)


def test_what_needs_no_dense_arithmetic_does_not_warn():
    A = EvenOdd().project(jnp.eye(3))
    assert ((A + A) * 2.0).astype(jnp.bfloat16).max_abs() == 4
    assert (A.dim, A.batch_shape, A.nbytes) == (3, (), 20)


@pytest.mark.filterwarnings("ignore::singd_optax.structures.PerformanceWarning")
def test_training():
    model = nn.Dense(3)
    x = jax.random.normal(jax.random.key(0), (16, 4))
    params = model.init(jax.random.key(1), x)["params"]

    def loss_fn(params, x):
        return jnp.mean((model.apply({"params": params}, x) - 1) ** 2)

    layers = singd_optax.find_layers(loss_fn, params, x, structures=EvenOdd())
    tx = singd_optax.singd(0.1, layers)
    opt_state = tx.init(params)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    value, grads, curvature = grad_fn(params, x, opt_state=opt_state)
    updates, opt_state = tx.update(grads, opt_state, params, curvature=curvature)
    new_params = jax.tree.map(jnp.add, params, updates)
    assert loss_fn(new_params, x) < value
    ((K, C),) = singd_optax.factors(opt_state).values()
    assert (K.structure, C.structure) == (EvenOdd(), EvenOdd())


def test_a_structure_that_is_not_closed_is_caught():
    @flax.struct.dataclass
    class BandMatrix(EvenOddMatrix):
        @property
        def structure(self):
            return Band()

        def to_dense(self):
            band = jnp.tri(self.even.shape[-1], k=1) * jnp.tri(self.even.shape[-1], k=1).T
            return (self.even * band).astype(self.even.dtype)

    @dataclasses.dataclass(frozen=True)
    class Band(Structure):
        def project(self, symmetric):
            return BandMatrix(symmetric, None)

    with pytest.raises(AssertionError, match="not closed"):
        check_structure(Band(), dims=(5,), dtypes=("float32",), modes=("jit",))
