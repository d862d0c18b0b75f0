"""Recordings: what was looked at, in a file that answers as the machine did.

Takes columns, and the typed results that are not columns.
Gives a Parquet file, and the same columns and results from it, on any machine.
Not here: what is recorded (history), and an address space as a source (sources).
"""
