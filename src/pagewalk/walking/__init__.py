"""Entries joined with their VMA and their frame."""
