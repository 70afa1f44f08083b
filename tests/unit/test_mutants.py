"""The mutator changes one thing at a time, and what it makes can be run."""

from __future__ import annotations

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
        "3 -> 4",
        "not values or len(values) > limit -> (not values and len(values) > limit)",
        "not values -> (values)",
        "len(values) > limit -> (len(values) >= limit)",
        'raise ValueError("too many") -> pass',
        "return values[0] -> return None",
        "0 -> 1",
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


def test_every_file_of_the_table_has_tests() -> None:
    for pattern, tests in mutants.TABLE:
        if any(mutants.ROOT.glob(pattern)):
            path = next(mutants.ROOT.glob(pattern)).relative_to(mutants.ROOT)
            assert mutants._tests(str(path)), (pattern, tests)
