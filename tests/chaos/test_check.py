"""The checker finds what it is there to find."""

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from tests.chaos.check import Entry, Findings, examine
from tests.chaos.load import Ack, History


def ack(number: int, model: str = "a", outcome: int = pb.OUTCOME_STORED, entry_id: str | None = None) -> Ack:
    spooled = outcome == pb.OUTCOME_SPOOLED
    entry = entry_id if entry_id is not None else "" if spooled else f"{number}-0"
    return Ack(f"{model}{number}", model, outcome, entry, 0, float(number), number + 0.5)


def entry(number: int, model: str = "a") -> Entry:
    return Entry(f"{number}-0", f"{model}{number}", f"{model}/{number}")


ATTEMPTED = {f"{model}{number}": f"{model}/{number}" for model in "ab" for number in range(1, 6)}
GOOD = [entry(1), entry(2), entry(1, "b"), entry(3)]
ACKS = [ack(1), ack(2), ack(3), ack(1, "b")]


def found(entries: list[Entry], acks: list[Ack]) -> dict[str, list[str]]:
    findings: Findings = examine(entries, History(attempted=ATTEMPTED, acks=acks))
    assert findings.sound == (not any(vars(findings).values()))
    return {name: ids for name, ids in vars(findings).items() if ids}


def test_nothing_is_wrong_with_what_was_promised() -> None:
    assert found(GOOD, ACKS) == {}


def test_events_that_were_attempted_only_may_be_there_or_not() -> None:
    assert found([*GOOD, entry(4)], ACKS) == {}


def test_a_lost_event() -> None:
    assert found([GOOD[0], *GOOD[2:]], ACKS) == {"lost": ["a2"]}


def test_a_lost_event_that_was_spooled() -> None:
    assert found(GOOD, [*ACKS, ack(4, outcome=pb.OUTCOME_SPOOLED)]) == {"lost": ["a4"]}


@pytest.mark.parametrize("number", [2, 4], ids=["acknowledged", "attempted"])
def test_a_doubled_event(number: int) -> None:
    twice = [*GOOD, entry(4), Entry("9-0", f"a{number}", f"a/{number}")]
    assert found(twice, ACKS) == {"doubled": [f"a{number}"]}


def test_swapped_events() -> None:
    entries = [entry(1), Entry("2-0", "a3", "a/3"), Entry("3-0", "a2", "a/2"), entry(1, "b")]
    acks = [ack(1), ack(2, entry_id="3-0"), ack(3, entry_id="2-0"), ack(1, "b")]
    assert found(entries, acks) == {"swapped": ["a3"]}


def test_models_have_no_order_among_each_other() -> None:
    assert found([entry(1, "b"), entry(1), entry(2)], [ack(1), ack(1, "b"), ack(2)]) == {}


@pytest.mark.parametrize("outcome", [pb.OUTCOME_STORED, pb.OUTCOME_DUPLICATE])
@pytest.mark.parametrize("entry_id", ["", "7-7"], ids=["none", "another"])
def test_a_receipt_for_another_entry(outcome: int, entry_id: str) -> None:
    assert found(GOOD, [ack(1, outcome=outcome, entry_id=entry_id)]) == {"misplaced": ["a1"]}


def test_a_receipt_of_the_spool_that_names_an_entry() -> None:
    assert found(GOOD, [ack(1, outcome=pb.OUTCOME_SPOOLED, entry_id="1-0")]) == {"misplaced": ["a1"]}


def test_an_event_that_nobody_sent() -> None:
    assert found([*GOOD, Entry("9-0", "ghost", "a/9")], ACKS) == {"unknown": ["ghost"]}


def test_an_event_with_the_content_of_another() -> None:
    assert found([Entry("1-0", "a1", "b/1"), *GOOD[1:]], ACKS) == {"damaged": ["a1"]}
