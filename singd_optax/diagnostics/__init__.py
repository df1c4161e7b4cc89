"""What happens inside of the optimizer: numbers for a logger, tables of memory, spectra, runs."""

from singd_optax.diagnostics._condition import condition_number
from singd_optax.diagnostics._layers import layer_diagnostics, metrics
from singd_optax.diagnostics._memory import ProgramMemory, StepMemory, step_memory
from singd_optax.diagnostics._run import plot_run
from singd_optax.diagnostics._spectra import plot_spectra
from singd_optax.diagnostics._summary import summary

__all__ = [
    "ProgramMemory",
    "StepMemory",
    "condition_number",
    "layer_diagnostics",
    "metrics",
    "plot_run",
    "plot_spectra",
    "step_memory",
    "summary",
]
