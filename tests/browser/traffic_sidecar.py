"""`python -m tests.browser.traffic_sidecar`: `serve`, with an hour behind it that it never had."""

from __future__ import annotations

import asyncio
import math
import random
import time

from sidecar import app
from sidecar.cli.main import main
from sidecar.web.history import HOUR_SECONDS, PERIOD_SECONDS, History, Sample


class LivelyHistory(History):
    """Steady load; twenty minutes ago Redis was away for four, and what was spooled then came after."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)  # type: ignore[arg-type]
        chance, now = random.Random(7), time.time()
        depth, spooled = 40.0, 0.0
        for step in range(int(HOUR_SECONDS / PERIOD_SECONDS) - 1, 0, -1):
            minutes = step * PERIOD_SECONDS / 60
            rate = 6 + 3 * math.sin(minutes / 7) + chance.random() * 1.5
            away = 20 < minutes <= 24
            spooled = spooled + rate * PERIOD_SECONDS if away else max(spooled - 700, 0)
            depth = max(depth + chance.uniform(-22, 22) + (260 if 19.5 < minutes <= 20 else 0) - depth * 0.05, 4)
            known = None if away else round(depth)
            self.add(Sample(now - step * PERIOD_SECONDS, known, round(rate, 2), round(spooled)))

    async def run(self) -> None:
        """Add nothing."""
        await asyncio.Event().wait()


if __name__ == "__main__":
    vars(app)["History"] = LivelyHistory
    raise SystemExit(main(["serve"]))
