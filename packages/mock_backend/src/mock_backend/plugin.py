"""The pytest plugin: mock backends as fixtures, in this process, as processes of their own, in containers.

All kinds take the same arguments and answer to `RunningMockBackend`, so a test can be written once and
run with either. Loading the plugin imports nothing but pytest: the server, and aiohttp below it, are
imported by the fixture that needs them, so that coverage sees their first lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from mock_backend.container import MockBackendContainer
    from mock_backend.driver import Driver
    from mock_backend.process import MockBackendProcess
    from mock_backend.threaded import ThreadedMockBackend
    from testkit.process import ProcessFactory


class RunningMockBackend(Protocol):
    """A mock backend that serves, wherever it runs."""

    @property
    def id(self) -> str: ...

    @property
    def region(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def ports(self) -> Mapping[str, int]:
        """All that are open by name: http, tcp-echo, udp-echo, admin."""

    @property
    def driver(self) -> Driver:
        """What changes and asks it while it runs."""

    def stop(self) -> None:
        """Stop serving: connecting is refused from then on. May be called again."""


@pytest.fixture
def mock_backend_factory() -> Iterator[Callable[..., ThreadedMockBackend]]:
    """Start mock backends in threads of this process, all stopped at the end.

    The callable takes what `mock_backend.threaded.ThreadedMockBackend` takes.
    """
    from mock_backend.threaded import ThreadedMockBackend

    with ExitStack() as running:
        yield lambda **options: running.enter_context(ThreadedMockBackend(**options))


@pytest.fixture
def mock_backend(mock_backend_factory: Callable[..., ThreadedMockBackend]) -> ThreadedMockBackend:
    """Return one mock backend in region ``eu``, running in this process."""
    return mock_backend_factory()


@pytest.fixture
def mock_backend_process(process_factory: ProcessFactory) -> Callable[..., MockBackendProcess]:
    """Start mock backends as processes, with testkit's ``process_factory``, which also ends them.

    The callable takes what `mock_backend.process.MockBackendProcess` takes, and returns when it listens.
    """
    from mock_backend.process import MockBackendProcess

    return partial(MockBackendProcess, process_factory)


@pytest.fixture
def mock_backend_container() -> Iterator[Callable[..., MockBackendContainer]]:
    """Start mock backends in containers, all removed at the end.

    The callable takes what `mock_backend.container.MockBackendContainer` takes, and returns when it listens.
    """
    from mock_backend.container import MockBackendContainer

    with ExitStack() as running:

        def start(*arguments: Any, **options: Any) -> MockBackendContainer:
            backend = MockBackendContainer(*arguments, **options)
            running.callback(backend.stop)
            return backend

        yield start
