"""Types that Python has no words for."""

from collections.abc import Callable
from typing import Any, TypeAlias

#: What ``jax.tree`` takes apart: parameters, states, arguments, with arrays or their types inside.
PyTree: TypeAlias = Any

#: A function of parameters (or of a model) and data that returns a loss, or a loss and more.
LossFunction: TypeAlias = Callable[..., PyTree]
