"""What the consumer of a mirror list asks of Redis, against links that answer what the test says. Without a server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from redis import exceptions

from modelready._consumer import list_reader
from modelready._consumer.list_message import ListMessage, read_message
from modelready._consumer.list_reader import ListReader, _digest
from modelready.redis.cluster import server_from_env
from modelready.redis.lists import MirrorList

MIRROR = MirrorList("l", "envelope", None, "l:processing", "l:dlq")
AWAY = exceptions.ConnectionError("away")
PAYLOAD = json.dumps({"model_name": "m", "model_version": "1"}).encode()
ENVELOPE = json.dumps({"message_id": "1", "payload": json.loads(PAYLOAD)}, separators=(",", ":")).encode()


class FakeLink:
    """It gives one reply after the other, and the last one again and again; an exception is raised."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Any, ...]] = []
        self.closed = 0
        self.ever_connected = True

    def _reply(self) -> Any:
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def one(self, *command: Any, timeout: float | None = None) -> Any:
        self.asked.append((*command, timeout))
        return self._reply()

    async def script(self, script: Any, keys: Any, *arguments: Any) -> Any:
        self.asked.append((tuple(keys), *arguments))
        return self._reply()

    async def close(self) -> None:
        self.closed += 1


def reading(link: FakeLink, lease_link: FakeLink | None = None, **options: Any) -> Any:
    """A reader with these links; its token is "me"."""
    reader: Any = ListReader(server_from_env({"REDIS_HOST": "localhost"}, "l"), MIRROR, **options)
    reader._link, reader._lease_link, reader._token = link, lease_link or FakeLink(1), "me"
    return reader


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have slept, each time; so much time goes by, but for the pauses of a long lease."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    began = time.monotonic()
    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr(
        list_reader, "time", SimpleNamespace(monotonic=lambda: began + sum(s for s in pauses if s < 50))
    )
    monkeypatch.setattr(list_reader, "backoff", lambda attempt: 10.0 + attempt)
    return pauses


def keys(raw: bytes, *more: str) -> tuple[str, ...]:
    return ("l:processing", f"l:lease:{_digest(raw)}", *more)


def run(step: Coroutine[Any, Any, Any], reader: Any = None) -> Any:
    async def whole() -> Any:
        found = await step
        if reader is not None:
            await reader._let_go()
        return found

    return asyncio.run(whole())


# -- to take


@pytest.mark.parametrize("wrong", [{"block_seconds": 0}, {"lease_seconds": 0}, {"lease_seconds": -1}])
def test_times_are_above_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="block_seconds and lease_seconds must be above 0"):
        reading(FakeLink(1), **wrong)
    reading(FakeLink(1), block_seconds=0.5, lease_seconds=0.5)


def test_it_waits_two_seconds_for_a_message_and_five_more_for_redis() -> None:
    link = FakeLink(PAYLOAD)
    assert run(reading(link)._take()) == PAYLOAD
    assert link.asked == [("BLMOVE", "l", "l:processing", "RIGHT", "LEFT", 2.0, 7.0)]


def test_a_message_is_held_for_half_a_minute_by_default() -> None:
    link = FakeLink(1)
    reader = reading(link)
    message = run(reader._opened(PAYLOAD), reader)
    assert message.raw == PAYLOAD
    assert link.asked == [(keys(PAYLOAD), PAYLOAD, "me", 30_000)]


def test_one_that_another_holds_is_not_handled_and_one_that_is_none_is_a_dead_letter() -> None:
    assert run(reading(FakeLink(0))._opened(PAYLOAD)) is None
    link = FakeLink(1)
    assert run(reading(link)._opened(b"{")) is None
    assert link.asked == [(keys(b"{", "l:dlq"), b"{", "me", "LPUSH", b"{")]


def test_next_recovers_then_takes_until_it_has_one_or_is_stopped() -> None:
    link = FakeLink([], None, [], b"{", 1, [], PAYLOAD, 1)
    reader = reading(link, recover_seconds=0)
    assert run(reader.next(), reader).raw == PAYLOAD
    assert [command[0] for command in link.asked if isinstance(command[0], str)] == ["LRANGE", "BLMOVE"] * 3
    reader.stop()
    assert run(reader.next()) is None


# -- to hold


def test_its_lease_is_extended_every_third_of_it_and_what_goes_wrong_is_logged(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    link = FakeLink(1, AWAY, 1, 0)
    reader = reading(FakeLink(1), link, lease_seconds=3.0)

    async def keep() -> None:
        reader._keeping = asyncio.current_task()
        await reader._keep(read_message(PAYLOAD))

    run(keep())
    assert slept == [1.0] * 4
    assert link.asked == [(keys(PAYLOAD), PAYLOAD, "me", 3000)] * 4
    assert caplog.messages == [
        "the lease of message m/1 could not be extended: away",
        "the lease of message m/1 ran out, and another consumer has it",
    ]


def test_what_is_done_is_let_go_and_taken_out(caplog: pytest.LogCaptureFixture) -> None:
    link, lease_link = FakeLink(1, 1, 0, 1), FakeLink(1)
    reader = reading(link, lease_link)

    async def work() -> None:
        message = await reader._opened(PAYLOAD)
        keeping = reader._keeping
        await reader.done(message)
        assert keeping.done()
        assert reader._keeping is None
        assert lease_link.closed == 1
        await reader.done(message)
        assert lease_link.closed == 1  # it held nothing
        await reader._held(message)
        await reader.close()

    run(work())
    assert link.asked[1:3] == [(keys(PAYLOAD), PAYLOAD, "me", "", b"")] * 2
    assert (link.closed, lease_link.closed, reader._keeping) == (1, 2, None)
    assert caplog.messages == ["a message of l was no longer in flight: another consumer may handle it again"]


@pytest.mark.parametrize("raw", [PAYLOAD, ENVELOPE])
def test_what_failed_is_tried_again_and_an_envelope_says_how_often(raw: bytes) -> None:
    link = FakeLink(1)
    reader = reading(link)

    async def fail() -> None:
        await reader.failed(await reader._opened(raw), LookupError())

    run(fail())
    again: ListMessage = reader._again
    assert (again.retry_count, reader._keeping) == (1, None)
    assert link.asked[1:] == (
        [(keys(ENVELOPE, "l:processing"), ENVELOPE, "me", "LPUSH", again.raw)] if raw == ENVELOPE else []
    )


def test_the_last_failure_makes_a_dead_letter(caplog: pytest.LogCaptureFixture) -> None:
    link = FakeLink(1)
    reader = reading(link)
    message = read_message(PAYLOAD, 3).failed().failed()
    run(reader.failed(message, LookupError()))
    assert reader._again is None
    assert link.asked == [(keys(PAYLOAD, "l:dlq"), PAYLOAD, "me", "LPUSH", PAYLOAD)]
    assert caplog.messages[1] == "message m/1 goes to the dead letters after 3 tries"


@pytest.mark.parametrize(("failures", "pause"), [(1, 1.0), (3, 4.0)])
def test_before_the_next_try_it_rests_twice_as_long_each_time(slept: list[float], failures: int, pause: float) -> None:
    link = FakeLink(1)
    reader = reading(link, lease_seconds=300)
    reader._again = read_message(PAYLOAD)
    for _ in range(failures):
        reader._again = reader._again.failed()
    assert run(reader.next(), reader).retry_count == failures
    rests = [seconds for seconds in slept if seconds < 50]
    assert sum(rests) == pytest.approx(pause)
    assert max(rests) <= 0.1


def test_one_that_rests_when_it_is_stopped_goes_back_as_the_next(slept: list[float]) -> None:
    link = FakeLink(1)
    reader = reading(link)
    reader.stop()
    assert run(reader._rested(read_message(PAYLOAD).failed())) is False
    assert link.asked[1:] == [(keys(PAYLOAD, "l"), PAYLOAD, "me", "RPUSH", PAYLOAD)]
    assert reader._keeping is None
    assert run(reading(FakeLink(0))._rested(read_message(PAYLOAD).failed())) is False


# -- to recover


def test_what_has_no_lease_for_a_minute_is_put_back_and_looked_for_every_quarter_of_it(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    there = [b"a", b"b", b"c"]
    link = FakeLink(there, [None, b"token", None], there, [None, None, None], 1, 0)
    reader = reading(link)
    run(reader._recover())
    looks = [
        ("LRANGE", "l:processing", -1000, -1, None),
        ("MGET", *(f"l:lease:{_digest(raw)}" for raw in there), None),
    ]
    assert link.asked == looks
    slept.append(14.9)
    run(reader._recover())
    assert link.asked == looks
    slept.append(45.1)
    run(reader._recover())
    assert link.asked[2:] == [*looks, *((keys(raw, "l"), raw, "", "RPUSH", raw) for raw in (b"a", b"c"))]
    assert caplog.messages == ["a message that a dead consumer left is back in l"]  # another one had put back c


def test_nothing_is_recovered_where_nothing_is_in_flight_or_nobody_wants_it() -> None:
    link = FakeLink([])
    run(reading(link)._recover())
    assert [command[0] for command in link.asked] == ["LRANGE"]
    link = FakeLink([])
    run(reading(link, recover_seconds=None)._recover())
    assert link.asked == []


# -- faults


def test_a_command_is_repeated_until_redis_answers_and_the_outage_is_logged_once(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    link = FakeLink(AWAY, AWAY, AWAY, PAYLOAD)
    reader = reading(link)
    assert run(reader._patiently(reader._take)) == PAYLOAD
    assert slept == [10.0, 11.0, 12.0]
    assert link.closed == 3  # the owner may be another node
    assert caplog.messages == ["waiting for Redis: away"]


@pytest.mark.parametrize("error", [AWAY, exceptions.ResponseError("WRONGTYPE")])
def test_a_stop_ends_the_wait_and_what_no_waiting_helps_against_is_raised(slept: list[float], error: Exception) -> None:
    reader = reading(FakeLink(error))
    reader.stop()
    if error is AWAY:
        assert run(reader._patiently(reader._take)) is None
    else:
        with pytest.raises(exceptions.ResponseError):
            run(reader._patiently(reader._take))
    assert slept == []
