"""Planes, workers and backends, ended with the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from edgeproxy.core.model import Backend
from edgeproxy.core.wire.frames import Ready, Start
from edgeproxy.worker.shared_state import create_segment
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    RealWorker,
    ThreadedPlane,
    bound_listener,
    start_frame,
    whole_table,
)

StartPlane = Callable[..., ThreadedPlane]
StartWorker = Callable[..., RealWorker]


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    """What is entered here ends with the test, last in first out."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def backend(at_end: ExitStack) -> Backends:
    """A backend that the test serves by hand."""
    return at_end.enter_context(closing(Backends()))


@pytest.fixture
def start_plane(at_end: ExitStack) -> StartPlane:
    """Start a `ThreadedPlane` with these rows."""

    def start(*rows: Backend, **options: object) -> ThreadedPlane:
        return at_end.enter_context(closing(ThreadedPlane(*rows, **options)))  # type: ignore[arg-type]

    return start


@pytest.fixture
def boot_worker(at_end: ExitStack) -> StartWorker:
    """Start a worker process that has been told nothing yet."""

    def boot(descriptors: int | None = None) -> RealWorker:
        listener: socket.socket = at_end.enter_context(bound_listener())
        segment_fd = create_segment(workers=1, affinity_capacity=64)
        at_end.callback(os.close, segment_fd)
        return at_end.enter_context(
            closing(RealWorker(listener=listener, segment_fd=segment_fd, descriptors=descriptors))
        )

    return boot


@pytest.fixture
def start_worker(boot_worker: StartWorker) -> StartWorker:
    """Start a worker process and wait until it serves these rows."""

    def start(*rows: Backend, settings: Start | None = None, descriptors: int | None = None) -> RealWorker:
        worker = boot_worker(descriptors)
        worker.send(settings or start_frame(), whole_table(*rows))
        worker.take(Ready)
        return worker

    return start
