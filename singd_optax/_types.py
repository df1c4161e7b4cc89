"""Types that many files share."""

from typing import Any

#: Any tree of arrays: parameters, gradients, states of optimizers, batches.
PyTree = Any
