"""What is measured of a layer from the rows of its inputs and of its output gradients.

Words: a *measure* says what is wanted (static), *statistics* are what came out (arrays), *rows* are
a call's inputs or output gradients as [batch, shared, features]. What a measure needs of a rule's
state (factors that whiten, a basis) rides to the layer by the names of that state's fields.
"""

from singd_optax.measures._cross import Cross, CrossMoments
from singd_optax.measures._forming import layer_statistics
from singd_optax.measures._mean import Mean
from singd_optax.measures._measure import Measure, Measured, RowsOfSide, carried_fields
from singd_optax.measures._moments import NO_MOMENTS, Moments, moments_of
from singd_optax.measures._sketch import Sketch
from singd_optax.measures._squares import Squares
from singd_optax.measures._statistics import SIDES, Statistics, by_origin, is_stale
from singd_optax.measures._totals import MomentTotals, SquareTotals, TotalsOfSides

__all__ = [
    "NO_MOMENTS",
    "SIDES",
    "Cross",
    "CrossMoments",
    "Mean",
    "Measure",
    "Measured",
    "MomentTotals",
    "Moments",
    "RowsOfSide",
    "Sketch",
    "SquareTotals",
    "Squares",
    "Statistics",
    "TotalsOfSides",
    "by_origin",
    "carried_fields",
    "is_stale",
    "layer_statistics",
    "moments_of",
]
