"""Kernel memory as bytes, read in one of three ways: bpf(2), /proc/kcore, drgn.

Takes kernel addresses and lengths, thousands at once.
Gives their bytes, and an errno for each that could not be read.
Not here: what the bytes mean.
"""
