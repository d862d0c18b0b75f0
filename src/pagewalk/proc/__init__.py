"""Readers of /proc, one per kernel interface: bytes in, columns out; sources combine them."""
