"""For backends: register with a proxy, and stay registered for as long as a block runs.

::

    url, token = "http://127.0.0.1:8081", None
    async with Registration(url, token, id="web-1", app="web", region="eu", ip="10.0.0.7", port=80):
        await serve()

The proxy may restart, be replaced or lose its table meanwhile: the backend registers again. It deregisters
at the end of the block, so that no client is sent to it any more; connections that are open stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import quote

import aiohttp

from edgeproxy.core.controlplane.leases import TTL_HEADER
from edgeproxy.errors import EdgeproxyError

HEARTBEATS_IN_TTL: Final = 3
"""Two may be lost before the lease runs out."""

REQUEST_TIMEOUT_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0
"""Pauses between attempts double up to this."""

_UNTOLD_TTL_S: Final = 60.0
_TRY_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_SHOWN_CHARACTERS: Final = 300


class RegistrationError(EdgeproxyError):
    """The proxy refuses, and would refuse again: a wrong value, a wrong token, no such call."""


class _UnansweredError(Exception):
    """No answer, or one that says to try again later."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class Registration:
    """One backend's registration, kept from entering the block to leaving it."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        id: str,  # noqa: A002 - as the API calls it
        app: str,
        region: str,
        ip: str,
        port: int,
        country: str | None = None,
        weight: int | None = None,
        soft_limit: int | None = None,
        hard_limit: int | None = None,
        heartbeat_s: float | None = None,
        tls: ssl.SSLContext | None = None,
        on_event: Callable[[str], object] = lambda _event: None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: the API of the proxy.
            token: one of scope ``register`` for ``app``, or ``admin``; none if the proxy has no tokens.
            id: name of the backend, the same each time; the others are values of its row.
            heartbeat_s: time between heartbeats; without it, a third of the TTL that the proxy names.
            tls: what to trust at an ``https`` URL; without it, the certificates of the system.
            on_event: gets a line for people when the registration begins, is in doubt, and ends.
        """
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._id_in_path = quote(id, safe="")
        values = {
            "id": id,
            "app": app,
            "region": region,
            "country": country,
            "ip": ip,
            "port": port,
            "weight": weight,
            "soft_limit": soft_limit,
            "hard_limit": hard_limit,
        }
        self._values = {name: value for name, value in values.items() if value is not None}
        self._heartbeat_s = heartbeat_s
        self._ttl_s = _UNTOLD_TTL_S
        self._tls: ssl.SSLContext | bool = tls if tls is not None else True
        self._on_event = on_event
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Register; while the proxy does not answer, keep trying.

        Raises:
            RegistrationError: it answers with a refusal.
        """
        async with contextlib.AsyncExitStack() as stack:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
            self._session = await stack.enter_async_context(
                aiohttp.ClientSession(headers=self._headers, timeout=timeout)
            )
            await self._register_at_last()
            stack.push_async_callback(self._deregister)
            beating = asyncio.create_task(self._beat_forever())
            stack.push_async_callback(_cancelled, beating)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Deregister, if the proxy answers; if it does not, the lease runs out by itself."""
        await self._stack.aclose()

    # ---- what happens ------------------------------------------------------------------------

    async def _register_at_last(self) -> None:
        pauses = _Pauses()
        while True:
            try:
                await self._register()
            except _UnansweredError as error:
                self._on_event(f"not registered yet: {error}")
                await asyncio.sleep(pauses.next_s(error.retry_after_s))
            else:
                return

    async def _beat_forever(self) -> None:
        pauses = _Pauses()  # feature: api.sidecar
        pause_s = self._interval_s()
        while True:
            await asyncio.sleep(pause_s)
            try:
                if not await self._call("POST", f"/api/v1/heartbeat/{self._id_in_path}"):
                    await self._register()
            except _UnansweredError as error:
                self._on_event(f"no heartbeat: {error}")
                pause_s = pauses.next_s(error.retry_after_s)
            except RegistrationError as error:
                # An operator may be at it, with a new token say: the backend itself is well.
                self._on_event(f"refused: {error}")
                pause_s = pauses.next_s()
            else:
                pauses.reset()
                pause_s = self._interval_s()

    async def _register(self) -> None:
        if not await self._call("POST", "/api/v1/register", self._values):
            raise RegistrationError(f"{self._url} has no registration API")
        self._on_event("registered")

    async def _deregister(self) -> None:
        try:
            await self._call("DELETE", f"/api/v1/backends/{self._id_in_path}")
        except (_UnansweredError, RegistrationError) as error:
            self._on_event(f"not deregistered: {error}")
        else:
            self._on_event("deregistered")

    def _interval_s(self) -> float:
        """Time until the next heartbeat; backends that started together drift apart."""
        interval_s = self._heartbeat_s if self._heartbeat_s is not None else self._ttl_s / HEARTBEATS_IN_TTL
        return interval_s * random.uniform(0.9, 1.0)

    async def _call(self, method: str, path: str, values: dict[str, str | int] | None = None) -> bool:
        """Call the API; false when what the call is about does not exist.

        Raises:
            _UnansweredError: it should be tried again.
            RegistrationError: it should not.
        """
        url = f"{self._url}{path}"
        try:
            async with self._session.request(method, url, json=values, ssl=self._tls) as response:
                text = await response.text()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise RegistrationError(f"{self._url} is no URL of an API") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _UnansweredError(f"{self._url}: {str(error) or type(error).__name__}") from error
        if response.ok:
            self._learn_ttl(response.headers.get(TTL_HEADER))
            return True
        if response.status == HTTPStatus.NOT_FOUND:
            return False
        why = f"{self._url}: {response.status} {text[:_SHOWN_CHARACTERS]}"
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in _TRY_AGAIN:
            raise _UnansweredError(why, _seconds(response.headers.get("Retry-After")))
        raise RegistrationError(why)

    def _learn_ttl(self, header: str | None) -> None:
        self._ttl_s = _seconds(header) or self._ttl_s


class _Pauses:
    """Pauses between attempts: each up to twice as long as the last, drawn from its upper half."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._pause_s = FIRST_PAUSE_S

    def next_s(self, at_least_s: float = 0.0) -> float:
        pause_s = random.uniform(self._pause_s / 2, self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return max(pause_s, at_least_s)


def _seconds(header: str | None) -> float:
    """The seconds in a header, 0.0 when it is missing or holds something else."""
    try:
        seconds = float(header or 0)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
