#!python
# The command pagewalk, as pip installs it. What Python itself makes of project.scripts imports re
# first, which takes some milliseconds, and a Ctrl-C there prints a traceback.
try:
    from pagewalk.__main__ import run
except KeyboardInterrupt:  # nothing of ours has begun
    import os

    os._exit(130)
run()
