"""Calls of layers that say what they multiply: Σ a gᵀ on the way of the gradient, a and g aloud."""

import functools
import math

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._session import LayerCall
from singd_optax.capture._tap import OrientedProduct, Tap
from singd_optax.capture._tapping import TappingSession
from singd_optax.testing._heard import Heard, Site
from singd_optax.testing._wire import ask


class Echo(TappingSession):
    """Adds Σ a gᵀ of each call to the gradient of its kernel, and Σ g to that of its bias.

    They go to the arrays that the call saw, and from there to the parameters as the gradient does,
    through casts, slices, loops and vmaps. Where what the call says is true, gradients are twice
    what they were. Taps carry the place in the stack in place of the number of the refresh.
    """

    def __init__(self, *told: PyTree, heard: Heard) -> None:
        """Listen for somebody.

        Args:
          *told: What a ``TappingSession`` is made with.
          heard: Who collects what is heard.
        """
        super().__init__(*told)
        self._heard = heard

    def tapped(
        self,
        call: LayerCall,
        tap: Tap,
        product: OrientedProduct,
        inputs: PyTree,
        outputs: PyTree,
        weights: PyTree,
    ) -> jax.Array:
        """The outputs, echoed."""
        assert isinstance(call.use, KernelUse)
        kernel = call.arrays[call.use.kernel]
        bias = None if call.use.bias is None else call.arrays[call.use.bias]
        dtypes = [
            x.dtype for x in (kernel, outputs, inputs) if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        path = tap.spec.path
        eps = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
        self._heard.eps[path] = max(eps, self._heard.eps.get(path, 0.0))
        site = self._heard.site(tap.spec, product.operation, product.transposed)
        static = _Static(self._heard, site, call.use, 0)
        return _echo(static, outputs, kernel, bias, (inputs, weights), tap.refresh)


class Silence(TappingSession):
    """Cuts calls off: what a parameter still has as its gradient, it owes to no call."""

    def tapped(
        self,
        call: LayerCall,
        tap: Tap,
        product: OrientedProduct,
        inputs: PyTree,
        outputs: PyTree,
        weights: PyTree,
    ) -> jax.Array:
        """The outputs as constants."""
        del call, tap, product, inputs, weights
        return jax.lax.stop_gradient(outputs)


class _Static:
    """What an echo knows before it runs; each is another one, and equal to itself only."""

    def __init__(self, heard: Heard, site: Site, use: KernelUse, level: int) -> None:
        self.heard, self.site, self.use, self.level = heard, site, use, level

    def deeper(self) -> "_Static":
        return _Static(self.heard, self.site, self.use, self.level + 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _echo(
    static: _Static,
    outputs: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    data: tuple[jax.Array, jax.Array | None],
    index: jax.Array,
) -> jax.Array:
    del static, kernel, bias, data, index
    return outputs


def _forward(
    static: _Static, outputs: PyTree, kernel: PyTree, bias: PyTree, data: PyTree, index: PyTree
) -> tuple[jax.Array, PyTree]:
    if static.level > 0:
        static.heard.nested.add(static.site.spec.path)
    # As a tap's: a derivative inside of the loss leaves an echo for the one around it.
    echoed = _echo(static.deeper(), outputs, kernel, bias, data, index)
    return echoed, (kernel, bias, data, index)


def _backward(static: _Static, residuals: PyTree, gradient: jax.Array) -> tuple[PyTree, ...]:
    kernel, bias, (inputs, weights), index = residuals
    use = static.use
    batch, rows, columns = use.layout.sizes(kernel.shape)
    kernels = math.prod(batch)
    dtype = jnp.promote_types(jnp.float32, kernel.dtype)
    arrays = (kernel, index, inputs, gradient, *([] if weights is None else [weights]))
    hear = functools.partial(static.heard.hear, static.site, static.level)
    shapes = ((kernels, rows, columns), (kernels, columns))
    # Where the loss takes derivatives, those with respect to inputs need no gradient of a kernel:
    # what hears of them would take them for the loss's own.
    is_needed = not static.heard.is_quiet
    matrix, row = ask(hear, shapes, dtype, jax.lax.stop_gradient(arrays), is_needed)
    of_kernel = use.layout.from_matrix(matrix.reshape(*batch, rows, columns), kernel.shape)
    of_bias = None
    if bias is not None:
        row = row.reshape(*batch, 1, columns)
        of_bias = use.layout.bias_from_row(row, bias.shape).astype(bias.dtype)
    return gradient, of_kernel.astype(kernel.dtype), of_bias, None, None


_echo.defvjp(_forward, _backward)
