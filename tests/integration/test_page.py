"""The page for people, over HTTP: who may see and do what, and that no other site can."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator, Mapping
from email.message import Message
from html import unescape
from typing import Any, NamedTuple
from urllib.parse import urlencode

import grpc
import pytest

from modelready.v1 import queue_service_pb2 as pb
from modelready.v1.queue_service_pb2_grpc import QueueServiceStub
from tests.harness.redis_server import RedisServer
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import patience, until
from tests.integration.calls import KEYS, TO_DISK, calling, model_event, queued_ids, to_redis
from tests.integration.operators import bury, give_up

API, ADMIN = "the API's token", "the admin's token"
FORM = "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    status: int
    headers: Message
    text: str

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.text)
        assert found, self.text
        return found[1]


class Visitor:
    """A browser's requests: it keeps cookies, and says of its own forms where they come from."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self._sidecar = sidecar
        self.cookie = ""

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        return self._ask(method, path, b"", headers)

    def post(self, path: str, fields: Mapping[str, Any], **headers: str) -> Answer:
        own = {
            "Content-Type": FORM, "Origin": f"http://{self._sidecar.http}", "Sec-Fetch-Site": "same-origin",
        }  # fmt: skip
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._ask("POST", path, urlencode(fields, doseq=True).encode(), own | sent)

    def sign_in(self, token: str) -> Answer:
        return self.post("/sign-in", {"token": token})

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self._sidecar.http, timeout=15)
        try:
            cookie = {"Cookie": self.cookie} if self.cookie else {}
            connection.request(method, path, body or None, {**cookie, **headers})
            response = connection.getresponse()
            # Where a name may break into lines does not matter here.
            text = response.read().decode().replace("<wbr>", "")
            answer = Answer(response.status, response.headers, text)
        finally:
            connection.close()
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    redis_server.execute("FLUSHALL")
    return redis_server


@pytest.fixture(scope="module")
def sidecar(redis_server: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess(to_redis(redis_server, SIDECAR_API_TOKEN=API, SIDECAR_ADMIN_TOKEN=ADMIN)) as running:
        yield running


@pytest.fixture(scope="module")
def open_sidecar(redis_server: RedisServer) -> Iterator[SidecarProcess]:
    """Without tokens."""
    with SidecarProcess(to_redis(redis_server)) as running:
        yield running


@pytest.fixture
def stranger(sidecar: SidecarProcess) -> Visitor:
    return Visitor(sidecar)


@pytest.fixture
def reader(sidecar: SidecarProcess) -> Visitor:
    visitor = Visitor(sidecar)
    assert visitor.sign_in(API).status == 303
    return visitor


@pytest.fixture
def admin(sidecar: SidecarProcess) -> Visitor:
    visitor = Visitor(sidecar)
    assert visitor.sign_in(ADMIN).status == 303
    return visitor


def dead(server: RedisServer) -> list[str]:
    with server.client() as client:
        found: Any = client.xrange(KEYS.dead_letters)
    return [letter_id.decode() for letter_id, _ in found]


# -- what it shows


def test_the_overview_is_whole_and_asks_nothing_of_anybody_else(
    server: RedisServer, sidecar: SidecarProcess, stranger: Visitor
) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, "deployer", id="0", mkstream=True)
    with calling(sidecar, API) as caller:
        caller.publish()
    page = until(
        lambda: shows(
            stranger, "/", 'deployer <span class="tag">no readers</span></th><td class="n" data-label="Depth">1</td>'
        ),
        5,
        "the group's depth",
    )
    assert "warning: nobody reads for the group deployer, 1 event unacknowledged" in page.text
    assert "round trip" not in page.text  # that is for those who are signed in
    assert page.text.count("<svg") == 3
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', page.text)
    assert addresses
    assert [one for one in addresses if not one.startswith(("/", "#", "data:")) or one.startswith("//")] == []


def shows(visitor: Visitor, path: str, text: str) -> Answer | None:
    answer = visitor.get(path)
    return answer if text in answer.text else None


@pytest.mark.parametrize("path", ["/", "/dead-letters", "/sign-in", "/nothing", "/dead-letters/replay"])
def test_every_answer_has_strict_headers(stranger: Visitor, path: str) -> None:
    headers = stranger.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


def test_pages_for_programs_stay_open_and_a_page_can_be_asked_for_by_head(stranger: Visitor) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        assert stranger.get(path, Host="elsewhere.example").status == 200
    answer = stranger.get("/", method="HEAD")
    assert (answer.status, answer.text) == (200, "")
    assert stranger.get("/nothing").status == 404
    assert stranger.get("/dead-letters/1-0/more").status == 404
    assert stranger.get("/dead-letters/replay").status == 405


def test_an_event_that_holds_markup_shows_as_text(server: RedisServer, admin: Visitor) -> None:
    nasty = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;"
    event = model_event(nasty, correlation_id=nasty, labels={nasty: nasty})
    event.model.name = nasty
    ids = [
        bury(server, event, reason=nasty, origin=f"group:{nasty}", entry_id=nasty),
        bury(server, event, data=nasty.encode(), ce_id=nasty.encode(), ce_subject=nasty.encode()),
    ]
    with server.client() as client:
        client.xgroup_create(KEYS.events, nasty, id="0", mkstream=True)
    form = {"csrf": admin.get("/").csrf, "id": ids}
    answers = [admin.get(path) for path in ("/", f"/dead-letters?{urlencode({'text': nasty})}", "/groups")]
    answers += [admin.get(f"/dead-letters/{one}") for one in ids]
    answers += [admin.post("/dead-letters/discard", form), admin.post("/dead-letters/replay", form)]
    of_group = {"csrf": form["csrf"], "name": nasty}
    answers += [admin.post("/groups/remove", of_group), admin.post("/groups/reset", of_group)]
    for answer in answers:
        assert answer.status == 200
        assert "<img" not in answer.text
        assert answer.text.count("<script>") == 1  # ours
        assert nasty in unescape(answer.text)
    assert answers[1].text.count("<tr><td") == 2


def test_an_event_that_json_cannot_tell_is_shown_all_the_same(server: RedisServer, reader: Visitor) -> None:
    event = model_event()
    event.occurred_at.seconds = 1 << 60
    answer = reader.get(f"/dead-letters/{bury(server, model_event(), data=event.SerializeToString())}")
    assert answer.status == 200
    assert f"seconds: {1 << 60}" in answer.text


def test_a_search_selects_and_goes_on_page_by_page(server: RedisServer, reader: Visitor) -> None:
    ids = [bury(server, model_event(number), reason="A" if number % 2 else "B") for number in range(120)]

    def listed(**fields: str) -> list[str]:
        found, path = [], f"/dead-letters?{urlencode(fields)}"
        while path:
            text = reader.get(path).text
            found += re.findall(r'<th scope="row"><a href="/dead-letters/([\d-]+)"', text)
            after = re.search(r'<a href="([^"]+)" rel="next"', text)
            path = unescape(after[1]) if after else ""
        return found

    assert listed() == ids[::-1]
    assert listed(reason="A") == ids[1::2][::-1]
    assert listed(text="FRAUD/11") == [ids[number] for number in (*range(119, 109, -1), 11)]
    assert listed(model="other") == listed(origin="group:a") == []
    assert listed(model="fraud", origin="sidecar", reason="B", text="/7") == [
        ids[number] for number in range(78, 69, -2)
    ]
    assert reader.get("/dead-letters?page=nonsense").status == 400


# -- who may


def test_a_stranger_sees_no_dead_letter(server: RedisServer, stranger: Visitor) -> None:
    letter = bury(server, model_event(source="//secret"))
    overview = stranger.get("/")
    assert "fraud/7" not in overview.text
    assert 'href="/sign-in"' in overview.text
    for path in ("/dead-letters", f"/dead-letters/{letter}"):
        answer = stranger.get(path)
        assert (answer.status, answer.headers["Location"]) == (303, f"/sign-in?next={path}")
    stranger.cookie = f"modelready_{stranger._sidecar.http.rpartition(':')[2]}=made-up"
    assert stranger.get("/dead-letters").status == 303


def test_a_sign_in_takes_a_token_and_leads_back(server: RedisServer, stranger: Visitor) -> None:
    for wrong in ("", "wrong", API + "x"):
        answer = stranger.sign_in(wrong)
        assert (answer.status, stranger.cookie) == (403, "")
        assert 'role="alert"' in answer.text
    answer = stranger.post("/sign-in", {"token": API, "next": "/dead-letters"})
    assert (answer.status, answer.headers["Location"]) == (303, "/dead-letters")
    cookie = answer.headers["Set-Cookie"]
    for attribute in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert attribute in cookie
    assert stranger.get("/dead-letters").status == 200
    for elsewhere in ("//evil.example", "https://evil.example", "/metrics"):
        assert stranger.post("/sign-in", {"token": API, "next": elsewhere}).headers["Location"] == "/"
    signed_in = stranger.cookie
    assert stranger.post("/sign-out", {"csrf": stranger.get("/").csrf}).status == 303
    stranger.cookie = signed_in
    assert stranger.get("/dead-letters").status == 303


def test_wrong_tokens_are_counted(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server, SIDECAR_ADMIN_TOKEN=ADMIN)) as sidecar:
        visitor = Visitor(sidecar)
        statuses = [visitor.sign_in("").status for _ in range(10)]
        assert statuses == [403] * 10
        answer = visitor.sign_in(ADMIN)
        assert answer.status == 429
        assert answer.headers["Retry-After"]
        # Nor does it help to name another address.
        answer = visitor.post("/sign-in", {"token": ADMIN}, X_Forwarded_For="10.0.0.7")
        assert answer.status == 429


def test_the_api_s_token_reads_and_changes_nothing(server: RedisServer, reader: Visitor) -> None:
    letter = bury(server, model_event())
    for path in ("/", "/dead-letters", f"/dead-letters/{letter}"):
        assert "fraud/7" in reader.get(path).text
        assert "/dead-letters/replay" not in reader.get(path).text
    for action in ("replay", "discard"):
        form = {"csrf": reader.get("/").csrf, "id": letter, "confirm": "yes"}
        assert reader.post(f"/dead-letters/{action}", form).status == 403
    assert dead(server) == [letter]


def test_without_tokens_this_machine_reads_and_none_changes(server: RedisServer, open_sidecar: SidecarProcess) -> None:
    letter = bury(server, model_event())
    visitor = Visitor(open_sidecar)
    for path in ("/", "/dead-letters", f"/dead-letters/{letter}"):
        answer = visitor.get(path)
        assert answer.status == 200
        assert "fraud/7" in answer.text
        assert 'method="post"' not in answer.text
    for action in ("replay", "discard"):
        assert visitor.post(f"/dead-letters/{action}", {"id": letter, "confirm": "yes"}).status == 404
    assert visitor.sign_in("").status == 403
    assert dead(server) == [letter]


# -- groups


def groups(server: RedisServer) -> dict[str, str]:
    """Each, and the last id that it was given."""
    with server.client() as client:
        return {one["name"].decode(): one["last-delivered-id"].decode() for one in client.xinfo_groups(KEYS.events)}


def test_groups_are_created_listed_reset_and_removed(
    server: RedisServer, sidecar: SidecarProcess, admin: Visitor
) -> None:
    with calling(sidecar, API) as caller:
        (first, second) = (caller.publish().entry_id for _ in range(2))
    csrf = {"csrf": admin.get("/groups").csrf}
    assert admin.post("/groups/create", {**csrf, "name": "a", "start": "oldest"}).headers["Location"] == "/groups"
    assert "The group a is created: 2 events to read." in admin.get("/groups").text
    admin.post("/groups/create", {**csrf, "name": "a", "start": "newest"})
    assert "Not done: there is a consumer group a already." in unescape(admin.get("/groups").text)
    with server.client() as client:
        client.xreadgroup("a", "reader-7", {KEYS.events: ">"}, count=1)
    listed = admin.get("/groups").text
    assert re.search(r'reader-7</th><td></td><td class="n" data-label="Pending">1</td>', listed)
    asked = admin.post("/groups/reset", {**csrf, "name": "a"}).text
    assert "has 2 unacknowledged events, 1 of them pending, and 1 consumer, last read" in asked
    assert "The group is being read." in asked
    change = {**csrf, "name": "a", "confirm": "yes"}
    admin.post("/groups/reset", {**change, "start": "newest"})
    assert "Not done: the group a is being read" in admin.get("/groups").text
    admin.post("/groups/reset", {**change, "start": "newest", "entry": first, "force": "yes"})
    assert f"The group a begins again at entry {first}: it had 2 unacknowledged events." in admin.get("/groups").text
    assert groups(server) == {"a": first}
    admin.post("/groups/reset", {**change, "start": "newest"})
    assert groups(server) == {"a": second}
    asked = admin.post("/groups/remove", {**csrf, "name": "a"}).text
    assert "has 0 unacknowledged events" in asked
    assert "The group is being read." not in asked
    for said in ("The group a is removed: it had 0 unacknowledged events.", "Not done: there is no consumer group a."):
        admin.post("/groups/remove", change)
        assert said in admin.get("/groups").text
    assert groups(server) == {}
    assert len(queued_ids(server)) == 2


def test_only_the_admin_s_token_changes_groups(
    server: RedisServer, sidecar: SidecarProcess, open_sidecar: SidecarProcess, stranger: Visitor, reader: Visitor
) -> None:
    server.execute("XGROUP", "CREATE", KEYS.events, "a", "0", "MKSTREAM")
    server.execute("XGROUP", "CREATECONSUMER", KEYS.events, "a", "reader-7")
    answer = stranger.get("/groups")
    assert (answer.status, answer.headers["Location"]) == (303, "/sign-in?next=/groups")
    assert "reader-7" in reader.get("/groups").text
    assert "/groups/" not in reader.get("/groups").text
    form = {"csrf": reader.get("/").csrf, "name": "a", "start": "newest", "confirm": "yes", "force": "yes"}
    for action in ("create", "reset", "remove"):
        assert reader.post(f"/groups/{action}", form).status == 403
        assert stranger.post(f"/groups/{action}", form).status == 403
        assert Visitor(open_sidecar).post(f"/groups/{action}", form).status == 404
    calls: list[tuple[str, Any]] = [
        ("CreateGroup", pb.CreateGroupRequest(name="b")),
        ("ResetGroup", pb.ResetGroupRequest(name="a", start="newest", force=True)),
        ("RemoveGroup", pb.RemoveGroupRequest(name="a", force=True)),
    ]
    with sidecar.channel() as channel:
        for name, request in calls:
            call, metadata = getattr(QueueServiceStub(channel), name), (("authorization", f"Bearer {API}"),)
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=10, metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert groups(server) == {"a": "0-0"}


# -- replay and discard


def test_a_replay_is_confirmed_and_reaches_the_group(
    server: RedisServer, sidecar: SidecarProcess, admin: Visitor
) -> None:
    with calling(sidecar, API) as caller:
        event_id = caller.publish().event_id
    with server.client() as client:
        client.xgroup_create(KEYS.events, "a", id="0")
    (letter,) = give_up(server, "a")
    form = {"csrf": admin.get("/").csrf, "id": letter}
    asked = admin.post("/dead-letters/replay", form)
    assert "Replay 1 dead letter" in asked.text
    assert "1 can go back" in asked.text
    assert dead(server) == [letter]
    for _ in range(2):  # going back and sending it again makes nothing twice
        answer = admin.post(
            "/dead-letters/replay", {"csrf": asked.csrf, "ids": letter, "confirm": "yes", "target": "origin"}
        )
        assert (answer.status, answer.headers["Location"]) == (303, "/dead-letters")
    assert "0 dead letters replayed. 1 had gone already." in admin.get("/dead-letters").text
    assert "had gone already" not in admin.get("/dead-letters").text
    assert dead(server) == []
    assert queued_ids(server).count(event_id) == 1
    with server.client() as client:
        assert [one["name"] for one in client.xinfo_groups(KEYS.events)] == [b"a"]
        assert client.xpending(KEYS.events, "a")["pending"] == 1
    assert admin.get(f"/dead-letters/{letter}").status == 404


def test_all_that_match_are_discarded_and_no_others(server: RedisServer, admin: Visitor) -> None:
    bad = [bury(server, model_event(number), reason="BAD") for number in range(60)]
    good = bury(server, model_event())
    asked = admin.post("/dead-letters/discard", {"csrf": admin.get("/").csrf, "all": "yes", "reason": "BAD"})
    assert "These 60 dead letters" in asked.text
    ids = re.search(r'name="ids" value="([^"]+)"', asked.text)
    assert ids
    later = bury(server, model_event(), reason="BAD")  # was not there when it was asked
    form = {"csrf": asked.csrf, "ids": ids[1], "confirm": "yes"}
    assert ids[1].split(",") == bad
    assert admin.post("/dead-letters/discard", form).status == 303
    assert "60 dead letters discarded." in admin.get("/dead-letters").text
    assert dead(server) == [good, later]


def test_what_cannot_be_asked_is_refused(server: RedisServer, admin: Visitor) -> None:
    csrf = admin.get("/").csrf
    for fields in ({}, {"id": "1-0"}, {"confirm": "yes"}, {"ids": "x", "confirm": "yes"}, {"all": "yes"}):
        assert admin.post("/dead-letters/discard", {"csrf": csrf, **fields}).status == 400, fields
    assert admin.post("/dead-letters/discard", {"csrf": csrf, "id": ["1-0"] * 2000}).status == 400
    assert admin.post("/dead-letters/discard", {"csrf": csrf, "x": "y" * 70_000}).status == 413
    assert admin.post("/dead-letters/discard", {"csrf": csrf}, Content_Type="text/plain").status == 415
    assert admin.post("/", {"csrf": csrf}).status == 404


# -- other sites


def test_a_form_of_another_site_or_session_changes_nothing(
    server: RedisServer, sidecar: SidecarProcess, admin: Visitor
) -> None:
    letter = bury(server, model_event())
    another = Visitor(sidecar)
    another.sign_in(ADMIN)
    good = {"csrf": admin.get("/").csrf, "ids": letter, "confirm": "yes"}
    for csrf in ("", "wrong", another.get("/").csrf):
        assert admin.post("/dead-letters/discard", {**good, "csrf": csrf}).status == 403
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{sidecar.http}.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert admin.post("/dead-letters/discard", good, **headers).status == 403, headers
        assert Visitor(sidecar).post("/sign-in", {"token": ADMIN}, **headers).status == 403, headers
    assert dead(server) == [letter]
    assert admin.post("/dead-letters/discard", good).status == 303
    assert dead(server) == []


def test_it_answers_under_its_own_names_alone(stranger: Visitor, sidecar: SidecarProcess) -> None:
    port = sidecar.http.rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:80", "10.1.2.3"):
        assert stranger.get("/", Host=host).status == 200, host
    for host in (f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "a b"):
        assert stranger.get("/", Host=host).status == 421, host
        assert stranger.post("/sign-in", {"token": ADMIN}, Host=host, Origin=f"http://{host}").status == 421, host


# -- when Redis is away


def test_while_redis_is_away_it_says_so_in_time() -> None:
    with RedisServer() as server, SidecarProcess(to_redis(server, SIDECAR_ADMIN_TOKEN=ADMIN)) as sidecar:
        visitor = Visitor(sidecar)
        visitor.sign_in(ADMIN)
        server.kill()
        with calling(sidecar) as caller:
            until(lambda: caller.publish().outcome == TO_DISK, 10, "events are spooled")
            caller.publish()
        assert until(lambda: shows(visitor, "/", "warning: events are acknowledged by this task"), 10, "it says so")
        began = time.monotonic()
        text = visitor.get("/").text
        assert time.monotonic() - began < patience(2)
        spooled = re.search(r"(\d+) events in the spool, the oldest for \d+s", text)
        assert spooled
        assert int(spooled[1]) >= 2
        answer = visitor.get("/dead-letters")
        assert answer.status == 503
        assert "Not now" in answer.text
        server.start()
        assert until(lambda: shows(visitor, "/", "ok: Redis answers"), 10, "it is well again")


def test_a_redis_that_hangs_holds_up_no_probe_and_no_event(server: RedisServer) -> None:
    with (
        Relay(server.port) as relay,
        SidecarProcess({"REDIS_HOST": relay.host, "REDIS_PORT": str(relay.port)}) as sidecar,
    ):
        relay.stall()
        seen: list[tuple[int, float]] = []

        def visit() -> None:
            began = time.monotonic()
            status = Visitor(sidecar).get("/").status
            seen.append((status, time.monotonic() - began))

        threads = [threading.Thread(target=visit) for _ in range(30)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        assert sidecar.get("/healthz")[0] == 200
        assert time.monotonic() - began < patience(1)
        with calling(sidecar) as caller:
            assert caller.publish().outcome == TO_DISK
        for thread in threads:
            thread.join()
        relay.resume()
    assert {status for status, _ in seen} == {200, 503}  # no more than 8 at the same time
    assert max(seconds for _, seconds in seen) < patience(2.5)
