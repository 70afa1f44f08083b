"""`python -m scripts.screenshots.page FILE`: the picture of the page that README.md shows."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.chromium import Chromium, find_chromium
from tests.browser.traffic import ADMIN_TOKEN, traffic


def main(path: str) -> None:
    binary = find_chromium()
    assert binary, "there is no chromium on PATH"
    with traffic() as (_, sidecar), Chromium(binary) as browser:
        browser.resize(1040, 800, scale=0.8)
        browser.go(f"http://{sidecar.http}/sign-in")
        browser.tab_to('it.type === "password"')
        browser.type(ADMIN_TOKEN)
        browser.load(lambda: browser.press("Enter"))
        browser.screenshot(Path(path))


if __name__ == "__main__":
    main(sys.argv[1])
