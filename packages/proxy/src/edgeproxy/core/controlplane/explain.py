"""Why does this client get that backend? The data plane's own selection, with every candidate shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.selection import (
    ANY_APP,
    PANIC_THRESHOLD,
    Selection,
    geo_score,
    has_room,
    load,
    score,
)
from edgeproxy.core.model import Backend, Client

_PLACES = ("same country", "same region", "region of this POP", "elsewhere")


class Candidate(msgspec.Struct, frozen=True):
    """One row, with its score or the reason it was left out."""

    backend: str
    app: str
    region: str
    country: str
    address: str
    connections: int
    place: str
    """Where it stands as seen from the client."""
    score: float
    left_out: str | None
    """``None`` for a candidate, else why it is none."""
    is_best: bool
    """Its score is the lowest; among several such the data plane draws."""
    verdict: str = ""
    """What this POP has found out by itself, empty for nothing: why it is left out, or takes less."""


class CapUse(msgspec.Struct, frozen=True):
    """How much of a cap is taken up: by connections, or by clients that wait."""

    open: int
    most: int

    @property
    def is_full(self) -> bool:
        return self.open >= self.most


class Explanation(msgspec.Struct, frozen=True):
    """What the selection makes of one client."""

    client: Client
    app: str
    pop_region: str
    bound_to: str | None
    """Backend that affinity keeps the client on, ``None`` without a binding in force."""
    decision: str
    """One sentence."""
    candidates: tuple[Candidate, ...]
    """Best first, those left out last."""
    counts_known: bool
    """False when no running proxy was asked, so that all connections were taken for 0."""
    is_panicking: bool = False
    """Too few backends of the app are good, so that this POP's own verdicts are ignored."""
    connections_allowed: float | None = None
    """How many the rate limit would let the client open at this moment, ``None`` without a limit."""
    all_connections: CapUse | None = None
    """Those of all clients, ``None`` without a cap."""
    client_connections: CapUse | None = None
    """Those of the client, ``None`` without a cap on each."""
    queue: CapUse | None = None
    """Clients that wait for a place on a backend, ``None`` without a queue."""


def explain(
    client: Client,
    app: str,
    pop_region: str,
    table: Iterable[PlacedBackend],
    connections: Callable[[int], int],
    bound_to: str | None,
    counts_known: bool,
    *,
    why: Callable[[str], str] = lambda _backend_id: "",
    panic_threshold: float = PANIC_THRESHOLD,
    connections_allowed: float | None = None,
    all_connections: CapUse | None = None,
    client_connections: CapUse | None = None,
    queue: CapUse | None = None,
) -> Explanation:
    """Run the selection for ``client`` and show its work.

    ``connections`` gives a slot's open connections in this POP; ``bound_to`` names the backend of an
    affinity binding that holds for this client, whether or not that backend can take it; ``why`` puts the
    verdict on a backend, by its id, into words.
    """
    selection = Selection(pop_region, panic_threshold)  # feature: explain
    counted = [(placed, connections(placed.slot)) for placed in table]
    for placed, count in counted:
        selection.put(placed.slot, placed.backend, count, placed.verdict)
    chosen = selection.choose(app, client.country, client.region, draw=0.0)
    candidates = sorted(
        (
            _candidate(
                placed,
                count,
                client,
                app,
                pop_region,
                chosen.score if chosen else None,
                why(placed.backend.id),
                is_eligible=selection.eligible(app, placed.slot, count) is not None,
            )
            for placed, count in counted
        ),
        key=lambda c: (c.left_out is not None, c.score, c.backend),
    )
    return Explanation(
        client=client,
        app=app,
        pop_region=pop_region,
        bound_to=bound_to,
        decision=_refusal_at_the_door(connections_allowed, all_connections, client_connections)
        or _decision(candidates, bound_to, None if selection.is_empty(app) else queue),
        candidates=tuple(candidates),
        counts_known=counts_known,
        is_panicking=selection.is_panicking(app),
        connections_allowed=connections_allowed,
        all_connections=all_connections,
        client_connections=client_connections,
        queue=queue,
    )


def _candidate(
    placed: PlacedBackend,
    connections: int,
    client: Client,
    app: str,
    pop_region: str,
    best: float | None,
    verdict: str,
    *,
    is_eligible: bool,
) -> Candidate:
    backend = placed.backend
    geo = geo_score(backend, client.country, client.region, pop_region)
    value = score(geo, load(backend, connections, placed.verdict.weight_factor))
    # Whatever else keeps a backend out is told by its row and its count.
    left_out = _left_out(backend, connections, app) or (None if is_eligible else verdict)
    return Candidate(
        backend=backend.id,
        app=backend.app,
        region=backend.region,
        country=backend.country,
        address=f"[{backend.host}]:{backend.port}"
        if ":" in backend.host
        else f"{backend.host}:{backend.port}",
        connections=connections,
        place=_PLACES[geo],
        score=value,
        left_out=left_out,
        is_best=left_out is None and value == best,
        verdict=verdict,
    )


def _left_out(backend: Backend, connections: int, app: str) -> str | None:
    if app not in (ANY_APP, backend.app):
        return f"serves app {backend.app!r}, not {app!r}"
    if not backend.healthy:
        return "healthy = 0 in the routing table"
    if not has_room(backend, connections):
        return f"at its hard_limit of {backend.hard_limit}"
    return None


def _refusal_at_the_door(
    connections_allowed: float | None, all_connections: CapUse | None, client_connections: CapUse | None
) -> str:
    """Why the client does not come so far that a backend is chosen, empty when it does."""
    if connections_allowed is not None and connections_allowed < 1:
        return "No backend: the client opens more connections than the rate limit allows"
    if client_connections is not None and client_connections.is_full:
        return f"No backend: the client has {client_connections.open} connections, and may have no more"
    if all_connections is not None and all_connections.is_full:
        return f"No backend: clients have {all_connections.open} connections, and may have no more"
    return ""


def _decision(candidates: list[Candidate], bound_to: str | None, queue: CapUse | None) -> str:
    by_id = {candidate.backend: candidate for candidate in candidates}
    if bound_to is not None and (bound := by_id.get(bound_to)) is not None:
        if bound.left_out is None:
            return f"{bound_to}, because the client is bound to it (affinity)"
        prefix = f"The client was bound to {bound_to}, which is left out: {bound.left_out}. "
    else:
        prefix = ""
    best = [candidate for candidate in candidates if candidate.is_best]
    if not best:
        return prefix + _without_backend(queue)
    if len(best) == 1:
        return f"{prefix}{best[0].backend}, with the lowest score of {best[0].score:g} ({best[0].place})"
    names = ", ".join(candidate.backend for candidate in best)
    return (
        f"{prefix}A draw among {names}, which share the lowest score of {best[0].score:g} ({best[0].place})"
    )


def _without_backend(queue: CapUse | None) -> str:
    """What becomes of a client; ``queue`` is given when it may wait."""
    if queue is None:
        return "No backend: the connection is reset"
    if queue.is_full:
        return f"No backend: the connection is reset, because {queue.open} wait already, and no more may"
    return f"No backend yet: the client waits in the queue, where {queue.open} of {queue.most} are"
