"""The pictures of the page.

python -m scripts.screenshots.page FILE               # the one that README.md shows
python -m scripts.screenshots.page --crowded FOLDER   # at 360, 768 and 1280 pixels, light and dark, to look at:
                                                      # 30 groups, long names and 2,000 dead letters
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.browser.chromium import Chromium, find_chromium
from tests.browser.traffic import ADMIN_TOKEN, crowd, traffic


def main(argv: list[str]) -> None:
    if argv[0] == "--crowded":
        _crowded(Path(argv[1]))
    else:
        with _signed_in() as (browser, _):
            _shoot(browser, 1040, Path(argv[0]), scale=0.8)


def _crowded(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with _signed_in(crowded=True) as (browser, url):
        for scheme in ("light", "dark"):
            browser.prefer(color_scheme=scheme)
            for width in (360, 768, 1280):
                for name, path in (("overview", "/"), ("dead-letters", "/dead-letters")):
                    browser.go(f"{url}{path}")
                    _shoot(browser, width, folder / f"{name}-{width}-{scheme}.png")
                browser.load(lambda: browser.evaluate("document.querySelector('table.letters a').click()"))
                _shoot(browser, width, folder / f"dead-letter-{width}-{scheme}.png")


def _shoot(browser: Chromium, width: int, path: Path, *, scale: float = 1) -> None:
    """The whole page, in a window as high as it is, so that what sticks to the window's end is at the page's."""
    browser.resize(width, 800, scale=scale)
    browser.resize(width, browser.evaluate("document.documentElement.scrollHeight"), scale=scale)
    browser.screenshot(path)


@contextmanager
def _signed_in(*, crowded: bool = False) -> Iterator[tuple[Chromium, str]]:
    binary = find_chromium()
    assert binary, "there is no chromium on PATH"
    with traffic() as (server, sidecar), Chromium(binary) as browser:
        if crowded:
            crowd(server)
        browser.go(f"http://{sidecar.http}/sign-in")
        browser.tab_to('it.type === "password"')
        browser.type(ADMIN_TOKEN)
        browser.load(lambda: browser.press("Enter"))
        yield browser, f"http://{sidecar.http}"


if __name__ == "__main__":
    main(sys.argv[1:])
