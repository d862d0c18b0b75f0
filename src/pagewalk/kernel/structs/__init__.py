"""Kernel memory as structs, found through BTF.

Takes a reader, and the kernel's BTF.
Gives tasks, VMAs, struct pages, page owners, cgroups, slabs and the direct map, as rows.
Not here: programs run in the kernel, and anything about a process as a whole.
"""
