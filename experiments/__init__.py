"""The report's experiments, redone: python -m experiments. The results are in RESULTS.md."""
