"""The running kernel, opened and verified.

Takes the right to read kernel memory.
Gives a ``RunningKernel``: its memory, paging format and page frames, checked against /proc.
Not here: a process as a whole (sources), and text files (proc).
"""
