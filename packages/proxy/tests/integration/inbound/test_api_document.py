"""``/openapi.json``: valid, and true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packages.proxy.tests.integration.inbound.api_pop import served


@pytest.mark.feature("api.described")
async def test_document_is_valid_openapi_3_1(tmp_path: Path) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator

    async with served(tmp_path) as pop:
        document = (await pop.ask("GET", "/openapi.json")).body
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


async def test_document_knows_regions_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text('[regions.af]\ncountries = ["ZA"]\ndefault_country = "ZA"\n')
    async with served(tmp_path, config=file) as pop:
        text = json.dumps((await pop.ask("GET", "/openapi.json")).body)
        assert '"enum": ["af", "ap", "eu", "sa", "us"]' in text
        assert (await pop.register(region="af")).status == 201
