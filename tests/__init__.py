"""The tests: modules here mirror src; tests/targets provides the processes to look at."""
