"""modelready's fixtures for pytest, which loads this by itself. It imports nothing until a test asks for one.

fake_sidecar    a modelready.testing.FakeSidecar; MODELREADY_SIDECAR names it, so Publisher.from_env() finds it
publisher       a modelready.Publisher for it; `aio_publisher` is the asyncio twin
published       the list of the events that are in its queue
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import modelready.aio
    from modelready.testing import FakeSidecar

_VARIABLES = (
    "SIDECAR_API_TOKEN",
    *(f"MODELREADY_TLS{end}" for end in ("", "_CA_FILE", "_CERT_FILE", "_KEY_FILE", "_SERVER_NAME")),
)


@pytest.fixture
def fake_sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSidecar]:
    """A modelready.testing.FakeSidecar. MODELREADY_SIDECAR names it, so that Publisher.from_env() finds it."""
    from modelready.testing import FakeSidecar  # noqa: PLC0415 - only where it is used

    with FakeSidecar() as sidecar:
        monkeypatch.setenv("MODELREADY_SIDECAR", sidecar.address)
        for name in _VARIABLES:
            monkeypatch.delenv(name, raising=False)
        yield sidecar


@pytest.fixture
def publisher(fake_sidecar: FakeSidecar) -> Iterator[modelready.Publisher]:
    """A modelready.Publisher for `fake_sidecar`."""
    from modelready import Publisher  # noqa: PLC0415 - only where it is used

    with Publisher(fake_sidecar.address) as publisher:
        yield publisher


@pytest.fixture
def aio_publisher(fake_sidecar: FakeSidecar) -> modelready.aio.Publisher:
    """A modelready.aio.Publisher for `fake_sidecar`, and for the event loop of its first call."""
    from modelready.aio import Publisher  # noqa: PLC0415 - only where it is used

    return Publisher(fake_sidecar.address)


@pytest.fixture
def published(fake_sidecar: FakeSidecar) -> list[modelready.ModelReadyToDeploy]:
    """The events in the queue of `fake_sidecar`, each id once, in the order of arrival; it grows as they come."""
    return fake_sidecar.published
