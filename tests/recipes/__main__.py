"""Print what the commands of a recipe say on a terminal: python -m tests.recipes NAME."""

import os
import pty
import sys
import tempfile
from pathlib import Path

from tests import recipes

name = sys.argv[1]
with tempfile.TemporaryDirectory() as folder, recipes.PROBLEMS[name](Path(folder)) as said:
    script = "stty rows 60 cols 80\n"
    for block in recipes.commands(name):
        script += f"cat <<'.'\n\n{block.text}.\n{block.text}"
    os.environ.update(recipes.environment({"NO_COLOR": 1, **said}))
    pty.spawn(["bash", "-c", script])
