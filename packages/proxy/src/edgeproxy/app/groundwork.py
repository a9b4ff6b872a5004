"""What workers need to boot, and they themselves: laid before anything is imported that takes its time.

Half of a start is the import of what the control process consists of, and the other half that of a worker. So
that they go on side by side, this module and what it imports keep away from asyncio, databases and servers.
"""

from __future__ import annotations

import contextlib
import os
import sys
from time import monotonic, time

from edgeproxy.app.entrances import Entrances
from edgeproxy.config import Config
from edgeproxy.errors import ConfigError
from edgeproxy.runtime import affinity_file
from edgeproxy.runtime.boot import boot_all
from edgeproxy.runtime.handover import Inheritance, Predecessor
from edgeproxy.runtime.limits import raise_descriptor_limit
from edgeproxy.runtime.privileges import find_account, make_folder
from edgeproxy.runtime.socket_activation import ActivatedSockets
from edgeproxy.worker.shared_state import SharedState, create_segment, has_capacities

WORKER_PROGRAM = (sys.executable, "-P", "-m", "edgeproxy.worker")
"""``-P``: a file in the working directory must not be taken for a module of the same name."""


class Groundwork:
    """The sockets, the shared segment, and workers that boot. Constructing it binds the addresses."""

    def __init__(self, config: Config, predecessor: Predecessor | None = None) -> None:
        """``predecessor`` is the proxy that this one is an upgrade of.

        Raises:
            EdgeproxyError: an address or the segment cannot be had, or no process; nothing is left behind.
        """
        self.started_s = monotonic()
        self.config = config
        self.predecessor = predecessor
        estate = predecessor.estate if predecessor is not None else None
        self.inherited = Inheritance(estate.bequests if estate is not None else ())
        account = find_account(config.user, config.group) if config.user is not None else None
        if config.state_dir is not None:
            with contextlib.suppress(OSError):  # what needs it says so itself
                make_folder(config.state_dir, account)
        self.descriptors = raise_descriptor_limit()
        self.entrances = Entrances(config, self.inherited, ActivatedSockets(os.environ))
        with contextlib.ExitStack() as at_failure:
            at_failure.callback(self.entrances.close_listeners)
            if account is not None:
                account.become(for_kernel_relay=promote_after_turns(config) > 0)
            self._take_up_segment()
            self.rows = self.state.claim_rows(config.workers)
            self.program = WORKER_PROGRAM
            """What workers are started with, and whoever replaces one."""
            self.listeners = [
                [sock for each in self.entrances.listeners for sock in each.share(place, config.workers)]
                for place in range(config.workers)
            ]
            """Those of each worker, by its place."""
            self.workers = boot_all(self.program, self.listeners, self.segment_fd)
            at_failure.pop_all()

    def _take_up_segment(self) -> None:
        """The predecessor's, or a new one with what was remembered."""
        config = self.config
        if self.predecessor is not None:
            self.segment_fd = _inherited_segment(config, self.predecessor.estate.segment_fd)
            self.state = SharedState(self.segment_fd)
            return
        saved = affinity_file.load(config.state_dir) if config.state_dir is not None else None
        self.segment_fd = create_segment(
            config.workers,
            config.affinity_capacity,
            saved.secret if saved is not None else None,
            clients_capacity(config),
        )
        self.state = SharedState(self.segment_fd)
        if saved is not None:
            affinity_file.restore(saved, self.state, monotonic(), time(), config.binding_ttl_secs)

    def abandon(self) -> None:
        """Give back the clients' addresses and end the workers; nothing will be built on them."""
        for worker in self.workers:
            worker.kill()
        self.entrances.close_listeners()


def promote_after_turns(config: Config) -> int:
    """Short turns in a row after which the kernel may relay a connection; 0 when it never may."""
    may = config.relay == "kernel" or (config.relay == "auto" and config.relay_kernel_allowed)
    return config.relay_kernel_turns if may else 0


def clients_capacity(config: Config) -> int:
    """How many clients' buckets the shared segment has room for."""
    return config.rate_limit_capacity if config.rate_limit_enabled else 0


def _inherited_segment(config: Config, segment_fd: int) -> int:
    if not has_capacities(segment_fd, config.affinity_capacity, clients_capacity(config)):
        names = "EDGEPROXY_AFFINITY_CAPACITY, EDGEPROXY_RATE_LIMIT_CAPACITY or EDGEPROXY_RATE_LIMIT_ENABLED"
        raise ConfigError(
            [f"{names} has changed, and an upgrade keeps the shared segment: restart the proxy"]
        )
    return segment_fd
