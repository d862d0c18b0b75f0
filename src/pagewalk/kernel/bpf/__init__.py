"""BPF: instructions, the system call, and why it was refused.

Takes instructions, written as calls of ``asm``, and the sizes of maps.
Gives loaded programs, maps that numpy can access, and refusals with a remedy.
Not here: what a program is for.
"""
