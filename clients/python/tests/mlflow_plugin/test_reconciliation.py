"""What `modelready-reconcile` remembers, and which differences it publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelready.ids import milliseconds, uuid7
from modelready.mlflow.reconciliation import CLOCKS_MS, Change, Slot, State, reconcile
from modelready.mlflow.settings import Settings, Trigger
from modelready.mlflow.state import Conflict, FileState, StateStore, state_store

CHAMPION = Slot("alias", "fraud", ("champion",))
ALIASES = Settings()


@pytest.fixture(params=["file", "database"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "state.json")
    pytest.importorskip("sqlalchemy")
    return f"sqlite:///{tmp_path}/state.db"


class Registry:
    """One run after another, with the state kept in between."""

    def __init__(self, store: StateStore) -> None:
        self.store = store

    def run(self, snapshot: dict[Slot, str], settings: Settings = ALIASES, *, existing: bool = False) -> list[Change]:
        changes: list[Change] = []
        state = self.store.load() or State()

        def event_of(change: Change) -> str:
            changes.append(change)
            return state.event_id(change, "//registry", "")

        reconcile(state, snapshot, settings, event_of, read_at=0, publish_existing=existing)
        self.pending, state.pending = state.pending, []
        self.store.save(state)
        return changes


def test_the_first_run_publishes_nothing_unless_told(place: str, tmp_path: Path) -> None:
    assert Registry(state_store(place)).run({CHAMPION: "1"}) == []
    other = FileState(tmp_path / "other.json")
    assert Registry(other).run({CHAMPION: "1"}, existing=True) == [Change(CHAMPION, "1", "", 1)]


def test_each_later_change_is_published_once_with_the_previous_version(place: str) -> None:
    registry = Registry(state_store(place))
    registry.run({CHAMPION: "1"})
    assert registry.run({CHAMPION: "1"}) == []
    assert registry.run({CHAMPION: "2"}) == [Change(CHAMPION, "2", "1", 2)]
    assert registry.run({CHAMPION: "2"}) == []
    churn = Slot("alias", "churn", ("champion",))
    assert registry.run({CHAMPION: "2", churn: "1"}) == [Change(churn, "1", "", 1)]


def test_a_rollback_to_a_version_that_was_published_has_an_id_of_its_own(place: str) -> None:
    registry = Registry(state_store(place))
    ids: list[str] = []
    for version in ("1", "2", "1", "2", "", "2"):
        registry.run({CHAMPION: version} if version else {})
        ids += registry.pending
    assert len(ids) == len(set(ids)) == 4


def test_the_same_change_has_the_same_id_in_a_run_after_a_crash(place: str) -> None:
    registry = Registry(state_store(place))
    registry.run({CHAMPION: "1"})
    ids = []
    for _ in range(2):
        state = registry.store.load()
        assert state
        reconcile(state, {CHAMPION: "2"}, ALIASES, lambda change: state.event_id(change, "", ""), read_at=0)  # noqa: B023
        ids.append(state.pending)
    assert len(ids[0]) == 1
    assert ids[0] == ids[1]


def test_what_the_settings_did_not_watch_before_is_remembered_and_not_published(place: str) -> None:
    registry = Registry(state_store(place))
    registry.run({CHAMPION: "1"})
    first, second = (Slot("version", "fraud", (version,)) for version in "12")
    both = Settings(triggers=(Trigger("alias"), Trigger("version")))
    assert registry.run({CHAMPION: "2", first: "1700000000000"}, both) == [Change(CHAMPION, "2", "1", 2)]
    changes = registry.run({CHAMPION: "2", first: "1700000000000", second: "1700000000001"}, both)
    assert [(change.version, change.key) for change in changes] == [("2", "")]


def test_stages_and_tags_name_their_version() -> None:
    settings = Settings(triggers=(Trigger("stage"), Trigger("tag", "validated", "true")))
    state = State(scope=settings)
    changes: list[Change] = []
    snapshot = {
        Slot("stage", "fraud", ("3",)): "Production",
        Slot("stage", "fraud", ("2",)): "Archived",
        Slot("tag", "fraud", ("4", "validated")): "true",
    }
    reconcile(state, snapshot, settings, changes.append, read_at=0)
    assert [(change.version, change.key) for change in changes] == [("3", "Production"), ("4", "validated")]


def test_the_plug_ins_id_is_taken_where_it_is_of_this_change() -> None:
    before, after = uuid7(), uuid7()
    state = State(read_at=milliseconds(before) + CLOCKS_MS + 1)
    (change,) = state.differences({CHAMPION: "1"})
    assert state.event_id(change, "", before) != before, "a server without the plug-in has set the alias again"
    assert state.event_id(change, "", "") == state.event_id(change, "", "x") == state.event_id(change, "", before)
    state.read_at = milliseconds(after)
    assert state.event_id(change, "", after) == after


def test_only_one_may_use_a_state(place: str) -> None:
    first, second = state_store(place), state_store(place)
    state = first.load() or State(pending=["kept"])

    def interfere() -> None:
        second.load()
        first.save(state)
        second.save(State())

    first.save(state)
    with pytest.raises(Conflict):
        interfere()
    assert first.load() == state


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"format": 2}))
    with pytest.raises(ValueError, match="newer version"):
        FileState(path).load()
