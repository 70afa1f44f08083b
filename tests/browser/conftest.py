"""The browser: where there is none these tests are skipped; with REQUIRE_CHROMIUM=1 that is a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium, find_chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    binary = find_chromium()
    if binary is None:
        what = "there is no chromium on PATH (Debian: apt-get install chromium)"
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(f"{what}; REQUIRE_CHROMIUM is set")
        pytest.skip(what)
    with Chromium(binary) as running:
        yield running
