"""How fast the engines train, against the loops one would write otherwise: `python -m benchmarks`."""
