"""What is counted in a compiled program, against programs small enough to count by hand."""

import _hlo
import jax
import jax.numpy as jnp
import pytest

LARGE = "f32[4,1000]{1,0:T(8,128)}"
SMALL = "f32[1,1000]{1,0:T(8,128)}"
OWN = "f32[1,1000]{1,0:T(8,128)S(1)}"


@pytest.mark.parametrize(
    ("instruction", "traffic"),
    [
        (f"%s = (({LARGE}), {SMALL}, s32[]{{:S(2)}}) slice-start(%p), slice={{[0:1]}}", 8000),
        (f"%s = (({LARGE}), {OWN}, s32[]{{:S(2)}}) slice-start(%p), slice={{[0:1]}}", 4000),
        (f"%s = (({LARGE}), {OWN}, s32[]) async-start(%p), calls=%slicing", 4000),
        (f"%s = ({SMALL}, {SMALL}, u32[]{{:S(2)}}) copy-start(%q)", 8000),
        (f"%s = ({OWN}, {SMALL}, u32[]{{:S(2)}}) copy-start(%q)", 4000),
        (f"%s = ({SMALL}, {OWN}, u32[]{{:S(2)}}) copy-start(%o)", 4000),
        (f"%s = {SMALL} dynamic-slice(%p, %i, %i), dynamic_slice_sizes={{1,1000}}", 8000),
        (f"%s = {OWN} dynamic-slice(%p, %i, %i), dynamic_slice_sizes={{1,1000}}", 4000),
        (f"%s = {SMALL} slice(%p), slice={{[0:1], [0:1000]}}", 8000),
        (f"%s = {LARGE} dynamic-update-slice(%p, %q, %i, %i)", 8000),
        (f"%s = {SMALL} negate(%q)", 8000),
        (f"%s = {OWN} negate(%q)", 4000),
        (f"%s = {SMALL} slice-done(%q)", 0),
        (f"%s = {SMALL} bitcast(%q)", 0),
    ],
    ids=lambda value: value.partition("(%")[0].rsplit(" ", 1)[-1] if isinstance(value, str) else "",
)
def test_traffic(instruction, traffic):
    text = f"""
%slicing (a: f32[4,1000]) -> f32[1,1000] {{
  %a = {LARGE} parameter(0)
  ROOT %b = {OWN} slice(%a), slice={{[0:1], [0:1000]}}
}}

ENTRY %main (p: f32[4,1000], q: f32[1,1000], o: f32[1,1000], i: s32[]) -> f32[1,1000] {{
  %p = {LARGE} parameter(0)
  %q = {SMALL} parameter(1)
  %o = {OWN} parameter(2)
  %i = s32[] parameter(3)
  ROOT {instruction}
}}
"""
    assert _hlo.read(text).memory == traffic


def test_loops_are_multiplied_out():
    def loop(x, w):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, None, length=7)[0]

    compiled = jax.jit(loop).lower(jnp.ones((4, 8)), jnp.ones((8, 8))).compile()
    assert _hlo.read(compiled.as_text()).flops == 7 * 2 * 4 * 8 * 8


def test_collectives():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=split)
    compiled = jax.jit(lambda x: x.mean(0), out_shardings=jax.NamedSharding(mesh, jax.P()))
    collectives = _hlo.read(compiled.lower(x).compile().as_text()).collectives
    assert collectives == {"all-reduce": (1, 32 * 4, 32 * 4)}
