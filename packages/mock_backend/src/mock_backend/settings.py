"""How a mock backend is started: the same settings in process, as flags, and in a container."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields
from typing import TypedDict

from mock_backend.behaviour import check_label
from mock_backend.faults import Faults
from mock_backend.instrument import State
from mock_backend.scripts import Script


class Options(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments."""

    region: str
    id: str | None
    host: str
    port: int
    tcp_echo: int | None
    udp_echo: int | None
    tls_cert: str | None
    tls_key: str | None
    tls_client_ca: str | None
    proxy_protocol: bool
    state: str
    script: str
    faults: str
    seed: int
    admin_port: int | None
    admin_host: str
    admin_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Ports: 0 takes any free one, ``None`` opens none.

    Raises:
        ValueError: a setting is wrong; names it.
    """

    region: str = "eu"
    id: str | None = None  # the word that flags, headers and the routing table use
    host: str = "127.0.0.1"
    port: int = 0
    tcp_echo: int | None = None
    udp_echo: int | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    proxy_protocol: bool = False
    state: str = State.READY.value
    script: str = ""
    faults: str = ""
    seed: int = 0
    admin_port: int | None = None
    admin_host: str = "127.0.0.1"
    admin_token: str | None = None

    def __post_init__(self) -> None:
        check_label(self.region)
        if self.id is not None:
            check_label(self.id)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("a certificate needs a key and a key a certificate: give both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("clients' certificates are asked for in TLS: give a certificate and a key, too")
        State(self.state)
        Script(self.script)
        Faults(self.faults, self.seed)
        loopback = ipaddress.ip_address(self.admin_host).is_loopback
        if self.admin_port is not None and not loopback and not self.admin_token:
            raise ValueError(
                f"whoever reaches {self.admin_host} could change the backend: give an admin token, "
                "or a loopback address"
            )
        if self.admin_token is not None:
            check_label(self.admin_token)

    def flags(self) -> list[str]:
        """Return the command line that starts the same."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            flag = f"-{field.name.replace('_', '-')}"
            if value is True:
                words.append(flag)
            elif value is not None and value is not False and value != "":
                words.append(f"{flag}={value}")
        return words
