"""What the admin socket changes; what it only shows needs no more than a function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from edgeproxy.core.controlplane.registry import Refusal, set_backend
from edgeproxy.core.geography import Geography
from edgeproxy.ports import Operation, RowChange

SETTABLE: Final = frozenset({"healthy", "weight"})
"""Columns; everything else of a row is the business of `edgeproxy backends set`."""


class SetBackend:
    """Drains a backend, readmits it, or gives it another weight, as ``edgeproxy backends set`` would."""

    def __init__(
        self,
        apply: Callable[[Operation[Refusal]], RowChange | Refusal],
        geography: Geography,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        """``apply`` runs an operation on the store and blocks; ``refresh`` lets the table follow it."""
        self._apply = apply
        self._geography = geography
        self._refresh = refresh

    async def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer when the routing table shows the change.

        Raises:
            ValueError: the request is wrong, or names no backend of the table.
            StoreError: the store cannot be written now.
        """
        backend, values = request.get("backend"), request.get("values")  # feature: administration.set
        if not (isinstance(backend, str) and isinstance(values, dict) and values):
            raise ValueError("set_backend needs a backend, its id, and values, an object of columns")
        if unknown := values.keys() - SETTABLE:
            raise ValueError(f"set_backend changes {' and '.join(sorted(SETTABLE))}, not {min(unknown)}")
        decision = await asyncio.to_thread(
            self._apply, lambda table: set_backend(table, self._geography, backend, values)
        )
        if isinstance(decision, Refusal):
            raise ValueError("; ".join(decision.problems))
        await self._refresh()
        return {"backend": backend, "values": decision.values}
