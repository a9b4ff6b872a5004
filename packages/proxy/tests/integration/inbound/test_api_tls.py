"""The API over TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.errors import ConfigError
from edgeproxy.inbound import api_tls
from packages.proxy.tests.integration.inbound.api_pop import BACKEND, Pop, served
from testkit.pki import Pki
from testkit.wait import wait_until_async


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("making a certificate needs the openssl program")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=edgeproxy", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-keyout", key, "-out", chain),
        ],
        check=True,
        capture_output=True,
    )
    return chain, key


@pytest.mark.feature("api.tls")
async def test_api_is_served_over_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    trust = ssl.create_default_context(cafile=chain)
    async with served(tmp_path, api_tls_cert=chain, api_tls_key=key) as pop:
        answer = await pop.ask("POST", "/api/v1/register", dict(BACKEND), ssl=trust)
        assert answer.status == 201
        host, port = pop.port.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in await reader.read()
        writer.close()


@pytest.mark.parametrize("spoiled", ["certificate", "key", "both", "missing"])
async def test_certificate_that_cannot_be_used_is_an_error_that_names_it(
    tmp_path: Path, certificate: tuple[Path, Path], spoiled: str
) -> None:
    chain, key = (Path(shutil.copy(path, tmp_path)) for path in certificate)
    if spoiled in ("certificate", "both"):
        chain.write_text("spoiled")
    if spoiled in ("key", "both"):
        key.write_text("spoiled")
    if spoiled == "missing":
        key.unlink()
    with pytest.raises(
        ConfigError, match=r"EDGEPROXY_API_TLS_CERT .*chain\.pem and EDGEPROXY_API_TLS_KEY .*key\.pem"
    ):
        async with served(tmp_path, api_tls_cert=chain, api_tls_key=key):
            pass


@pytest.fixture
def locked_key(tmp_path: Path, certificate: tuple[Path, Path]) -> Path:
    _, key = certificate
    locked = tmp_path / "locked.pem"
    command: list[str | Path] = [
        "openssl",
        "ec",
        "-aes256",
        "-passout",
        "pass:secret",
        "-in",
        key,
        "-out",
        locked,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return locked


async def test_key_with_a_pass_phrase_is_refused_and_asks_nobody(
    tmp_path: Path, certificate: tuple[Path, Path], locked_key: Path
) -> None:
    with pytest.raises(ConfigError, match="the key without a pass phrase"):
        async with served(tmp_path, api_tls_cert=certificate[0], api_tls_key=locked_key):
            pass


# ---- renewal ---------------------------------------------------------------------------------------


async def shown(pop: Pop) -> bytes:
    """The certificate that a new client sees."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = pop.port.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return der


async def test_renewed_certificate_is_shown_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_tls, "INTERVAL_S", 0.01)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    Pki().issue(chain, key, "127.0.0.1")
    async with served(tmp_path, api_tls_cert=chain, api_tls_key=key) as pop:
        first = await shown(pop)
        key.write_text("half written")
        kept = "keeping the certificate of the API"
        await wait_until_async(lambda: kept in pop.log.events(), reason="the key to be refused")
        chain.unlink()
        await wait_until_async(lambda: pop.log.events().count(kept) >= 2, reason="it to be missed")
        assert await shown(pop) == first
        Pki().issue(chain, tmp_path / "other-key.pem", "127.0.0.1")
        Pki().issue(tmp_path / "other-chain.pem", key, "127.0.0.1")
        await wait_until_async(lambda: pop.log.events().count(kept) >= 3, reason="the pair to be refused")
        assert await shown(pop) == first
        Pki().issue(chain, key, "127.0.0.1")
        replaced = "certificate of the API replaced"
        await wait_until_async(lambda: replaced in pop.log.events(), reason="the new certificate")
        assert await shown(pop) != first


async def test_certificate_under_other_names_comes_with_the_settings(tmp_path: Path) -> None:
    chain, key, other_chain, other_key = (tmp_path / f"{name}.pem" for name in ("c", "k", "oc", "ok"))
    Pki().issue(chain, key, "127.0.0.1")
    Pki().issue(other_chain, other_key, "127.0.0.1")
    async with served(tmp_path, api_tls_cert=chain, api_tls_key=key) as pop:
        first = await shown(pop)
        other = replace(pop.config, api_tls_cert=other_chain, api_tls_key=other_key)
        pop.server.check_settings(other)
        with pytest.raises(ConfigError, match="cannot be used"):
            pop.server.check_settings(replace(other, api_tls_key=key))
        assert await shown(pop) == first
        pop.server.change_settings(other)
        assert await shown(pop) != first
