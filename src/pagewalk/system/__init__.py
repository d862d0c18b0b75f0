"""All of RAM, all processes, every cgroup.

Takes frames in runs, the kernel's own totals, the cgroups of the machine.
Gives what RAM is used for, who is charged for it, what keeps it and what could be reclaimed.
Not here: how a frame is told (kernel), and how a table looks (render).
"""
