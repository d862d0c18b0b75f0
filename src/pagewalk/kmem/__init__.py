"""Kernel memory, read from user space: structs, page tables and struct pages, at their addresses.

``memory`` says what a reader is and reads words, pages and array elements through any of them;
``bpf``, ``kcore`` and ``drgn_reader`` are the readers; ``kernel`` is one of them with the BTF, and
``live`` opens the running one; ``task`` and ``vmas`` follow pid -> task -> mm -> VMAs;
``directmap`` turns physical addresses into kernel ones; ``frames`` reads struct pages; ``rmap``
tells whose pages they are without that; ``machine`` is all of it, opened once, and ``process`` one
process of it. ``counter`` and ``condenser`` are programs that do inside the kernel what takes long
out here; ``shortcuts`` loads them when they pay.
"""
