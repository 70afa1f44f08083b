"""The names of the keys, as other programs and the rights in Redis have them."""

from __future__ import annotations

import pytest

from modelready.keys import Keys

KEYS = Keys("model-ready")


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (KEYS.tag, "{model-ready}"),
        (KEYS.events, "{model-ready}:events"),
        (KEYS.dead_letters, "{model-ready}:dead-letters"),
        (KEYS.seen("an-id"), "{model-ready}:seen:an-id"),
        (KEYS.seen_dead("an-id"), "{model-ready}:seen:dead an-id"),
        (KEYS.done("deployer", "an-id"), "{model-ready}:done:deployer:an-id"),
        (KEYS.done("deployer", "an:id"), "{model-ready}:done:deployer/an%3Aid"),
        (KEYS.done("a:team", "an/id"), "{model-ready}:done:a%3Ateam/an%2Fid"),
        (KEYS.done_before("a:team", "an:id"), "{model-ready}:done:a:team:an:id"),
    ],
)
def test_it_is_called(made: str, name: str) -> None:
    assert made == name
