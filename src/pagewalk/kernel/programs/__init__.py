"""BPF programs that save copying: they count or condense inside the kernel.

Takes the addresses of page tables, or page frame numbers.
Gives what is there: pages counted by kind, struct pages as words, frames as runs that are alike.
Not here: the only way to do something; a kernel may refuse to load any program.
"""
