"""What the page says in states that are rare, and what its parts promise."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import pytest

from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import Unavailable
from sidecar.metrics import Metrics
from sidecar.operations.dead_letters import Outcome, Page
from sidecar.operations.interfaces import DeadLetterCounts, Observed, QueueState, StoredDeadLetter
from sidecar.settings import ServerSettings
from sidecar.web import pages
from sidecar.web.app import Guard
from sidecar.web.auth import Sessions, Visitor
from sidecar.web.calls import Busy, SidecarCalls
from sidecar.web.console import About, Console
from sidecar.web.history import PERIOD_SECONDS, History, Sample
from sidecar.web.overview import overview
from sidecar.web.plots import Plot, number, plot
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


ABOUT = About("models", "//registry on host-7", "1.2.3", "redis.internal:6379")
NOBODY = cast("Any", None)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


async def ask(
    page: Console, method: str, path: str, *, body: bytes = b"", peer: str = "127.0.0.1", **headers: str
) -> Reply:
    """One request to the page, without a server."""
    target, _, query = path.partition("?")
    sent = {"host": "localhost", "content-length": str(len(body))} | headers
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": target, "raw_path": target.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
        "client": (peer, 50_000), "server": ("localhost", 9464), "state": {},
    }  # fmt: skip
    messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    await Guard(page.app(), "127.0.0.1:9464")(scope, receive, send)
    start, *rest = messages
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Reply(start["status"], found, b"".join(message["body"] for message in rest).decode())


def show(status_now: pb.GetQueueStatusResponse, *samples: Sample, whole: bool = True) -> str:
    """The overview's HTML, but for its dead letters."""
    shown = overview(status_now, samples, ABOUT.redis, whole=whole)
    shown |= {"visitor": Visitor(None, may_sign_in=False, reads=True, changes=False), "about": ABOUT, "notice": None}
    shown |= {"letters": [], "unknown": "", "title": "Overview", "path": "/"}
    return pages.render("overview", **shown).replace("<wbr>", "")


@pytest.mark.parametrize(
    ("status_now", "level", "words"),
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
def test_the_state_is_one_line(status_now: pb.GetQueueStatusResponse, level: str, words: str) -> None:
    shown = re.search(r'<div id="state" class="state (\w+)"><p>(.*)</p></div>', show(status_now))
    assert shown
    assert shown[1] == level
    assert shown[2].startswith(f"{level}: {words}")


def test_it_names_the_runbook_and_the_next_command() -> None:
    text = show(status(dead_letters=2))
    assert "<dt>docs/operations.md#dead-letters</dt>" in text
    assert "<code>modelready-sidecar dead-letters list</code>" in text
    assert "docs/operations.md#" not in show(status())


def test_a_stranger_learns_nothing_about_the_server() -> None:
    redis = pb.RedisStatus(engine="valkey", version="9.1", eviction_policy="allkeys-lru")
    redis.latency.FromMilliseconds(1)
    for whole in (True, False):
        text = show(status(redis=redis), whole=whole)
        assert ("valkey 9.1" in text) == ("allkeys-lru" in text) == ("redis.internal:6379" in text) == whole


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    text = show(status(up=False), Sample(time.time(), None, None, 4))
    assert "Not known while Redis does not answer" in text
    assert len(re.findall(r"<dd>not known", text)) == 3
    assert "No consumer group" not in text
    assert "No consumer group" in show(status())


def test_the_outbox_is_shown_where_there_is_one() -> None:
    outbox = pb.OutboxStatus(depth=12, refused=1, error="away")
    outbox.oldest_age.FromSeconds(90)
    shown = show(status(outbox=outbox))
    assert "<dt>Outbox</dt><dd>12<small>oldest for 1m 30s, 1 refused, not being emptied" in shown
    assert "Outbox" not in show(status())


def test_the_mirror_list_is_shown_to_who_may_read() -> None:
    first = pb.ListStatus(name="deployments", depth=17, processing=2, dead_letters=1)
    second = pb.ListStatus(name="audit", depth=31)
    shown = show(status(list=first, lists=[first, second]))
    assert re.search(r"Mirror list deployments</dt><dd>17<small>2 in flight, 1 given up", shown)
    assert re.search(r"Mirror list audit</dt><dd>31<small>0 in flight, 0 given up", shown)
    assert "Mirror list deployments" in show(status(list=first)), "of an older sidecar"
    hidden = show(status(list=first, lists=[first, second]), whole=False).partition("Consumer groups")[0]
    assert "in flight" not in hidden
    assert "<dt>Depth</dt><dd>31" in hidden, "the longest list's, as the plot says"


def test_groups_come_worst_first_and_those_without_readers_are_marked() -> None:
    """Worse than a deep group that is read is one that nobody reads."""
    behind = pb.GroupStatus(name="behind", depth=900, consumers=2)
    idle = pb.GroupStatus(name="idle", depth=3, consumers=1)
    idle.idle.FromSeconds(301)
    done = pb.GroupStatus(name="done")
    left = pb.GroupStatus(name="left", depth=40)
    shown = re.findall(
        r'<th scope="row"[^>]*>(\w+)( <span class="tag">)?', show(status(groups=[behind, idle, done, left]))
    )
    assert [(name, bool(marked)) for name, marked in shown] == [
        ("left", True), ("idle", True), ("behind", False), ("done", False),
    ]  # fmt: skip


def test_a_long_name_breaks_behind_its_separators_alone() -> None:
    assert pages.breakable("deployer-eu.<b>") == "deployer-eu.&lt;b&gt;"
    assert pages.breakable("//team-a/fraud_scorecard_v2.<b>") == (
        "//<wbr>team-<wbr>a/<wbr>fraud_<wbr>scorecard_<wbr>v2.<wbr>&lt;b&gt;"
    )


def test_every_value_is_escaped() -> None:
    template = pages.environment().from_string('<a title="{{ x }}">{{ x }}</a>')
    assert template.render(x="\"'<b>") == '<a title="&#34;&#39;&lt;b&gt;">&#34;&#39;&lt;b&gt;</a>'


# -- plots


def points(*values: float | None) -> list[tuple[float, float | None]]:
    return [(NOW - PERIOD_SECONDS * (len(values) - 1 - at), value) for at, value in enumerate(values)]


def draw(drawn: Plot) -> str:
    macros = pages.environment().get_template("macros.html").module
    return str(cast("Any", macros).plot(drawn))


def test_a_plot_has_a_gap_where_nothing_is_known() -> None:
    drawn = draw(plot("depth", "Depth", "events", points(1, 2, None, 3, 4, None, 5), NOW))
    assert drawn.count('class="curve"') == 2
    assert drawn.count("<circle") == 1
    pause = [(NOW - 600, 1.0), (NOW - 585, 1.0), (NOW - 15, 1.0), (NOW, 1.0)]
    assert len(plot("depth", "Depth", "events", pause, NOW).runs) == 2


def test_a_plot_says_what_it_shows() -> None:
    drawn = draw(plot("depth", "Depth", "events", points(3, 1200, 40), NOW))
    assert "least 3, most 1,200, last 40 events" in drawn
    assert '<p class="now">40 <span>events</span>' in drawn
    assert re.findall(r'text-anchor="end">([^<]+)</text>', drawn)[:3] == ["0", "1 k", "2 k"]
    assert "not known" in plot("depth", "Depth", "events", points(3, None), NOW).now
    assert "Nothing is known" in plot("depth", "Depth", "events", [], NOW).description


@pytest.mark.parametrize("top", [0.0, 0.03, 1, 4, 5, 9.9, 10, 99, 101, 1e6, 7e12])
def test_a_plot_s_line_stays_within_its_axes(top: float) -> None:
    drawn = draw(plot("depth", "Depth", "events", points(0, top), NOW, least=0.4))
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
    assert pages.exact(1_700_000_000_000) == "2023-11-14T22:13:20Z"
    assert pages.age(None) == pages.age(1 << 63) == "-"
    assert pages.exact(1 << 63)
    assert re.fullmatch(r"5m [1-9]s ago", pages.age(int((time.time() - 301) * 1000)))


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


class SlowWork:
    """Work that ends when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.done = 0

    async def run(self) -> int:
        await self.go.wait()
        self.done += 1
        return self.done


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
def short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_READ_SECONDS", "_WRITE_SECONDS"):
        monkeypatch.setattr(f"sidecar.web.calls.{name}", 0.1)


@pytest.mark.usefixtures("short_seconds")
async def test_a_replay_that_takes_long_goes_on_and_no_second_one_begins(loop: asyncio.AbstractEventLoop) -> None:
    slow = SlowWork()
    calls = SidecarCalls(loop, NOBODY)
    with pytest.raises(Busy, match="goes on"):
        await calls.write(slow.run)
    with pytest.raises(Busy, match="another change"):
        await calls.write(slow.run)
    loop.call_soon_threadsafe(slow.go.set)
    until(lambda: slow.done == 1 and calls._writing is not None and calls._writing.done(), 5, "the first is done")
    assert await calls.write(slow.run) == 2


@pytest.mark.usefixtures("short_seconds")
async def test_a_read_that_takes_long_is_given_up(loop: asyncio.AbstractEventLoop) -> None:
    slow = SlowWork()
    calls = SidecarCalls(loop, NOBODY)
    for _ in range(3):  # each leaves its place to the next
        with pytest.raises(Busy, match="no answer within"):
            await calls.read(slow.run)
    until(lambda: not asyncio.all_tasks(loop), 5, "nothing is read any more")


async def test_when_the_loop_has_ended_it_says_so() -> None:
    ended = asyncio.new_event_loop()
    ended.close()
    with pytest.raises(Busy, match="is stopping"):
        await SidecarCalls(ended, NOBODY).read(SlowWork().run)


async def test_a_call_that_ends_with_the_sidecar_says_so(loop: asyncio.AbstractEventLoop) -> None:
    calls = SidecarCalls(loop, NOBODY)
    reading = asyncio.create_task(calls.read(SlowWork().run))
    await asyncio.sleep(0)
    await asyncio.to_thread(until, lambda: asyncio.all_tasks(loop), 5, "it reads")
    for task in asyncio.all_tasks(loop):
        loop.call_soon_threadsafe(task.cancel)
    with pytest.raises(Busy, match="is stopping"):
        await reading


async def test_the_status_is_asked_for_once_a_second(loop: asyncio.AbstractEventLoop) -> None:
    asked = []

    async def answer(seconds: float) -> pb.GetQueueStatusResponse:
        asked.append(seconds)
        return status()

    calls = SidecarCalls(loop, answer)
    answers = await asyncio.gather(*(calls.status() for _ in range(20)))
    assert [one.redis_up for one in answers] == [True] * 20
    assert len(asked) == 1
    slow = SlowWork()
    loop.call_soon_threadsafe(slow.go.set)
    await calls.write(slow.run)  # which changes it
    await calls.status()
    assert len(asked) == 2


class Stage:
    """Two dead letters, and a Redis on which every change takes too long."""

    letters = tuple(
        StoredDeadLetter(
            id=f"{number}-0", event_id=f"e{number}", reason="TOO_OLD", detail="", origin="sidecar", group=b"",
            attempts=1, first_ms=None, last_ms=None, entry_id="", subject=f"fraud/{number}", correlation_id="",
            content_type="", data=b"\xff",
        )
        for number in (1, 2)
    )  # fmt: skip

    async def status(self, _seconds: float) -> pb.GetQueueStatusResponse:
        return status(dead_letters=2)

    async def list(self, *_: object, **__: object) -> Page:
        return Page(self.letters, "token")

    async def get(self, letter_id: str) -> StoredDeadLetter:
        return next(letter for letter in self.letters if letter.id == letter_id)

    async def replay(self, ids: Sequence[str], *, everyone: bool, dry_run: bool, max_per_second: float) -> Outcome:
        if not dry_run:
            raise Busy("it goes on")
        return Outcome(0, 0, len(ids)) if everyone else Outcome(len(ids))

    async def discard(self, *_: object, **__: object) -> Outcome:
        raise Unavailable("Redis is away")


def console(stage: Any = None, settings: ServerSettings | None = None) -> Console:
    """A page, whose calls go into the running loop."""
    history = History(NOBODY, MemorySpool(), Metrics())
    calls = SidecarCalls(asyncio.get_running_loop(), stage and stage.status)
    return Console(calls, stage, NOBODY, history, settings=settings or ServerSettings(), about=ABOUT)


async def test_what_takes_too_long_is_said_on_the_next_page() -> None:
    page = console(Stage(), GUARDED)
    cookie, csrf = "", ""

    async def get(path: str) -> str:
        answer = await ask(page, "GET", path, cookie=cookie, peer="10.0.0.9")
        assert answer.status == 200, path
        return answer.text.replace("<wbr>", "")

    async def post(path: str, **fields: str) -> Reply:
        body = urlencode({"csrf": csrf, **fields}).encode()
        return await ask(
            page, "POST", path, body=body, cookie=cookie, content_type="application/x-www-form-urlencoded",
            peer="10.0.0.9",
        )  # fmt: skip

    cookie = (await post("/sign-in", token="admin")).headers["set-cookie"].partition(";")[0]
    found = re.search('name="csrf" value="([^"]+)"', await get("/"))
    assert found
    csrf = found[1]
    assert "fraud/2" in await get("/dead-letters?text=fraud")
    assert "not legible: 1 bytes" in await get("/dead-letters/1-0")
    for fields in ({"id": "1-0"}, {"all": "yes"}):
        asked = (await post("/dead-letters/replay", **fields)).text
        assert "can go back" in asked
        assert "cannot and stay" in asked
    assert (await post("/dead-letters/replay", ids="1-0,2-0", confirm="yes")).status == 303
    assert '<div class="notice warning" role="status"><p>Not done yet: it goes on.' in await get("/dead-letters")
    assert "Not done yet" not in await get("/dead-letters")
    assert (await post("/dead-letters/discard", ids="1-0", confirm="yes")).status == 503
    assert (await post("/sign-out")).status == 303
    assert "fraud/2" not in await get("/")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "2 of 2,000, the newest first"),
        ("?page=eA&seen=50", "51 to 52 of 2,000, the newest first"),
        ("?reason=TOO_OLD", "2 of 1,500 that match, the newest first"),
        ("?model=fraud", "2 that match, of 2,000 dead letters, the newest first"),
        ("?reason=TOO_OLD&text=x", "2 that match, of 2,000 dead letters, the newest first"),
    ],
)
async def test_a_list_says_of_how_many(query: str, says: str) -> None:
    class Many(Stage):
        async def status(self, _seconds: float) -> pb.GetQueueStatusResponse:
            reasons = [pb.DeadLetterCount(reason="TOO_OLD", count=1500), pb.DeadLetterCount(reason="X", count=500)]
            return status(dead_letters=2000, dead_letter_reasons=reasons)

    text = (await ask(console(Many()), "GET", f"/dead-letters{query}")).text
    assert f"<caption>{says}</caption>" in text
    older = re.search(r'href="([^"]+)" rel="next"', text)
    assert older
    assert f"seen={52 if 'seen' in query else 2}" in older[1]


async def test_every_page_says_which_sidecar_it_is_of() -> None:
    text = (await ask(console(settings=GUARDED), "GET", "/sign-in")).text.replace("<wbr>", "")
    assert 'Queue models <span class="soft">sidecar //registry on host-7, version 1.2.3</span>' in text
    assert "redis.internal" not in text


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
async def test_without_tokens_another_machine_sees_no_dead_letter(peer: str, allowed: bool) -> None:
    asked = []

    class Away(Stage):
        async def get(self, letter_id: str) -> StoredDeadLetter:
            asked.append(letter_id)
            raise Unavailable("away")

    answer = await ask(console(Away()), "GET", "/dead-letters/1-0", peer=peer)
    assert answer.status == (503 if allowed else 403)
    assert asked == (["1-0"] if allowed else [])


async def test_the_text_of_an_unexpected_error_goes_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    answer = await ask(console(), "GET", "/")
    assert answer.status == 500
    assert "NoneType" not in answer.text
    assert answer.headers["content-security-policy"]
    assert "the page failed" in caplog.text
