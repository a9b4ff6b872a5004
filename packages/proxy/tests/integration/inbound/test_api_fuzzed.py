"""What schemathesis makes of the API: generated requests, right and wrong, against the served thing.

It knows the API from ``/openapi.json`` alone, and judges each answer by that document. ``--full`` tries 200
requests of each kind for every call, three times; without it a few are tried.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from edgeproxy.core.controlplane.tokens import Scope
from packages.proxy.tests.integration.inbound.api_pop import served

SEEDS = (1, 2, 3)


@pytest.mark.feature("api.described")
@pytest.mark.timeout(600)
async def test_schemathesis_finds_nothing(full: bool, tmp_path: Path, unmeasured: None) -> None:
    # Host names that it thinks of are looked up nowhere: this POP resolves none.
    async with served(
        tmp_path, api_rate_limit_per_sec=1_000_000, api_rate_limit_burst=1_000_000, heartbeat_ttl_secs=3600
    ) as pop:
        token = pop.make_token(Scope.ADMIN)
        for seed in SEEDS if full else SEEDS[:1]:
            fuzzer = await asyncio.create_subprocess_exec(
                *(Path(sys.executable).with_name("schemathesis"), "--no-color", "run"),
                f"{pop.url}/openapi.json",
                *("--header", f"Authorization: Bearer {token}", "--checks", "all", "--continue-on-failure"),
                *("--phases", "examples,coverage,fuzzing,stateful"),
                *("--max-examples", "200" if full else "5", "--seed", str(seed)),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await fuzzer.communicate()
            assert fuzzer.returncode == 0, output.decode()
            assert b"No issues found" in output
        assert "an API request failed" not in pop.log.events()
