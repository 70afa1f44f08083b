"""status, tail and publish serve a person on call, and say in one line what is wrong."""

from __future__ import annotations

import html
import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from modelready.entry import encode
from modelready.v1 import queue_service_pb2 as pb
from modelready.v1.event_pb2 import ModelVersion
from sidecar.cli.connection import connect
from sidecar.cli.main import build_parser, main
from sidecar.cli.tail import Tail
from tests.harness.certificates import Authority
from tests.harness.ports import PortLease
from tests.harness.redis_server import RedisServer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.waiting import until
from tests.integration.calls import KEYS, Caller, calling, model_event, queued, queued_ids, to_redis
from tests.integration.command_line import PROGRAM, command, environment, interrupt, lines, shell, started
from tests.integration.operators import bury

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def sidecar(server: RedisServer) -> Iterator[SidecarProcess]:
    with SidecarProcess(to_redis(server, QUEUE_LIST="deployments")) as running:
        yield running


@pytest.fixture
def publisher(server: RedisServer, sidecar: SidecarProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """Over an empty queue; commands in this process find the sidecar, too."""
    server.execute("FLUSHALL")
    monkeypatch.setenv("SIDECAR_LISTEN", sidecar.address)
    with calling(sidecar) as caller:
        yield caller


# -- status


def test_the_status_begins_with_the_state_in_words(server: RedisServer, publisher: Caller, capsys: Output) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("ok: ")
    publisher.publish()
    with server.client() as client:
        client.xgroup_create(KEYS.events, "deployer", id="0")
    bury(server, model_event(), reason="TOO_OLD")
    assert main(["status"]) == 0
    text = capsys.readouterr().out
    state, *rest = text.splitlines()
    assert state.startswith("warning: nobody reads for the group deployer, 1 event unacknowledged; 1 dead letter, the")
    rows = {line.split("  ")[0]: line for line in rest if line}
    runbook = "  docs/operations.md#queue-not-draining, next: modelready-sidecar groups list"
    assert rest[:2] == [runbook, "  docs/operations.md#dead-letters, next: modelready-sidecar dead-letters list"]
    rows = {name: line for name, line in rows.items() if name}
    assert rows.keys() == {
        "queue", "publishing", "redis", "memory", "stream", "retention", "dead letters", "spool", "list", "group",
        "deployer",
    }  # fmt: skip
    assert "acknowledged by the Redis primary" in rows["publishing"]
    assert re.search(r"up: (redis|valkey) \d+\.\d+\.\d+, master, 0 replicas, \d+\.\d ms", rows["redis"])
    assert rows["stream"].endswith("  1 entry")
    assert re.search(r"7d, the oldest entry \ds ago, about 1 dedup key$", rows["retention"])
    assert rows["dead letters"].endswith("TOO_OLD 1")
    assert rows["deployer"].split()[1:6] == ["1", "0", "1", "0", "-"]
    assert main(["status", "--json"]) == 0
    status = json_format.Parse(capsys.readouterr().out, pb.GetQueueStatusResponse())
    assert (status.stream_length, status.dead_letters, status.groups[0].undelivered) == (1, 1, 1)


def test_watching_ends_by_ctrl_c_and_outlasts_the_sidecar(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server)) as sidecar, started(sidecar, "status", "--watch", "0.2") as watch:
        assert watch.stdout is not None
        blocks = iter(watch.stdout.readline, "")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z\n", next(blocks))
        assert next(blocks).startswith(("ok: ", "warning: "))
        sidecar.kill()
        assert any(line.startswith("failure: no connection to the sidecar") for line in blocks)
        sidecar.start()
        assert any(line.startswith(("ok: ", "warning: ")) for line in blocks)
        code, _, errors = interrupt(watch)
        assert (code, errors) == (0, "")
        with started(sidecar, "status", "--watch", "0.2", "--json") as machine:
            assert [json.loads(line)["redis_up"] for line in lines(machine, 2)] == [True, True]
            assert interrupt(machine)[0] == 0


def test_on_a_terminal_it_is_drawn_again_in_place(sidecar: SidecarProcess) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "status", "--watch", "0.1"], env=environment(sidecar), stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as process:  # fmt: skip
        seen = b""

        def drawn(times: int) -> bool:
            nonlocal seen
            seen += os.read(ours, 1 << 16)
            return seen.count(b"\x1b[H") > times

        until(lambda: drawn(3), 10, "it is drawn a few times")
        process.send_signal(2)
        assert process.wait(10) == 0
    os.close(theirs)
    os.close(ours)
    assert seen.count(b"queue  ") >= 3
    assert b"Traceback" not in seen


def test_redis_away_is_exit_code_1_and_events_are_spooled(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer() as server, SidecarProcess(to_redis(server)) as sidecar:
        monkeypatch.setenv("SIDECAR_LISTEN", sidecar.address)
        server.kill()
        assert main(["publish", "--name", "fraud", "--version", "7", "--uri", "s3://m"]) == 0
        assert capsys.readouterr().out.startswith("spooled  -  ")
        assert main(["publish", "--name", "a", "--version", "1", "--uri", "s3://m", "--durability", "primary",
                     "--timeout", "0.5", "--event-id", "a-1"]) == 1  # fmt: skip
        assert "(again: --event-id a-1)" in capsys.readouterr().err
        assert main(["status"]) == 1
        state, *rows = capsys.readouterr().out.splitlines()
        assert re.match(
            r"warning: events are acknowledged by this task's disk: .*; 1 event in the spool, the oldest for \ds", state
        )
        assert rows[0] == "  docs/operations.md#connection-failures, next: modelready-sidecar doctor"
        ready = json.loads(sidecar.get("/readyz")[1])
        assert ready["reason"] == "REDIS_UNAVAILABLE"
        assert next(iter(ready["runbooks"].items())) == ("connection-failures", "modelready-sidecar doctor")
        assert [row for row in rows if row.startswith(("redis", "stream", "dead letters"))][1].endswith("not known")
        assert main(["dead-letters", "list"]) == 1
        assert "docs/troubleshooting.md has REDIS_" in capsys.readouterr().err


def test_status_readyz_and_the_page_say_the_same() -> None:
    def line(text: str) -> str:
        return re.sub(r"for \d+s", "for a while", text)

    with RedisServer() as server, SidecarProcess(to_redis(server)) as sidecar, calling(sidecar) as caller:
        groups = [f"group-{number:02}" for number in range(30)]
        with server.client() as client:
            for group in groups:
                client.xgroup_create(KEYS.events, group, id="0", mkstream=True)
        caller.publish()
        expected = (
            "warning: nobody reads for the group group-00, 1 event unacknowledged, and 29 more groups without readers"
        )
        assert command(sidecar, "status").stdout.splitlines()[0] == expected
        assert until(lambda: f"<p>{expected}</p>" in sidecar.get("/")[1], 5, "the page says so")
        ready = "ok: Redis answers and events go straight into the queue"
        assert json.loads(sidecar.get("/readyz")[1])["state"] == ready, "without a question to Redis"
        server.kill()
        caller.publish(model_event(1))

        def three() -> set[str]:
            page = re.search(r'id="state" class="[^"]*"><p>(.*)</p>', sidecar.get("/")[1])
            said = command(sidecar, "status").stdout.splitlines()[0], json.loads(sidecar.get("/readyz")[1])["state"]
            return {*map(line, said), line(html.unescape(page[1])) if page else ""}

        until(lambda: len(three()) == 1, 10, "all know as much")
        [same] = three()
        assert re.match(
            r"warning: events are acknowledged by this task's disk: .*; 1 event in the spool, the oldest", same
        )


# -- publish


def test_an_event_by_flags(server: RedisServer, publisher: Caller, capsys: Output) -> None:
    flags = (
        "--name fraud --version 7 --uri s3://models/fraud/7/ --event-id e-1 --correlation-id c-1 --source //registry "
        "--environment prod --alias champion --metric auc=0.9 --metric f1=1 --label team=risk --label a=b=c"
    )
    assert main(["publish", *flags.split(), "--json"]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["outcome"], receipt["event_id"], receipt["correlation_id"]) == ("stored", "e-1", "c-1")
    (event,) = queued(server)
    assert (event.source, event.promotion.environment, event.promotion.alias) == ("//registry", "prod", "champion")
    assert (dict(event.metrics), dict(event.labels)) == ({"auc": 0.9, "f1": 1}, {"team": "risk", "a": "b=c"})
    assert main(["publish", *flags.split()]) == 0
    assert capsys.readouterr().out == f"duplicate  {receipt['entry_id']}  e-1  c-1\n"
    assert main(["publish", "--name", "a", "--version", "1", "--uri", "https://user:pw@host/"]) == 1
    assert "event.artifact.uri: must" in capsys.readouterr().err
    assert len(queued(server)) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "publish", "publish --name a --uri b", "publish - --name a", "publish + ", "publish - --durability best",
        "publish --name a --version 1 --uri b --metric c", "publish --name a --version 1 --uri b --metric c=d",
        "publish - --timeout 0", "tail --last 1001", "status --watch 0", "dead-letters", "completion tcsh",
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) >= 2


def _as_line(name: str, version: int) -> str:
    return json.dumps({"event_id": f"{name}-{version}", "model": {"name": name, "version": str(version)},
                       "artifact": {"uri": "s3://m"}})  # fmt: skip


def test_events_on_standard_input_and_a_wrong_line_stops_no_other(
    server: RedisServer, sidecar: SidecarProcess, publisher: Caller
) -> None:
    text = "\n".join([_as_line("a", 1), "", "nonsense", '{"model": {"name": "b"}}', '{"modl": 1}', _as_line("a", 2)])
    done = command(sidecar, "publish", "-", given=text)
    assert done.returncode == 1
    assert [line.split()[2] for line in done.stdout.splitlines()] == queued_ids(server) == ["a-1", "a-2"]
    reported = re.findall(r"^modelready-sidecar: line (\d+): (no event|not published): ", done.stderr, re.MULTILINE)
    assert sorted(reported) == [("3", "no event"), ("4", "not published"), ("5", "no event")]
    spread = json.dumps(json.loads(_as_line("b", 1)), indent=2)
    assert command(sidecar, "publish", "-", given=f"\n{spread}\n").returncode == 0
    assert queued_ids(server) == ["a-1", "a-2", "b-1"]
    many = command(sidecar, "publish", "-", "--json", given="\n".join(_as_line("c", n) for n in range(2000)) + "\n")
    assert many.returncode == 0
    assert [json.loads(line)["event_id"] for line in many.stdout.splitlines()] == [f"c-{n}" for n in range(2000)]


def test_an_event_need_not_wait_for_the_next_on_standard_input(sidecar: SidecarProcess, publisher: Caller) -> None:
    with subprocess.Popen(
        [*PROGRAM, "publish", "-"], env=environment(sidecar), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for version in (1, 2):
            process.stdin.write(_as_line("d", version) + "\n")
            process.stdin.flush()
            assert process.stdout.readline().split()[2] == f"d-{version}"
        process.stdin.close()
        assert process.wait(10) == 0


def test_it_waits_for_a_sidecar_that_restarts_and_names_what_was_not_published(server: RedisServer) -> None:
    with SidecarProcess(to_redis(server)) as sidecar:
        sidecar.kill()
        given = "".join(f"{_as_line('f', version)}\n" for version in range(3))
        ended = command(sidecar, "publish", "-", "--timeout", "0.3", given=given)
        assert (ended.returncode, ended.stdout) == (1, "")
        *each, last = ended.stderr.splitlines()
        for number, line in enumerate(each):
            assert line.startswith(
                f"modelready-sidecar: line {number + 1}: not published: no connection to the sidecar"
            )
            assert line.endswith(f"(again: --event-id f-{number})")
        assert len(each) == 3
        assert "no later line was sent: no connection to the sidecar" in last
        with started(sidecar, "publish", "--name", "f", "--version", "1", "--uri", "s3://m", "--timeout", "15") as one:
            sidecar.start()
            output, errors = one.communicate(timeout=20)
        assert (one.returncode, errors) == (0, "")
        assert output.startswith("stored  ")


# -- tail


def test_a_line_an_event(server: RedisServer, publisher: Caller, sidecar: SidecarProcess) -> None:
    event = model_event(correlation_id="c\x1b[31m")  # as another program may write it
    event.promotion.environment = "prod"
    with server.client() as client:
        added: Any = client.xadd(KEYS.events, encode(event))
    with started(sidecar, "tail", "--last", "5") as tail, started(sidecar, "tail", "--last", "5", "--json") as machine:
        (line,) = lines(tail, 1)
        time, *fields = line.split("  ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
        assert fields == [added.decode(), "fraud/7", "prod", event.event_id, "c\\x1b[31m"]
        assert json.loads(lines(machine, 1)[0])["event"]["event_id"] == event.event_id
        later = publisher.publish(model_event(8))
        assert later.event_id in lines(tail, 1)[0]
        assert interrupt(tail) == (0, "", "")
        assert json.loads(lines(machine, 1)[0])["entry_id"] == later.entry_id
        assert interrupt(machine) == (0, "", "")


@pytest.mark.parametrize("locale", [{"LC_ALL": "POSIX"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_a_terminal_that_knows_fewer_characters_gets_escapes(
    locale: dict[str, str], publisher: Caller, sidecar: SidecarProcess
) -> None:
    name = "betr\xfcger-\u6a21"
    model = ModelVersion(name=name, version="1")
    publisher.publish(model_event(model=model))
    with (
        started(sidecar, "tail", "--last", "1", **locale) as tail,
        started(sidecar, "tail", "--last", "1", "--json", **locale) as machine,
    ):
        (line,) = lines(tail, 1)
        assert ("betr\\xfcger-\\u6a21/1" if "PYTHONUTF8" in locale else f"{name}/1") in line
        assert json.loads(lines(machine, 1)[0])["event"]["model"]["name"] == name
        assert interrupt(tail) == interrupt(machine) == (0, "", "")


def test_a_closed_pipe_ends_it_quietly(publisher: Caller, sidecar: SidecarProcess) -> None:
    for version in range(5):
        publisher.publish(model_event(version))
    for line in ("tail --last 2 | head -2", "status --watch 0.1 | head -3", "status | head -1"):
        done = shell(sidecar, f"modelready-sidecar {line}")
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout


def test_with_a_group_it_shows_what_that_has_open(server: RedisServer, publisher: Caller, capsys: Output) -> None:
    assert main(["tail", "--group", "nobody"]) == 1
    assert capsys.readouterr().err == "modelready-sidecar: the queue has no group nobody\n"


def test_it_outlasts_a_restart_of_the_sidecar_and_misses_nothing() -> None:
    with RedisServer() as server, SidecarProcess(to_redis(server)) as sidecar:
        with calling(sidecar) as caller:
            first = caller.publish().event_id
        with started(sidecar, "tail", "--last", "1") as tail:
            assert first in lines(tail, 1)[0]
            for stop in (sidecar.terminate, sidecar.kill):
                stop()
                sidecar.start()
                with calling(sidecar) as caller:  # likely before it is back
                    later = caller.publish(model_event(8)).event_id
                assert later in lines(tail, 1)[0]
            code, output, errors = interrupt(tail)
        assert (code, output) == (0, "")
        said = [line.removeprefix("modelready-sidecar: ") for line in errors.splitlines()]
        assert [line == "connected again" for line in said] == [False, True, False, True]
        assert said[0] == "the sidecar is stopping: docs/troubleshooting.md has SHUTTING_DOWN; trying again"
        assert said[2].endswith("; trying again")


def test_what_comes_while_the_sidecar_is_away_is_new_also_where_nothing_was_seen_before(
    capsys: Output,
) -> None:
    with RedisServer(appendonly=True) as server, SidecarProcess(to_redis(server)) as sidecar:
        with calling(sidecar) as caller:
            caller.publish()
        options = build_parser().parse_args(["tail", "--address", sidecar.address])
        with connect(options) as connection, ThreadPoolExecutor(1) as thread:
            tail = Tail(connection, group="", last=0)
            shown = thread.submit(lambda: [answer.event.event_id for answer in islice(tail.answers(), 2)])
            until(lambda: tail._call, 5, "it follows")
            sidecar.kill()
            sidecar.start()
            with calling(sidecar) as caller:
                ids = [caller.publish(model_event(version)).event_id for version in range(2)]
            try:
                assert shown.result(10) == ids
            finally:
                tail.end()


# -- how they reach the sidecar


def test_tls_and_tokens(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    authority = Authority(tmp_path)
    own, mine = authority.server("127.0.0.1"), authority.client()
    env = {
        "SIDECAR_TLS_CERT_FILE": str(own.cert), "SIDECAR_TLS_KEY_FILE": str(own.key),
        "SIDECAR_TLS_CLIENT_CA_FILE": str(own.ca), "SIDECAR_API_TOKEN": "api", "SIDECAR_ADMIN_TOKEN": "admin",
    }  # fmt: skip
    given = ["--ca-file", str(own.ca), "--cert-file", str(mine.cert), "--key-file", str(mine.key)]

    def said(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        output = capsys.readouterr()
        assert len(output.err.splitlines()) == (1 if code else 0)
        return code, output.err.removeprefix("modelready-sidecar: ").strip() or output.out.splitlines()[0]

    with SidecarProcess(to_redis(server, **env), tls=mine) as sidecar:
        bury(server, model_event())
        monkeypatch.setenv("SIDECAR_LISTEN", sidecar.address)
        assert "it closes the connection: give --ca-file if it speaks TLS, and" in said("status")[1]
        asked = "the sidecar asks for a token: give its SIDECAR_API_TOKEN with --token or as SIDECAR_API_TOKEN"
        assert said("status", *given) == (1, asked)
        wrong = "the token from --token is not the sidecar's"
        assert said("status", *given, "--token", "x") == said("status", "--watch", *given, "--token", "x") == (1, wrong)
        assert said("status", "--ca-file", str(own.ca))[1].endswith("--cert-file if it asks for a certificate")
        assert said("status", *given, "--token", "api")[0] == 0
        monkeypatch.setenv("SIDECAR_API_TOKEN", "api")
        discard = ["dead-letters", "discard", "--all", "--yes", *given]
        code, text = said(*discard)
        assert code == 1
        assert "this needs the sidecar's SIDECAR_ADMIN_TOKEN" in text
        monkeypatch.setenv("SIDECAR_ADMIN_TOKEN", "admin")
        assert said(*discard) == (0, "1 dead letter discarded")
        event = ["publish", "--name", "a", "--version", "1", "--uri", "s3://m"]
        assert said(*event, *given)[1].startswith("stored")
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert said("status")[0] == 0  # in the sidecar's own environment nothing need be given
        assert said(*event)[1].startswith("stored")
        missing = f"{tmp_path / 'none'} cannot be read: No such file or directory"
        assert said("status", "--ca-file", str(tmp_path / "none")) == (2, missing)
        assert said("status", "--cert-file", str(mine.cert)) == (2, "--cert-file and --key-file belong together")
        assert said("status", "--token", " x")[0] == 2


def test_the_certificate_may_have_another_name(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    own = authority.server("sidecar.internal")
    env = {"SIDECAR_TLS_CERT_FILE": str(own.cert), "SIDECAR_TLS_KEY_FILE": str(own.key)}
    sidecar = SidecarProcess(to_redis(server, **env))
    sidecar.start(None)  # the harness does not trust the name
    try:
        monkeypatch.setenv("SIDECAR_LISTEN", sidecar.address)
        given = ["status", "--ca-file", str(own.ca), "--server-name", "sidecar.internal"]
        until(lambda: main(given) == 0, 10, "it serves")
        capsys.readouterr()
        assert main(given[:3]) == 1
        assert "its certificate is for another name: give that name with --server-name" in capsys.readouterr().err
        assert main(["status", "--ca-file", str(stranger.ca)]) == 1
        assert "its certificate is not trusted: give the authority's with --ca-file" in capsys.readouterr().err
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert main(["status"]) == 0
    finally:
        sidecar.close()


def test_a_sidecar_that_is_away_or_older_is_reported_in_a_line(
    sidecar: SidecarProcess, tmp_path: Path, capsys: Output
) -> None:
    lease = PortLease()
    away = [f"127.0.0.1:{lease.port}", f"unix:{tmp_path}/none", "nowhere.invalid:1", "garbage"]
    for address in away:
        for arguments in (["status"], ["tail"], ["dead-letters", "list"]):
            assert main([*arguments, "--address", address]) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"modelready-sidecar: no connection to the sidecar at {address}: ")
    lease.release()
    assert main(["status", "--address", sidecar.address, "--ca-file", str(Authority(tmp_path).ca)]) == 1
    assert "it does not speak TLS" in capsys.readouterr().err
    older = grpc.server(ThreadPoolExecutor(1))
    port = older.add_insecure_port("127.0.0.1:0")
    older.start()
    for arguments in (["status"], ["tail"], ["dead-letters", "list"]):
        assert main([*arguments, "--address", f"127.0.0.1:{port}"]) == 1
        assert "is older than this command and does not support it" in capsys.readouterr().err
    older.stop(None)
