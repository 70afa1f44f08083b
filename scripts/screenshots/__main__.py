"""The pictures of both dashboards in docs/images: real metrics, drawn from the dashboards' definitions.

    python -m scripts.screenshots tell     # a story of 22 minutes in real time; leaves its data in .cache/screenshots
    python -m scripts.screenshots          # draws what it left

It needs Chromium and Prometheus (Debian: apt-get install chromium prometheus).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scripts.screenshots import cloudwatch, grafana
from scripts.screenshots.drawing import Span
from scripts.screenshots.story import SCRAPE_SECONDS, tell
from tests.browser.chromium import Chromium, find_chromium
from tests.harness.prometheus_server import PrometheusServer

_ROOT = Path(__file__).parents[2]
_LEFT, _IMAGES = _ROOT / ".cache/screenshots", _ROOT / "docs/images"
_MINUTES = 22


def main() -> None:
    if sys.argv[1:] == ["tell"]:
        tell(_LEFT, _MINUTES)
        return
    span = Span(**json.loads((_LEFT / "story.json").read_text()))
    output = (_LEFT / "sidecar.log").read_text()
    _photograph("cloudwatch", cloudwatch.draw(output, span), cloudwatch.WIDTH)
    with PrometheusServer(data=_LEFT / "prometheus") as prometheus:
        _photograph("grafana", grafana.draw(prometheus, span, SCRAPE_SECONDS), grafana.WIDTH)


def _photograph(name: str, page: str, width: int) -> None:
    binary = find_chromium()
    assert binary, "there is no chromium on PATH"
    file = _LEFT / f"{name}.html"
    file.write_text(page)
    with Chromium(binary) as browser:
        browser.resize(width, 400, scale=1.25)
        browser.go(file.as_uri())
        browser.screenshot(_IMAGES / f"dashboard-{name}.png")


if __name__ == "__main__":
    main()
