"""Benchmarks; ``python -m benchmarks`` is the harness, the other scripts run by themselves."""
