"""Compare pagewalk with other ways to read the same memory: python -m benchmarks."""
