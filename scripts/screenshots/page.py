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
            browser.screenshot(Path(argv[0]))


def _crowded(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with _signed_in(crowded=True) as (browser, url):
        for scheme in ("light", "dark"):
            browser.prefer(color_scheme=scheme)
            for width in (360, 768, 1280):
                browser.resize(width, 800)
                for name, path in (("overview", "/"), ("dead-letters", "/dead-letters")):
                    browser.go(f"{url}{path}")
                    browser.screenshot(folder / f"{name}-{width}-{scheme}.png")
                browser.load(lambda: browser.evaluate("document.querySelector('table.letters a').click()"))
                browser.screenshot(folder / f"dead-letter-{width}-{scheme}.png")


@contextmanager
def _signed_in(*, crowded: bool = False) -> Iterator[tuple[Chromium, str]]:
    binary = find_chromium()
    assert binary, "there is no chromium on PATH"
    with traffic() as (server, sidecar), Chromium(binary) as browser:
        if crowded:
            crowd(server)
        browser.resize(1040, 800, scale=0.8)
        browser.go(f"http://{sidecar.http}/sign-in")
        browser.tab_to('it.type === "password"')
        browser.type(ADMIN_TOKEN)
        browser.load(lambda: browser.press("Enter"))
        browser.resize(1040, 800, scale=0.8)
        yield browser, f"http://{sidecar.http}"


if __name__ == "__main__":
    main(sys.argv[1:])
