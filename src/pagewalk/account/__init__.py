"""Sums, and the proof that they are right."""
