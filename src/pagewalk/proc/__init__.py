"""The kernel's text files and ioctls, one module per interface.

Takes the open directory of a process, a system-wide file, or a container engine's folder.
Gives the kernel's answers as columns and records, and refusals with cause and remedy.
Not here: conclusions from several interfaces, and kernel memory.
"""
