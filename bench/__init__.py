"""Benchmarks: each part prints a table. Run them with ``python -m bench.run``."""
