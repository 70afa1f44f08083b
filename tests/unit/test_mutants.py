"""The mutator changes one thing at a time, and what it makes can be run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import mutants

PYTHON = '''
def most(values, limit=3):
    """Not more than 3."""
    if not values or len(values) > limit:
        raise ValueError("too many")
    return values[0]
'''
LUA = """
-- not 1 comment
local held = redis.call('GET', KEYS[1])
if held == 'done' and not other then
  return -1
end
redis.call('SET', KEYS[1], ARGV[1])
"""


def test_python_is_changed_in_one_place_at_a_time() -> None:
    changes = [mutant.change for mutant in mutants.of_python("most.py", PYTHON)]
    assert sorted(changes) == sorted([
        "3 -> 4, in def most(values, limit=3):",
        "not values or len(values) > limit -> (not values and len(values) > limit)",
        "not values -> (values)",
        "len(values) > limit -> (len(values) >= limit)",
        'raise ValueError("too many") -> pass',
        "return values[0] -> return None",
        "0 -> 1, in return values[0]",
    ])  # fmt: skip
    for mutant in mutants.of_python("most.py", PYTHON):
        compile(mutant.text, "most.py", "exec")


def test_lua_is_changed_but_for_its_comments() -> None:
    found = list(mutants.of_lua("held.lua", LUA))
    assert all(mutant.line != 2 for mutant in found)
    changes = {mutant.change.partition(" -> ")[2] for mutant in found}
    assert {
        "if held ~= 'done' and not other then",
        "if held == 'done' or not other then",
        "if held == 'done' and other then",
        "return -2",
        "nothing",
    } <= changes


def test_in_lua_what_is_written_in_a_string_stays_and_a_loop_is_not_taken_out() -> None:
    text = "for i = 1, #KEYS do\n  local found = string.match(id, '^0*(%d+) == 20$')\n  put_back(found)\nend\n"
    changes = [mutant.change for mutant in mutants.of_lua("match.lua", text)]
    assert changes == ["for i = 1, #KEYS do -> for i = 2, #KEYS do", "put_back(found) -> nothing"]


def test_a_bound_is_as_good_as_taken_away() -> None:
    (mutant,) = mutants.of_python("bound.py", "MOST = 20\n")
    assert mutant.text == "MOST = 2000\n"


def test_the_table_names_files_and_tests_that_are_there() -> None:
    for pattern, tests in mutants.TABLE:
        paths = list(mutants.ROOT.glob(pattern))
        assert paths, pattern
        for path in paths:
            assert mutants._tests(str(path.relative_to(mutants.ROOT)))
        assert [name for name in tests.split() if not (mutants.ROOT / name).is_file()] == []


def test_a_test_that_is_not_there_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    table = [("sidecar/publishing/*.py", "tests/unit/test_mutants.py tests/unit/test_of_nothing.py")]
    monkeypatch.setattr(mutants, "TABLE", table)
    with pytest.raises(SystemExit, match=r"tests/unit/test_of_nothing\.py"):
        mutants._tests("sidecar/publishing/submission.py")
    assert mutants._tests("sidecar/app.py") == []


def test_the_same_seed_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    part, paths = "sidecar/publishing/", ["sidecar/publishing/backoff.py", "sidecar/publishing/entry_ids.py"]
    monkeypatch.setattr(mutants, "TABLE", [(f"{part}*.py", "tests/unit/test_mutants.py")])
    drawn = mutants.drawn(part, paths, 10, 1)
    assert len(drawn) == 10
    assert mutants.drawn(part, paths, 10, 1) == drawn != mutants.drawn(part, paths, 10, 2)


def test_one_survives_only_where_all_its_tests_pass(tmp_path: Path) -> None:
    """In a copy with a module and two tests, of which one looks at it."""
    (tmp_path / "scripts").mkdir()
    for name in ("__init__.py", "mutants.py"):
        source = mutants.ROOT / "scripts" / name
        (tmp_path / "scripts" / name).write_text(source.read_text() if source.is_file() else "")
    (tmp_path / "bound.py").write_text("MOST, LEAST = 3, 1\n")
    (tmp_path / "test_bound.py").write_text(
        "import bound\ndef test_other(): pass\ndef test_most(): assert bound.MOST == 3\n"
    )
    script = """
import sys
from pathlib import Path
from scripts import mutants
place, suite = Path.cwd(), mutants.Suite("test_bound.py", 5)
suite.measure(place)
for mutant in mutants.of_python("bound.py", (place / "bound.py").read_text()):
    mutants._put(place, "bound.py", mutant.text)
    print(mutant.change, suite.survives(place, mutant))
"""
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environ, text=True, capture_output=True, check=False
    )
    assert run.stdout.splitlines() == ["3 -> 4, in MOST, LEAST = 3, 1 False", "1 -> 2, in MOST, LEAST = 3, 1 True"], (
        run.stderr
    )
