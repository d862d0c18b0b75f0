#!python
# The command pagewalk, as pip installs it. The wrapper that pip generates from project.scripts
# imports re first, which takes some milliseconds, and a Ctrl-C there prints a traceback.
try:
    from pagewalk.__main__ import run
except KeyboardInterrupt:  # none of our code has started
    import os

    os._exit(130)
run()
