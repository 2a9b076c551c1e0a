"""Starts the trials of a sweep and leaves no process behind, as a process of its own.

It has done the imports. A trial on one device is a fork of it and begins at
once; one on several devices is a command, because Lightning starts that again for each of them.
Requests come as JSON lines on the standard input, answers go to the standard output:

    {"start": 3, "module": "recsys.fit", "words": [...], "log": "...", "env": {}, "fork": true}
    {"started": 3, "pid": 4711}
    {"stop": 3, "signal": "TERM"}
    {"ended": 3, "code": -15}

Every trial is a session and process group of its own, in which its ranks and loaders live too. The
end of the input, which the system brings about however the driver dies, ends all of them.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

GRACE = 5.0
"""Seconds that trials have to leave by themselves when the driver is gone."""

PREPARE = "--prepare"

CHOICES = (
    *("recsys.data.sources", "recsys.tuning", "recsys.objectives", "recsys.architectures"),
    "recsys.models",
)
"""Packages all of whose modules are loaded ahead."""

FAMILIES = ("bert", "distilbert", "roberta", "modernbert", "llama", "qwen3", "gpt2")
"""Families of encoders whose classes are loaded ahead; after the first, 0.03 s each."""

LIBRARIES = (
    "torch",
    "polars",
    "scipy.sparse",
    "sklearn.feature_extraction.text",
    "lightning.pytorch",
    *(f"transformers.models.{name}.modeling_{name}" for name in FAMILIES),
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
    "peft",
    "wandb",
    "recsys.fit.run",
    "recsys.evaluation.beyond_accuracy",
)

LAUNCHED = (
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RECSYS_RUN_FOLDER"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_RESTART_COUNT"),
)
"""What another launcher may have set; a trial would take itself for one of its ranks."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True)
class TrialRequest:
    """A trial to start.

    Attributes:
        id: The driver's number for it.
        module: Run as `__main__`.
        words: Its arguments.
        log: File to which its output and errors are appended.
        env: Environment variables to set.
        fork: Whether it is a fork of this process, or a command.
    """

    id: int
    module: str
    words: tuple[str, ...]
    log: str
    env: dict[str, str]
    fork: bool

    @staticmethod
    def from_node(node: dict[str, Any]) -> TrialRequest:
        """The request in a line."""
        words = tuple(node["words"])
        return TrialRequest(
            node["start"], node["module"], words, node["log"], node["env"], node["fork"]
        )


class ForkServer:
    """Reads requests, starts and ends trials, and tells what became of them.

    Args:
        requests: File descriptor to read from.
        answers: File descriptor to write to.
    """

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._rest = b""
        self._pids: dict[int, int] = {}
        self._waiting: list[TrialRequest] = []
        self._leaving = self._prepared = False
        self._folders: list[tempfile.TemporaryDirectory[str]] = []
        self._scratch = ""
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for each in _SIGNALS:
            # The number arrives through the pipe; a handler must be there for that.
            signal.signal(each, lambda *_: None)
        self._libc = ctypes.CDLL(None)

    def prepare(self, modules: Iterable[str]) -> TrialRequest | None:
        """Imports modules one by one, and serves in between.

        Returns:
            In a process that is a trial: the trial. None in this one.
        """
        began = time.monotonic()
        for name in modules:
            importlib.import_module(name)
            trial = self._serve_once(0)
            if trial is not None or self._leaving:
                return trial
        # What is alive now is left out of every collection: a trial neither walks it nor copies
        # the pages on which the collector would write.
        gc.collect()
        self._scratch = tempfile.mkdtemp(prefix="recsys-trials-")
        kind = tempfile.TemporaryDirectory
        self._folders = [each for each in gc.get_objects() if issubclass(type(each), kind)]
        gc.freeze()
        self.enable_forks(time.monotonic() - began)
        return None

    def enable_forks(self, seconds: float) -> None:
        """Lets forks begin."""
        self._prepared = True
        self._send_answer({"ready": seconds})

    def serve(self) -> TrialRequest | None:
        """Serves until the driver is gone or a signal comes, then ends every trial.

        Returns:
            In a process that is a trial: the trial. None in this one, at its end.
        """
        while not self._leaving:
            trial = self._serve_once(None)
            if trial is not None:
                return trial
        self._end_all()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return None

    def _serve_once(self, timeout: float | None) -> TrialRequest | None:
        """Waits for something and deals with it; returns the trial in a process that is one."""
        if self._prepared and self._waiting:
            return self._start(self._waiting.pop(0))
        ready, _, _ = select.select([self._requests, self._woken], [], [], timeout)
        if self._woken in ready:
            with suppress(BlockingIOError):
                came = set(os.read(self._woken, 4096))
                self._leaving = self._leaving or bool(came - {signal.SIGCHLD})
        self._reap()
        if self._requests in ready and not self._leaving:
            for line in self._read_lines():
                node = json.loads(line)
                if "stop" in node:
                    self._stop(node["stop"], signal.Signals[f"SIG{node['signal']}"])
                elif node["fork"]:
                    self._waiting.append(TrialRequest.from_node(node))
                elif (trial := self._start(TrialRequest.from_node(node))) is not None:
                    return trial
        return None

    def _read_lines(self) -> Iterator[bytes]:
        """The whole lines that have come; the end of the input is the end of the driver."""
        data = os.read(self._requests, 1 << 16)
        self._leaving = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines

    def _send_answer(self, node: dict[str, object]) -> None:
        try:
            os.write(self._answers, json.dumps(node).encode() + b"\n")
        except BrokenPipeError:
            self._leaving = True

    def _start(self, trial: TrialRequest) -> TrialRequest | None:
        """Starts a trial; returns it in the process that is to run it."""
        parent = os.getpid()
        # A signal must meet either this process or the trial with its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._leave_server(parent, trial)
            return trial
        self._pids[trial.id] = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._send_answer({"started": trial.id, "pid": pid})
        return None

    def _leave_server(self, parent: int, trial: TrialRequest) -> None:
        """Makes a fresh fork a process of its own: session, output, signals, environment."""
        os.setsid()
        if sys.platform == "linux":
            # Where this process is killed and the driver too: PR_SET_PDEATHSIG is 1. The first of
            # several ranks must be able to end the others.
            self._libc.prctl(1, int(signal.SIGKILL if trial.fork else signal.SIGTERM))
            if os.getppid() != parent:
                os._exit(1)
        signal.set_wakeup_fd(-1)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for opened in {self._requests, self._answers, self._woken, self._wake}:
            os.close(opened)
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(trial.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        for opened in {nothing, log} - {0, 1, 2}:
            os.close(opened)
        os.environ.update(trial.env)
        self._detach_fork(trial)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _detach_fork(self, trial: TrialRequest) -> None:
        """Parts a fork from what its libraries hold outside of the process.

        They were imported before the fork, and some make a temporary folder then, to be deleted
        when the process exits: the first trial to exit would delete it for all others. So each
        such folder is another one here, and what was to be done at the exit of the process that
        was forked is left to that one (`_exit_trial`). Threads, locks and random states need
        nothing: an import starts no thread but those of BLAS, which sees to forks by itself, as the
        modules of the standard library do; a run draws from generators of its own.
        """
        for each in list(weakref.finalize._registry):  # type: ignore[attr-defined]
            each.atexit = False
        for number, folder in enumerate(self._folders):
            folder.name = os.path.join(self._scratch, str(trial.id), str(number))
            os.makedirs(folder.name)

    def _send_signal(self, pid: int, which: signal.Signals) -> None:
        """Sends a signal to the group of a trial whose end was not read yet."""
        try:
            os.killpg(pid, which)
        except ProcessLookupError:  # it has not made its session yet, so it is alone
            os.kill(pid, which)

    def _stop(self, trial: int, which: signal.Signals) -> None:
        self._waiting, gone = (
            [each for each in self._waiting if each.id != trial],
            [each for each in self._waiting if each.id == trial],
        )
        if gone:
            self._send_answer({"ended": trial, "code": -which})
        elif trial in self._pids:
            self._send_signal(self._pids[trial], which)

    def _reap(self) -> None:
        """Tells which trials have ended, and ends what is left of their groups."""
        for trial, pid in list(self._pids.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # While its end is not read, the number cannot belong to another process.
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            del self._pids[trial]
            if self._scratch:
                shutil.rmtree(os.path.join(self._scratch, str(trial)), ignore_errors=True)
            self._send_answer({"ended": trial, "code": os.waitstatus_to_exitcode(status)})

    def _end_all(self) -> None:
        for pid in self._pids.values():
            self._send_signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self._pids and (left := deadline - time.monotonic()) > 0:
            select.select([self._woken], [], [], min(left, 0.2))
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
            self._reap()
        for pid in self._pids.values():
            self._send_signal(pid, signal.SIGKILL)
        while self._pids:
            self._reap()
            time.sleep(0.01)


def list_modules(more: Sequence[str]) -> Iterator[str]:
    """The modules that a trial would import; those of the axes are known after their packages."""
    yield from more
    yield from LIBRARIES
    for axis in CHOICES:
        package = importlib.import_module(axis)
        yield from (f"{axis}.{found.name}" for found in pkgutil.iter_modules(package.__path__))


def run_trial(trial: TrialRequest) -> None:
    """Runs a trial in the process that was forked for it, as its command would run it."""
    if not trial.fork:
        command = [sys.executable, "-m", trial.module, *trial.words]
        os.execve(sys.executable, command, dict(os.environ))
    if "OMP_NUM_THREADS" in trial.env:  # read when the library was loaded, which has been
        import torch

        torch.set_num_threads(int(trial.env["OMP_NUM_THREADS"]))
    sys.argv = [trial.module, *trial.words]
    runpy.run_module(trial.module, run_name="__main__", alter_sys=True)


def _exit_trial(codes: Sequence[int]) -> None:
    """Ends a forked trial when all that it registered itself is done.

    What was registered before the fork is not the trial's to do, and to take its modules apart
    would last a second.
    """
    weakref.finalize._exitfunc()  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(codes[0] if codes else 1)


def main(argv: Sequence[str]) -> None:
    """Serves, and goes on as a trial in each process that is forked for one.

    Args:
        argv: `--prepare`, where forks will be asked for, and further modules to import.
    """
    # What an import prints must not be taken for an answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    for name in LAUNCHED:
        os.environ.pop(name, None)
    # A process that has spoken to a GPU has no forks that can. torch is only imported here, which
    # leaves the GPUs alone, and is told to count them without opening one if a library asks.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    server = ForkServer(0, answers)
    trial = None
    if PREPARE in argv:
        trial = server.prepare(list_modules([word for word in argv if word != PREPARE]))
    if trial is None:
        trial = server.serve()
    if trial is None:
        return
    codes: list[int] = []
    # The last of the trial's own: those that were registered before would come after it.
    atexit.register(_exit_trial, codes)
    code = 1
    try:
        run_trial(trial)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        codes.append(code)


if __name__ == "__main__":
    main(sys.argv[1:])
