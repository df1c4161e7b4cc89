"""Rules: what one optimization method does for one matrix, and the numerics that rules share.

These words are used throughout the package:

- A *rule* (``Rule``) is a method, such as ``SINGD``. It sees one parameter or layer at a time, as a
  matrix (a *view*, ``MatrixView``): rows are inputs, columns are outputs.
- Its *factors* K and C, in a *structure* such as dense or diagonal, multiply a gradient from the
  left and from the right. A *state* is what it keeps: a NamedTuple, whose fields have *roles*.
- A *refresh* makes new factors, every so many steps, from *statistics* (the second moments of a
  layer's inputs and output gradients, and the like) or from gradients.
- The *direction* is what the factors make of the momentum or the gradient.
- To *whiten* is to make the second moment I. With roots K and C of the inverse curvature,
  Kᵀ X C whitens X, and K (Kᵀ X C) Cᵀ is its natural direction.
- *Damping* λ is what is added to the curvature in all directions, so that its inverse is bounded.

This package knows no optax and no trees of parameters. The library's rules are in ``optimizers``.
"""

from singd_optax.layers._roles import (
    ColumnBasis,
    ColumnEntries,
    ColumnFactor,
    ColumnMoment,
    ColumnMomentum,
    ColumnProduct,
    ColumnValues,
    Counter,
    Entries,
    NoColumnFactor,
    Number,
    Role,
    RowBasis,
    RowEntries,
    RowFactor,
    RowMoment,
    RowMomentum,
    RowProduct,
    RowValues,
)
from singd_optax.layers._view import MatrixView
from singd_optax.measures import Cross, Mean, Measure, Moments, Sketch, Squares, Statistics
from singd_optax.rules._averages import new_weight
from singd_optax.rules._conjugate_gradients import ConjugateGradients
from singd_optax.rules._damping import (
    Damping,
    SamplingDamping,
    check_damping,
    damping_at,
    sampling_damping,
)
from singd_optax.rules._gated import Gated
from singd_optax.rules._inverse import eigen, inverse
from singd_optax.rules._inverse_free import FactorStepNorm, InverseFree
from singd_optax.rules._joint import JointRule
from singd_optax.rules._mixed import Mixed
from singd_optax.rules._numbers import DampingMode, Hyperparameter, Interval, hyperparameter_at
from singd_optax.rules._polar import Polar
from singd_optax.rules._polar_factor import Iteration, coefficients_of, polar_factor
from singd_optax.rules._roots import RootMethod, inverse_root
from singd_optax.rules._rule import MomentumOf, Recipe, Rule, choose
from singd_optax.rules._wrapped import Wrapped

__all__ = [
    "ColumnBasis",
    "ColumnEntries",
    "ColumnFactor",
    "ColumnMoment",
    "ColumnMomentum",
    "ColumnProduct",
    "ColumnValues",
    "ConjugateGradients",
    "Counter",
    "Cross",
    "Damping",
    "DampingMode",
    "Entries",
    "FactorStepNorm",
    "Gated",
    "Hyperparameter",
    "Interval",
    "InverseFree",
    "Iteration",
    "JointRule",
    "MatrixView",
    "Mean",
    "Measure",
    "Mixed",
    "Moments",
    "MomentumOf",
    "NoColumnFactor",
    "Number",
    "Polar",
    "Recipe",
    "Role",
    "RootMethod",
    "RowBasis",
    "RowEntries",
    "RowFactor",
    "RowMoment",
    "RowMomentum",
    "RowProduct",
    "RowValues",
    "Rule",
    "SamplingDamping",
    "Sketch",
    "Squares",
    "Statistics",
    "Wrapped",
    "check_damping",
    "choose",
    "coefficients_of",
    "damping_at",
    "eigen",
    "hyperparameter_at",
    "inverse",
    "inverse_root",
    "new_weight",
    "polar_factor",
    "sampling_damping",
]
