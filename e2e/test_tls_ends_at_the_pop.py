"""Clients of TLS are shown the certificate of the name that they ask for, also after it was renewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.clients import Client, Connection
from e2e.pop import Pop, Proxy
from testkit.pki import Pki
from testkit.wait import wait_until

_NAMES = ("shop.example.com", "blog.example.com")


class Names:
    """The certificates of a POP."""

    def __init__(self, pop: Pop, pki: Pki, scratch: Path) -> None:
        self._pop = pop
        self._scratch = scratch
        self.pki = pki

    def renew(self, name: str) -> None:
        """Give the POP a new certificate for a name, the key first, as careful programs do."""
        certificate, key = self._scratch / "issued.crt", self._scratch / "issued.key"
        self.pki.issue(certificate, key, name)
        self._pop.write(f"certificates/{name}.key", key.read_bytes())
        self._pop.write(f"certificates/{name}.crt", certificate.read_bytes())


@pytest.fixture
def names(pop: Pop, tmp_path: Path) -> Names:
    return Names(pop, Pki(), tmp_path)


def _ask(client: Client, proxy: Proxy, port: int, names: Names, name: str) -> tuple[str, str]:
    """Ask over TLS for a name; return who answered, and the serial number of the certificate shown."""
    plain = client.socket(proxy, port)
    with names.pki.client().wrap_socket(plain, server_hostname=name) as secure:
        certificate = secure.getpeercert()
        assert certificate is not None
        return Connection.over(secure).ask(), str(certificate["serialNumber"])


@pytest.mark.feature("tls.terminated", "tls.certificates")
@pytest.mark.planted("certificates are kept")
def test_each_name_has_its_certificate_and_a_new_one_is_shown_without_a_restart(
    pop: Pop, names: Names
) -> None:
    for name in _NAMES:
        names.renew(name)
    address, port = pop.listen()
    pop.configure(tls_enabled="true", tls_listen_addr=address, tls_cert_dir=pop.folder_of("certificates"))
    pop.start_backends({"mock-sa-1": "BR", "mock-eu-1": "DE"})
    proxy = pop.start_proxy()

    # The client trusts one authority and checks the name, so a wrong certificate ends the handshake.
    at_first = {name: _ask(pop.client("BR"), proxy, port, names, name) for name in _NAMES}
    assert [backend for backend, _ in at_first.values()] == ["mock-sa-1"] * 2
    serials = {name: serial for name, (_, serial) in at_first.items()}
    assert len(set(serials.values())) == 2

    pop.step("one of the certificates is renewed")
    shop, blog = _NAMES
    names.renew(shop)
    wait_until(
        lambda: _ask(pop.client("BR"), proxy, port, names, shop)[1] != serials[shop],
        reason="the new certificate to be shown",
        timeout_s=20,
        interval_s=0.1,
    )
    assert _ask(pop.client("BR"), proxy, port, names, blog) == ("mock-sa-1", serials[blog])
