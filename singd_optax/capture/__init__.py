"""Find Kronecker layers, and measure them while gradients are taken.

A loss function is traced twice. In the first trace, without derivatives, a ``RecordingSession``
notes each call of a layer and cuts it out of the program, which is then read: that says which
parameters a call uses, and what else the loss does with them (``find_layers``; and again at each
``value_and_grad``, to know the calls). In the second one, which is differentiated, a
``TappingSession`` puts a tap behind each call.

Words, from the model to the statistics:

- *Framework*: Flax Linen or Flax NNX, whose own names of classes and attributes it knows. The
  *readers* in ``_kinds`` see its layers as a ``LayerView``, under the same names for both.
- *Program*: a loss function with its arguments, of params (``ParamsProgram``) or of an NNX model
  (``ModelProgram``).
- *Session*: who hears of calls in one trace: a ``RecordingSession`` or a ``TappingSession``.
- *ModuleCall*: a call of any module. *LayerCall*: a call of what holds parameters, as a session
  hears of it: from modules, or from ``tag``.
- *KernelUse*: how a call uses its kernel: kind, product, and which axes are inputs and outputs.
- *marker*: a primitive that shows a call in the traced program; a *MarkerEvaluation* is what is
  known of its operands each time it is evaluated.
- *Dependence*: what a value in the program depends on; an *Origin*: which parameter it is.
- *RecordedCall*, *ResolvedCall*, *ResolvedUse*: a call as it was noted; with the parameters that
  it uses, each a ``ParameterSlice``; and one of its kernels there.
- *LossAnalysis*: all of that for one loss.
- *tap*: an identity behind a call, whose backward pass measures it. Its *slot* is zeros, whose
  "gradient" is the statistics.
- *carrier*: what travels beside a stacked parameter through whatever slices it: a ``TapCarrier``,
  or a ``TrialCarrier`` while it is tried whether one can (``LayerSpec.rider`` says where).
- *Replay*: what was decided for each call, found again by the same call in the other trace.
- *prediction*: outputs that stand for a distribution (``tag_distribution``).
"""

from singd_optax.capture._distribution import tag_distribution
from singd_optax.capture._find import find_layers
from singd_optax.capture._grad import value_and_grad
from singd_optax.capture._nnx_carriers import plain_params as nnx_plain_params
from singd_optax.capture._nnx_find import find_layers as nnx_find_layers
from singd_optax.capture._nnx_grad import value_and_grad as nnx_value_and_grad
from singd_optax.capture._params import plain_params
from singd_optax.capture._register import register_layer
from singd_optax.capture._tag import tag
from singd_optax.capture._weights import position_weights

__all__ = [
    "find_layers",
    "nnx_find_layers",
    "nnx_plain_params",
    "nnx_value_and_grad",
    "plain_params",
    "position_weights",
    "register_layer",
    "tag",
    "tag_distribution",
    "value_and_grad",
]
