"""Where the system lacks what every command needs, one sentence says so."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["fit", "data", "recommend", "sweep"])
def test_a_system_without_file_locks_is_told_in_one_sentence(module):
    code = f"import sys; sys.modules['fcntl'] = None; import recsys.{module}.__main__"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: recsys runs on Linux and macOS")
    assert "WSL" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
