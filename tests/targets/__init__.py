"""The targets of the live tests: processes that do exactly what they say.

with start("fork_cow", stopped=True) as running:
    running.pid, running.pids         # the main process; the whole family
    running.facts["parent"]["anon"]   # what the program itself counted, in base pages
"""

from tests.targets.catalogue import STATES, TARGETS, Target
from tests.targets.running import CannotProvoke, Running, asleep, build, start, stop

__all__ = [
    "STATES", "TARGETS", "CannotProvoke", "Running", "Target", "asleep", "build", "start", "stop",
]
