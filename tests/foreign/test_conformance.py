"""The clients in other languages follow the same rules as Python's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from clients.python.tests.conformance import CASES, NAMES, ScriptedSidecar, check
from tests.foreign.clients import Driver


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedSidecar]:
    sidecar = ScriptedSidecar()
    sidecar.start()
    yield sidecar
    sidecar.stop()


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_case(case: Mapping[str, Any], scripted: ScriptedSidecar, driver: Driver) -> None:
    check(case, scripted, driver.publish)
