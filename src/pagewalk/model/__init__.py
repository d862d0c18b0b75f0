"""The types that every room shares.

Takes nothing: every other room stands on this one.
Gives the columns, bits, states, ranges, facts and errors that rooms pass to one another.
Not here: anything that reads a file, or that depends on where a number came from.
"""
