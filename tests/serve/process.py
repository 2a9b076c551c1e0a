"""A service as a process of its own, for tests."""

import re
import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def served(model, state, watch=0):
    """A service of a model, such as run=FOLDER, and where it listens."""
    words = [model, f"state={state}", "port=0", f"watch={watch}"]
    command = [sys.executable, "-m", "recsys.serve", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said = ""
            while (place := re.search(r"http://\S+", said)) is None:
                line = process.stdout.readline()
                assert line, said
                said += line
            yield process, place[0]
        finally:
            process.kill()
