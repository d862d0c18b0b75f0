"""Page-table entries joined with their VMA and frame.

Takes a source, and what is wanted: pages or sums, with or without frames, ranges.
Gives rows in batches; at the end, what was withheld and whether the process changed.
Not here: bytes by VMA, and text for people.
"""
