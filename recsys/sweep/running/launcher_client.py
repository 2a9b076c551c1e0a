"""The driver's side of the process that starts trials (`recsys.sweep.running.launcher_server`)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from recsys.errors import RecsysError
from recsys.sweep.running.launcher_server import GRACE, PREPARE


class StartedTrial(Protocol):
    """A trial that was asked for, here or elsewhere.

    Attributes:
        stopping: Whether its end was asked for, by `terminate` or `kill`.
    """

    stopping: bool

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it runs."""
        ...

    def terminate(self, grace: float) -> None:
        """Asks it to end, and has it killed by a later `poll` after some seconds."""
        ...

    def kill(self) -> None:
        """Ends it at once; `poll` tells when that is done."""
        ...

    def wait(self, timeout: float) -> int | None:
        """Its exit code, or None where it still runs after some seconds."""
        ...


class TrialProcess:
    """A trial that was asked for, as a process of this machine.

    Attributes:
        stopping: Whether its end was asked for, by `terminate` or `kill`.
    """

    def __init__(self, launcher: TrialLauncher, number: int) -> None:
        self._launcher, self._number = launcher, number
        self._deadline: float | None = None
        self.stopping = False

    @property
    def pid(self) -> int:
        """Its process, which is also its process group; waits until it has been started.

        Raises:
            RecsysError: The launcher is gone.
        """
        return self._launcher.wait_for_pid(self._number)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it runs.

        Kills it where the grace of `terminate` is over, so it must be called now and then.

        Raises:
            RecsysError: The launcher is gone.
        """
        code = self._launcher.poll_code(self._number)
        if code is None and self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()
        return code

    def terminate(self, grace: float) -> None:
        """Asks its group to end, and has it killed by a later `poll`.

        Args:
            grace: Seconds that it has; a run writes its state in that time.

        Raises:
            RecsysError: The launcher is gone.
        """
        self.stopping = True
        if self._deadline is None:
            self._deadline = time.monotonic() + grace
            self._launcher.send_signal(self._number, "TERM")

    def kill(self) -> None:
        """Ends its group at once; `poll` tells when that is done.

        Raises:
            RecsysError: The launcher is gone.
        """
        self.stopping = True
        self._deadline = None
        self._launcher.send_signal(self._number, "KILL")

    def wait(self, timeout: float) -> int | None:
        """Its exit code, or None where it still runs after some seconds.

        Raises:
            RecsysError: The launcher is gone.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None and (left := end - time.monotonic()) > 0:
            self._launcher.read_answers(min(left, 0.2))
        return code


class TrialLauncher:
    """Starts trials; the process behind it begins with the first of them, or with `begin`.

    Args:
        prepare: Do the imports there, once, which takes some seconds; only then can a trial be a
            fork. Commands are started meanwhile.
        modules: Further modules to import there.
    """

    def __init__(self, prepare: bool, modules: Sequence[str] = ()) -> None:
        self.prepare = prepare
        self._modules = tuple(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._rest = b""
        self._count = 0
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}

    def __enter__(self) -> TrialLauncher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self) -> None:
        """Starts the process, without waiting for its imports."""
        if self._process is None:
            words = [PREPARE, *self._modules] if self.prepare else []
            self._process = subprocess.Popen(
                [sys.executable, "-m", "recsys.sweep.running.launcher_server", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C reaches the driver alone, which decides
            )

    def start(
        self,
        words: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        fork: bool,
        module: str = "recsys.fit",
    ) -> TrialProcess:
        """Starts a trial, without waiting for it.

        Args:
            words: Arguments of its command.
            log: File to which its output is appended; its folder is made.
            env: Environment variables to set. In a fork, libraries have read theirs already, but
                for the number of torch's threads, OMP_NUM_THREADS, which is seen to.
            fork: Begin as a fork of the prepared process: for one device.
            module: What is run.

        Raises:
            RecsysError: The launcher is gone.
        """
        if fork and not self.prepare:
            raise ValueError("A launcher without prepare=True starts commands only.")
        self.begin()
        log = log.absolute()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._count += 1
        self._send(
            {
                "start": self._count,
                "module": module,
                "words": list(words),
                "log": str(log),
                "env": dict(env),
                "fork": fork,
            }
        )
        return TrialProcess(self, self._count)

    def wait_for_pid(self, number: int) -> int:
        """The process of a trial; waits until it has been started."""
        while number not in self._pids:
            self.read_answers(0.2)
        return self._pids[number]

    def poll_code(self, number: int) -> int | None:
        """The exit code of a trial, or None while it runs."""
        if number not in self._codes:
            self.read_answers(0)
        return self._codes.get(number)

    def send_signal(self, number: int, name: str) -> None:
        """Sends TERM or KILL to the group of a trial, unless it has ended."""
        if number not in self._codes:
            self._send({"stop": number, "signal": name})

    def read_answers(self, timeout: float) -> None:
        """Takes the answers that have come, waiting some seconds for the first.

        Raises:
            RecsysError: The launcher is gone.
        """
        source = self._get_process().stdout
        assert source is not None
        while select.select([source], [], [], timeout)[0]:
            data = os.read(source.fileno(), 1 << 16)
            if not data:
                self._raise_ended()
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._handle_answer(json.loads(line))
            timeout = 0

    def _handle_answer(self, node: dict[str, Any]) -> None:
        if "started" in node:
            self._pids[node["started"]] = node["pid"]
        elif "ended" in node:
            self._codes[node["ended"]] = node["code"]
            self._pids.setdefault(node["ended"], -1)  # stopped before it was started

    def _send(self, node: dict[str, object]) -> None:
        target = self._get_process().stdin
        assert target is not None
        try:
            target.write(json.dumps(node).encode() + b"\n")
            target.flush()
        except BrokenPipeError:
            self._raise_ended()

    def _get_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RecsysError("The process that starts trials has ended; run the command again.")
        return self._process

    def _raise_ended(self) -> None:
        """Ends what the launcher has left, when it went without being asked."""
        process = self._get_process()
        self._process = None
        process.kill()
        code = process.wait()
        self._kill_groups()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        raise RecsysError(
            f"The process that starts trials has ended {how}, and its trials with it"
            f"{f' ({said[-1]})' if said else ''}; run the command again to go on."
        )

    def _kill_groups(self) -> None:
        for number, pid in self._pids.items():
            if number not in self._codes:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                self._codes[number] = -signal.SIGKILL

    def close(self) -> None:
        """Ends every trial, with some seconds of grace, and the process."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
            # Its answers are read no more, so that it cannot wait for that.
            process.stdout.close()
            try:
                process.wait(timeout=GRACE + 10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self._kill_groups()
        self._errors.close()
