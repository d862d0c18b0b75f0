"""Sums, and the proof that they are right.

Takes a walk, and the kernel's own numbers beside it.
Gives a Table of bytes by VMA, the ledger that explains every difference, two walks compared.
Not here: how a page counts (model), and how a table looks (render).
"""
