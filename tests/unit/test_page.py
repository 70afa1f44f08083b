"""What the page says in states that are rare, and what its parts promise."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import Unavailable
from sidecar.metrics import Metrics
from sidecar.operations.dead_letters import DeadLetters, Filter, Outcome, Page
from sidecar.publishing.interfaces import DeadLetterCounts, Observed, QueueState, StoredDeadLetter
from sidecar.settings import ServerSettings
from sidecar.web.auth import Sessions
from sidecar.web.console import PageSite
from sidecar.web.gone import Backstage, Busy
from sidecar.web.history import PERIOD_SECONDS, History, Sample
from sidecar.web.http import Page as Answer
from sidecar.web.http import Request
from sidecar.web.markup import Markup, html
from sidecar.web.overview import overview
from sidecar.web.plots import number, plot
from sidecar.web.times import ago, duration, exact
from tests.fakes.memory_spool import MemorySpool
from tests.harness.waiting import until

NOW = 1_800_000_000.0
GUARDED = ServerSettings(admin_token="admin")


def status(
    *, up: bool = True, accepting: bool = True, spooling: bool = False, **fields: Any
) -> pb.GetQueueStatusResponse:
    promise = pb.PromiseStatus(summary="refused: the disk is full", accepting=accepting, spooling=spooling)
    return pb.GetQueueStatusResponse(redis_up=up, redis_error="" if up else "no route", promise=promise, **fields)


def spooled(events: int, seconds: float) -> pb.SpoolStatus:
    spool = pb.SpoolStatus(depth=events, bytes=events, max_bytes=100)
    spool.oldest_at.FromMilliseconds(int((time.time() - seconds) * 1000))
    return spool


@pytest.mark.parametrize(
    ("told", "level", "words"),
    [
        (status(), "ok", "Redis answers"),
        (
            status(up=False, spool=spooled(12, 34)),
            "warning",
            "Redis is away (no route); 12 events in the spool, the oldest for ",
        ),
        (status(accepting=False), "failure", "events are refused: the disk is full"),
        (status(redis=pb.RedisStatus(eviction_policy="allkeys-lru")), "failure", "Redis deletes whole queues"),
        (status(trim=pb.TrimStatus(held_back_by="a&b")), "warning", "the group a&amp;b holds back entries"),
    ],
)
def test_the_state_is_one_line(told: pb.GetQueueStatusResponse, level: str, words: str) -> None:
    shown = re.search(r'<div id="state" class="state (\w+)"><p>(.*)</p></div>', overview(told, [], whole=True))
    assert shown
    assert shown[1] == level
    assert shown[2].startswith(f"{level}: {words}")


def test_a_stranger_is_not_told_about_the_server() -> None:
    redis = pb.RedisStatus(engine="valkey", version="9.1", eviction_policy="allkeys-lru")
    redis.latency.FromMilliseconds(1)
    for whole in (True, False):
        text = overview(status(redis=redis), [], whole=whole)
        assert ("valkey 9.1" in text) == ("allkeys-lru" in text) == whole


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    text = overview(status(up=False), [Sample(time.time(), None, None, 4)], whole=True)
    assert "Not known while Redis does not answer" in text
    assert len(re.findall(r"<dd>not known", text)) == 3
    assert "No consumer group" not in text
    assert "No consumer group" in overview(status(), [], whole=True)


def test_the_mirror_list_is_shown_to_who_may_read() -> None:
    first = pb.ListStatus(name="deployments", depth=17, processing=2, dead_letters=1)
    second = pb.ListStatus(name="audit", depth=31)
    shown = overview(status(list=first, lists=[first, second]), [], whole=True)
    assert re.search(r"Mirror list deployments</dt><dd>17<small>2 in flight, 1 given up", shown)
    assert re.search(r"Mirror list audit</dt><dd>31<small>0 in flight, 0 given up", shown)
    assert "Mirror list deployments" in overview(status(list=first), [], whole=True), "of an older sidecar"
    hidden = overview(status(list=first, lists=[first, second]), [], whole=False).partition("Consumer groups")[0]
    assert "in flight" not in hidden
    assert "<dt>Depth</dt><dd>31" in hidden, "the longest list's, as the plot says"


def test_what_is_put_into_a_template_is_escaped_unless_it_is_markup() -> None:
    assert html('<a title="{x}">{y}{z}</a>', x="\"'<", y="<b>", z=Markup("<i>")) == (
        '<a title="&quot;&#x27;&lt;">&lt;b&gt;<i></a>'
    )
    assert html("{x:>3}{x}", x=7) == "  77"


# -- plots


def points(*values: float | None) -> list[tuple[float, float | None]]:
    return [(NOW - PERIOD_SECONDS * (len(values) - 1 - at), value) for at, value in enumerate(values)]


def test_a_plot_has_a_gap_where_nothing_is_known() -> None:
    drawn = plot("depth", "Depth", "events", points(1, 2, None, 3, 4, None, 5), NOW)
    assert drawn.count('class="curve"') == 2
    assert drawn.count("<circle") == 1
    pause = [(NOW - 600, 1.0), (NOW - 585, 1.0), (NOW - 15, 1.0), (NOW, 1.0)]
    assert plot("depth", "Depth", "events", pause, NOW).count('class="curve"') == 2


def test_a_plot_says_what_it_shows() -> None:
    drawn = plot("depth", "Depth", "events", points(3, 1200, 40), NOW)
    assert "least 3, most 1,200, last 40 events" in drawn
    assert '<p class="now">40 <span>events</span>' in drawn
    assert re.findall(r'text-anchor="end">([^<]+)</text>', drawn)[:3] == ["0", "1 k", "2 k"]
    assert "not known" in plot("depth", "Depth", "events", points(3, None), NOW)
    assert "Nothing is known" in plot("depth", "Depth", "events", [], NOW)


@pytest.mark.parametrize("top", [0.0, 0.03, 1, 4, 5, 9.9, 10, 99, 101, 1e6, 7e12])
def test_a_plot_s_line_stays_within_its_axes(top: float) -> None:
    drawn = plot("depth", "Depth", "events", points(0, top), NOW, least=0.4)
    heights = [float(y) for y in re.findall(r"[ML] ?[\d.]+ ([\d.]+)", drawn)]
    assert min(heights) >= 10
    assert max(heights) <= 108
    if top >= 0.4:
        assert min(heights) < 70  # and fills more than a third of them


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0667, "0.067"), (1.25, "1.2"), (12, "12"), (99.96, "100.0"), (12345.6, "12,346")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_times() -> None:
    said = [duration(seconds) for seconds in (0, 34.4, 119, 120, 7199, 7200, 172_799, 172_800)]
    assert said == ["0 s", "34 s", "119 s", "2 min", "120 min", "2 h", "48 h", "2 days"]
    assert exact(1_700_000_000_000) == "2023-11-14T22:13:20Z"
    assert ago(None) == ago(1 << 63) == "-"
    assert exact(1 << 63)


# -- the history


class Inspector:
    def __init__(self) -> None:
        self.answer: int | None = 5

    async def observe(self) -> Observed:
        if self.answer is None:
            raise Unavailable("away")
        return Observed(QueueState(self.answer, 0, None, []), DeadLetterCounts([], None))


async def test_the_history_has_rates_and_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("sidecar.web.history.time.monotonic", lambda: clock[0])
    metrics, inspector = Metrics(), Inspector()
    history = History(cast("Any", inspector), MemorySpool(), metrics)
    await history.refresh()
    metrics.published.labels("stored").inc(30)
    metrics.published.labels("spooled").inc(15)
    metrics.published.labels("OVERLOADED").inc(1000)
    clock[0] += 15
    inspector.answer = None
    await history.refresh()
    assert [(one.depth, one.rate, one.spooled) for one in history.samples()] == [(5, None, 0), (None, 3.0, 0)]


def test_the_history_ends_after_an_hour() -> None:
    history = History(cast("Any", Inspector()), MemorySpool(), Metrics())
    for step in range(300):
        history.add(Sample(NOW + step * PERIOD_SECONDS, step, None, 0))
    assert [one.depth for one in history.samples(lambda: NOW + 299 * PERIOD_SECONDS)] == list(range(60, 300))
    assert history.samples(lambda: NOW + 7200 * 2) == []


# -- what takes long


class SlowLetters:
    """Dead letters whose replay and list end when they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.replayed = 0

    async def list(self, *_: object, **__: object) -> Page:
        await self.go.wait()
        return Page([], "")

    async def replay(self, *_: object, **__: object) -> Outcome:
        await self.go.wait()
        self.replayed += 1
        return Outcome(1)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """In a thread of its own, as for the page."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def backstage_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_READ_SECONDS", "_WRITE_SECONDS"):
        monkeypatch.setattr(f"sidecar.web.gone.{name}", 0.1)


@pytest.mark.usefixtures("backstage_seconds")
def test_a_replay_that_takes_long_goes_on_and_no_second_one_begins(loop: asyncio.AbstractEventLoop) -> None:
    slow = SlowLetters()
    backstage = Backstage(loop, cast("Any", None), cast("DeadLetters", slow))
    with pytest.raises(Busy, match="goes on"):
        backstage.replay(["1-0"], everyone=False)
    with pytest.raises(Busy, match="another replay or discard"):
        backstage.replay(["1-0"], everyone=False)
    loop.call_soon_threadsafe(slow.go.set)
    until(lambda: slow.replayed == 1, 5, "the first is done")
    assert until(lambda: backstage.replay(["1-0"], everyone=False), 5, "its place is free") == Outcome(1)
    assert slow.replayed == 2


@pytest.mark.usefixtures("backstage_seconds")
def test_a_read_that_takes_long_is_given_up(loop: asyncio.AbstractEventLoop) -> None:
    slow = SlowLetters()
    backstage = Backstage(loop, cast("Any", None), cast("DeadLetters", slow))
    for _ in range(3):  # each leaves its place to the next
        with pytest.raises(Busy, match="no answer within"):
            backstage.find(Filter(), 10)
    until(lambda: not asyncio.all_tasks(loop), 5, "nothing is read any more")


def test_when_the_loop_has_ended_it_says_so() -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    with pytest.raises(Busy, match="is stopping"):
        Backstage(ended, cast("Any", None), cast("DeadLetters", SlowLetters())).find(Filter(), 10)


def test_the_status_is_asked_for_once_a_second(loop: asyncio.AbstractEventLoop) -> None:
    asked = []

    async def ask(seconds: float) -> pb.GetQueueStatusResponse:
        asked.append(seconds)
        return status()

    backstage = Backstage(loop, ask, cast("DeadLetters", None))
    assert [backstage.status().redis_up for _ in range(20)] == [True] * 20
    assert len(asked) == 1
    backstage.forget()
    backstage.status()
    assert len(asked) == 2


class Stage:
    """Two dead letters, and a Redis on which everything takes too long."""

    letters = tuple(
        StoredDeadLetter(
            id=f"{number}-0", event_id=f"e{number}", reason="TOO_OLD", detail="", origin="sidecar", group=b"",
            attempts=1, first_ms=None, last_ms=None, entry_id="", subject=f"fraud/{number}", correlation_id="",
            content_type="", data=b"\xff",
        )
        for number in (1, 2)
    )  # fmt: skip

    def status(self) -> pb.GetQueueStatusResponse:
        return status(dead_letters=2)

    def find(self, *_: object, **__: object) -> Page:
        return Page(self.letters, "token")

    def get(self, letter_id: str) -> StoredDeadLetter:
        return self.get_all([letter_id])[0]

    def get_all(self, ids: list[str]) -> list[StoredDeadLetter]:
        return [letter for letter in self.letters if letter.id in ids]

    def replayable(self, ids: list[str], *, everyone: bool) -> Outcome:
        return Outcome(0, 0, len(ids)) if everyone else Outcome(len(ids))

    def replay(self, *_: object, **__: object) -> Outcome:
        raise Busy("it goes on")

    def discard(self, *_: object) -> Outcome:
        raise Unavailable("Redis is away")


def test_what_takes_too_long_is_said_on_the_next_page() -> None:
    site = PageSite(cast("Backstage", Stage()), History(cast("Any", None), MemorySpool(), Metrics()), GUARDED, "q")
    headers = {"host": "localhost", "content-type": "application/x-www-form-urlencoded"}

    def get(path: str) -> str:
        answer = site(Request("GET", path, headers, b"", "10.0.0.9"))
        assert answer.status == 200, path
        return answer.body.decode()

    def post(path: str, **fields: str) -> Answer:
        return site(Request("POST", path, headers, urlencode({"csrf": csrf, **fields}).encode(), "10.0.0.9"))

    csrf = ""
    cookies = [value for name, value in post("/sign-in", token="admin").headers if name == "Set-Cookie"]
    headers["cookie"] = cookies[0].partition(";")[0]
    found = re.search('name="csrf" value="([^"]+)"', get("/"))
    assert found
    csrf = found[1]
    assert "fraud/2" in get("/dead-letters?text=fraud")
    assert "not legible: 1 bytes" in get("/dead-letters/1-0")
    for fields in ({"id": "1-0"}, {"all": "yes"}):
        asked = post("/dead-letters/replay", **fields).body.decode()
        assert "can go back" in asked
        assert "cannot and stay" in asked
    assert post("/dead-letters/replay", ids="1-0,2-0", confirm="yes").status == 303
    assert '<div class="notice warning" role="status"><p>Not done yet: it goes on.' in get("/dead-letters")
    assert "Not done yet" not in get("/dead-letters")
    assert post("/dead-letters/discard", ids="1-0", confirm="yes").status == 503
    assert post("/sign-out").status == 303
    assert "fraud/2" not in get("/")


# -- who may


def test_a_session_ends_after_twelve_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("sidecar.web.auth.time.monotonic", lambda: clock[0])
    sessions = Sessions("api", "")
    assert sessions.sign_in("", "10.0.0.9") is None  # there is no admin's token, and no empty one
    cookie = sessions.sign_in("api", "10.0.0.9")
    assert cookie
    clock[0] += 12 * 3600 - 1
    assert sessions.find(cookie)
    clock[0] += 2
    assert sessions.find(cookie) is None


def test_wrong_tokens_of_one_address_lock_out_no_other_and_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("sidecar.web.auth.time.monotonic", lambda: clock[0])
    sessions = Sessions("", "admin")
    for _ in range(10):
        assert sessions.may_try("10.0.0.9")
        assert sessions.sign_in("wrong", "10.0.0.9") is None
    assert not sessions.may_try("10.0.0.9")
    assert sessions.may_try("10.0.0.8")
    clock[0] += 61
    assert sessions.may_try("10.0.0.9")


def test_sessions_take_a_bounded_room() -> None:
    sessions = Sessions("api", "")
    cookies = [sessions.sign_in("api", "10.0.0.9") or "" for _ in range(300)]
    for number_of in range(2000):
        sessions.sign_in("wrong", str(number_of))
    assert len(sessions._failures) == 1000
    assert [sessions.find(cookie) is not None for cookie in cookies] == [False] * 44 + [True] * 256


@pytest.mark.parametrize(("peer", "allowed"), [("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("10.0.0.9", False)])
def test_without_tokens_another_machine_sees_no_dead_letter(peer: str, allowed: bool) -> None:
    asked = []

    class Stage:
        def get(self, letter_id: str) -> None:
            asked.append(letter_id)
            raise Unavailable("away")

    site = PageSite(cast("Backstage", Stage()), cast("History", None), ServerSettings(), "q")
    answer = site(Request("GET", "/dead-letters/1-0", {"host": "10.0.0.1:9464"}, b"", peer))
    assert answer.status == (503 if allowed else 403)
    assert asked == (["1-0"] if allowed else [])


def test_an_error_of_ours_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    site = PageSite(cast("Backstage", None), cast("History", None), ServerSettings(), "q")
    answer = site(Request("GET", "/", {"host": "localhost"}, b"", "127.0.0.1"))
    assert answer.status == 500
    assert b"NoneType" not in answer.body
    assert "the page failed" in caplog.text
