"""What a framework of layers has to say, and how a call of one of its layers is read from it."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from singd_optax._types import PyTree
from singd_optax.capture._kernel_use import KernelUse
from singd_optax.capture._kinds import READERS, LayerView, OtherArguments, Reader, arguments_of
from singd_optax.capture._plain_products import hands_on, multiplies_plainly
from singd_optax.layers import Lookup, Product

#: Attributes of layers that stand for their products; those of the second line are not checked.
_REPLACEABLE = ("promote_dtype", "dot_general")
_UNREADABLE = ("dot_general_cls", "conv_general_dilated", "conv_general_dilated_cls")


class Framework(abc.ABC):
    """Flax Linen or Flax NNX: its classes of layers, and what it calls their attributes.

    Attributes:
      module_class: Of all modules.
      methods: The methods that can be read, as their class has them: the class, and the reader.
    """

    module_class: type

    def __init__(self, classes: Mapping[str, type], names: Mapping[str, str]):
        """Know the classes.

        Args:
          classes: By kind, see ``READERS``.
          names: What attributes are called that have other names in the readers.
        """
        self._names = names
        self.methods: dict[object, tuple[type, Reader]] = {
            getattr(layer_class, method): (layer_class, reader)
            for kind, layer_class in classes.items()
            for method, reader in READERS[kind].items()
        }

    @abc.abstractmethod
    def has_bias(self, module: PyTree) -> bool:
        """Whether a layer adds a bias."""

    @abc.abstractmethod
    def parameters(self, module: PyTree, names: Sequence[str]) -> list[jax.Array] | None:
        """Parameters of a module by their names; None if it is a pattern that has none."""

    @abc.abstractmethod
    def promoted(
        self, promote: Callable[..., PyTree], arrays: Sequence[PyTree], **options: PyTree
    ) -> Sequence[jax.Array]:
        """What a module's ``promote_dtype`` makes of arrays."""

    def refusal(self, module: PyTree, use: KernelUse) -> str | None:
        """Why a module's parameters cannot be those of a layer, or None."""
        del module, use
        return None

    def changes_kernel(self, kind: type) -> bool:
        """Whether modules of this class may see other numbers than those of their parameters."""
        del kind
        return False

    def read(
        self, module: PyTree, kind: type, method: str, inputs: PyTree, others: OtherArguments
    ) -> KernelUse | str:
        """How a call of a module uses its kernel, or why it is no Kronecker layer.

        Args:
          module: With parameters of its own.
          kind: Its class.
          method: The name of the method that is called.
          inputs: Its first argument.
          others: All other arguments.
        """
        name = name_of(kind, method)
        # A sub-class that keeps Dense.__call__ is a Dense layer; one with its own may be anything.
        found = self.methods.get(getattr(kind, method, None))
        if found is None:
            return f"{name}: not a kind of layer that has Kronecker factors here"
        if inputs is None:
            return f"{name}: no inputs"
        layer_class, reader = found
        layer = LayerView(module, self._names, self.has_bias(module))
        use = reader(layer, jnp.asarray(inputs), others)
        problem = use if isinstance(use, str) else self._problem(module, layer_class, use, inputs)
        if problem is not None or isinstance(use, str):
            return f"{name}: {problem}"
        return dataclasses.replace(use, changes_kernel=self.changes_kernel(kind))

    def read_like(
        self,
        method: Callable[..., PyTree],
        module: object,
        inputs: jax.Array,
        others: OtherArguments,
    ) -> KernelUse | str:
        """How a module of any class uses its kernel if it does what one of ``methods`` does."""
        layer_class, reader = self.methods[method]
        # Whoever registers a class says the bias's name.
        return reader(LayerView(module, self._names, defaults=layer_class), inputs, others)

    def multiplied(self, module: PyTree, use: KernelUse, inputs: jax.Array) -> jax.Array:
        """The inputs in the dtype in which a module multiplies them with its kernel."""
        if isinstance(use.operation, Lookup):
            return inputs
        params = self.parameters(module, use.names) or []
        return self.promoted(module.promote_dtype, [inputs, *params], dtype=module.dtype)[0]

    def _problem(
        self, module: PyTree, layer_class: type, use: KernelUse, inputs: PyTree
    ) -> str | None:
        """Whether a module multiplies other numbers than those of its inputs and its kernel."""
        params = self.parameters(module, use.names)
        if params is None:
            return None
        defaults = arguments_of(layer_class)
        for name in (*_REPLACEABLE, *_UNREADABLE):
            given = getattr(module, name, None)
            if name not in defaults or given in (None, defaults[name].default):
                continue
            if name in _UNREADABLE:
                return f"its {name}= may change the kernel or the inputs before they are multiplied"
            check = self._hands_on if name == "promote_dtype" else _multiplies_plainly
            if not check(given, module, use, inputs, params):
                return f"its {name}= changes the kernel or the inputs before they are multiplied"
        return self.refusal(module, use)

    def _hands_on(
        self,
        promote: Callable[..., PyTree],
        module: PyTree,
        use: KernelUse,
        inputs: PyTree,
        params: Sequence[jax.Array],
    ) -> bool:
        """Whether a ``promote_dtype`` of the user's own changes no number but by a cast."""
        options: dict[str, PyTree] = {"dtype": module.dtype}
        if isinstance(use.operation, Lookup):
            options["inexact"] = False
            return hands_on(lambda *arrays: self.promoted(promote, arrays, **options), *params)
        missing = () if use.bias is not None else (None,)
        given = lambda *arrays: self.promoted(promote, (*arrays, *missing), **options)
        return hands_on(given, inputs, *params)


def _multiplies_plainly(
    product: Callable[..., PyTree],
    module: PyTree,
    use: KernelUse,
    inputs: PyTree,
    params: Sequence[jax.Array],
) -> bool:
    """Whether a ``dot_general`` of the user's own is a product of inputs and kernel."""
    if not isinstance(use.operation, Product):
        return False
    dimensions = use.operation.dimensions(use.layout, jnp.ndim(inputs))
    plain = lambda a, kernel: product(a, kernel, dimensions, precision=module.precision)
    return multiplies_plainly(plain, inputs, params[0])


def name_of(kind: type, method: str) -> str:
    """What is called, for people."""
    return kind.__name__ if method == "__call__" else f"{kind.__name__}.{method}"
