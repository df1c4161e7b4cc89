"""Checks of what users say of a class of modules."""

import inspect
from collections.abc import Callable

from singd_optax._types import PyTree
from singd_optax.capture._frameworks import MODULE_CLASSES, READABLE_METHODS
from singd_optax.layers._product import parse_product


def check_class(module_class: object) -> None:
    """Raise unless this is a class of Flax modules."""
    if not (isinstance(module_class, type) and issubclass(module_class, MODULE_CLASSES)):
        is_instance = isinstance(module_class, MODULE_CLASSES)
        got = f"an instance of {type(module_class).__name__}" if is_instance else repr(module_class)
        raise TypeError(
            f"register_layer: `module_class` must be a sub-class of flax.linen.Module or "
            f"flax.nnx.Module, got {got}. Products outside of Flax modules are marked with "
            "singd_optax.tag."
        )


def check_one_of(**said: object) -> None:
    """Raise unless just one of these is said."""
    given = [name for name, value in said.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"register_layer: say one of `equation`, `like` and `call`, got "
            f"{' and '.join(given) or 'none of them'}. For example equation='...i,io->...o'."
        )


def check_equation(equation: str) -> None:
    """Raise unless this is a product of inputs and a matrix."""
    # With as many axes as it names, since those that an ellipsis stands for do not matter here.
    named = equation.partition(",")[0].replace(" ", "").replace("...", "")
    try:
        parse_product(equation, len(named))
    except ValueError as error:
        raise ValueError(
            f"register_layer: {error} For example '...i,oi->...o', inputs first, for a kernel of "
            "shape (outputs, inputs); for what is no one product, say call= instead."
        ) from error


def check_inputs(module_class: type, method: str, inputs: object) -> None:
    """Raise unless this is an argument of the method."""
    parameters = inspect.signature(getattr(module_class, method)).parameters.values()
    names = [one.name for one in parameters][1:]
    is_open = any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)
    is_place = isinstance(inputs, int) and not isinstance(inputs, bool) and inputs >= 0
    if not (is_place or isinstance(inputs, str)):
        raise TypeError(
            "register_layer: `inputs` must be the place or the name of an argument, such as 0 for "
            f"the first, got {inputs!r}."
        )
    known = range(len(names)) if is_place else names
    if not is_open and inputs not in known:
        raise ValueError(
            f"register_layer: {module_class.__name__}.{method} has no argument inputs={inputs!r}: "
            f"it has {names}. Say with inputs= which of them is multiplied with the kernel."
        )


def method_of(like: object) -> Callable[..., PyTree] | None:
    """The method that a class is read by."""
    if like is None:
        return None
    method: PyTree = like.__call__ if isinstance(like, type) else like
    if method not in READABLE_METHODS:
        legal = ", ".join(
            dict.fromkeys(
                f"{kind.__module__.split('.')[1]}.{kind.__name__}"
                for kind, *_ in READABLE_METHODS.values()
            )
        )
        raise ValueError(
            f"register_layer: `like` must be one of Flax's classes {legal}, or a method of one, "
            f"got {like!r}. Of other classes, say equation= or call=."
        )
    return method


def methods(module_class: type) -> list[str]:
    """The methods that can be registered."""
    base = next(one for one in MODULE_CLASSES if issubclass(module_class, one))
    public = [
        name for name in dir(module_class) if not name.startswith("_") and not hasattr(base, name)
    ]
    return [
        name
        for name in ("__call__", *public)
        if inspect.isfunction(getattr(module_class, name, None))
    ]
