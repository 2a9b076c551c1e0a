"""Who holds SIGTERM and SIGINT, and what each holder does at a second signal."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from recsys.runtime.signals import HeldSignals, Interrupted, SignalHandler
from recsys.sweep.running.signals import SignalRecorder


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("kind", [SignalHandler, SignalRecorder])
def test_who_had_the_signals_before_has_them_again(kind: type[HeldSignals]) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with kind():
        assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_thread_of_another_program_takes_no_signals() -> None:
    held = list[object]()

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with SignalRecorder():
            held.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert held == [True]


def test_a_run_waits_for_its_step_and_leaves_at_a_second_sigint() -> None:
    with SignalHandler() as signals:
        signals.training = True
        send(signal.SIGTERM)
        send(signal.SIGINT)  # the first of its kind
        assert signals.received == signal.SIGINT
        with pytest.raises(Interrupted) as left:
            send(signal.SIGINT)
        assert left.value.code == 128 + signal.SIGINT
        signals.training = False
        with pytest.raises(Interrupted) as left:
            send(signal.SIGTERM)
        assert (left.value.code, left.value.name) == (128 + signal.SIGTERM, "SIGTERM")


def test_a_driver_notes_the_first_signal_and_ends_at_a_sigint_after_it() -> None:
    with SignalRecorder() as signals:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
