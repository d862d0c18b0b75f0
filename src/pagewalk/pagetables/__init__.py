"""Page tables in any format, and walks over them.

Takes an architecture's format, and a function that reads tables at physical addresses.
Gives leaves, holes and malformed entries; counts of whole tables; the trace of one address.
Not here: how a table is read, whose process it is, and the constants of one architecture.
"""
