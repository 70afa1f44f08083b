"""Which node is asked for the owner of the queue's slot, and what is believed; tests with a real cluster are slow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions

from modelready.credentials import StaticCredentials
from modelready.redis.cluster import Server, read_slots, server_from_env
from modelready.redis.connection import Endpoint
from modelready.redis.faults import AuthenticationError, Kind, RedisError, fault
from modelready.redis.settings import RedisSettings

SEED, A, B, C = (Endpoint(name, 6379) for name in ("seed", "a", "b", "c"))
Answer = tuple[Endpoint | None, list[Endpoint]] | RedisError


class Asked(Server):
    """Nodes that answer what a test says; those that it names not are silent."""

    def __init__(self, *, cluster: bool = True, timeout: float = 2.0) -> None:
        settings = RedisSettings(host=SEED.host, port=SEED.port, tls=False, cluster=cluster, timeout=timeout)
        super().__init__(settings, StaticCredentials(), key="{q}:events", client_name="test")
        self.answers: dict[Endpoint, Answer] = {}
        self.asked: list[Endpoint] = []
        self.opened: list[Endpoint] = []

    async def _ask(self, node: Endpoint) -> tuple[Endpoint | None, list[Endpoint]]:
        self.asked.append(node)
        answer = self.answers.get(node)
        if answer is None:
            await asyncio.sleep(60)
            raise AssertionError
        if isinstance(answer, RedisError):
            raise answer
        return answer

    async def _open(self, node: Endpoint) -> Any:
        self.opened.append(node)

        class Connection:
            generation = 0

        return Connection()

    async def owner(self) -> Endpoint:
        """Where the next connection goes."""
        if not self.is_owner_known:
            await self.find_owner()
        await self.connect()
        return self.opened[-1]


async def test_without_a_cluster_nobody_is_asked() -> None:
    server = Asked(cluster=False)
    server.forget_owner(("b", 6379))
    assert await server.owner() == SEED
    assert server.asked == []


async def test_the_seed_is_asked_once_and_its_owner_believed() -> None:
    server = Asked()
    server.answers[SEED] = (A, [A, B])
    assert [await server.owner(), await server.owner()] == [A, A]
    assert (server.asked, server.generation) == ([SEED], 1)  # connections to the seed are replaced


async def test_a_new_owner_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = Asked()
    server.answers[SEED] = (A, [A, B])
    await server.owner()
    assert "the queue's slot is on node a:6379" in caplog.text


async def test_where_the_owner_is_still_the_same_connections_stay() -> None:
    server = Asked()
    server.answers[SEED] = (SEED, [SEED])
    await server.owner()
    server.forget_owner()
    assert await server.owner() == SEED
    assert (server.asked, server.generation) == ([SEED, SEED], 0)


@pytest.mark.parametrize(("named", "node"), [(("c", 6379), C), (("", 7000), Endpoint("a", 7000))])
async def test_a_node_that_another_named_is_asked_first_and_not_gone_to_at_once(
    named: tuple[str, int], node: Endpoint
) -> None:
    server = Asked()
    server.answers = {SEED: (A, [A, B]), node: (B, [A, B])}
    await server.owner()
    server.forget_owner(named)
    assert await server.owner() == B
    assert server.asked == [SEED, node]
    server.forget_owner()
    server.answers[SEED] = (A, [A, B])
    await server.owner()
    assert server.asked[2:] == [SEED]  # what was named before is forgotten


async def test_while_the_seed_is_away_the_others_are_asked_in_turn() -> None:
    server = Asked(timeout=0.4)
    server.answers[SEED] = (A, [A, B, C, SEED])
    await server.owner()
    server.answers = {A: exceptions.ConnectionError("refused"), B: (C, [B, C])}
    server.forget_owner()
    assert await server.owner() == C
    assert server.asked[1:] == [SEED, A, B]
    server.forget_owner()
    server.answers = {B: exceptions.ConnectionError("refused")}
    with pytest.raises(RedisError):
        await server.owner()
    assert server.asked[4:] == [SEED, B, C]  # the nodes of the last answer


async def test_refused_credentials_are_shown_to_one_node() -> None:
    server = Asked()
    server.answers[SEED] = (A, [A, B])
    await server.owner()
    server.forget_owner()
    server.answers[SEED] = AuthenticationError("wrong")
    with pytest.raises(AuthenticationError):
        await server.owner()
    assert server.asked == [SEED, SEED]


@pytest.mark.parametrize(("answers", "kind"), [
    ({SEED: (None, [A]), A: (None, [A])}, exceptions.ClusterDownError),
    ({SEED: exceptions.InvalidResponse("no Redis"), A: exceptions.ConnectionError("away")}, exceptions.ConnectionError),
    ({SEED: exceptions.InvalidResponse("no Redis"), A: exceptions.InvalidResponse("x")}, exceptions.InvalidResponse),
    ({SEED: exceptions.ConnectionError("away")}, exceptions.ConnectionError),
])  # fmt: skip
async def test_a_node_that_cannot_be_used_hides_none_that_may_be_back(
    answers: dict[Endpoint, Answer], kind: type[RedisError]
) -> None:
    server = Asked(timeout=0.3)
    server.answers[SEED] = (A, [A])
    await server.owner()
    server.forget_owner()
    server.answers = answers
    with pytest.raises(kind):
        await server.owner()
    assert server.asked[1:] == [SEED, A]


async def test_a_silent_node_is_an_absence() -> None:
    server = Asked(timeout=0.1)
    with pytest.raises(exceptions.TimeoutError) as caught:
        await server.owner()
    assert fault(caught.value).kind is Kind.TRANSIENT


async def test_an_owner_that_another_task_found_is_not_changed() -> None:
    server = Asked()
    server.answers[SEED] = (A, [A])

    async def slow(node: Endpoint) -> tuple[Endpoint | None, list[Endpoint]]:
        server.asked.append(node)
        if len(server.asked) == 1:
            await server.find_owner()  # as if it were another task, which is answered first
            return B, [B]
        return A, [A]

    server._ask = slow  # type: ignore[method-assign]
    assert await server.owner() == A
    assert server.generation == 1


async def test_a_connection_is_as_old_as_the_look_for_it() -> None:
    server = Asked(cluster=False)
    server.renew()
    open_ = server._open

    async def renewing(node: Endpoint) -> Any:
        server.renew()
        return await open_(node)

    server._open = renewing  # type: ignore[method-assign]
    assert (await server.connect()).generation == 1


SLOTS = [
    [0, 99, [b"10.0.0.1", 1, b"id"], [b"10.0.0.2", 2, b"id"]],
    [
        100,
        199,
        [b"10.0.0.3", 3, b"id", [b"ip", b"10.0.0.3", b"hostname", b"three.test"]],
        [None, 4, b"id", {b"hostname": b"four.test"}],
    ],
    [200, 299, [b"", 5, b"id"]],
    [300, 399, [b"?", 6, b"id"]],
]


@pytest.mark.parametrize(
    ("slot", "by_name", "owner"),
    [
        (0, True, ("10.0.0.1", 1)),
        (99, False, ("10.0.0.1", 1)),
        (100, True, ("three.test", 3)),
        (199, False, ("10.0.0.3", 3)),
        (200, True, ("asked", 5)),
        (399, False, ("asked", 6)),
        (400, True, None),
    ],
)
def test_what_cluster_slots_says(slot: int, by_name: bool, owner: tuple[str, int] | None) -> None:
    found, nodes = read_slots(SLOTS, slot, Endpoint("asked", 9), by_name=by_name)
    assert found == owner
    assert nodes[3] == (("four.test" if by_name else "asked"), 4)
    assert len(nodes) == 6


class Answering(Server):
    """One node, which answers CLUSTER SLOTS with `reply`."""

    def __init__(self, reply: Any, *, tls: bool = False) -> None:
        settings = RedisSettings(host="asked", port=9, tls=tls, cluster=True)
        super().__init__(settings, StaticCredentials(), key="{q}:events", client_name="test")
        self._slot = 100
        self._reply = reply
        self.dropped = 0

    async def _open(self, _node: Endpoint) -> Any:
        return self

    def write(self, packed: bytes) -> None:
        assert b"SLOTS" in packed

    async def read(self) -> Any:
        return self._reply

    def drop(self) -> None:
        self.dropped += 1


@pytest.mark.parametrize(("tls", "owner"), [(True, ("three.test", 3)), (False, ("10.0.0.3", 3))])
async def test_with_tls_a_node_is_reached_by_the_name_that_its_certificate_has(
    tls: bool, owner: tuple[str, int]
) -> None:
    server = Answering(SLOTS, tls=tls)
    await server.find_owner()
    assert server._owner == owner
    assert server.dropped == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (None, exceptions.InvalidResponse),
        (5, exceptions.InvalidResponse),
        ([[0, 99]], exceptions.ClusterDownError),
        ([[0, 99, b"no node"]], exceptions.InvalidResponse),
        (exceptions.ResponseError("ERR no such command"), exceptions.ResponseError),
    ],
)
async def test_an_answer_that_names_no_owner_is_an_error_and_ends_the_connection(
    reply: Any, kind: type[RedisError]
) -> None:
    server = Answering(reply)
    with pytest.raises(kind):
        await server.find_owner()
    assert server.dropped == 1


def test_only_credentials_that_a_person_must_change_are_fixed() -> None:
    settings = RedisSettings(host="localhost", tls=False)
    assert Server(settings, StaticCredentials(), key="k", client_name="test").fixed_credentials is True
    rotated: Any = object()
    assert Server(settings, rotated, key="k", client_name="test").fixed_credentials is False


@pytest.mark.parametrize(("seconds", "timeout"), [("0.5", 5.0), ("9", 9.0)])
def test_a_consumer_waits_for_at_least_five_seconds(seconds: str, timeout: float) -> None:
    server = server_from_env({"REDIS_HOST": "localhost", "REDIS_TIMEOUT_SECONDS": seconds}, "{q}:events")
    assert server.timeout == timeout
