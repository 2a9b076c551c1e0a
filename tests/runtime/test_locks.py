"""Locks on files, held and looked at by several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from recsys.runs.folder import is_busy, lock_folder
from recsys.runtime.files import CONFIG
from recsys.runtime.locks import acquire_lock, is_locked, try_lock

HOLDER = """
import sys
from pathlib import Path
from recsys.runtime.locks import try_lock
with try_lock(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_free_again_however_its_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / CONFIG
    assert not is_locked(path)  # nobody holds what is not there
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert is_locked(path)
        assert is_busy(tmp_path)
        with try_lock(path) as ours:
            assert not ours
        with pytest.raises(ConfigError, match="still running"), lock_folder(tmp_path):
            pass
        holder.kill()
        holder.wait()
    assert not is_locked(path)
    with try_lock(path) as ours:
        assert ours


def test_two_looks_do_not_take_each_other_for_a_holder(tmp_path: Path) -> None:
    path = tmp_path / CONFIG
    path.touch()
    with path.open("rb") as file:
        assert acquire_lock(file)
        assert is_locked(path)
    assert not is_locked(path)
    assert not is_locked(path)
