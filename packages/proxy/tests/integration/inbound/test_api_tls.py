"""The API over TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from edgeproxy.errors import ConfigError
from packages.proxy.tests.integration.inbound.api_pop import BACKEND, served


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
