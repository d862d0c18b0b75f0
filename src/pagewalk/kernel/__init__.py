"""Kernel memory, read from user space by address: structs, page tables and struct pages.

``memory`` defines a reader, and reads words, pages and array elements through any reader; ``bpf``,
``kcore`` and ``drgn_reader`` are the readers; ``kernel`` combines one with the BTF, and ``live``
opens the running kernel; ``task`` and ``vmas`` follow pid -> task -> mm -> VMAs; ``directmap``
converts physical addresses to kernel addresses; ``frames`` reads struct pages; ``rmap`` finds pages
that only this process maps without reading them; ``machine`` is all of it, opened once, and
``process`` is one process on it. ``counter`` and ``condenser`` are programs that do inside the
kernel what would take long out here; ``shortcuts`` loads them when that pays.
"""
