"""What a framework of layers has to say, and how a call of one of its layers is read from it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._kinds import READERS, OtherArguments, Reader
from singd_optax.capture._layer_view import LayerView, arguments_of
from singd_optax.capture._plain_products import hands_on, multiplies_plainly
from singd_optax.layers._lookup import Lookup
from singd_optax.layers._product import Product

#: Attributes that stand for a layer's products: what they do is tried, or cannot be.
_TRIED = ("promote_dtype", "dot_general")
_UNTRIED = ("dot_general_cls", "conv_general_dilated", "conv_general_dilated_cls")


@dataclasses.dataclass(frozen=True, eq=False)
class Framework:
    """Flax Linen or Flax NNX: its classes of layers, and what it calls their attributes.

    Attributes:
      module_class: The class of all modules.
      classes: The classes of layers, by kind, see ``READERS``.
      names: What attributes are called that have other names in the readers.
      has_bias: Whether a layer adds a bias.
      parameters: Parameters of a module by their names; None if it is a pattern that has none.
      promote: What a module's ``promote_dtype`` makes of arrays and options.
      refusal: Why a module's parameters cannot be those of a layer, or None.
      changes_kernel: Whether modules of a class may see other numbers than their parameters'.
    """

    module_class: type
    classes: Mapping[str, type]
    names: Mapping[str, str]
    has_bias: Callable[[PyTree], bool]
    parameters: Callable[[PyTree, Sequence[str]], list[jax.Array] | None]
    promote: Callable[[Callable[..., PyTree], Sequence[PyTree], dict[str, PyTree]], PyTree]
    refusal: Callable[[PyTree, KernelUse], str | None] = lambda module, use: None
    changes_kernel: Callable[[type], bool] = lambda kind: False

    @functools.cached_property
    def methods(self) -> dict[object, tuple[type, Reader]]:
        """The methods that can be read, as their class has them: the class, and the reader."""
        return {
            getattr(layer_class, method): (layer_class, reader)
            for kind, layer_class in self.classes.items()
            for method, reader in READERS[kind].items()
        }

    def read(
        self, module: PyTree, kind: type, method: str, inputs: PyTree, others: OtherArguments
    ) -> KernelUse | str:
        """How a call of a module's method uses its kernel, or why it is no Kronecker layer."""
        name = name_of(kind, method)
        # A sub-class that keeps Dense.__call__ is a Dense layer; one with its own may be anything.
        found = self.methods.get(getattr(kind, method, None))
        if found is None:
            return f"{name}: not a kind of layer that has Kronecker factors here"
        if inputs is None:
            return f"{name}: no inputs"
        layer_class, reader = found
        layer = LayerView(module, self.names, "bias" if self.has_bias(module) else None)
        use = reader(layer, jnp.asarray(inputs), others)
        problem = use if isinstance(use, str) else self._problem(module, layer_class, use, inputs)
        if problem is not None or isinstance(use, str):
            return f"{name}: {problem}"
        return dataclasses.replace(use, changes_kernel=self.changes_kernel(kind))

    def multiplied(self, module: PyTree, use: KernelUse, inputs: jax.Array) -> jax.Array:
        """The inputs in the dtype in which a module multiplies them with its kernel."""
        if isinstance(use.operation, Lookup):
            return inputs
        arrays = [inputs, *(self.parameters(module, use.names) or [])]
        return self.promote(module.promote_dtype, arrays, {"dtype": module.dtype})[0]

    def _problem(
        self, module: PyTree, layer_class: type, use: KernelUse, inputs: PyTree
    ) -> str | None:
        """Whether a module multiplies other numbers than those of its inputs and its kernel."""
        params = self.parameters(module, use.names)
        if params is None:
            return None
        defaults = arguments_of(layer_class)
        for name in (*_TRIED, *_UNTRIED):
            given: PyTree = getattr(module, name, None)
            if name not in defaults or given in (None, defaults[name].default):
                continue
            if name in _UNTRIED:
                return f"its {name}= may change the kernel or the inputs before they are multiplied"
            is_plain = self._hands_on if name == "promote_dtype" else _multiplies_plainly
            if not is_plain(given, module, use, [inputs, *params]):
                return f"its {name}= changes the kernel or the inputs before they are multiplied"
        return self.refusal(module, use)

    def _hands_on(
        self,
        promote: Callable[..., PyTree],
        module: PyTree,
        use: KernelUse,
        arrays: Sequence[PyTree],
    ) -> bool:
        """Whether a ``promote_dtype`` of the user's own changes no number but by a cast."""
        options: dict[str, PyTree] = {"dtype": module.dtype}
        if isinstance(use.operation, Lookup):
            options["inexact"] = False
            return hands_on(lambda kernel: self.promote(promote, [kernel], options), arrays[1])
        missing = [None] * (3 - len(arrays))
        given = lambda *arrays: self.promote(promote, [*arrays, *missing], options)
        return hands_on(given, *arrays)


def _multiplies_plainly(
    product: Callable[..., PyTree], module: PyTree, use: KernelUse, arrays: Sequence[PyTree]
) -> bool:
    """Whether a ``dot_general`` of the user's own is a product of inputs and kernel."""
    if not isinstance(use.operation, Product):
        return False
    dimensions = use.operation.dimensions(use.layout, jnp.ndim(arrays[0]))
    plain = lambda a, kernel: product(a, kernel, dimensions, precision=module.precision)
    return multiplies_plainly(plain, *arrays[:2])


def name_of(kind: type, method: str) -> str:
    """What is called, for people."""
    return kind.__name__ if method == "__call__" else f"{kind.__name__}.{method}"
