"""Kernel memory as structs, found through BTF.

Takes a reader, and the kernel's BTF.
Gives tasks, VMAs, struct pages, page owners and the direct map, as records and columns.
Not here: programs run in the kernel, and anything about a process as a whole.
"""
