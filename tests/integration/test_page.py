"""The page in a real browser, as wide as a phone and as wide as a desk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
from browser import Browser, colors

from xcat_avs.page.charts import COLORS

PROGRAM = shutil.which("chromium")
PHONE, DESK = 390, 1280  # pixels
CHARTS = ("directories", "packages", "history")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROGRAM is None, reason="the page is looked at in no browser: the Debian package chromium is not installed"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(str(PROGRAM), tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("plotly")
    name = (
        "<img src=https://example.com/x onerror=\"document.title='hostile'\"></script><script>document.title='hostile'</script>"
        + "w" * 120
    )
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(pages.html(name, 60), encoding="utf-8")
    return path


def keep(browser: Browser, name: str) -> None:
    """With AVS_PICTURES=DIR, write what is seen there."""
    if "AVS_PICTURES" in os.environ:
        Path(os.environ["AVS_PICTURES"], f"{name}.png").write_bytes(browser.picture())


def wide(browser: Browser) -> int:
    """How wide a page is, in pixels."""
    return int(browser.value("document.documentElement.scrollWidth"))


@pytest.mark.parametrize(("width", "dark"), [(PHONE, False), (DESK, True)], ids=["phone", "desk"])
def test_a_page_is_whole(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.said.clear()
    browser.asked.clear()
    browser.open(page, width, dark=dark)
    browser.value("document.querySelectorAll('details').forEach(item => item.open = true)")
    keep(browser, f"page-{width}")
    assert browser.said == [], "no errors, and no warnings"
    assert browser.asked == [page.as_uri()], "it asks nobody for anything"
    assert browser.value("document.title").startswith("debian12-x86_64-netboot-<img")
    assert wide(browser) <= width
    # The landmarks are where they are looked for, each as wide as the text, one below the other, and drawn.
    tops = [
        browser.value(f"document.getElementById('{name}').getBoundingClientRect().top + scrollY") for name in CHARTS
    ]
    assert tops == sorted(tops)
    for name in CHARTS:
        assert browser.value(f"document.querySelectorAll('#{name} .main-svg').length") > 0
        share = browser.value(
            f"document.getElementById('{name}').clientWidth / document.querySelector('section').clientWidth"
        )
        assert share > 0.98
    seen = colors(browser.picture("#directories", 0.25))
    fields = [tuple(bytes.fromhex(color[1:])) for color in COLORS]
    assert sum(seen[field] for field in fields) > 0.3 * sum(seen.values()), "much of a treemap is fields"
    assert sum(seen[field] > 20 for field in fields) >= 5
    assert len(colors(browser.picture("#history", 0.25))) > 8
    (back, _), *_ = colors(browser.picture("header", 0.25)).most_common(1)
    assert max(back) < 64 if dark else min(back) > 192


def test_a_page_is_read_without_scripts(browser: Browser, page: Path) -> None:
    browser.said.clear()
    browser.open(page, PHONE, scripts=False)
    assert browser.value("getComputedStyle(document.getElementById('directories')).display") == "none"
    assert "The charts need JavaScript; the tables say the same." in browser.value("document.body.innerText")
    assert browser.value("document.querySelectorAll('table').length") >= 8
    assert wide(browser) <= PHONE
    assert browser.said == []
