"""What every test of the repository shares: how hypothesis draws."""

from __future__ import annotations

from hypothesis import settings

# A slow machine is no failure, and what fails prints the blob that reproduces it.
settings.register_profile("edgeproxy", deadline=None, print_blob=True)
settings.load_profile("edgeproxy")
