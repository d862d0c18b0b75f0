"""What changed: recordings, their differences, budgets, and many machines.

Takes processes, cgroups and RAM as they are, and recordings of them.
Gives recordings, what grew between two of them, whether a program kept its budget.
Not here: the format of a file (snapshot), and how a table looks (render).
"""
