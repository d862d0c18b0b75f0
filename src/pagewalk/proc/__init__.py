"""The kernel's text files and ioctls, one module per interface.

Takes the open directory of a process, or the path of a system-wide file.
Gives the kernel's answers as columns and records, and refusals with cause and remedy.
Not here: conclusions from several interfaces, and kernel memory.
"""
