"""Kernel memory, read from user space: structs, page tables and struct pages, at their addresses.

``memory`` says what a reader is and reads words, pages and array elements through any of them;
``bpf``, ``kcore`` and ``drgn_reader`` are the readers; ``kernel`` opens one together with the BTF;
``task`` follows pid -> task -> mm -> VMAs; ``directmap`` turns physical addresses into kernel
ones; ``frames`` reads struct pages.
"""
