"""The page in a real browser: what it shows, how it fits, and that no name becomes more than text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from packages.testkit.tests.integration.browser import Page, open_browser
from packages.testkit.tests.unit.coverage.reports.assessments import EVIL, HOSTILE, make_assessment
from testkit.coverage.reports.history import FILE_NAME, write_history
from testkit.coverage.reports.page import write_page

DESKTOP = (1280, 900)
PHONE = (390, 844)


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A page about the second run of a repository."""
    write_history(make_assessment(tmp_path, fails=False), tmp_path / FILE_NAME)
    assessment = make_assessment(tmp_path)
    write_history(assessment, tmp_path / FILE_NAME)
    write_page(assessment, tmp_path / "index.html")
    return (tmp_path / "index.html").as_uri()


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_browser(tmp_path / "profile") as opened:
        yield opened


async def load(page: Page, address: str, size: tuple[int, int], *, dark: bool = False) -> None:
    await page.open(address, width=size[0], height=size[1], dark=dark)
    await page.wait("document.readyState == 'complete' && document.querySelector('#key span') != null")


async def test_everything_is_shown_and_nothing_is_complained_of(page: Page, address: str) -> None:
    await load(page, address, DESKTOP)
    titles = await page.value("[...document.querySelectorAll('main h2')].map(e => e.textContent).join()")
    assert titles == (
        "Verdict,Layers and kinds,Tests by layer,Evolution,Features,Gaps,Reach,Sources,Exclusions"
    )
    assert await page.value("document.querySelector('.verdict').textContent") == "1 failure"
    assert "0.00 % of features" in await page.value("document.querySelector('.facts').textContent")
    shades = await page.value("[...document.querySelectorAll('.heat td')].map(e => e.className).join()")
    assert {"shade4", "shade5", "shade6"} <= set(shades.split(","))
    assert await page.value("document.querySelectorAll('#evolution circle').length") == 6
    assert await page.value("document.querySelectorAll('#tests-by-layer rect').length") == 3
    assert page.complaints == []


async def test_names_are_text_and_never_markup(page: Page, address: str) -> None:
    await load(page, address, DESKTOP)
    # The page runs two scripts of its own and holds one with data; none of the names made another.
    assert await page.value("document.querySelectorAll('img').length") == 0
    assert await page.value("document.scripts.length") == 2
    assert await page.value("document.body.textContent.split('onerror=alert').length") > 5
    assert HOSTILE in await page.value("document.querySelector('#features').textContent")


async def test_a_file_is_shown_with_the_kinds_that_reach_each_line(page: Page, address: str) -> None:
    await load(page, address, DESKTOP)
    await page.value("document.querySelector('#gaps a[data-file$=\"part.py\"]').click()")
    await page.wait("document.getElementById('viewer').open")
    assert await page.value("document.getElementById('viewed').textContent") == "src/product/core/part.py"
    lines = await page.value(
        "[...document.querySelectorAll('#code li')].map(line => line.className + ' '"
        " + [...line.querySelectorAll('i')].map(each => each.title).join('+')).join('|')"
    )
    assert [line.strip() for line in lines.split("|")] == [
        "asked unit+e2e",
        "partial unit",
        "unit",
        "missed",
        "",
        "",
        "unit+e2e",
        "missed",
    ]
    assert await page.value("document.querySelector('#code em').textContent") == "never went on to line 4"
    await page.value("document.getElementById('close').click()")
    await page.wait("!document.getElementById('viewer').open")


async def test_a_hostile_file_can_be_looked_at_too(page: Page, address: str) -> None:
    await load(page, address, DESKTOP)
    await page.value("[...document.querySelectorAll('.files a')].at(-1).click()")
    assert await page.wait("document.getElementById('viewed').textContent") == EVIL
    assert HOSTILE in await page.value("document.getElementById('code').textContent")
    assert await page.value("document.querySelectorAll('img').length") == 0
    assert page.complaints == []


async def test_files_can_be_looked_for(page: Page, address: str) -> None:
    await load(page, address, DESKTOP)
    await page.value("document.getElementById('filter').value = 'core'")
    await page.value("document.getElementById('filter').dispatchEvent(new Event('input'))")
    shown = "[...document.querySelectorAll('.files tbody tr')].filter(each => !each.hidden).length"
    assert await page.value(shown) == 1


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_it_fits_the_screen_in_light_and_dark(page: Page, address: str, size: tuple[int, int]) -> None:
    backgrounds = set()
    for dark in (False, True):
        await load(page, address, size, dark=dark)
        assert await page.value("document.documentElement.scrollWidth") <= size[0]
        await page.value("document.querySelector('.files a').click()")
        await page.wait("document.getElementById('viewer').open")
        assert await page.value("document.getElementById('viewer').getBoundingClientRect().width") <= size[0]
        backgrounds.add(await page.value("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2
