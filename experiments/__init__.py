"""The report's experiments, redone: python -m experiments; what came out is in RESULTS.md."""
