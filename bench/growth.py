"""What grows with use: publishing with much in Redis or in the spool, against the same with nothing there.

Two pairs of a Redis and a sidecar stand side by side, and get the same load in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from redis import Redis

from bench import events, load
from bench.processes import Pair, pair
from bench.publishing import FRAME
from bench.rounds import Rounds, Scale, in_turns
from tests.harness.waiting import until

_STREAM = events.KEYS.events
_PAGE = 10_000


def entries(scale: Scale) -> Rounds:
    """Entries in the stream."""
    return _grown(scale, lambda client: _add_entries(client, scale.full), kept=scale.full)


def models(scale: Scale) -> Rounds:
    """The models of the events themselves."""
    many = events.frames(scale.stream, FRAME, models=scale.models)
    return _grown(scale, lambda _: None, frames=many)


def groups(scale: Scale) -> Rounds:
    """Consumer groups, which have read all that was there before a measurement."""
    return _grown(scale, lambda client: _create_groups(client, scale.groups))


def pending(scale: Scale) -> Rounds:
    """Entries that one consumer was given and has not acknowledged."""

    def grow(client: Redis) -> None:
        _add_entries(client, scale.pending)
        _create_groups(client, 1)
        for _ in range(scale.pending // _PAGE):
            client.xreadgroup("group-0", "slow", {_STREAM: ">"}, count=_PAGE)
        assert client.xpending(_STREAM, "group-0")["pending"] == scale.pending

    return _grown(scale, grow, kept=scale.pending)


def spooled(scale: Scale) -> Rounds:
    """Events in the spool, while Redis is away from both sidecars. Half a drain each time: it must be drained, too."""
    count = scale.drain // 2
    with pair() as none, pair() as many:

        def spool(on: Pair, frames: list[bytes], before: int) -> float:
            """The seconds that it takes; `before` were in the spool."""
            seconds = load.stream(on.sidecar.address, frames)
            on.check_spooled(before + len(frames) * FRAME)
            return seconds

        same = events.frames(count, FRAME)
        many.redis.kill()
        spool(many, events.frames(scale.spooled, FRAME), 0)

        def measure_none() -> float:
            none.empty()
            none.redis.kill()
            seconds = spool(none, same, 0)
            none.revive(count)
            return count / seconds

        def measure_many() -> float:
            waiting = many.spooled
            # The spool takes no id twice.
            return count / spool(many, events.frames(count, FRAME, first=waiting), waiting)

        yield from in_turns(scale, many, count, measure_none, measure_many)


def _grown(scale: Scale, grow: Callable[[Redis], None], *, kept: int = 0, frames: list[bytes] | None = None) -> Rounds:
    """`grow` fills one of the two servers with `kept` entries; what a measurement adds to them is removed after it.

    `frames`: what that one gets, where it is not the same.
    """
    plain = events.frames(scale.stream, FRAME)
    with pair() as none, pair() as many:
        with many.redis.client(socket_timeout=60) as client:
            grow(client)
        many.check(kept)

        def measure(on: Pair, sent: list[bytes], length: int) -> float:
            rate = scale.stream / load.stream(on.sidecar.address, sent)
            on.check(length + scale.stream)
            # Both are put back in the same way: after FLUSHALL a server is slower, since it allocates its memory again.
            _remove_newest(on, scale.stream)
            _forget_ids(on)
            return rate

        yield from in_turns(
            scale,
            many,
            scale.stream,
            lambda: measure(none, plain, 0),
            lambda: measure(many, frames or plain, kept),
        )


def _add_entries(client: Redis, count: int) -> None:
    """By a script, which is quick."""
    (entry,) = events.entries(1)
    script = """for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2)) end"""
    fields = [part for pair_ in entry.items() for part in pair_]
    for _ in range(count // _PAGE):
        client.eval(script, 1, _STREAM, _PAGE, *fields)


def _create_groups(client: Redis, count: int) -> None:
    for number in range(count):
        client.xgroup_create(_STREAM, f"group-{number}", id="0", mkstream=True)


def _remove_newest(on: Pair, count: int) -> None:
    """Those before may be pending, and stay. The groups stand at the end again, or their lag would have to be counted.

    XDEL behind a group's position leaves it without a lag.
    """
    with on.redis.client() as client:
        for _ in range(0, count, _PAGE):
            client.xdel(_STREAM, *(entry_id for entry_id, _ in client.xrevrange(_STREAM, count=min(_PAGE, count))))
        added = client.xinfo_stream(_STREAM)["entries-added"]
        for group in client.xinfo_groups(_STREAM):
            client.xgroup_setid(_STREAM, group["name"], "$", entries_read=added)


def _forget_ids(on: Pair) -> None:
    with on.redis.client() as client:
        ids = events.KEYS.seen_prefix + "*"
        for page in _pages(list(client.scan_iter(ids, count=_PAGE)), _PAGE):
            client.unlink(*page)
        # What the sidecar writes of its looks at the queue stays.
        until(lambda: not any(client.scan_iter(ids, count=_PAGE)), 10, "no id is left")
    time.sleep(0.2)  # UNLINK frees in the background


def _pages(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
