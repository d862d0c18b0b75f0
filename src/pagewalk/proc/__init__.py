"""Readers of /proc, one file a kernel interface: bytes in, columns out; sources compose them."""
