"""Where the log of a run goes: a CSV file always, Weights & Biases and TensorBoard as asked.

Nothing here waits for other ranks, and only the first rank writes. No text of a user or an item is
sent anywhere.
"""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from recsys.config.compose import nearest
from recsys.errors import ConfigError, UnreachableError
from recsys.runs.failures import FailureState
from recsys.runtime.excluded_time import excluded_time
from recsys.runtime.files import RESULT, TRACKING_FAILURE, write_atomic
from recsys.tracking.wandb_files import read_last_step
from recsys.tracking.wandb_run import COUNTED, WandbRunInfo, make_summary, open_run

Mode = Literal["online", "offline", "off"]
MODES: Mapping[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
"""Values of WANDB_MODE."""


def choose_wandb_mode(asked: Literal["auto", Mode]) -> Mode:
    """online, offline or off: what `auto` means here.

    `WANDB_MODE` decides where it is set; else a key in `WANDB_API_KEY` or in the netrc file means
    online, and none means offline.

    Raises:
        ConfigError: `WANDB_MODE` is none of its words: taken for unset, a misspelt `disabled` would
            send a run where a key is.
    """
    if asked != "auto":
        return asked
    mode = os.environ.get("WANDB_MODE", "")
    if mode:
        if mode not in MODES:
            raise ConfigError(
                f"the environment variable WANDB_MODE is '{mode}'.{nearest(mode, MODES)}"
            )
        return MODES[mode]
    return "online" if os.environ.get("WANDB_API_KEY") or _has_netrc_key() else "offline"


def _has_netrc_key() -> bool:
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False  # no file that can be read holds no key


class WandbLog:
    """A run at Weights & Biases, or its offline files in the run's folder.

    A step is the optimiser step, so that what a stopped run logs again falls on itself.

    Args:
        folder: Of the run.
        run_id: The same after every stop.
        config: The resolved configuration, as plain values.

    Raises:
        UnreachableError: The service cannot be reached or refuses the key.
    """

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any]) -> None:
        with excluded_time():
            import wandb

        self.folder, self._open = folder, True
        self.offline = config["tracking"]["wandb"] == "offline"
        try:
            with excluded_time():
                self._known = read_last_step(folder, run_id)
                self.run = open_run(
                    folder, run_id, self.offline, WandbRunInfo.from_config(config, folder), config
                )
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise UnreachableError(
                f"tracking.wandb: the run cannot be opened ({reason}); set tracking.wandb=offline."
            ) from None
        if not self.offline and self.run.resumed:
            self._known = self.run.starting_step - 1  # the service knows best

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Sends the values of a step; counts of undefined cases stay in the CSV file."""
        with excluded_time():
            shown = {k: v for k, v in metrics.items() if k != "epoch" and COUNTED not in k}
            self.run.log(shown, step=step)

    def save(self) -> None:
        """Nothing: its own service writes what it is sent."""

    def finalize(self, status: str) -> None:
        """Nothing: `finish` closes it, when the result is there."""

    def send_missed_rows(self, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Sends rows of before a stop that never reached Weights & Biases.

        A process that is killed loses what its client had not written yet.

        Args:
            rows: Step and values of all that was logged, oldest first.
        """
        for step, values in rows:
            if step > self._known:
                self.log_metrics(values, step)

    def finish(
        self,
        result: Mapping[str, Any],
        table: Mapping[str, Mapping[str, float]],
        artifact: Path | None,
    ) -> str:
        """Sends figures and closing table, then closes the run.

        The result is on the disk by now. What fails here is noted in the folder, in
        `tracking.json`, and ends no run.

        Args:
            result: What `result.json` holds.
            table: Metrics by row of the closing table.
            artifact: A checkpoint to send along, or None.

        Returns:
            Why it could not be done, in a sentence; empty where it was done.
        """
        noted = self.folder / TRACKING_FAILURE
        noted.unlink(missing_ok=True)
        try:
            self._send(result, table, artifact)
            self.close(0)
        except Exception as error:  # whatever a service and its client do, the result stands
            said = (str(error).splitlines() or [""])[0] or type(error).__name__
            there = self.folder / RESULT
            why = f"Weights & Biases lacks the end of this run ({said}); {there} has all of it."
            write_atomic(noted, json.dumps({"wandb": why}) + "\n")
            with suppress(Exception):
                self.close(1)
            return why
        return ""

    def _send(
        self,
        result: Mapping[str, Any],
        table: Mapping[str, Mapping[str, float]],
        artifact: Path | None,
    ) -> None:
        import wandb

        names = [name for name in next(iter(table.values())) if COUNTED not in name]
        rows = [[row, *(metrics[name] for name in names)] for row, metrics in table.items()]
        self.run.log({"closing table": wandb.Table(columns=["run", *names], data=rows)})
        self.run.summary.update(make_summary(result))
        if artifact is not None:
            files = wandb.Artifact(f"{self.folder.name}-best", type="model")
            files.add_file(str(artifact))
            self.run.log_artifact(files)

    def close(self, code: int, state: FailureState | None = None) -> None:
        """Closes the run, once; without it the last rows would be lost.

        The service that writes the file goes on after `finish`; only its end says that all is on
        the disk.

        Args:
            code: 0 for a run with a result.
            state: What is to be said of one without.
        """
        import wandb

        if self._open:
            self._open = False
            if state is not None:
                self.run.summary.update(dict(state.make_summary()))
            self.run.finish(exit_code=code)
            wandb.teardown(exit_code=code)

    def describe_sync(self) -> str:
        """How to send an offline run."""
        return f"wandb: offline; send it with: wandb sync {self.folder / 'wandb'}/offline-run-*"
