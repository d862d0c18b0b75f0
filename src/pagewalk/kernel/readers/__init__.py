"""Kernel memory, read."""
