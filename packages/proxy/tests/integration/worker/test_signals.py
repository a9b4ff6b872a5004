"""A signal wakes the loop, and only the one that was asked for is told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from edgeproxy.worker.loop import Loop
from edgeproxy.worker.signals import SignalWakeup


@pytest.fixture
def others_restored() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGALRM)}
    wakeup_fd = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(wakeup_fd)
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("others_restored")
def test_another_signal_with_a_handler_is_not_taken_for_it() -> None:
    told: list[str] = []
    loop = Loop()
    wakeup = SignalWakeup(loop, signal.SIGUSR1, lambda: told.append("asked for"))

    def on_other(*_: object) -> None:
        told.append("another")

    signal.signal(signal.SIGALRM, on_other)
    with closing(wakeup._reader), closing(wakeup._writer):
        signal.raise_signal(signal.SIGALRM)
        wakeup.ready(0)
        assert told == ["another"]
        signal.raise_signal(signal.SIGUSR1)
        wakeup.ready(0)
        assert told == ["another", "asked for"]
