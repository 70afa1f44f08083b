"""The lines of docs/redis-acl.md: what a test grants is what the document says."""

from __future__ import annotations

import re
from pathlib import Path

_DOCUMENT = Path(__file__).parents[2] / "docs" / "redis-acl.md"
RIGHTS, MIRROR, CLUSTER, CONSUMER, *_ = re.findall(r"^    (.+)$", _DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
"""Of the sidecar, what a mirror list adds, what a cluster adds; and of a consumer."""
