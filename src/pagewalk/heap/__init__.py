"""What is inside a process's memory: the allocator's own records, read without stopping it.

Takes a process's VMAs, its resident pages and a descriptor of its memory.
Gives what the allocator obtained, what of it is in use, and what it could give back.
Not here: page tables and frames, and anything that writes to the memory or faults a page in.
"""
