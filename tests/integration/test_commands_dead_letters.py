"""Dead letters are replayed and discarded from the command line: those that are named, and never without a question."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelready.consumer import Consumer
from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.cli.main import main
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, Caller, calling, model_event, queued_ids, to_redis
from tests.integration.command_line import command, interrupt, on_a_terminal, shell, started
from tests.integration.operators import bury

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def empty(server: RedisServer, sidecar: SidecarProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("FLUSHALL")
    monkeypatch.setenv("SIDECAR_LISTEN", sidecar.address)


def left(server: RedisServer) -> int:
    return int(server.execute("XLEN", KEYS.dead_letters))


def listed(capsys: Output, *arguments: str) -> list[str]:
    """The ids of dead-letters list."""
    assert main(["dead-letters", "list", "--json", *arguments]) == 0
    return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]


def test_they_are_listed_by_filter_and_shown_whole(server: RedisServer, capsys: Output) -> None:
    assert main(["dead-letters", "list"]) == 0
    assert capsys.readouterr() == ("", "there are none\n")
    hours_ago = time.time_ns() // 1_000_000 - 5 * 3_600_000
    old = bury(server, model_event(), letter_id=f"{hours_ago}-0")
    event = model_event(correlation_id="c-1")
    poison = bury(server, event, reason="HANDLER_FAILED", origin="group:a", entry_id="1700000000000-0")
    damaged = bury(server, model_event(), reason="UNDECODABLE", data=b"\xffabc\x00\x1b[2J")
    assert listed(capsys) == [old, poison, damaged]
    assert listed(capsys, "--reason", "HANDLER_FAILED") == [poison]
    assert listed(capsys, "--origin", "sidecar", "--older-than", "2h") == [old]
    assert listed(capsys, "--newer-than", "90m", "--model", "fraud") == [poison, damaged]
    assert main(["dead-letters", "list", "--limit", "2"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "there are more than 2: give a filter or a higher --limit\n"
    head, first, second = shown.out.splitlines()
    assert head.split() == ["id", "age", "reason", "origin", "tries", "model", "detail"]
    assert first.split() == [old, "5h", "TOO_OLD", "sidecar", "3", "fraud/7", "a", "detail"]
    assert second.split()[0] == poison
    assert main(["dead-letters", "show", poison]) == 0
    story, _, content = capsys.readouterr().out.partition("\n\n")
    values = {line[:14].strip(): line[14:] for line in story.splitlines()}
    assert (values["reason"], values["origin"], values["tries"]) == ("HANDLER_FAILED", "group:a", "3")
    assert (values["entry id"], values["event id"], values["correlation"]) == ("1700000000000-0", event.event_id, "c-1")
    assert json.loads(content)["event_id"] == event.event_id
    assert main(["dead-letters", "show", damaged]) == 0
    content = capsys.readouterr().out
    assert "the data cannot be read as an event: 9 bytes" in content
    assert "00000000  ff 61 62 63 00 1b 5b 32 4a" in content
    assert ".abc..[2J" in content
    assert main(["dead-letters", "show", "1-1"]) == 1
    assert capsys.readouterr().err == "modelready-sidecar: there is no dead letter 1-1\n"


@pytest.mark.parametrize(
    "arguments",
    ["", "--all 1-1", "--all --reason A", "1-1 --model a", "1-x", "--older-than 5", "--all --rate 0"],
)
def test_what_is_meant_must_be_said(arguments: str, capsys: Output) -> None:
    for verb in ("replay", "discard"):
        with pytest.raises(SystemExit) as ended:
            main(["dead-letters", verb, "--yes", *arguments.split()])
        assert ended.value.code == 2
    assert capsys.readouterr().out == ""


def test_nothing_is_done_unasked(server: RedisServer, sidecar: SidecarProcess) -> None:
    ids = [bury(server, model_event()) for _ in range(3)]
    for verb, past in (("replay", "replayed"), ("discard", "discarded")):
        refused = command(sidecar, "dead-letters", verb, "--all")
        assert refused.returncode == 2
        assert "there is no terminal to ask on: give --yes, or --dry-run" in refused.stderr
        tried = command(sidecar, "dead-letters", verb, ids[0], "--dry-run")
        assert (tried.returncode, tried.stdout) == (0, f"1 dead letter would be {past}\n")
        counted = json.loads(command(sidecar, "dead-letters", verb, ids[0], "--dry-run", "--json").stdout)
        assert counted == {"dry_run": True, "done": 1, "missing": 0, "skipped": 0}
        assert on_a_terminal(sidecar, "n", "dead-letters", verb, "--all")[0] == 1
    assert left(server) == 3
    code, text = on_a_terminal(sidecar, "y", "dead-letters", "discard", ids[1])
    assert code == 0
    assert "1 dead letter would be discarded. Discard permanently? [y/N] " in text
    assert left(server) == 2
    code, text = on_a_terminal(sidecar, "y", "dead-letters", "replay", "--all")
    assert code == 0
    assert "2 dead letters would be replayed. Replay to the group that gave each up? [y/N] " in text
    assert (left(server), len(queued_ids(server))) == (0, 2)


def test_ids_or_a_filter_say_which(server: RedisServer, capsys: Output) -> None:
    with server.client() as client:
        client.xgroup_create(KEYS.events, "a", mkstream=True)
    mine = [bury(server, model_event(), origin="group:a", reason="HANDLER_FAILED") for _ in range(3)]
    other = bury(server, model_event(), origin="group:gone")
    assert main(["dead-letters", "replay", mine[1], "--yes"]) == 0
    assert capsys.readouterr().out == "1 dead letter replayed\n"
    assert main(["dead-letters", "replay", mine[1], mine[2], "--yes"]) == 1
    assert capsys.readouterr().out == "1 dead letter replayed, 1 not there\n"
    assert main(["dead-letters", "replay", "--origin", "group:gone", "--yes"]) == 1
    expected = "0 dead letters replayed, 1 left: unreadable, or the group is gone\n"
    assert capsys.readouterr().out == expected
    assert listed(capsys) == [mine[0], other]
    assert main(["dead-letters", "discard", "--reason", "HANDLER_FAILED", "--newer-than", "1h", "--yes"]) == 0
    assert main(["dead-letters", "replay", "--all", "--to", "all", "--yes"]) == 0
    assert left(server) == 0
    assert len(queued_ids(server)) == 3


def test_more_than_a_call_may_name_are_mended_in_batches(
    server: RedisServer, sidecar: SidecarProcess, capsys: Output
) -> None:
    for verb, past in (("replay", "replayed"), ("discard", "discarded")):
        with server.client() as client, client.pipeline(transaction=False) as pipe:
            for number in range(1100):
                event = model_event(number)
                pipe.xadd(KEYS.dead_letters, {
                    "ce_id": event.event_id, "content-type": "application/protobuf",
                    "data": event.SerializeToString(), "dl_reason": "TOO_OLD", "dl_origin": "sidecar",
                })  # fmt: skip
            pipe.execute()
        piped = shell(sidecar, "modelready-sidecar dead-letters list --limit 1100 | head -1")
        assert (piped.returncode, piped.stderr) == (0, "")
        assert main(["dead-letters", verb, "--all", "--yes"]) == 0
        assert capsys.readouterr().out == f"1,100 dead letters {past}\n"
        assert left(server) == 0
    assert len(set(queued_ids(server))) == 1100


def test_what_becomes_a_dead_letter_during_a_replay_stays_one(server: RedisServer, sidecar: SidecarProcess) -> None:
    for number in range(6):
        bury(server, model_event(number))
    began = time.monotonic()
    with started(sidecar, "dead-letters", "replay", "--all", "--yes", "--rate", "10") as replay:
        until(lambda: left(server) < 6, 30, "it has begun")
        bury(server, model_event(99))
        output, errors = replay.communicate(timeout=30)
    assert time.monotonic() - began >= 0.5
    assert (replay.returncode, output, errors) == (0, "6 dead letters replayed\n", "")
    assert (left(server), len(queued_ids(server))) == (1, 6)


def test_an_interrupted_replay_leaves_every_event_in_one_place(server: RedisServer, sidecar: SidecarProcess) -> None:
    events = [model_event(number) for number in range(300)]  # half a minute: it is interrupted long before
    for event in events:
        bury(server, event)
    with started(sidecar, "dead-letters", "replay", "--all", "--yes", "--rate", "10") as replay:
        until(lambda: left(server) < 299, 30, "some are back")
        code, output, errors = interrupt(replay)
    assert (code, output) == (130, "")
    assert errors.startswith("interrupted; so far ")
    with server.client() as client:
        still = [fields[b"ce_id"].decode() for _, fields in client.xrange(KEYS.dead_letters)]
    assert still
    assert sorted(queued_ids(server) + still) == sorted(event.event_id for event in events)


def test_a_poison_event_goes_back_to_its_group_alone_and_is_handled_once(
    server: RedisServer, sidecar: SidecarProcess, capsys: Output
) -> None:
    handled: dict[str, list[str]] = {"deployer": [], "auditor": []}
    healed = threading.Event()
    with calling(sidecar) as caller:
        ids = [publish(caller, version) for version in range(5)]
    poison = ids[2]

    def deploy(event: ModelReadyToDeploy) -> None:
        if event.event_id == poison and not healed.is_set():
            raise ValueError("no such bucket")
        handled["deployer"].append(event.event_id)

    def audit(event: ModelReadyToDeploy) -> None:
        handled["auditor"].append(event.event_id)

    consumers = {
        group: Consumer.from_env(
            group=group, environ=to_redis(server), max_attempts=2, backoff_base_seconds=0.01, block_seconds=0.1
        )
        for group in handled
    }
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(consumers["deployer"].run, deploy), threads.submit(consumers["auditor"].run, audit)]
        try:
            until(lambda: left(server) == 1 and len(handled["deployer"]) == 4, 30, "the rest is done")
            until(lambda: len(handled["auditor"]) == 5, 30, "the other group has all")
            assert main(["dead-letters", "list", "--origin", "group:deployer"]) == 0
            line = capsys.readouterr().out.splitlines()[1]
            assert "HANDLER_FAILED" in line
            assert line.endswith("ValueError: no such bucket")
            healed.set()
            assert main(["dead-letters", "replay", "--origin", "group:deployer", "--yes"]) == 0
            until(lambda: poison in handled["deployer"], 30, "it is handled")
            with calling(sidecar) as caller:
                last = publish(caller, 9)
            until(lambda: all(last in seen for seen in handled.values()), 30, "both have what came after")
        finally:
            for consumer in consumers.values():
                consumer.stop()
        for run in runs:
            run.result(15)
    assert sorted(handled["deployer"]) == sorted([*ids, last])
    assert handled["auditor"] == [*ids, last]
    assert left(server) == 0


def publish(caller: Caller, version: int) -> str:
    return caller.publish(model_event(version)).event_id
