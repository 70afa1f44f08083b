"""Which changes of the core does no test notice? `make mutants ARGS="-j 2 --sample 40 sidecar/spool/"`.

It makes one mutant at a time in a copy of the repository and runs the tests of its file there, the likeliest to fail
first. A mutant survives if they all pass, and is listed. A mutant that changes nothing visible goes into EQUIVALENT,
with the reason. Exit code 1 if any survived.

Tests that take longer than `--slowest` seconds are left out: quick tests must hold the rules.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLIENT, CLIENT_TESTS = "clients/python/src/modelready", "clients/python/tests"


def _in(folder: str, *names: str) -> str:
    return " ".join(f"{folder}/test_{name}.py" for name in names)


def _client(*names: str) -> str:
    return _in(CLIENT_TESTS, *names)


def _unit(*names: str) -> str:
    return _in("tests/unit", *names)


def _integration(*names: str) -> str:
    return _in("tests/integration", *names)


PUBLISHING = _unit("committer", "submission", "publisher", "spool_gate", "forwarder")
QUEUE = f"{_unit('redis_queue')} {_integration('queue_contract', 'mirror')}"
LANES = _client("lane_steps", "lanes", "consumer_group", "consumer")
WORKER = _client("in_flight_rules", "in_flight", "consumer", "consumer_group")
REDIS = f"{_unit('credentials')} {_integration('redis_faults', 'redis_names', 'taxonomy')}"

# Files, and the quick tests that must notice a mutant, the likeliest first. The first pattern that matches counts.
TABLE: list[tuple[str, str]] = [
    ("sidecar/publishing/committer.py", PUBLISHING),
    ("sidecar/publishing/submission.py", _unit("submission", "committer", "publisher", "spool_gate")),
    ("sidecar/publishing/publisher.py", PUBLISHING),
    ("sidecar/publishing/spool_gate.py", _unit("spool_gate", "publisher", "forwarder", "committer")),
    ("sidecar/publishing/forwarder.py", _unit("forwarder", "publisher", "spool_gate", "event_log")),
    ("sidecar/publishing/event_log.py", _unit("event_log", "tracing", "committer")),
    ("sidecar/publishing/depth_limit.py", _integration("queue_full")),
    (
        "sidecar/spool/*.py",
        _integration(
            "spool_contract",
            "spool",
            "spool_salvage",
            "spool_dir",
            "spool_damage",
            "spool_full_disk",
            "spool_model",
            "spool_fuzz",
        ),
    ),
    ("sidecar/redisstream/queue.py", QUEUE),
    ("sidecar/redisstream/lua/append.lua", _integration("scripts", "queue_contract", "mirror")),
    ("sidecar/redisstream/lua/trim.lua", _integration("scripts", "trim")),
    ("sidecar/redisstream/lua/count.lua", _integration("scripts", "queue_status")),
    ("sidecar/redisstream/lua/*.lua", _integration("scripts", "dead_letters", "lists")),
    (
        "sidecar/redisstream/stream_positions.py",
        f"{_unit('stream_positions')} {_integration('depth_at_any_moment', 'queue_status')}",
    ),
    ("sidecar/redisstream/inspector.py", f"{_unit('redis_queue')} {_integration('queue_status', 'shared_looks')}"),
    (f"{CLIENT}/seen.py", _client("seen_steps", "seen", "seen_limits")),
    (f"{CLIENT}/lua/seen_*.lua", _client("scripts", "seen", "seen_limits")),
    (f"{CLIENT}/keys.py", _unit("keys")),
    (f"{CLIENT}/entry.py", _unit("entry", "entry_bounds")),
    (f"{CLIENT}/_window.py", _client("window", "window_edges")),
    (f"{CLIENT}/_retry.py", _client("retries")),
    (f"{CLIENT}/_consumer/list_*.py", _client("list_reader_rules", "list_consumer")),
    (f"{CLIENT}/_consumer/lua/list_*.lua", _client("scripts", "list_consumer")),
    (f"{CLIENT}/_consumer/lua/*.lua", LANES),
    (f"{CLIENT}/_consumer/lanes.py", LANES),
    (f"{CLIENT}/_consumer/liveness.py", _client("liveness_rules", "sweeps", "liveness", "consumer_group", "lanes")),
    (f"{CLIENT}/_consumer/in_flight.py", WORKER),
    (f"{CLIENT}/_consumer/loop.py", f"{_client('loop_rules', 'loop')} {WORKER}"),
    (f"{CLIENT}/_consumer/failures.py", f"{_client('loop_rules', 'loop')} {WORKER}"),
    (f"{CLIENT}/redis/cluster.py", f"{_unit('cluster')} {_integration('cluster_owner')}"),
    (f"{CLIENT}/redis/pool.py", f"{_unit('pool')} {REDIS}"),
    (f"{CLIENT}/redis/*.py", REDIS),
]

EQUIVALENT: dict[tuple[str, str], str] = {  # file and change: why nobody can see it
    (f"{CLIENT}/redis/connection.py", "1 -> 2, in _READ_BYTES = 1 << 18"): "any few hundred KiB are enough",
    (
        f"{CLIENT}/redis/pool.py",
        "time.monotonic() - connection.born <= most -> (time.monotonic() - connection.born < most)",
    ): "one moment more or less",
    ("sidecar/redisstream/lua/append.lua", "writable = true -> nothing"): "a SET more for each event",
    ("sidecar/publishing/committer.py", "passes < _IDLE_PASSES -> (passes <= _IDLE_PASSES)"): "one pass more or less",
    ("sidecar/publishing/depth_limit.py", "5.0 -> 6.0, in _NOT_IN_DEPTH_SECONDS = 5.0"): "any few seconds are enough",
    (
        "sidecar/publishing/depth_limit.py",
        "self._appended[0][2] < time.monotonic() -> (self._appended[0][2] <= time.monotonic())",
    ): "one moment more or less",
    (
        "sidecar/publishing/spool_gate.py",
        "0 -> 1, in self._events = 0  # that may be added; below 0: that were added at deadlines",
    ): "it is set again when the forwarder begins to make headway, and not read before",
    (
        "sidecar/publishing/spool_gate.py",
        "0 -> 1, in self._bytes = 0",
    ): "it is set again when the forwarder begins to make headway, and not read before",
    (
        "sidecar/publishing/spool_gate.py",
        "next(iter(self._copies.values())) > moment -> (next(iter(self._copies.values())) >= moment)",
    ): "one moment more or less",
    ("sidecar/publishing/forwarder.py", "0 -> 1, in now = 0"): "it is set with the first rows",
    (
        "sidecar/publishing/forwarder.py",
        ("0 -> 1, in return not 0 <= now - row.attempts.first_ms <= max(self._dedup_ms - _CLOCK_MARGIN_MS, 0)"),
    ): "one millisecond more or less",
    (
        "sidecar/publishing/forwarder.py",
        "now - row.spooled_ms > self._max_age_ms -> (now - row.spooled_ms >= self._max_age_ms)",
    ): "one millisecond more or less",
    (
        "sidecar/spool/file.py",
        "self.path.stat().st_size <= CHECKED_BYTES -> (self.path.stat().st_size < CHECKED_BYTES)",
    ): "one byte more or less",
    (
        "sidecar/spool/file.py",
        '0 -> 1, in code = getattr(error, "sqlite_errorcode", 0) & 0xFF',
    ): "no error without a code begins with 'no such'",
    (
        "sidecar/spool/salvage.py",
        "1 -> 2, in HIGHEST_SEQ = 1 << 48",
    ): "any number that is never reached is enough",
    ("sidecar/spool/salvage.py", "256 -> 25600, in READ_ROWS = 256"): "it only bounds the memory of a read",
    (
        "sidecar/spool/salvage.py",
        "1 -> 2, in seq += max(1, (last_seq - seq) // PROBES)",
    ): "what it skips is read from the end",
    ("sidecar/spool/salvage.py", "seq < last_seq -> (seq <= last_seq)"): "one try more, of a number that is not there",
    (
        "sidecar/spool/salvage.py",
        "0 -> 1, in return number if isinstance(number, int) and 0 <= number < HIGHEST_SEQ else None",
    ): "the same follows from 0 and from None",
    ("sidecar/spool/salvage.py", "way > 0 -> (way >= 0)"): "it is 1 or -1",
    ("sidecar/spool/salvage.py", "(rows[0][0] - seq) * way -> ((rows[0][0] - seq) // way)"): "it is 1 or -1",
    (
        "sidecar/redisstream/stream_positions.py",
        "0 -> 1, in self.snapshot = Snapshot(0, 1, 0, 0, 0)",
    ): "no position is known before the first look, which replaces it",
    (
        "sidecar/redisstream/stream_positions.py",
        "1 -> 2, in self.snapshot = Snapshot(0, 1, 0, 0, 0)",
    ): "no position is known before the first look, which replaces it",
    (
        "sidecar/redisstream/stream_positions.py",
        "self.known > self.wanted -> (self.known >= self.wanted)",
    ): "what is known is not wanted",
    (
        "sidecar/redisstream/inspector.py",
        "start + _GROUPS < len(raw) -> (start + _GROUPS <= len(raw))",
    ): "one rest of 5 ms more",
    (
        "sidecar/redisstream/inspector.py",
        '1 -> 2, in asked.append(("XRANGE", stream, f"({text(group.last)}", "+", "COUNT", 1))',
    ): "the older of two counts",
    (
        f"{CLIENT}/_consumer/lanes.py",
        "1 -> 2, in self._alive_ms = max(1, int(options.claim_seconds * 500))",
    ): "a claim has at least half a second",
    (
        f"{CLIENT}/_consumer/lanes.py",
        "1 -> 2, in begin, most_waiting = -1 if demand is None else demand, _MAX_WAITING if reads else 0",
    ): "any number below 0 says the same",
    (
        "sidecar/publishing/event_log.py",
        (
            "0 -> 1, in log.handle(log.makeRecord(log.name, level, __file__, 0, "
            'f"{outcome}: %s", (model,), None, extra=about))'
        ),
    ): "no format shows the line of the code",
    (
        "sidecar/publishing/committer.py",
        "0 -> 1, in passes = passes + 1 if before == seen else 0",
    ): "one pass more or less",
    (
        f"{CLIENT}/_consumer/liveness.py",
        "0.0 -> 1.0, in self._tidied_at = 0.0",
    ): "a clock that begins with the machine's start is far beyond either",
    (
        f"{CLIENT}/_consumer/liveness.py",
        (
            "1.2 -> 2.2, in self.sweep_at = time.monotonic() + pause * random.uniform(0.8, 1.2)  "
            "# noqa: S311 - only spreads the load"
        ),
    ): "it only spreads the load",
    (
        f"{CLIENT}/_consumer/loop.py",
        "0.0 -> 1.0, in self._read_at = 0.0",
    ): "a clock that begins with the machine's start is far beyond either",
    (
        f"{CLIENT}/_consumer/loop.py",
        "1 -> 2, in return not (self.in_flight.finished(1) or self.in_flight.failures())",
    ): "it is read as a truth value",
    (
        f"{CLIENT}/_consumer/loop.py",
        "asked_at >= self._read_at -> (asked_at > self._read_at)",
    ): "one moment more or less",
    (f"{CLIENT}/_consumer/loop.py", "return False -> return None"): "it is read as a truth value",
    (
        f"{CLIENT}/_consumer/list_reader.py",
        "0.0 -> 1.0, in self._look_at = 0.0",
    ): "a clock that begins with the machine's start is far beyond either",
    (
        f"{CLIENT}/seen.py",
        "time.monotonic() >= deadline -> (time.monotonic() > deadline)",
    ): "one moment more or less",
    (
        f"{CLIENT}/seen.py",
        "time.monotonic() + delay >= deadline -> (time.monotonic() + delay > deadline)",
    ): "one moment more or less",
    (
        f"{CLIENT}/_consumer/in_flight.py",
        "0.0 -> 1.0, in self._trial_ends_at = 0.0",
    ): "it is read only while an entry is on trial, and set with that",
    (f"{CLIENT}/_consumer/lua/dead_letter.lua", "return 1 -> return 2"): "it is read as a truth value",
    (f"{CLIENT}/_consumer/lua/forget.lua", "return 1 -> return 2"): "it is read as a truth value",
    (f"{CLIENT}/_consumer/lua/create.lua", "return 1 -> return 2"): "it is read as a truth value",
    (
        f"{CLIENT}/_consumer/lua/turn.lua",
        "if given > 0 and bytes > MAX_BYTES then -> if given > 0 and bytes >= MAX_BYTES then",
    ): "the bound is about 1 MB",
    (
        f"{CLIENT}/_consumer/lua/tidy.lua",
        (
            "local at, mine, pending = ARGV[3] == '' and '-' or '(' .. ARGV[3], {}, {} -> "
            "local at, mine, pending = ARGV[4] == '' and '-' or '(' .. ARGV[3], {}, {}"
        ),
    ): "all members stand behind an empty one",
    (
        f"{CLIENT}/_consumer/lua/lanes.lua",
        (
            "return redis.call('XPENDING', stream, group, id, id, 1, consumer)[1] -> "
            "return redis.call('XPENDING', stream, group, id, id, 2, consumer)[1]"
        ),
    ): "there is one entry of an id",
}

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}  # fmt: skip
_LUA = [(r"==", "~="), (r"~=", "=="), (r"<=", "<"), (r">=", ">"), (r"<(?!=)", "<="), (r">(?!=)", ">="),
        (r"\band\b", "or"), (r"\bor\b", "and"), (r"\bnot ", ""), (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
        (r" \+ ", " - "), (r" - ", " + "), (r"\b\d+\b", "other")]  # fmt: skip
_LUA_STATEMENT = re.compile(
    r"^(\s*)(?!\s|local |for |if |while |elseif )"
    r"([\w.]+\(.*\)|return\b.*|break|[\w, ]+(\[[^]]*\])? = .*[^{(,])$"
)
_LUA_STRING = re.compile(r"'[^']*'")


class Mutant(NamedTuple):
    """One changed file."""

    path: str
    line: int
    change: str
    text: str


def _other_number(value: float) -> float:
    """One more; of a bound as good as none."""
    return value * 100 if value >= 10 else value + 1


def of_lua(path: str, text: str) -> Iterator[Mutant]:
    """By regular expressions: one operator, number or statement of a line changed."""
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        code = line.split("--")[0].rstrip()
        bare = _LUA_STRING.sub(lambda found: "'" + "_" * (len(found[0]) - 2) + "'", code)

        def made(new: str, index: int = index, code: str = code) -> Mutant:
            changed = [*lines[:index], new + "\n", *lines[index + 1 :]]
            return Mutant(path, index + 1, f"{code.strip()} -> {new.strip() or 'nothing'}", "".join(changed))

        for pattern, other in _LUA:
            for found in re.finditer(pattern, bare):
                replacement = str(_other_number(int(found[0]))) if other == "other" else other
                yield made(code[: found.start()] + replacement + code[found.end() :])
        if statement := _LUA_STATEMENT.match(code):
            yield made(statement[1])


def _others(node: ast.AST) -> Iterator[str]:
    """What may stand in the place of this node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OTHER:
        other = ast.Compare(node.left, [_OTHER[type(node.ops[0])]()], node.comparators)  # type: ignore[list-item]
        yield f"({ast.unparse(other)})"
    elif isinstance(node, ast.BoolOp):
        yield f"({ast.unparse(ast.BoolOp(_OTHER[type(node.op)](), node.values))})"  # type: ignore[arg-type]
    elif isinstance(node, ast.BinOp) and type(node.op) in _OTHER:
        yield f"({ast.unparse(ast.BinOp(node.left, _OTHER[type(node.op)](), node.right))})"  # type: ignore[arg-type]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield str(_other_number(node.value))
    elif isinstance(node, ast.Break | ast.Continue):
        yield ast.unparse(_OTHER[type(node)]())
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node) != "return None":
        yield "return None"
    elif isinstance(node, ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    ):
        yield "pass"


def of_python(path: str, text: str) -> Iterator[Mutant]:
    """By the syntax tree: the text of one node replaced."""
    raw = text.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = text.splitlines()
    tree = ast.parse(text)
    checks = {each.value for each in ast.walk(tree) if isinstance(each, ast.keyword) and each.arg == "strict"}
    for node in ast.walk(tree):
        if node in checks:  # zip's, which only finds defects
            continue
        for new in _others(node):
            assert isinstance(node, ast.expr | ast.stmt)
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            changed = (raw[:begin] + new.encode() + raw[end:]).decode()
            try:
                compile(changed, path, "exec")
            except SyntaxError:  # within an f-string
                continue
            where = f", in {lines[node.lineno - 1].strip()}" if isinstance(node, ast.Constant) else ""
            yield Mutant(path, node.lineno, f"{raw[begin:end].decode()} -> {new}{where}", changed)


def _tests(path: str) -> list[str]:
    """The test files for a file, the likeliest to notice first; none if the table does not name it."""
    named = next((tests for pattern, tests in TABLE if fnmatch.fnmatch(path, pattern)), "").split()
    missing = [name for name in named if not (ROOT / name).is_file()]
    if missing:
        sys.exit(f"the table names tests that are not there, for {path}: {' '.join(missing)}")
    return named


class Outcome(NamedTuple):
    """The outcome of one run of tests."""

    passed: bool
    failed: str
    """The test that failed; empty if none did, or the run ended before."""
    seconds: dict[str, float]
    """How long each test took that ran."""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """A hook of the runs: put the named tests first, in their order, and limit the time of each."""
    plan = json.loads(Path(os.environ["MUTANTS_PLAN"]).read_text())
    rank = {node: position for position, node in enumerate(plan["order"])}
    seconds = plan["seconds"]
    items[:] = [item for item in items if seconds.get(item.nodeid, 0) <= plan["slowest"]]
    items.sort(key=lambda item: rank.get(item.nodeid, len(rank)))
    for item in items:
        item.add_marker(pytest.mark.timeout(3 * seconds.get(item.nodeid, 30) + 10))


def pytest_runtest_logreport(report: Any) -> None:
    """A hook of the runs: write what ran, for how long, and what failed."""
    with Path(os.environ["MUTANTS_RESULT"]).open("a") as result:
        result.write(json.dumps([report.nodeid, report.duration, report.failed]) + "\n")


def pytest_sessionfinish() -> None:
    """A hook of the runs: write which third-party modules were imported."""
    names = [name for name, module in sys.modules.items() if "site-packages" in (getattr(module, "__file__", "") or "")]
    Path(os.environ["MUTANTS_MODULES"]).write_text(json.dumps(names))


class Suite:
    """A file of tests: how long each test takes, and which mutants it has killed."""

    def __init__(self, name: str, slowest: float) -> None:
        self._name = name
        self._slowest = slowest
        self._seconds: dict[str, float] = {}
        self._kills: list[tuple[str, int, str]] = []
        self._limit = 900.0

    def measure(self, place: Path) -> None:
        """Run all tests without a mutant, twice: the second time as with mutants. Exits if one fails."""
        began = time.monotonic()
        self._seconds = self._passing(place).seconds
        self._limit = 3 * (time.monotonic() - began) + 20
        for name in json.loads((place / "modules.json").read_text()):
            with suppress(Exception):  # the runs are forks of this process, and need not import them
                importlib.import_module(name)
        slow = sorted(test for test, seconds in self._seconds.items() if seconds > self._slowest)
        if slow:
            print(f"left out, as slower than {self._slowest:g} s: {' '.join(slow)}", flush=True)
        self._passing(place)

    def survives(self, place: Path, mutant: Mutant) -> bool:
        """Whether all tests pass with this mutant. Those that killed its neighbours run first, then the quick ones."""
        near = sorted(self._kills, key=lambda kill: (kill[0] != mutant.path, abs(kill[1] - mutant.line)))
        outcome = self._run(place, [test for _, _, test in near])
        if outcome.failed:
            self._kills.append((mutant.path, mutant.line, outcome.failed))
        return outcome.passed

    def _passing(self, place: Path) -> Outcome:
        outcome = self._run(place, [])
        if not outcome.passed:
            sys.exit(f"without a mutant fails {outcome.failed or 'something'} of {self._name}")
        return outcome

    def _run(self, place: Path, first: list[str]) -> Outcome:
        plan, result = place / "plan.json", place / "result.jsonl"
        quick = sorted(self._seconds, key=lambda test: self._seconds[test])
        order = list(dict.fromkeys([*first, *quick]))
        plan.write_text(json.dumps({"order": order, "seconds": self._seconds, "slowest": self._slowest}))
        result.write_text("")
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _become_a_run(place, self._name)
        deadline = time.monotonic() + self._limit
        status = None
        while status is None and time.monotonic() < deadline:
            ended, code = os.waitpid(pid, os.WNOHANG)
            if ended:
                status = os.waitstatus_to_exitcode(code)
            else:
                time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # also the servers that it left running
        if status is None:
            os.waitpid(pid, 0)
        elif status == pytest.ExitCode.NO_TESTS_COLLECTED:
            sys.exit(f"no test was run of {self._name}")
        seconds: dict[str, float] = {}
        failed = ""
        for node, duration, has_failed in map(json.loads, result.read_text().splitlines()):
            seconds[node] = seconds.get(node, 0) + duration
            failed = node if has_failed else failed
        return Outcome(status == pytest.ExitCode.OK, failed, seconds)


def _become_a_run(place: Path, tests: str) -> NoReturn:
    """Run the tests in this process, then end it."""
    status = 1
    try:
        os.setsid()
        os.chdir(place)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        sys.path[:0] = [str(place), str(place / "clients/python/src")]
        os.environ.update(
            PYTHONPATH=f"{place}:{place}/clients/python/src",
            MUTANTS_PLAN=str(place / "plan.json"),
            MUTANTS_RESULT=str(place / "result.jsonl"),
            MUTANTS_MODULES=str(place / "modules.json"),
        )
        options = ["-x", "-q", "-m", "not soak and not docker", "-p", "no:cacheprovider", "-p", "scripts.mutants"]
        status = int(pytest.main([*options, tests]))
    finally:
        os._exit(status)  # skip what the parent would do at its exit


def _copied(files: list[str], place: Path) -> Path:
    for path in (path for path in files if (ROOT / path).is_file()):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, place / path)
    return place


def _put(place: Path, path: str, text: str) -> None:
    (place / path).write_text(text)
    for compiled in (place / path).parent.glob(f"__pycache__/{Path(path).stem}.*"):
        compiled.unlink()  # its check by size and second would miss the change


def drawn(part: str, tracked: list[str], sample: int, seed: int) -> list[Mutant]:
    """The mutants of a part, the same for the same seed; all of them if `sample` is 0."""
    begins = tuple(part.split(","))
    paths = [path for path in tracked if (path.startswith(begins) or fnmatch.fnmatch(path, part)) and _tests(path)]
    texts = {path: (ROOT / path).read_text() for path in paths if (ROOT / path).is_file()}
    mutants = [m for path, text in texts.items() for m in (of_lua if path.endswith(".lua") else of_python)(path, text)]
    if sample and sample < len(mutants):
        mutants = random.Random(f"{seed} {part}").sample(mutants, sample)
    return sorted(mutants, key=lambda mutant: (mutant.path, mutant.line))


SUITES: dict[str, Suite] = {}
_place = Path()


def _work_in(free: multiprocessing.SimpleQueue[Path]) -> None:
    global _place  # noqa: PLW0603 - one of each worker process
    _place = free.get()


def judged(mutant: Mutant, deadline: float) -> str:
    """The verdict on a mutant, in a word."""
    if (mutant.path, mutant.change) in EQUIVALENT:
        return "equivalent"
    if time.monotonic() > deadline:
        return "not tried"
    try:
        _put(_place, mutant.path, mutant.text)
        suites = [SUITES[name] for name in _tests(mutant.path) if name in SUITES]
        return "survived" if all(suite.survives(_place, mutant) for suite in suites) else "killed"
    finally:
        _put(_place, mutant.path, (ROOT / mutant.path).read_text())


def main() -> int:
    """Make the mutants, run the tests, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help="paths, or comma-separated beginnings of paths; default: the table's")
    parser.add_argument("-j", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no new one after this time (3600)")
    parser.add_argument("--sample", type=int, default=0, help="only this number of each part, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="the same draws the same (1)")
    parser.add_argument("--slowest", type=float, default=5, help="seconds that a test may take (5)")
    parser.add_argument("--first", type=int, help="only this number of test files of each; default: all")
    parser.add_argument("--grep", default="", help="only those whose line and change have this regular expression")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout.split()
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        places = [_copied(tracked, Path(scratch, str(number))) for number in range(options.j)]
        for part in options.parts or sorted({pattern for pattern, _ in TABLE}):
            mutants = [
                mutant
                for mutant in drawn(part, tracked, options.sample, options.seed)
                if re.search(options.grep, f"{Path(mutant.path).name}:{mutant.line}: {mutant.change}")
            ]
            named = {name: None for mutant in mutants for name in _tests(mutant.path)[: options.first]}
            for name in named.keys() - SUITES.keys():
                SUITES[name] = Suite(name, options.slowest)
                SUITES[name].measure(places[0])
            counts: Counter[str] = Counter()
            free: multiprocessing.SimpleQueue[Path] = multiprocessing.SimpleQueue()
            for place in places:
                free.put(place)
            with ProcessPoolExecutor(options.j, multiprocessing.get_context("fork"), _work_in, (free,)) as workers:
                verdicts = workers.map(judged, mutants, repeat(deadline))
                for mutant, verdict in zip(mutants, verdicts, strict=True):
                    counts[verdict] += 1
                    if verdict == "survived":
                        print(f"{mutant.path}:{mutant.line}: {mutant.change}", flush=True)
            survived += counts["survived"]
            print(
                f"{part}: {len(mutants)} mutants,", ", ".join(f"{n} {word}" for word, n in counts.items()), flush=True
            )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
