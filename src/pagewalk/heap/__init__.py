"""What is inside a process's memory: what its allocator and its runtime hold.

Takes a source of a live process: its VMAs and pages, and its memory, which is only read.
Gives what the allocator obtained, what of it is in use, and what could be reclaimed.
Not here: page tables and frames, and anything that writes to the memory or faults a page in.
"""
