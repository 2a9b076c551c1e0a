"""Where processes that another launcher has started hear from the first one which run is theirs.

The first process makes the run's folder and decides every `auto`, alone; the others wait for it
before they load anything. They meet at the address that torch's own process group meets at later.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import ConfigError
from recsys.runtime.launching.launches import Launch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

PATIENCE = 600.0
"""Seconds that processes wait for those that have not come yet: a large import from a busy disk."""

_GRACE = 20.0
"""Seconds in which the others take note that the first process has nothing for them."""


class Rendezvous:
    """The meeting of the processes of one launch.

    Args:
        launch: How they were started.
        patience: Seconds to wait for processes that have not come.

    Raises:
        ConfigError: The first process does not answer, or its port is taken.
    """

    def __init__(self, launch: Launch, patience: float = PATIENCE) -> None:
        self.launch, self.patience = launch, patience
        self.settled = False
        self._store = self._open()

    def _open(self) -> TCPStore:
        from torch._C._distributed_c10d import TCPStore
        from torch.distributed import DistError

        launch = self.launch
        hosts = launch.rank == 0 and not launch.hosted
        try:
            return TCPStore(
                launch.address,
                launch.port,
                launch.processes,
                hosts,
                timedelta(seconds=self.patience),
                wait_for_workers=False,
                multi_tenant=True,  # torch's process group is met at the same port
            )
        except (DistError, RuntimeError) as error:
            where = f"{launch.address}:{launch.port}"
            if hosts:
                raise ConfigError(
                    f"the first process cannot listen at {where}, where the others are to find it "
                    f"({_shorten(error)}); set MASTER_PORT to a port that is free there."
                ) from None
            raise ConfigError(
                f"process {launch.rank} of {launch.processes} finds the first one not at {where}; "
                "is it started, and may the machines reach each other there? MASTER_ADDR and "
                "MASTER_PORT name another place."
            ) from None

    def _name(self, key: str) -> str:
        return f"recsys/{self.launch.attempt}/{key}"

    def give(self, folder: Path) -> None:
        """Tells the others their run, and waits until each of them has seen its folder.

        For the first process.

        Raises:
            ConfigError: One of them does not come, or does not see the folder.
        """
        self.settled = True
        self._store.set(self._name("run"), json.dumps({"folder": str(folder.absolute())}))
        others, began, said = self.launch.processes - 1, time.monotonic(), False
        while (come := self._store.add(self._name("come"), 0)) < others:
            if self._store.check([self._name("blind")]):
                node = self._store.get(self._name("blind")).decode()
                raise ConfigError(
                    f"{folder} is not there for the processes on {node}; set output to a folder "
                    "on a disk that all machines share."
                )
            waited = time.monotonic() - began
            if waited > self.patience:
                raise ConfigError(
                    f"{others - come} of {self.launch.processes} processes have not come after "
                    f"{self.patience:.0f} s; see what they print."
                )
            if waited > 30 and not said:
                print(f"waiting for {others - come} processes", file=sys.stderr, flush=True)
                said = True
            time.sleep(0.05)

    def dismiss(self) -> None:
        """Tells the others that there is nothing for them to do; for the first process.

        Nothing happens where they have their run already.
        """
        if self.settled:
            return
        self.settled = True
        self._store.set(self._name("run"), json.dumps({"folder": None}))
        until = time.monotonic() + _GRACE
        # What it holds open ends with it: those who come late would wait for it in vain.
        while self._store.add(self._name("come"), 0) < self.launch.processes - 1:
            if time.monotonic() > until or self.launch.hosted:
                return
            time.sleep(0.05)

    def wait(self, is_there: Callable[[Path], bool]) -> Path | None:
        """The folder of the run, as soon as the first process has made it; for the others.

        Args:
            is_there: Whether this process sees what it has to see there.

        Returns:
            The folder; None where there is nothing to do, or the first process has ended.
        """
        from torch.distributed import DistError, DistStoreError

        key = self._name("run")
        try:
            while True:
                try:
                    self._store.wait([key], timedelta(seconds=1))
                    break
                except DistStoreError:
                    continue  # it makes a cache, or reads a large table
            folder = json.loads(self._store.get(key))["folder"]
            seen = folder is None or self._see(Path(folder), is_there)
            if seen:
                self._store.add(self._name("come"), 1)
        except (DistError, RuntimeError):
            return None  # it has ended, and has said why
        return Path(folder) if folder is not None and seen else None

    def _see(self, folder: Path, is_there: Callable[[Path], bool]) -> bool:
        """Whether the folder can be seen; a shared disk may show it a little late."""
        until = time.monotonic() + 30
        while not is_there(folder):
            if time.monotonic() > until:
                import socket

                self._store.set(self._name("blind"), socket.gethostname())
                return False
            time.sleep(0.2)
        return True

    def find_earlier(self) -> Path | None:
        """The folder that the processes of an earlier attempt of the same launch had.

        Only a launcher that answers itself still knows.
        """
        for attempt in reversed(range(self.launch.attempt)):
            key = f"recsys/{attempt}/run"
            if self.launch.hosted and self._store.check([key]):
                folder = json.loads(self._store.get(key))["folder"]
                return None if folder is None else Path(folder)
        return None


def _shorten(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
