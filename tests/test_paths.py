"""A field that is called "value" is a key like all others; Flax's boxes are seen through."""

import collections
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
from jax.tree_util import register_dataclass

import singd_optax
from singd_optax.layers._tree import Leaves

X = jax.random.normal(jax.random.key(0), (6, 5))


class Heads(NamedTuple):
    policy: Any
    value: Any


@flax.struct.dataclass
class Struct:
    value: Any
    names: Any = flax.struct.field(pytree_node=False, default=("a", "b"))


class Plain:
    def __init__(self, value):
        self.value = value


register_dataclass(Plain, data_fields=["value"], meta_fields=[])
QKV = collections.namedtuple("QKV", "query key value")
KERNEL = jnp.ones((5, 4))
TREES = {
    "heads": (Heads(KERNEL, KERNEL + 1), ["policy", "value"]),
    "attention": ({"a": QKV(KERNEL, KERNEL + 1, KERNEL + 2)}, ["a/key", "a/query", "a/value"]),
    "struct": ({"head": Struct(KERNEL)}, ["head/value"]),
    "plain": ({"head": Plain(KERNEL)}, ["head/value"]),
    "nested": (
        Heads(Heads(KERNEL, KERNEL + 1), Struct(KERNEL)),
        ["policy/policy", "policy/value", "value/value"],
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_fields_called_value(name):
    params, paths = TREES[name]
    assert Leaves(params).paths == paths

    def loss_fn(params, x):
        kernels = jax.tree.leaves(params)
        return sum(jnp.mean(singd_optax.tag(x @ w, x, w) ** 2) for w in kernels)

    layers = singd_optax.find_layers(loss_fn, params, X)
    assert sorted(layers) == paths
    tx = singd_optax.singd(0.1, layers)
    grad_fn = singd_optax.value_and_grad(loss_fn, layers)
    opt_state = tx.init(params)
    _, grads, curvature = grad_fn(params, X, opt_state=opt_state)
    updates, _ = tx.update(grads, opt_state, params, curvature=curvature)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    mesh = AbstractMesh((1,), ("data",))
    shardings = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec("data", None)), params)
    placed = singd_optax.sharding.state_shardings(tx.init, params, shardings, layers)
    for leaf in jax.tree.leaves(optax.tree.get(placed, "trace")):
        assert leaf.spec == PartitionSpec("data", None)


@pytest.mark.parametrize("box", [nn.Partitioned, nn.LogicallyPartitioned])
def test_boxes_of_flax(box):
    params = {"head": {"kernel": box(KERNEL, ("a", "b")), "value": KERNEL}}
    leaves = Leaves(params)
    assert leaves.paths == ["head/kernel", "head/value"]
    assert leaves["head/kernel"] is KERNEL
    changed = leaves.replaced({"head/kernel": 2 * KERNEL})
    assert isinstance(changed["head"]["kernel"], box)
    assert jnp.array_equal(changed["head"]["kernel"].value, 2 * KERNEL)
    assert Leaves({"box": box({"inner": KERNEL}, ("a",))}).paths == ["box/inner"]


def test_variables_of_nnx():
    state = nnx.state(nnx.Linear(5, 3, rngs=nnx.Rngs(0)))
    assert Leaves(state).paths == ["bias", "kernel"]
