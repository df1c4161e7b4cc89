"""What happens inside of the optimizer: numbers for a logger, a table of memory, spectra."""

from singd_optax.diagnostics._condition import condition_number
from singd_optax.diagnostics._layers import layer_diagnostics, metrics
from singd_optax.diagnostics._spectra import plot_spectra
from singd_optax.diagnostics._summary import summary

__all__ = ["condition_number", "layer_diagnostics", "metrics", "plot_spectra", "summary"]
