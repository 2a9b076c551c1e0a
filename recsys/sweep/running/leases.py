"""Which driver runs which trial, and what becomes of the trials of a driver that is gone."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from optuna import Study, Trial
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from recsys.runtime.locks import acquire_lock, is_locked
from recsys.sweep.running.storage import BEAT, StudyStorage

DRIVER, INDEX, RETRY_OF = "driver", "index", "retry_of"
REASON, AGAIN, BLAMELESS, REACHED = "reason", "again", "stopped", "reached"
"""User attributes of a trial: the driver that runs it, its place in the design, the number of the
lost trial that it repeats, why it failed, whether that calls for a repetition, whether the trial is
not to blame (the user stopped it, its driver died, the disk was full), and how far it had come when
its driver died."""

LOST = "lost: its driver ended"

LOSSES = 5
"""How often in a row a trial may be lost with its driver and not have come any further."""


def get_trial_index(study: Study, trial: FrozenTrial | Trial) -> int:
    """A trial's place in the design, which every driver finds the same.

    It is the number of trials with a smaller number that repeat none; a repetition has the place
    of the trial that it repeats. Numbers and repetitions are fixed when a trial is made, and who
    asks for one notes the place in it.
    """
    noted: int | None = trial.user_attrs.get(INDEX)
    if noted is not None:
        return noted
    trials = study.get_trials(deepcopy=False)
    return _compute_index(trials, trial.number)


def _compute_index(trials: Sequence[FrozenTrial], number: int) -> int:
    """The place of a trial among all, which are in the order of their numbers."""
    repeated: int | None = trials[number].user_attrs.get(RETRY_OF)
    if repeated is not None:
        return _compute_index(trials, repeated)
    return sum(RETRY_OF not in trial.user_attrs for trial in trials[:number])


def _count_losses(trials: Sequence[FrozenTrial], number: int, reached: float) -> int:
    """How often in a row a trial was lost at the same point, this time included."""
    before: int | None = trials[number].user_attrs.get(RETRY_OF)
    if before is None or trials[before].user_attrs.get(REACHED) != reached:
        return 1
    return 1 + _count_losses(trials, before, reached)


def _is_retry(trials: Sequence[FrozenTrial], number: int) -> bool:
    """Whether a trial repeats one that failed by a fault of its own."""
    before: int | None = trials[number].user_attrs.get(RETRY_OF)
    if before is None:
        return False
    return not trials[before].user_attrs.get(BLAMELESS, False) or _is_retry(trials, before)


class TrialLeases:
    """A driver's hold on its trials.

    A lock on a file in the sweep's folder tells the other drivers there that it is alive, and the
    system lets go of it however the driver ends. Those on other machines, which share a database,
    see the times that a thread writes there.

    Args:
        opened: Where the studies are.

    Attributes:
        id: This driver's name.
    """

    def __init__(self, opened: StudyStorage) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._opened = opened
        self._folder = opened.folder / "drivers"
        self._held: BinaryIO | None = None
        self._running: set[int] = set()
        self._ids: dict[tuple[str, int], int] = {}
        self._ended = threading.Event()
        self._beats: threading.Thread | None = None

    def __enter__(self) -> TrialLeases:
        with self._opened.guard(""):  # or a recovery might meet the file before its lock
            self._folder.mkdir(exist_ok=True)
            self._held = self._make_lock_path(self.id).open("ab")
            acquire_lock(self._held)
        if self._opened.server is not None:
            self._beats = threading.Thread(
                target=self._send_heartbeats, name="heartbeats", daemon=True
            )
            self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._beats is not None:
            self._beats.join()
        if self._held is not None:
            if not self._running:  # else the free lock tells that its trials are lost
                self._make_lock_path(self.id).unlink()
            self._held.close()

    def ask(self, study: Study, room: Callable[[], bool] | None = None) -> Trial | None:
        """A trial for this driver: the oldest one that waits, else a new one.

        Args:
            study: Its study.
            room: Asked first, while no other driver can ask: whether the budget has room.

        Returns:
            None where there is no room.

        Raises:
            RecsysError: The database is gone; this and the other methods say so.
        """
        with self._opened.guard(study.study_name):
            if room is not None and not room():
                return None
            with warnings.catch_warnings():
                # Optuna expects heartbeats from its own loop only.
                warnings.filterwarnings("ignore", message="Heartbeat of storage")
                trial = study.ask()
            ours = self._get_trial_id(study, trial.number)
            # In this order: a running trial that has a driver has a sign of life, too.
            self._send_heartbeat(ours)
            if INDEX not in trial.user_attrs:
                trial.set_user_attr(INDEX, get_trial_index(study, trial))
            trial.set_user_attr(DRIVER, self.id)
            self._running.add(ours)
        return trial

    def tell(self, study: Study, trial: int, values: Sequence[float] | None) -> bool:
        """Completes a trial of this driver, or prunes it.

        Args:
            study: Its study.
            trial: Its number.
            values: Of the objectives; None where it was pruned.

        Returns:
            Whether it counts: False where another driver took this one for dead and repeats it.
        """
        state = TrialState.PRUNED if values is None else TrialState.COMPLETE
        self._running.discard(self._get_trial_id(study, trial))
        with self._opened.guard(study.study_name):
            if study.get_trials(deepcopy=False)[trial].state.is_finished():
                return False
            study.tell(trial, values, state)
        return True

    def fail(
        self, study: Study, trial: int, reason: str, retry: bool, blameless: bool = False
    ) -> bool:
        """Fails a trial of this driver.

        Args:
            study: Its study.
            trial: Its number.
            reason: Why, in a sentence.
            retry: Whether it may be repeated, once: it ended by no fault of its values.
            blameless: It is not to blame, as where the user stopped it or the disk was full: it
                goes on however often that happens.

        Returns:
            Whether it will be repeated.
        """
        self._running.discard(self._get_trial_id(study, trial))
        with self._opened.guard(study.study_name):
            found = study.get_trials(deepcopy=False)[trial]
            return self._fail(study, found, reason, retry, blameless)

    def recover(self, study: Study, reached: Callable[[int], float]) -> list[int]:
        """Fails the trials that dead drivers have left, and has each repeated.

        To be called before a trial is asked for. What another driver recovers at the same time, or
        was killed while it recovered, is repeated once all the same. A trial is not to blame for
        the death of its driver, unless it is lost again and again at the same point.

        Args:
            study: Its study.
            reached: Tells how far the trial in a place of the design has come.

        Returns:
            The numbers of the trials that were lost.
        """
        lost = []
        with self._opened.guard(study.study_name):
            trials = study.get_trials(deepcopy=False)
            silent = self._list_stale_trials(study)
            for trial in trials:
                if trial.state == TrialState.RUNNING and self._is_dead(study, trial, silent):
                    self._fail_lost(study, trial, reached)
                    lost.append(trial.number)
            repeated = {trial.user_attrs.get(RETRY_OF) for trial in trials}
            for trial in trials:  # as they were before: failed by a driver that came no further
                again = trial.state == TrialState.FAIL and trial.user_attrs.get(AGAIN, False)
                if again and trial.number not in repeated:
                    self._enqueue_retry(study, trial)
        return lost

    def delete_dead_locks(self) -> None:
        """Deletes what dead drivers of this machine have left of their locks.

        To be called once their trials have been recovered.
        """
        with self._opened.guard(""):
            for path in self._folder.glob("*.lock"):
                ours = path.name.startswith(f"{socket.gethostname()}-")
                if (ours or self._opened.server is None) and not is_locked(path):
                    path.unlink(missing_ok=True)

    def _fail_lost(self, study: Study, trial: FrozenTrial, reached: Callable[[int], float]) -> None:
        """Fails a trial whose driver is gone; under the guard."""
        trials = study.get_trials(deepcopy=False)
        noted: int | None = trial.user_attrs.get(INDEX)
        come = reached(_compute_index(trials, trial.number) if noted is None else noted)
        losses = _count_losses(trials, trial.number, come)
        with suppress(UpdateFinishedTrialError):
            self._opened.storage.set_trial_user_attr(
                self._get_trial_id(study, trial.number), REACHED, come
            )
        if losses < LOSSES:
            self._fail(study, trial, LOST, retry=True, blameless=True)
        else:
            told = f"lost: its driver ended {losses} times, and it came no further in between"
            self._fail(study, trial, told, retry=False)

    def _fail(
        self, study: Study, trial: FrozenTrial, reason: str, retry: bool, blameless: bool = False
    ) -> bool:
        """Fails a trial that runs, and queues its repetition; under the guard."""
        storage, ours = self._opened.storage, self._get_trial_id(study, trial.number)
        trials = study.get_trials(deepcopy=False)
        again = blameless or (retry and not _is_retry(trials, trial.number))
        try:
            # A finished trial takes no more attributes, so that they come first.
            storage.set_trial_user_attr(ours, REASON, reason)
            storage.set_trial_user_attr(ours, AGAIN, again)
            storage.set_trial_user_attr(ours, BLAMELESS, blameless)
            if INDEX not in trial.user_attrs:  # its driver died while it asked
                storage.set_trial_user_attr(ours, INDEX, _compute_index(trials, trial.number))
            storage.set_trial_state_values(ours, TrialState.FAIL)
        except UpdateFinishedTrialError:  # by a driver that took this one for dead
            return False
        if again:
            self._enqueue_retry(study, trial)
        return again

    def _enqueue_retry(self, study: Study, trial: FrozenTrial) -> None:
        """Queues a trial with the same values; under the guard."""
        # Of a trial that was queued itself, some values may not have been asked for yet.
        values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        attributes = {RETRY_OF: trial.number, INDEX: get_trial_index(study, trial)}
        study.enqueue_trial(values, user_attrs=attributes)

    def _is_dead(self, study: Study, trial: FrozenTrial, silent: set[int]) -> bool:
        """Whether nobody runs a trial."""
        driver = trial.user_attrs.get(DRIVER)
        if driver is None:  # killed while it asked: under the guard, nobody is doing that now
            return True
        if driver == self.id:
            return False
        path = self._make_lock_path(driver)
        # A lock of this machine is certain at once. That of another may not be seen here, but
        # without a database there is nothing else.
        here = driver.startswith(f"{socket.gethostname()}-") and path.exists()
        if here or self._opened.server is None:
            return not is_locked(path)
        return self._get_trial_id(study, trial.number) in silent

    def _list_stale_trials(self, study: Study) -> set[int]:
        """The trials without a recent sign of life, by the database's clock."""
        storage = self._opened.storage
        if self._opened.server is None or not isinstance(storage, RDBStorage):
            return set()
        return set(storage._get_stale_trial_ids(storage.get_study_id_from_name(study.study_name)))

    def _send_heartbeats(self) -> None:
        while not self._ended.wait(BEAT):
            for trial in list(self._running):
                # While the database is away, nobody can see that a sign is missing.
                with suppress(StorageInternalError):
                    self._send_heartbeat(trial)

    def _send_heartbeat(self, trial: int) -> None:
        if isinstance(self._opened.storage, RDBStorage) and self._opened.server is not None:
            self._opened.storage.record_heartbeat(trial)

    def _make_lock_path(self, driver: str) -> Path:
        return self._folder / f"{driver}.lock"

    def _get_trial_id(self, study: Study, number: int) -> int:
        """The storage's number of a trial, which is another one than the study's and stays."""
        key = study.study_name, number
        if key not in self._ids:
            storage = self._opened.storage
            place = storage.get_study_id_from_name(study.study_name)
            self._ids[key] = storage.get_trial_id_from_study_id_trial_number(place, number)
        return self._ids[key]
