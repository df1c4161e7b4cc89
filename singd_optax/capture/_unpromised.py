"""What JAX, Flax and optax do not promise, and this package relies on.

Each of these has a test in ``tests/test_unpromised.py`` that names it, so that a release that
changes one says which. Where it is cheap, the code has an answer for the day on which it breaks.

JAX:

- *names of primitives*: ``scan``, ``while``, ``cond``, ``stop_gradient``, those that begin with
  ``custom_``, ``custom_lin`` (a derivative in forward mode that does not exist), those of layout
  changes (``transpose``, ``reshape``, ``squeeze``, ``slice``, ``broadcast_in_dim``,
  ``concatenate``, ``split``, ...), and the parameters ``permutation``, ``dimensions``,
  ``broadcast_dimensions``, ``start_indices`` and ``axis`` of these. An unknown name or a missing
  parameter gets the conservative answer: a layer is refused that could have been measured
  (``_dataflow``, ``_origins``, ``_dependence``).
- *operands of loops*: constants, then the carry, then what is scanned over; of ``while``: constants
  of the condition, constants of the body, the carry.
- *markers*: a ``jax.extend.core.Primitive`` without rules passes through ``make_jaxpr``, ``scan``,
  ``jit``, ``checkpoint``, ``vmap`` and derivatives inside ``custom_jvp`` and ``custom_vmap``.
- *inner programs* are found among the parameters of an equation, as ``Jaxpr`` or ``ClosedJaxpr``.

Flax Linen:

- *the dict of a scope*: ``module.scope.root.variables()`` is the very dict that lifted transforms
  take variables from. Where it is a copy, carriers are refused when they are tried (``_linen``).
- *interceptors inside of lifted transforms*: ``nn.scan``, ``nn.vmap``, ``nn.remat`` and ``nn.jit``
  call methods of modules inside, with interceptors, and scopes that have roots of their own.
- *defaults*: ``promote_dtype`` and ``dot_general`` of Dense and its kin are attributes, with
  defaults that change no number (``_framework``).

Flax NNX:

- *raw values*: transforms carry a variable's raw value as a pytree, of whatever type
  (``_nnx_carriers``).
- *classes*: an object's class can be exchanged for a sub-class of the same layout, and travels
  in graph definitions (``_nnx_carriers``).

optax:

- *the state of MultiSteps* has the fields ``mini_step``, ``acc_grads`` and ``inner_opt_state``
  (``_mistakes``).
- *masked nodes* are nodes without children (``layers._tree``).
"""
