"""How pagewalk compares with the other ways to read the same memory: python -m benchmarks."""
