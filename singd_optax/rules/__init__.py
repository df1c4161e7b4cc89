"""Rules: the contract, and the numerics that rules share. No optax, no trees of parameters.

Words: a *view* is a parameter or layer as a matrix (``MatrixView``); a rule's *state* is a
NamedTuple whose fields have *roles*; a *refresh* makes new factors, from *statistics* or gradients;
the *direction* is what a momentum becomes by them. Rules of the library are in ``optimizers``.
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
