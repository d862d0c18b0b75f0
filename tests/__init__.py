"""The tests: this package's modules mirror src; tests/targets makes the processes to look at."""
