"""Teach the library classes of modules that it does not know."""

from collections.abc import Callable

from singd_optax._types import PyTree
from singd_optax._validate import check_flag
from singd_optax.capture._register_checks import (
    check_class,
    check_equation,
    check_inputs,
    check_one_of,
    method_of,
    methods,
)
from singd_optax.capture._registry import RegisteredMethod, Registration


def register_layer(
    module_class: type,
    *,
    equation: str | Callable[..., str] | None = None,
    like: object = None,
    call: Callable[..., PyTree] | None = None,
    method: str = "__call__",
    kernel: str = "kernel",
    bias: str | None = "bias",
    inputs: int | str = 0,
    changes_kernel: bool = False,
) -> Registration:
    """Say how a class of Flax modules, Linen or NNX, that is not yours uses its kernel.

    Its instances are layers from then on, for ``find_layers`` and ``value_and_grad``, wherever
    they are in a model; the class itself is not changed. Say one of three things:

    - ``equation``, for a product that ``einsum`` can spell, inputs first;
    - ``like``, for a class that does what one of Flax's does, with attributes of the same names;
    - ``call``, for everything else: the method written anew, with its products tagged.

    It holds for this class, and for sub-classes that keep the method. What is said later of the
    same class and method replaces it. It holds in this process, for functions that are traced from
    then on: call it where the class is imported, before a train step is compiled.

    Args:
      module_class: A sub-class of ``flax.linen.Module`` or ``flax.nnx.Module``.
      equation: The product as ``"inputs,kernel->outputs"``, such as ``"...i,oi->...o"`` for a
        kernel that is used transposed; or, where the product is known only when the module is
        called, a function that is given the module and the call's arguments, and returns the
        equation.
      like: The class of Flax that does the same, such as ``nn.Dense`` or ``nnx.Conv``, or a method
        such as ``nn.Embed.attend``.
      call: A function that runs in place of the method, with the module as its first argument,
        while layers are found or measured; it must return what the method does. In it, mark
        products with ``singd_optax.tag``, which here also takes a parameter's name in the module.
        What calls the method itself gets the module's own.
      method: The name of the method that multiplies; ``"__call__"`` by default.
      kernel: The name of the parameter that is multiplied.
      bias: The name of the parameter that is added to the product, in modules that have it; None
        if there is none.
      inputs: Which argument of the method is multiplied: its place among them, the module not
        counted, or its name.
      changes_kernel: Whether the module changes the kernel's numbers before it multiplies
        (standardizes, scales, masks them): the table of layers says so. It is known already of
        modules that override ``param``.

    Returns:
      A registration, whose ``remove()`` takes back what was said, as does the end of a ``with``
      statement.

    Raises:
      TypeError: ``module_class`` is no class of modules, or an argument has another type.
      ValueError: Not just one of the three is said, the class has no such method, the equation is
        no product, or ``like`` is no class that is read. From ``find_layers``: a module has no
        such parameter, or its outputs are not this product.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, singd_optax
      >>> class Transposed(nn.Module):  # somebody else's
      ...     features: int
      ...     @nn.compact
      ...     def __call__(self, x):
      ...         w = self.param("w", nn.initializers.normal(), (self.features, x.shape[-1]))
      ...         return x @ w.T
      >>> model, x = Transposed(3), jnp.ones((8, 5))
      >>> params = model.init(jax.random.key(0), x)["params"]
      >>> loss_fn = lambda params, x: jnp.mean(model.apply({"params": params}, x) ** 2)
      >>> with singd_optax.register_layer(Transposed, equation="...i,oi->...o", kernel="w"):
      ...     singd_optax.find_layers(loss_fn, params, x)
      1 Kronecker layer with 100.0% of the parameters...
        layer   kind        kernel  K ...
        (root)  Transposed  (3, 5)  5 ...
    """
    check_class(module_class)
    check_one_of(equation=equation, like=like, call=call)
    if not isinstance(method, str) or not callable(getattr(module_class, method, None)):
        raise ValueError(
            f"register_layer: {module_class.__name__} has no method {method!r}: it has "
            f"{methods(module_class)}. Say with method= which of them multiplies."
        )
    if method.startswith("_") and method != "__call__":
        raise ValueError(
            f"register_layer: `method` must be '__call__' or a public one, got {method!r}: calls "
            f"of others are not heard. Say one of {methods(module_class)}."
        )
    for name, value in (("kernel", kernel), ("bias", bias)):
        if not isinstance(value, str) and not (name == "bias" and value is None):
            raise TypeError(
                f"register_layer: `{name}` must be the name of a parameter of the module, such as "
                f"'{name}', got {value!r}."
            )
    check_flag("changes_kernel", changes_kernel)
    if call is None:
        check_inputs(module_class, method, inputs)
    if isinstance(equation, str):
        check_equation(equation)
    elif equation is not None and not callable(equation):
        raise TypeError(
            "register_layer: `equation` must be a text such as '...i,io->...o' or a function of "
            f"the module and its arguments that returns one, got a {type(equation).__name__}."
        )
    if call is not None and not callable(call):
        raise TypeError(
            "register_layer: `call` must be a function of the module and its arguments, got a "
            f"{type(call).__name__}."
        )
    registered = RegisteredMethod(
        equation, method_of(like), call, kernel, bias, inputs, changes_kernel
    )
    return Registration((module_class, method), registered)
