"""What is going on in this thread while a loss function is traced.

A *session* listens to the calls of layers; position weights and predictions belong to the code
around these calls. All of it is known to one thread only, and part of the key of every cache that
JAX keeps of traced functions: an inner ``jax.jit`` with a layer that was traced in another session,
or with other weights, is traced anew.

Most of what is traced has no layer inside (each function of ``jax.numpy`` is a ``jax.jit``), and
takes most of the time. So sessions have one key, until an inner trace hears of a layer: what was
traced with that key is then left to the session under way, and the next one gets another.
"""

import abc
import contextlib
import itertools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
from jax.extend.core import get_opaque_trace_state

from singd_optax._types import PyTree
from singd_optax.capture._kernel_use import KernelUse

if TYPE_CHECKING:
    from singd_optax.capture._distribution import Prediction

#: Is told of a prediction, and may return other outputs in its place.
PredictionListener: TypeAlias = Callable[["Prediction"], jax.Array | None]

_cache_key = jax.make_user_context(None)
_keys = itertools.count(1)


class LayerCall(NamedTuple):
    """A call of something that holds parameters of its own, before it runs.

    Attributes:
      caller: Who calls, for people: a module's class, or ``tag``.
      signature: What tells this call from others in the same program, as well as it can be told
        by looking at it: hashable, and the same in every trace.
      use: How it uses its kernel, or why it is no Kronecker layer.
      arrays: The parameters that it holds, by name, as the call sees them.
      carrier: What travels beside these parameters, see ``_carriers``; None without one.
      is_tag: Whether the user's own code said so.
      is_registered: Whether the user said so of the module's class.
    """

    caller: str
    signature: Hashable
    use: KernelUse | str
    arrays: Mapping[str, jax.Array]
    carrier: PyTree = None
    is_tag: bool = False
    is_registered: bool = False

    @property
    def is_declared(self) -> bool:
        """Whether the user said what this call is."""
        return self.is_tag or self.is_registered


class Session(abc.ABC):
    """Listens to the calls of layers in one trace of a loss function.

    Attributes:
      parameters: The parameters by path, as the loss function was given them.
    """

    def __init__(self) -> None:
        """Nothing is traced yet."""
        self.parameters: dict[str, PyTree] = {}

    @abc.abstractmethod
    def call(self, call: LayerCall, inputs: PyTree, run: Callable[[PyTree], PyTree]) -> PyTree:
        """Make a call, by ``run``, and return its outputs, or others in their place."""

    def root(self, signature: Hashable, arrays: Mapping[str, jax.Array]) -> Mapping[str, PyTree]:
        """Carriers to put beside parameters that a module is about to see, all of them by path."""
        del signature, arrays
        return {}


class _ThisThread(threading.local):
    """What is going on in this thread.

    Attributes:
      session: Who listens, if anybody does.
      weights: The position weights that are in force.
      prediction_listener: What ``tag_distribution`` is to call, or None.
      trace: The trace in which the session began.
      shared_key: The key of sessions; None where the next one needs another.
    """

    session: Session | None = None
    weights: tuple[jax.Array, ...] = ()
    prediction_listener: PredictionListener | None = None
    trace: object = None
    shared_key: int | None = None


this_thread = _ThisThread()


def heard() -> None:
    """Note that something depends on who listens, or on weights: called before it is told.

    An inner trace then fits this session alone. One whose trace is that of the session is in no
    cache.
    """
    if this_thread.session is not None and get_opaque_trace_state() != this_thread.trace:
        this_thread.shared_key = None


@contextlib.contextmanager
def listening(session: Session, listener: PredictionListener | None = None) -> Iterator[None]:
    """Let a session listen, and a listener, if there is one, hear of predictions.

    Weights of the code around it are out of force.
    """
    others = {} if listener is None else {"prediction_listener": listener}
    with _setting(session=session, weights=(), **others):
        yield


@contextlib.contextmanager
def weighting(weights: tuple[jax.Array, ...]) -> Iterator[None]:
    """Put position weights in force."""
    with _setting(weights=weights):
        yield


@contextlib.contextmanager
def predicting(listener: PredictionListener) -> Iterator[None]:
    """Let ``tag_distribution`` call this."""
    with _setting(prediction_listener=listener):
        yield


@contextlib.contextmanager
def _setting(**values: object) -> Iterator[None]:
    key: int | None
    if this_thread.session is None and values.get("session") is not None:
        values["trace"] = get_opaque_trace_state()
        if this_thread.shared_key is None:
            this_thread.shared_key = next(_keys)
        key = this_thread.shared_key
    else:
        # Outside of any session nothing depends on weights, so that caches may be used. In one,
        # what was traced before may know of it and not of these.
        key = None if this_thread.session is None else next(_keys)
    old = {name: getattr(this_thread, name) for name in values}
    for name, value in values.items():
        setattr(this_thread, name, value)
    try:
        with _cache_key(key):
            yield
    finally:
        for name, value in old.items():
            setattr(this_thread, name, value)
