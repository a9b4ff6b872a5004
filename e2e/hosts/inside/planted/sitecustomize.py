"""Faults that are planted into the proxy, to see that stories notice.

Python imports this at its start where the folder is on its path. ``PLANTED_FAULT`` in the environment names
one of :data:`FAULTS`; the module it is about is changed when it is imported, in every process of the proxy.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn


def _never_look_at_the_table(module: Any) -> None:
    async def poll(*_: object) -> None:
        return

    module.TableFeed._poll = poll


def _read_no_limits(module: Any) -> None:
    (reader,) = (each for each in vars(module).values() if hasattr(each, "_whole_number"))
    read = reader._whole_number

    def whole_number(self: object, column: str, *rest: object) -> object:
        return 0 if column == "hard_limit" else read(self, column, *rest)

    reader._whole_number = whole_number


def _keep_certificates(module: Any) -> None:
    async def watch(*_: object) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError

    module.CertificateWatch.watch = watch


def _count_twice(module: Any) -> None:
    add = module.TrafficTotals.add

    def add_twice(self: object, *report: object) -> None:
        add(self, *report)
        add(self, *report)

    module.TrafficTotals.add = add_twice


def _try_one_backend(module: Any) -> None:
    module.RetryBudget.begin = lambda *_: False


def _give_nothing(module: Any) -> None:
    module.Replica._received_want = lambda *_: []


FAULTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "edits are not seen": ("edgeproxy.runtime.table_feed", _never_look_at_the_table),
    "limits are not read": ("edgeproxy.core.controlplane.rows", _read_no_limits),
    "certificates are kept": ("edgeproxy.runtime.certificate_watch", _keep_certificates),
    "one backend is tried": ("edgeproxy.core.dataplane.retry_budget", _try_one_backend),
    "what others missed is not given": ("edgeproxy.core.replication.replica", _give_nothing),
    "traffic counts twice": ("edgeproxy.core.controlplane.traffic", _count_twice),
}
"""Name to the module and to what is done to it."""


class _Planter(MetaPathFinder):
    """Finds the one module as always, and has it changed once it is executed."""

    def __init__(self, name: str, plant: Callable[[Any], None]) -> None:
        self._name = name
        self._plant = plant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.loader is not None
        _plant_after(spec.loader, self._plant)
        return spec


def _plant_after(loader: Loader, plant: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def execute_and_plant(module: ModuleType) -> None:
        execute(module)
        plant(module)

    loader.exec_module = execute_and_plant  # type: ignore[method-assign]


if name := os.environ.get("PLANTED_FAULT"):
    sys.meta_path.insert(0, _Planter(*FAULTS[name]))
