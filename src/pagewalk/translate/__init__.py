"""One address through the page tables.

Takes an address, or a name and an offset, and a source that reads page tables.
Gives each step of the way, what procfs says of the same page, and remarks.
Not here: walking many pages, and the layout of the screen.
"""
