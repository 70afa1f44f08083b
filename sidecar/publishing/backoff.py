"""How long to wait before the next attempt."""

from __future__ import annotations

import random


class Backoff:
    """Exponential with full jitter: uniform between 0 and a ceiling that doubles from `base` to `most`, in seconds.

    Full jitter spreads many sidecars that lost the same Redis:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, base: float, most: float, rng: random.Random | None = None) -> None:
        self._base = base
        self._most = most
        self._random = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._failures = 0

    def next(self) -> float:
        """Count a failure and return the seconds to wait."""
        ceiling = min(self._most, self._base * 2 ** min(self._failures, 30))
        self._failures += 1
        return self._random.uniform(0, ceiling)

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self._failures = 0
