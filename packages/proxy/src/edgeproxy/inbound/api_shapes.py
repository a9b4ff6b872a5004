"""What travels over the API. These definitions validate requests and are the schemas of ``/openapi.json``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edgeproxy.core.controlplane.registry import DEFAULTS
from edgeproxy.core.controlplane.rows import MAX_LIMIT, MAX_PORT, MAX_WEIGHT

# An id stands in paths, where a slash or a dot by itself means something else.
BackendId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$",
        max_length=253,
        description="Name of the backend, the same each time it registers.",
        examples=["mock-eu-1"],
    ),
]
# As a listener's own app is written.
AppName = Annotated[
    str,
    Meta(pattern=r"^[!-~]+$", max_length=253, description="What it serves.", examples=["web"]),
]
Port = Annotated[int, Meta(ge=1, le=MAX_PORT, description="Its TCP port.", examples=[9001])]
Weight = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_WEIGHT,
        description="More draws more clients.",
        extra_json_schema={"default": DEFAULTS["weight"]},
    ),
]
SoftLimit = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_LIMIT,
        description="Connections it carries with ease.",
        extra_json_schema={"default": DEFAULTS["soft_limit"]},
    ),
]
HardLimit = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_LIMIT,
        description="Connections it never exceeds; 0 for no limit.",
        extra_json_schema={"default": DEFAULTS["hard_limit"]},
    ),
]


# ---- requests --------------------------------------------------------------------------------


class Registration(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A backend as it describes itself. Weight and limits left out keep the value they have in the table."""

    id: BackendId
    app: AppName
    region: Annotated[str, Meta(description="Where it stands.", examples=["eu"])]
    country: Annotated[str | None, Meta(description="Its country; that of the region without it.")] = None
    ip: Annotated[str, Meta(description="Its IP address or host name.", examples=["10.0.0.7"])]
    port: Port
    weight: Weight | UnsetType = UNSET
    soft_limit: SoftLimit | UnsetType = UNSET
    hard_limit: HardLimit | UnsetType = UNSET


class Adjustment(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an operator changes about a backend; what is left out stays as it is."""

    weight: Weight | UnsetType = UNSET
    soft_limit: SoftLimit | UnsetType = UNSET
    hard_limit: HardLimit | UnsetType = UNSET
    healthy: Annotated[bool, Meta(description="Whether it is given clients.")] | UnsetType = UNSET
    drain: (
        Annotated[bool, Meta(description="The opposite of `healthy`, of which one can be given.")] | UnsetType
    ) = UNSET


# ---- answers ---------------------------------------------------------------------------------


class Registered(msgspec.Struct):
    """The backend is in the routing table."""

    id: str
    registered: bool = True
    message: str = "Backend registered successfully"


class HeartbeatTaken(msgspec.Struct):
    """The lease is renewed."""

    id: str
    status: str = "ok"


class Deregistered(msgspec.Struct):
    """The backend is no longer in the routing table; its connections end by themselves."""

    id: str
    deregistered: bool = True


class RegisteredBackend(msgspec.Struct):
    """A backend that registered itself."""

    id: str
    app: str
    region: str
    ip: str
    port: int
    healthy: bool
    """Neither taken out by an operator nor silent for longer than the TTL."""
    last_heartbeat_secs: int
    """Whole seconds since its last heartbeat."""
    registered_secs: int
    """Whole seconds since it first registered."""


class RegisteredBackends(msgspec.Struct):
    """All backends that registered themselves."""

    backends: list[RegisteredBackend]
    total: int


class AdjustedBackend(msgspec.Struct):
    """A row of the routing table after a change."""

    id: str
    app: str
    region: str
    country: str
    ip: str
    port: int
    healthy: bool
    weight: int
    soft_limit: int
    hard_limit: int


class Health(msgspec.Struct):
    """This process answers."""

    status: str
    version: str
    registered_backends: int
    """Those that registered themselves."""
    backends: int
    """All in the routing table."""
    uptime_secs: int


class Ready(msgspec.Struct):
    """Clients are accepted."""

    status: str = "ready"


class Error(msgspec.Struct, omit_defaults=True):
    """Why a request was refused."""

    code: str
    """For programs; ``docs/api.md`` lists all."""
    error: str
    """For people."""
    field: str | None = None
    """What is at fault: a member of the body, or a query parameter."""
    id: str | None = None
    """The backend that the request was about."""
