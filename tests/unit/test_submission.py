"""Which submissions go together, and in what order."""

from __future__ import annotations

import asyncio

import pytest

from modelready.v1 import publisher_service_pb2 as pb
from sidecar.errors import Refused, Unavailable
from sidecar.publishing.interfaces import Appended
from sidecar.publishing.submission import GROUP_EVENTS, Published, Submission, Waiting, published
from tests.fakes.events import events

SPOOLED, PRIMARY = pb.DURABILITY_SPOOLED, pb.DURABILITY_PRIMARY


def of(count: int, durability: pb.Durability = SPOOLED, size: int = 10) -> Submission:
    return Submission(events(0, count, size), durability, 1)


def waiting(*submissions: Submission) -> Waiting:
    made = Waiting()
    for submission in submissions:
        made.add(submission)
    return made


def always(_: Submission) -> bool:
    return True


def to_append(line: Waiting, *, after_failure: bool = False) -> list[Submission]:
    return line.next_to_append(always, after_failure=after_failure)


async def test_what_waits_is_counted_until_it_is_released() -> None:
    small, large = of(2), of(3, size=100)
    line = waiting(small, large)
    assert (line.events, line.bytes, len(line), line.arrived) == (5, 320, 2, 2)
    to_append(line)
    assert (line.events, line.bytes, len(line), line.arrived) == (5, 320, 0, 0)
    line.release(large)
    assert (line.events, line.bytes) == (2, 20)
    line.release(small)
    assert (line.events, line.bytes) == (0, 0)


async def test_one_is_removed_from_where_it_stands() -> None:
    held, arrived, other = of(1, PRIMARY), of(1), of(1)
    line = waiting(arrived)
    line.hold([held])
    assert (list(line), len(line), line.arrived) == ([held, arrived], 2, 1)
    assert not line.remove(other)
    assert line.remove(held)
    assert line.remove(arrived)
    assert not line.remove(arrived)
    assert list(line) == []


@pytest.mark.parametrize(("sizes", "together"), [
    ([GROUP_EVENTS - 1, 1, 1], 2), ([GROUP_EVENTS - 1, 2], 1), ([1000, 1], 1), ([GROUP_EVENTS], 1),
])  # fmt: skip
async def test_a_group_has_256_events_or_one_submission(sizes: list[int], together: int) -> None:
    submissions = [of(size) for size in sizes]
    line = waiting(*submissions)
    assert to_append(line) == submissions[:together]
    assert list(line) == submissions[together:]


@pytest.mark.parametrize(("sizes", "together"), [
    ([3 << 20, 1 << 20, 1], 2), ([3 << 20, (1 << 20) + 1], 1), ([5 << 20, 1], 1),
])  # fmt: skip
async def test_a_group_has_4_mib_or_one_submission(sizes: list[int], together: int) -> None:
    submissions = [of(1, size=size) for size in sizes]
    assert to_append(waiting(*submissions)) == submissions[:together]


async def test_what_is_held_goes_first_and_in_order() -> None:
    first, second, third, arrived = of(1, PRIMARY), of(1, PRIMARY), of(1, PRIMARY), of(1)
    line = waiting(arrived)
    line.hold([third])
    line.hold([first, second])
    assert to_append(line) == [first, second, third, arrived]


async def test_held_and_arrived_share_the_bounds_of_a_group() -> None:
    held, arrived = of(GROUP_EVENTS, PRIMARY), of(1)
    line = waiting(arrived)
    line.hold([held])
    assert to_append(line) == [held]
    large, small = of(1, PRIMARY, 4 << 20), of(1, size=1)
    line = waiting(small)
    line.hold([large])
    assert to_append(line) == [large]


async def test_none_passes_one_that_may_not_go() -> None:
    held, stays, behind = of(1, PRIMARY), of(2, PRIMARY), of(3)
    line = waiting(stays, behind)
    line.hold([held])
    assert line.next_to_append(lambda submission: submission is not stays, after_failure=False) == [held]
    assert list(line) == [stays, behind]
    line.hold([held])
    assert line.next_to_append(lambda submission: submission is not held, after_failure=False) == []
    assert list(line) == [held, stays, behind]


async def test_after_a_failure_a_group_goes_only_where_one_of_it_need_not_wait_for_redis() -> None:
    first, second, spooled = of(1, PRIMARY), of(1, PRIMARY), of(1)
    line = waiting(first, second)
    assert to_append(line, after_failure=True) == []
    assert (list(line), line.arrived) == ([first, second], 0)  # held: they make room
    line.add(spooled)
    assert to_append(line, after_failure=True) == [first, second, spooled]


async def test_those_of_a_refused_group_go_one_by_one_and_the_rest_together() -> None:
    one, two, later = of(1), of(1), [of(1), of(1)]
    line = waiting(one, two)
    line.isolate(to_append(line))
    for submission in later:
        line.add(submission)
    assert [to_append(line), to_append(line), to_append(line)] == [[one], [two], later]


async def test_what_is_isolated_of_a_held_group_stays_before_those_that_arrived() -> None:
    one, two, arrived = of(1, PRIMARY), of(1, PRIMARY), of(1)
    line = waiting(arrived)
    line.hold([two])
    line.isolate([one])
    assert (list(line), line.arrived) == ([one, two, arrived], 1)
    assert to_append(line) == [one]


async def test_the_spool_gets_as_many_as_the_gate_allows_and_those_it_may_not_have_are_held() -> None:
    insists, first, second, third = of(1, PRIMARY), of(2, size=10), of(3, size=20), of(1)
    line = waiting(insists, first, second, third)
    asked: list[tuple[int, int]] = []

    def allows(count: int, size: int) -> bool:
        asked.append((count, size))
        return count <= 5

    assert line.next_to_spool(allows) == [first, second]
    assert asked == [(2, 20), (5, 80), (6, 90)]
    assert (list(line), line.arrived) == ([insists, third], 1)


async def test_one_that_insists_on_redis_ends_the_group_for_the_spool() -> None:
    first, insists, behind = of(1), of(1, PRIMARY), of(1)
    line = waiting(first, insists, behind)
    assert line.next_to_spool(lambda *_: True) == [first]
    assert line.next_to_spool(lambda *_: True) == [behind]
    assert list(line) == [insists]


async def test_for_the_spool_nobody_goes_alone_any_more() -> None:
    one, two = of(1), of(1)
    line = waiting()
    line.isolate([one, two])
    assert line.next_to_spool(lambda *_: True) == [one, two]
    line.add(one)
    line.add(two)
    assert to_append(line) == [one, two]


@pytest.mark.parametrize(("seconds", "margin"), [(0.4, 0.1), (1.0, 0.25), (8.0, 0.25)])
async def test_a_part_of_a_caller_s_time_is_left_for_the_answer(seconds: float, margin: float) -> None:
    submission = Submission(events(0, 2, 10), SPOOLED, seconds)
    assert submission.size == 20
    assert submission.margin == pytest.approx(margin)
    assert submission.answer_by - submission.arrived == pytest.approx(seconds - margin)


async def test_only_one_for_which_the_disk_is_enough_may_be_spooled() -> None:
    assert of(1).may_be_spooled
    assert not of(1, PRIMARY).may_be_spooled
    assert not of(1, pb.DURABILITY_REPLICATED).may_be_spooled


async def test_that_an_attempt_may_have_succeeded_outweighs_what_came_later() -> None:
    unknown, away, refused = Unavailable("?", ambiguous=True), Unavailable("away"), Refused("no")
    submission = of(1)
    assert [submission.note(error) for error in (away, refused, unknown, away, refused)] == [
        away, refused, unknown, unknown, unknown,
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["acknowledge", "fail"])
async def test_an_answer_ends_the_timer_and_minds_no_caller_that_is_gone(how: str) -> None:
    for is_gone in (False, True):
        submission = of(1)
        submission.timer = asyncio.get_running_loop().call_later(60, lambda: None)
        if is_gone:
            submission.future.cancel()
        error = Unavailable("away")
        submission.acknowledge([]) if how == "acknowledge" else submission.fail(error)
        assert submission.answered
        assert submission.timer.cancelled()
        assert submission.future.cancelled() is is_gone
        if not is_gone:
            assert (submission.future.result() if how == "acknowledge" else submission.future.exception()) == (
                [] if how == "acknowledge" else error
            )


def test_what_a_caller_learns_of_what_redis_has() -> None:
    assert published(Appended("1-1", duplicate=False), 2) == Published(pb.OUTCOME_STORED, "1-1", 2)
    assert published(Appended("1-1", duplicate=True), 0) == Published(pb.OUTCOME_DUPLICATE, "1-1", 0)
