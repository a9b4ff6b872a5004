"""What every test of the repository shares: how hypothesis draws, and what is run in full only when asked."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings

from testkit.process import UNMEASURED

# A slow machine is no failure, and what fails prints the blob that reproduces it.
settings.register_profile("edgeproxy", deadline=None, print_blob=True)
# Whether a planted defect is noticed must not depend on luck; how small an example can be made is not asked.
settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("edgeproxy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run in full what is run small otherwise: the stories about load (200,000 requests, 30 s of new "
        "connections, 1 GiB), schemathesis (200 requests of each kind for every call, three seeds)",
    )


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether tests that have a small and a full version are to run in full."""
    return bool(request.config.getoption("full"))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of the processes that the test starts, for it would slow them down."""
    for name in UNMEASURED:
        monkeypatch.delenv(name, raising=False)
