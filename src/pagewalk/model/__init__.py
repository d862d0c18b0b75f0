"""The words that everyone speaks."""
