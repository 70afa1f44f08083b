"""Under gevent, of which only what is asked stands here: whether it has patched the threads."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from clients.python.tests.fake_sidecar import FakeSidecar
from modelready import EventFields, Outcome, Publisher, _channel, model_ready

FRAUD = EventFields(name="fraud", version="7", uri="s3://models/fraud/7/")


@pytest.fixture(params=[(), ("socket",), ("socket", "threading")], ids=lambda patched: "+".join(patched) or "unpatched")
def patched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkey = ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda name: name in request.param  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    return tuple(request.param)


def test_many_would_hang_without_init_gevent_and_say_so(sidecar: FakeSidecar, patched: tuple[str, ...]) -> None:
    with Publisher(sidecar.address) as publisher:
        assert publisher.publish(**FRAUD).outcome is Outcome.STORED
        if "threading" in patched:
            with pytest.raises(RuntimeError, match=r"init_gevent\(\)"):
                publisher.publish_many([model_ready(**FRAUD)])
        else:
            assert len(list(publisher.publish_many([model_ready(**FRAUD)]))) == 1


def test_with_init_gevent_it_goes(
    sidecar: FakeSidecar, patched: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channel, "cygrpc", SimpleNamespace(g_gevent_activated=True))
    with Publisher(sidecar.address) as publisher:
        assert len(list(publisher.publish_many([model_ready(**FRAUD)]))) == 1


def test_grpc_still_says_whether_it_knows() -> None:
    assert cygrpc.g_gevent_activated is False
